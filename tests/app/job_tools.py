"""What tests of jobs share: a tiny model, requests, and workers as processes of their own, some of which die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from openlumiere.app.queue import Queue
from openlumiere.app.results import Results
from openlumiere.app.settings import Limits, Settings
from openlumiere.app.store import Job, Store
from openlumiere.files import PARTIAL
from openlumiere.generation.requests import GenerateRequest, Request

LIMITS = Limits()
FAST: dict[str, Any] = {"heartbeat_seconds": 0.3, "vanished_seconds": 2.0}
PATIENCE = 180.0  # seconds, on a busy machine


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
        assert [path.name for path in self.settings.work.glob("*")] == []
        assert [path for path in self.settings.folder.rglob(f"*{PARTIAL}")] == []


def until(done: Callable[[], Any], *, seconds: float = PATIENCE) -> None:
    """Wait for something to happen."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


class WorkerProcess:
    """A worker in a process of its own.

    Args:
        dies: where it kills itself, see `dying_worker`; "" = nowhere.
        log: of its output.
    """

    def __init__(self, settings: Settings, log: Path, *, dies: str = "", model: str | None = None) -> None:
        options = {"settings": settings.to_json(), "model": model, "device": "cpu", "dtype": "auto"}
        script = [str(Path(__file__).with_name("dying_worker.py")), dies] if dies else ["-m", "openlumiere.app.worker"]
        self.log, self._file = log, open(log, "ab")
        self.process = subprocess.Popen(
            [sys.executable, *script], stdin=subprocess.PIPE, stdout=self._file, stderr=self._file, text=True
        )
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({**options, "log_level": "INFO"}) + "\n")
        self.process.stdin.flush()

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()
        self._file.close()
        assert self.process.stdin is not None
        self.process.stdin.close()

    def kill(self) -> None:
        """Kill it as the system does."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(30)

    def stop(self) -> int:
        """Ask it to stop; return its code."""
        self.process.terminate()
        return self.process.wait(PATIENCE)

    def text(self) -> str:
        """Return what it has said."""
        return self.log.read_text(encoding="utf-8")
