"""`lumiere detect` on clips of the bundled model, as they come back after others have had them."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from openlumiere.cli import main
from openlumiere.provenance import Payload, embed
from openlumiere.provenance.credentials import check
from openlumiere.provenance.identity import Identity
from openlumiere.video import read_clip, read_metadata, write_clip

pytestmark = pytest.mark.slow  # clips are made

PROMPT = "a tiger walking to the left on a green background"
Lumiere = Callable[..., tuple[int, str, str]]


@pytest.fixture
def lumiere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Lumiere:
    """Run a command in an empty folder: its exit code, and what it prints on stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(word) for word in words])
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a clip that the command made, and the same one without a mark: to read only."""
    folder = tmp_path_factory.mktemp("made")
    options = ["--frames", "16", "--steps", "2", "--seed", "1"]
    assert main(["generate", PROMPT, "-o", f"{folder}/marked.webp", *options]) == 0
    assert main(["generate", PROMPT, "-o", f"{folder}/plain.webp", *options, "--no-mark"]) == 0
    return folder


def reencode(frames: np.ndarray, path: Path, *, codec: str = "libx264", crf: int = 26) -> Path:
    """Write a clip as H.264, as a site that it was sent to would."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(16), options={"crf": str(crf)})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode(None))
    return path


def payload_of(line: dict[str, Any]) -> Any:
    return line["payload"] and line["payload"]["model"]


def test_a_clip_is_found_after_others_had_it(made: Path, lumiere: Lumiere, tmp_path: Path) -> None:
    """Re-encoded, cropped, mirrored, halved, and one frame of it."""
    frames = read_clip(made / "marked.webp").frames
    reencode(frames, tmp_path / "a-sent.mp4")
    reencode(frames[:, 40:-40, 48:-32], tmp_path / "b-cropped.mp4")
    reencode(frames[::2, :, ::-1], tmp_path / "c-mirrored.mp4")
    write_clip(frames[5:6], tmp_path / "d-shot.png")
    for file in ("a-sent.mp4", "b-cropped.mp4"):
        assert check(tmp_path / file) is None  # credentials went, the mark stays
        assert "openlumiere" not in read_metadata(tmp_path / file)
    code, out, _ = lumiere("detect", tmp_path, "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert [Path(line["file"]).name[0] for line in lines] == list("abcd")
    assert code == 0, out
    assert {payload_of(line) for line in lines} == {"emoji"}
    assert {line["key"] for line in lines} == {"own"}
    assert all(line["p_value"] <= 1e-6 for line in lines)
    assert lines[0]["seconds"] == [[0, 1]]
    assert len(lines[0]["parts"]) == len(lines[0]["parts"][0]) == 4
    assert lines[1]["scale"] == pytest.approx(128 / 108, abs=0.05)


def test_the_table_is_for_people(made: Path, lumiere: Lumiere) -> None:
    code, out, err = lumiere("detect", made / "marked.webp", made / "plain.webp")
    assert code == 1
    head, first, second = out.splitlines()
    assert head.split()[:2] == ["file", "marked"]
    assert first.split()[1] == "yes"
    for word in ("emoji", "0.1", f"{Identity.load().key_id} (own)", "0-1", " of 16"):
        assert word in first
    assert second.split()[1] == "no"
    assert "looking" in err


def test_no_mark_leaves_the_clip_as_it_is(made: Path, lumiere: Lumiere) -> None:
    marked, plain = (read_clip(made / f"{name}.webp").frames.astype(int) for name in ("marked", "plain"))
    assert 40 < 10 * np.log10(255**2 / np.square(marked - plain).mean()) < 44
    assert check(made / "plain.webp") is None
    assert check(made / "marked.webp") is not None
    assert read_metadata(made / "plain.webp")["watermark"] == "none"
    assert str(read_metadata(made / "marked.webp")["watermark"]).startswith("0011")
    for name, flag in (("plain", True), ("marked", False)):
        _, out, _ = lumiere("info", made / f"{name}.webp")
        assert (" --no-mark" in out) == flag
    assert lumiere("sticker", made / "plain.webp", "--for", "slack", "-o", "a.gif", "--no-mark")[2].startswith(
        "--no-mark: what is written is neither marked nor signed"
    )
    assert lumiere("detect", "a.gif")[0] == 1


def test_what_cannot_be_read_stops_nothing(made: Path, lumiere: Lumiere, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no clip")
    write_clip(np.zeros((2, 16, 16, 3), np.uint8), tmp_path / "tiny.webp")
    (tmp_path / "empty").mkdir()
    files = [tmp_path / name for name in ("broken.mp4", "tiny.webp", "none.mp4", "empty")]
    code, out, err = lumiere("detect", *files, made / "marked.webp")
    assert code == 2
    assert out.splitlines()[1].split()[1] == "yes"
    said = [line for line in err.splitlines() if line.startswith("lumiere: ")]
    assert len(said) == 4
    for file, says in zip(files, ("corrupt", "32", "does not exist", "no clips"), strict=True):
        assert any(says in line for line in said), file
    code, out, _ = lumiere("detect", "--json", *files, made / "marked.webp")
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 2
    assert {Path(line["file"]).name for line in lines if "error" in line} == {path.name for path in files}
    assert [line["marked"] for line in lines if "error" not in line] == [True]


def test_other_keys(made: Path, lumiere: Lumiere, tmp_path: Path) -> None:
    theirs = Identity.load(tmp_path / "theirs")
    payload = Payload(model=4711, version=112, month=82, key_id=theirs.key_id)
    frames = embed(read_clip(made / "plain.webp").frames, payload, theirs.watermark_key, clip_id="theirs")
    write_clip(frames, tmp_path / "a.webp")
    another = tmp_path / "another.key"
    another.write_text(secrets.token_hex(32))
    assert lumiere("detect", "a.webp")[0] == 1
    code, out, _ = lumiere("detect", "a.webp", "--key", another, "--key", "theirs/watermark.key", "--json")
    line = json.loads(out)
    assert code == 0
    assert line["key"] == "theirs/watermark.key"
    assert line["payload"] == {
        "model": "model 4711", "model_number": 4711, "release": "1.12", "month": "2026-11", "key_id": theirs.key_id
    }  # fmt: skip


def test_keys_that_are_none_are_refused(lumiere: Lumiere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_clip(np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), dtype=np.uint8), tmp_path / "a.webp")
    (tmp_path / "short.key").write_text("00ff")
    for key, says in (("none.key", "can't be read"), ("short.key", "no watermark key"), ("a.webp", "no watermark key")):
        code, _, err = lumiere("detect", "a.webp", "--key", key)
        assert (code, len(err.splitlines())) == (2, 1)
        assert says in err
    monkeypatch.setenv("LUMIERE_HOME", str(tmp_path / "new"))
    code, _, err = lumiere("detect", "a.webp")
    assert code == 2
    assert "no key to look with" in err
    assert not (tmp_path / "new").exists()


def test_the_same_command_gives_the_same_pixels(made: Path, lumiere: Lumiere) -> None:
    options = ["--frames", "16", "--steps", "2", "--seed", "1"]
    assert lumiere("generate", PROMPT, "-o", made / "marked.webp", *options)[0] == 0
    again = read_clip(made / "marked.webp").frames
    assert lumiere("generate", PROMPT, "-o", made / "marked.webp", *options)[0] == 0
    np.testing.assert_array_equal(read_clip(made / "marked.webp").frames, again)
