"""Every call of the unmodified `openai` client, against the server as a process with a worker and a model."""

from __future__ import annotations

import io
import json
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest
from api_tools import clip_file, picture
from job_tools import until
from openai import OpenAI
from PIL import Image
from serving import Serving

from openlumiere.app.jobs.keys import Keys
from openlumiere.app.settings import Settings
from openlumiere.video import read_clip, read_metadata

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
FILE = openai._legacy_response.HttpxBinaryResponseContent
FAST = {"num_frames": 8, "num_inference_steps": 2, "seed": 3}


@pytest.fixture(scope="module")
def client(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    data = tmp_path_factory.mktemp("served")
    _, key = Keys(Settings(data=str(data)).store_url).add("tests")
    with Serving(data, "--keys", "--model", str(tiny_model), key=key) as server, warnings.catch_warnings():
        yield OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0)
        _, _, log = server.end(signal.SIGINT)
        assert "Traceback" not in log, log
        assert "a red ball" not in log


def test_a_clip_is_created_and_downloaded(client: OpenAI, tmp_path: Path) -> None:
    video = client.videos.create(prompt="a red ball", extra_body=FAST)
    assert (video.object, video.status, video.prompt) == ("video", "queued", "a red ball")
    done = client.videos.poll(video.id)
    assert (done.status, done.progress, done.error) == ("completed", 100, None)
    assert done.completed_at is not None
    assert done.completed_at >= done.created_at
    assert done.seconds == "0.5"
    film = tmp_path / "clip.mp4"
    client.videos.download_content(done.id).write_to_file(film)
    assert len(read_clip(film).frames) == 8
    assert read_metadata(film)["prompt"] == "a red ball"
    for variant, kind in (("thumbnail", "WEBP"), ("spritesheet", "PNG")):
        shown = client.videos.download_content(done.id, variant=variant).read()  # type: ignore[arg-type]
        with Image.open(io.BytesIO(shown)) as found:
            assert found.format == kind
    master = client.get(f"/videos/{done.id}/content?format=webp", cast_to=FILE)
    assert master.read().startswith(b"RIFF")


def test_create_and_poll_from_a_picture(client: OpenAI, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture())
    done = client.videos.create_and_poll(
        prompt="it moves", input_reference=tmp_path / "a.png", seconds="0.5",  # type: ignore[arg-type]
        poll_interval_ms=200,
    )  # fmt: skip
    assert (done.status, done.task, done.source) == ("completed", "animate", True)  # type: ignore[attr-defined]
    assert done.seconds == "0.5"


def test_clips_are_edited_extended_and_remixed(client: OpenAI, tmp_path: Path) -> None:
    first = client.videos.create_and_poll(prompt="a red ball", poll_interval_ms=200)
    film = io.BytesIO(clip_file(tmp_path, frames=8, fps=16))
    steps = {"num_inference_steps": 2}
    edited = client.videos.edit(prompt="a blue ball", video=("a.mp4", film), extra_body={**steps, "strength": 0.5})
    film.seek(0)
    longer = client.videos.extend(prompt="it rolls", video=film, seconds="0.5", extra_body=steps)  # type: ignore[arg-type]
    remixed = client.videos.remix(first.id, prompt="a green ball")
    assert remixed.remixed_from_video_id == first.id
    again = {"prompt": "a ball", "video": {"id": first.id}, **steps}
    by_id = client.post("/videos/edits", body=again, cast_to=openai.types.Video)
    ended = [client.videos.poll(one.id, poll_interval_ms=200) for one in (edited, longer, remixed, by_id)]
    assert [one.status for one in ended] == ["completed"] * 4, [one.error for one in ended]
    assert (ended[1].task, float(ended[1].seconds)) == ("extend", 1.0)  # type: ignore[attr-defined]


def test_lists_go_on_by_themselves(client: OpenAI) -> None:
    ids = [client.videos.create(prompt="a red ball", extra_body=FAST).id for _ in range(5)]
    page = client.videos.list(limit=2)
    assert [video.id for video in page.data] == ids[:-3:-1]
    assert page.has_more
    everything = [video.id for video in client.videos.list(limit=2)]
    assert everything[:5] == ids[::-1]
    assert len(everything) == len(set(everything))
    assert [video.id for video in client.videos.list(order="asc", limit=100)] == everything[::-1]
    after = client.videos.list(after=ids[2], limit=1)
    assert after.data[0].id == ids[1]
    for id in ids:
        client.videos.delete(id)


def test_queued_running_and_finished_clips_are_deleted(client: OpenAI) -> None:
    slow = {"num_frames": 240, "num_inference_steps": 250, "seed": 1}
    running = client.videos.create(prompt="a red ball", extra_body=slow)
    queued = client.videos.create(prompt="a red ball", extra_body=FAST)
    until(lambda: client.videos.retrieve(running.id).status == "in_progress")
    for video in (queued, running):
        assert client.videos.delete(video.id).deleted
        with pytest.raises(openai.NotFoundError) as told:
            client.videos.retrieve(video.id)
        assert told.value.code == "video_not_found"
    done = client.videos.create_and_poll(prompt="a red ball", extra_body=FAST, poll_interval_ms=200)
    assert done.status == "completed"  # at once: the place is free
    assert client.videos.delete(done.id).object == "video.deleted"
    with pytest.raises(openai.NotFoundError):
        client.videos.download_content(done.id)


def test_errors_are_the_clients_own(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="there is no such field") as told:
        client.videos.create(prompt="a ball", extra_body={"colour": "red"})
    assert (told.value.param, told.value.type) == ("colour", "invalid_request_error")
    with pytest.raises(openai.NotFoundError) as gone:
        client.videos.create(prompt="a ball", model="sora-2")
    assert gone.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="is no picture or clip"):
        client.videos.create(prompt="a ball", input_reference=b"hello")
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="wrong").videos.list()
    waiting = client.videos.create(prompt="a ball", extra_body={**FAST, "num_inference_steps": 250})
    with pytest.raises(openai.ConflictError, match="not finished yet"):
        client.videos.download_content(waiting.id)
    client.videos.delete(waiting.id)


def test_a_clip_is_made_while_its_request_waits(client: OpenAI) -> None:
    body = {"prompt": "a red ball", **FAST}
    film = client.post("/videos/sync", body=body, cast_to=FILE)
    assert film.read()[4:8] == b"ftyp"


def test_progress_is_streamed(client: OpenAI) -> None:
    video = client.videos.create(prompt="a red ball", extra_body={**FAST, "num_inference_steps": 20, "num_frames": 40})
    address, key = f"{client.base_url}videos/{video.id}/events", {"Authorization": f"Bearer {client.api_key}"}
    with httpx.stream("GET", address, headers=key, timeout=300) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = [line.removeprefix("data: ") for line in stream.iter_lines() if line.startswith("data: ")]
    told = [json.loads(line) for line in lines]
    assert [one["id"] for one in told] == [video.id] * len(told)
    assert told[-1]["status"] == "completed"
    progress = [one["progress"] for one in told]
    assert progress == sorted(progress)
    assert any(one["status"] == "in_progress" and one["total_steps"] for one in told)
