"""Workers as processes of their own, some of which kill themselves at a place that is named.

They are forked from a server that has imported torch already: on a busy machine that takes a minute each otherwise.
"""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from openlumiere.app.settings import Settings, settings_from_json

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["openlumiere.app.workers.making", "openlumiere.app.workers.worker", "workers"])


class Worker:
    """A worker of its own process.

    Args:
        log: of its output.
        dies: where it kills itself, a key of `PLACES`; "" = nowhere.
    """

    def __init__(self, settings: Settings, log: Path, *, dies: str = "", model: str | None = None) -> None:
        self.log = log
        arguments = (settings.to_json(), str(log), dies, model)
        self.process = _CONTEXT.Process(target=_run, args=arguments, daemon=True)
        self.process.start()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.is_alive():
            self.kill()

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        """Kill it as the system does."""
        self.signal(signal.SIGKILL)
        self.ended()

    def stop(self) -> int | None:
        """Ask it to stop; return its code."""
        self.signal(signal.SIGTERM)
        return self.ended()

    def ended(self) -> int | None:
        """Wait for its end; return its code, below 0 for signals."""
        self.process.join(180)
        assert not self.process.is_alive()
        return self.process.exitcode

    def text(self) -> str:
        """Return what it has said."""
        return self.log.read_text(encoding="utf-8")


def _run(settings: dict[str, Any], log: str, dies: str, model: str | None) -> None:
    from openlumiere.app.workers import worker

    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, sys.stdout.fileno())
    os.dup2(output, sys.stderr.fileno())
    logging.basicConfig(level="INFO", format=worker.LOG_FORMAT, force=True)
    PLACES[dies]()
    worker.run(settings_from_json(settings), model=model, device="cpu")


def _die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _at_step(stage: str, step: int, then: Callable[[], None] = _die) -> None:
    from openlumiere.app.workers import making

    call = making._Watch.__call__

    def told(self: Any, progress: Any) -> None:
        call(self, progress)
        if (progress.stage, progress.step) == (stage, step):
            then()

    making._Watch.__call__ = told  # type: ignore[method-assign]


def _in_clip(number: int) -> None:
    from openlumiere.app.workers import making

    make, count = making.Maker._make, itertools.count(1)

    def counted(self: Any, *arguments: Any) -> None:
        if next(count) == number:
            _at_step("denoise", 1)
        make(self, *arguments)

    making.Maker._make = counted  # type: ignore[method-assign]


def _half_a_file() -> None:
    from openlumiere.app.jobs import results

    def copy_half(source: Any, target: Any) -> None:
        data = Path(source).read_bytes()
        Path(target).write_bytes(data[: len(data) // 2])
        _die()

    results.shutil.copyfile = copy_half  # type: ignore[assignment]


def _after_the_clip() -> None:
    from openlumiere.app.jobs import results
    from openlumiere.app.workers import making

    put = results.Results.put

    def put_and_die(self: Any, job_id: str, name: str, path: Any) -> None:
        put(self, job_id, name, path)
        if name == making.MASTER:
            _die()

    results.Results.put = put_and_die  # type: ignore[method-assign]


def _instead_of(module: str, owner: str, name: str) -> None:
    import importlib

    found = importlib.import_module(module)
    setattr(getattr(found, owner) if owner else found, name, _die)


def _slow() -> None:
    import time

    from openlumiere.app.workers import making

    call = making._Watch.__call__

    def told(self: Any, progress: Any) -> None:
        call(self, progress)
        time.sleep(0.4)

    making._Watch.__call__ = told  # type: ignore[method-assign]


PLACES: dict[str, Callable[[], None]] = {
    "before it starts": lambda: _instead_of("openlumiere.app.jobs.store", "Store", "start"),
    "in a denoising step": lambda: _at_step("denoise", 1),
    "between the stages": lambda: _at_step("sharpen", 0),
    "in the second stage": lambda: _at_step("sharpen", 1),
    "while it writes": _half_a_file,
    "after it has written": _after_the_clip,
    "while it makes what belongs to it": lambda: _instead_of("openlumiere.app.workers.making", "", "_thumbnail"),
    "before the row is": lambda: _instead_of("openlumiere.app.jobs.store", "Store", "finish"),
    "in the tenth clip": lambda: _in_clip(10),
    "": lambda: None,
    "nowhere, but slow": _slow,
}
