"""Changes of jobs as they are streamed, and what is measured of the server."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_tools import Api, line_of, listening, running

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with listening(tmp_path_factory.mktemp("data")) as found:
        yield found


def _events(lines: Iterator[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    kind = ""
    for line in lines:
        name, _, value = line.partition(": ")
        if name == "event":
            kind = value
        elif name == "data":
            yield kind, json.loads(value)


def _tell(api: Api, id: str, step: int) -> None:
    api.parts.store.tell(
        id, stage="denoise", step=step, total_steps=9, progress=10 * step, seconds_left=9.0 - step, preview=0
    )


def test_a_clip_is_followed_to_its_end(api: Api) -> None:
    before, id = api.ask()["id"], api.ask()["id"]
    with httpx.stream("GET", f"{api.client.base_url}/v1/videos/{id}/events", timeout=60) as stream:
        events = _events(stream.iter_lines())
        first = next(events)[1]
        assert first["status"] == "queued"
        place = first["position"]
        api.finish(before)
        while next(events)[1]["position"] != place - 1:  # it moves on with the queue
            pass
        api.parts.store.start(id, "worker", max_attempts=3)
        assert next(events)[1]["status"] == "in_progress"
        _tell(api, id, 2)
        shown = next(events)[1]
        assert (shown["stage"], shown["step"], shown["progress"], shown["seconds_left"]) == ("denoise", 2, 20, 7.0)
        api.finish(id)
        assert [(kind, video["status"]) for kind, video in events][-1] == ("video", "completed")  # and it ends
    assert line_of(api.client.get("/v1/videos/video_x/events"), 404)
    ended = api.client.get(f"/v1/videos/{id}/events").text
    assert ended.count("event: video") == 1


def test_all_ones_own_clips_are_followed_together(api: Api) -> None:
    first = api.ask()["id"]
    with httpx.stream("GET", f"{api.client.base_url}/v1/videos/events", timeout=60) as stream:
        events = _events(stream.iter_lines())
        assert next(events)[1]["id"] == first
        second = api.ask()["id"]
        while next(events)[1]["id"] != second:
            pass
        api.client.delete(f"/v1/videos/{second}")
        while next(events) != ("deleted", {"id": second}):
            pass
        api.finish(first)
        while (found := next(events)[1])["status"] != "completed":
            pass
        assert found["id"] == first


def test_who_hangs_up_is_not_looked_after_any_longer(api: Api) -> None:
    id = api.ask()["id"]
    with httpx.stream("GET", f"{api.client.base_url}/v1/videos/{id}/events", timeout=60) as stream:
        events = _events(stream.iter_lines())  # kept: the line is open as long as it lives
        next(events)
        assert len(api.parts.changes._watchers) == 1
    deadline = time.monotonic() + 30
    while api.parts.changes._watchers:
        _tell(api, id, 1)
        assert time.monotonic() < deadline
        time.sleep(0.1)
    api.client.delete(f"/v1/videos/{id}")


def test_sync_gives_the_clip_when_it_is_there(api: Api) -> None:
    def work() -> None:
        while not (waiting := api.client.get("/v1/videos?status=queued").json()["data"]):
            time.sleep(0.1)
        for video in waiting:
            api.finish(video["id"])

    worker = threading.Thread(target=work)
    worker.start()
    answer = httpx.post(f"{api.client.base_url}/v1/videos/sync", json={"prompt": "a tiger"}, timeout=60)
    worker.join()
    assert (answer.status_code, answer.headers["content-type"]) == (200, "video/mp4")


def test_health_and_figures(tmp_path: Path) -> None:
    with running(tmp_path) as api:
        assert api.client.get("/healthz").text == "ok\n"
        assert line_of(api.client.get("/readyz"), 503) == "no worker was heard of in 30 s"
        api.parts.store.heartbeat("worker", model="emoji", state="idle")
        assert api.client.get("/readyz").text == "ok\n"
        secret = "a secret prompt"
        ids = [api.ask(prompt=secret)["id"] for _ in range(3)]
        api.finish(ids[0])
        api.client.get(f"/v1/videos?search={secret}")
        api.client.get("/v1/videos/video_x")
        api.client.get("/nobody/asked/for/this")
        answer = api.client.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=")
        figures = dict(line.rsplit(" ", 1) for line in answer.text.splitlines() if not line.startswith("#"))
        assert figures["lumiere_queue_length"] == figures['lumiere_jobs{status="queued"}'] == "2.0"
        assert figures['lumiere_jobs{status="completed"}'] == figures["lumiere_workers"] == "1.0"
        assert 0 < float(figures["lumiere_clip_seconds"]) < 30
        requests = 'lumiere_requests_total{{method="{}",route="{}",status="{}"}}'
        assert figures[requests.format("POST", "/v1/videos", 200)] == "3.0"
        assert figures[requests.format("GET", "/v1/videos/{id}", 404)] == "1.0"
        assert figures[requests.format("any", "none", 404)] == "1.0"
        assert "secret" not in answer.text
        assert "video_" not in answer.text
