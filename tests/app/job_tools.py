"""What tests of jobs share: a tiny model, requests, and the side of those who ask."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from openlumiere.app.jobs.queue import Queue
from openlumiere.app.jobs.results import Results
from openlumiere.app.jobs.store import Job, Store
from openlumiere.app.settings import Limits, Settings
from openlumiere.files import PARTIAL
from openlumiere.generation.requests import GenerateRequest, Request

LIMITS = Limits()
FAST: dict[str, Any] = {"heartbeat_seconds": 0.5, "vanished_seconds": 8.0}
PATIENCE = 300.0  # seconds, on a busy machine


def request(prompt: str = "a tiger", **more: Any) -> Request:
    """Eight frames, two steps of each stage."""
    return GenerateRequest(**{"prompt": prompt, "num_frames": 8, "seed": 3, **more})


class Desk:
    """The side of those who ask."""

    def __init__(self, settings: Settings, model: Path | str) -> None:
        self.settings, self.model = settings, str(model)
        self.store = Store(settings.store_url, webhooks=settings.webhooks)
        self.queue, self.results = Queue(settings), Results(settings.results_address)

    def ask(self, asked: Request | None = None, *, files: dict[str, Path] | None = None, **more: Any) -> Job:
        """Keep a request, and queue it."""
        plain = (asked or request()).to_json()
        job = self.store.add(owner="local", request=plain, model=self.model, limits=LIMITS, **more)
        for name, path in (files or {}).items():
            self.results.put(job.id, name, path)
        self.queue.submit(job)
        return job

    def job(self, id: str) -> Job:
        """Return a job as it is now."""
        job = self.store.get(id)
        assert job is not None
        return job

    def wait(self, ids: Iterable[str], *, seconds: float = PATIENCE) -> list[Job]:
        """Wait until jobs have ended."""
        wanted = list(ids)
        until(lambda: all(self.job(id).is_final for id in wanted), seconds=seconds)
        return [self.job(id) for id in wanted]

    def check_tidy(self) -> None:
        """Nothing is left behind: no work, no unfinished file."""
        assert list(self.settings.work.glob("*")) == []
        assert list(self.settings.folder.rglob(f"*{PARTIAL}")) == []


def until(done: Callable[[], Any], *, seconds: float = PATIENCE) -> None:
    """Wait for something to happen."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
