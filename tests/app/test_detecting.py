"""`/v1/detect`: what a server tells of clips that it marked and signed, of others', and of what can't be read."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from api_tools import Api, line_of, listening, picture, running
from mcp import Client
from PIL import Image

from openlumiere.app.mcp.local_maker import LocalMaker
from openlumiere.app.mcp.server import create_server
from openlumiere.app.mcp.server_maker import ServerMaker
from openlumiere.app.settings import RequestLimits, UploadLimits
from openlumiere.provenance import Payload, credentials, embed, month_of
from openlumiere.provenance.identity import Identity
from openlumiere.video import write_clip

pytestmark = pytest.mark.slow
FPS = 8.0


@pytest.fixture(scope="module")
def identity() -> Identity:
    """The keys of this installation, which the server loads, too."""
    return Identity.load()


def drawn(frames: int = 24, size: tuple[int, int] = (128, 128)) -> np.ndarray:
    """A square that moves over a plain ground."""
    height, width = size
    clip = np.full((frames, height, width, 3), (70, 130, 190), np.uint8)
    for index in range(frames):
        clip[index, height // 3 : height * 2 // 3, 10 + index : 40 + index] = (230, 170, 60)
    return clip


@pytest.fixture(scope="module")
def payload(identity: Identity) -> Payload:
    return Payload(model=17, version=1, month=month_of(date(2026, 11, 5)), key_id=identity.key_id)


@pytest.fixture(scope="module")
def marked(identity: Identity, payload: Payload) -> np.ndarray:
    return embed(drawn(), payload, identity.watermark_key, clip_id="one")


def sent(clip: np.ndarray, folder: Path, suffix: str = ".mp4") -> bytes:
    return write_clip(clip, folder / f"clip{suffix}", fps=FPS).read_bytes()


def ask(api: Api, data: bytes, name: str = "x") -> dict[str, Any]:
    answer = api.client.post("/v1/detect", files={"file": (name, data)})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize("suffix", [".mp4", ".webp", ".gif", ".webm"])
def test_a_marked_clip_tells_who_made_it_and_when(
    api: Api, marked: np.ndarray, identity: Identity, tmp_path: Path, suffix: str
) -> None:
    found = ask(api, sent(marked, tmp_path, suffix))
    assert (found["object"], found["marked"]) == ("detection", True)
    assert found["p_value"] <= found["false_positive_rate"] == 1e-6
    assert found["payload"] == {
        "model": "emoji", "model_number": 17, "release": "0.1", "month": "2026-11", "key_id": identity.key_id,
    }  # fmt: skip
    assert (found["width"], found["height"], found["duration"]) == (128, 128, pytest.approx(3, abs=0.2))
    assert found["seconds"] == [[0, 3]]
    assert len(found["parts"]) == len(found["parts"][0]) == 4
    assert found["credentials"] is None


def test_a_frame_and_a_part_of_a_clip(api: Api, marked: np.ndarray, tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.fromarray(marked[3]).save(file, "JPEG", quality=95)
    still = ask(api, file.getvalue())
    assert (still["marked"], still["duration"]) == (True, 0)
    png = io.BytesIO()
    Image.fromarray(marked[3]).save(png, "PNG")
    assert ask(api, png.getvalue())["duration"] == 0
    longer = np.concatenate([marked, np.repeat(drawn()[:1], 40, axis=0)])
    found = ask(api, sent(longer, tmp_path))
    assert found["marked"]
    assert found["seconds"] == [[0, 3]]


def test_others_clips_and_another_installations_are_not_ours(
    api: Api, payload: Payload, identity: Identity, tmp_path: Path
) -> None:
    for clip in (drawn(), embed(drawn(), payload, bytes(32), clip_id="one")):
        found = ask(api, sent(clip, tmp_path))
        assert (found["marked"], found["payload"], found["seconds"], found["parts"]) == (False, None, [], [])
        assert found["p_value"] > 1e-6


def test_credentials_are_checked(
    api: Api, marked: np.ndarray, payload: Payload, identity: Identity, tmp_path: Path
) -> None:
    path = write_clip(marked, tmp_path / "clip.mp4", fps=FPS)
    assert credentials.sign(path, identity, model="emoji", soft_binding=payload)
    found = ask(api, path.read_bytes())["credentials"]
    assert (found["state"], found["signed_here"], found["model"]) == ("trusted", True, "emoji")
    assert found["ai_generated"]
    assert abs((datetime.fromisoformat(found["when"]) - datetime.now(UTC)).total_seconds()) < 3600
    data = bytearray(path.read_bytes())
    data[data.rindex(b"mdat") + 200] ^= 1
    changed = ask(api, bytes(data))
    assert changed["credentials"]["state"] == "changed"
    other = Identity.load(tmp_path / "another")
    plain = write_clip(drawn(), tmp_path / "other.webp", fps=FPS)
    assert credentials.sign(plain, other)
    foreign = ask(api, plain.read_bytes())
    assert (foreign["marked"], foreign["credentials"]["state"]) == (False, "untrusted")
    assert not foreign["credentials"]["signed_here"]


def test_what_cannot_be_read_is_told_in_one_line(api: Api, marked: np.ndarray, tmp_path: Path) -> None:
    client = api.client
    assert "send multipart/form-data" in line_of(client.post("/v1/detect", json={"file": "x"}), 415)
    assert line_of(client.post("/v1/detect", files={"file": (None, "x")})) == "file: give a clip or a picture"
    assert line_of(client.post("/v1/detect", files={"other": b"x"})) == "file: give a clip or a picture"
    assert "no picture or clip of a known kind" in line_of(client.post("/v1/detect", files={"file": b"hello"}))
    cut = sent(marked, tmp_path)[:700]
    assert "corrupt" in line_of(client.post("/v1/detect", files={"file": cut}))
    assert "32" in line_of(client.post("/v1/detect", files={"file": picture(size=(24, 40))}))
    assert line_of(client.get("/v1/detect"), 405)


def test_limits_and_keys(marked: np.ndarray, tmp_path: Path) -> None:
    data = sent(marked, tmp_path)
    limits = UploadLimits(bytes=300_000, pixels=128 * 128, frames=30, clip_pixels=1000)
    with running(tmp_path / "limited", uploads=limits, requests=RequestLimits(per_minute=4)) as api:
        assert ask(api, data)["marked"]  # however many pixels its frames have together
        long = sent(drawn(40), tmp_path)
        assert "has 40 frames; give at most 30" in line_of(api.client.post("/v1/detect", files={"file": long}))
        wide = picture(size=(300, 300))
        assert "300x300 pixels" in line_of(api.client.post("/v1/detect", files={"file": wide}))
        assert line_of(api.client.post("/v1/detect", files={"file": bytes(700_000)}), 413)  # is not even read
        assert line_of(api.client.post("/v1/detect", files={"file": b"x"}))
        assert line_of(api.client.post("/v1/detect", files={"file": b"x"}), 429)
        api.check_tidy()
    with running(tmp_path / "keys", keys=True) as api:
        assert line_of(api.client.post("/v1/detect", files={"file": data}), 401)


def test_the_keys_stay_what_they_are(api: Api, identity: Identity, marked: np.ndarray, tmp_path: Path) -> None:
    """Nothing that the server answers holds a key."""
    text = api.client.post("/v1/detect", files={"file": sent(marked, tmp_path)}).text
    assert identity.watermark_key.hex() not in text
    assert str(identity.root) not in text


# ------------------------------------------------------------------------------------------------ MCP


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with listening(tmp_path_factory.mktemp("listening")) as found:
        yield found


def test_an_assistant_asks(server: Api, marked: np.ndarray, tmp_path: Path) -> None:
    write_clip(marked, tmp_path / "ours.mp4", fps=FPS)
    write_clip(drawn(), tmp_path / "other.mp4", fps=FPS)

    async def talk() -> None:
        for maker in (LocalMaker(tmp_path), ServerMaker(str(server.client.base_url), tmp_path)):
            async with Client(create_server(maker)) as client:
                ours = await client.call_tool("was_made_here", {"file": "ours.mp4"})
                assert not ours.is_error
                assert ours.structured_content["payload"]["month"] == "2026-11"
                assert "made here" in ours.content[0].text
                assert "by emoji, openlumiere 0.1, in 2026-11" in ours.content[0].text
                other = await client.call_tool("was_made_here", {"file": "other.mp4"})
                assert other.structured_content["marked"] is False
                assert "no mark of this installation was found" in other.content[0].text
                assert (await client.call_tool("was_made_here", {"file": "none.mp4"})).is_error

    anyio.run(talk)
