"""A worker that kills itself, by SIGKILL, at a place that is named: what a crash or a power cut does there."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from openlumiere.app import making, results, store, worker
from openlumiere.generation.progress import Progress


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at_step(stage: str, step: int) -> None:
    call = making._Watch.__call__

    def told(self: Any, progress: Progress) -> None:
        if (progress.stage, progress.step) == (stage, step):
            die()
        call(self, progress)

    making._Watch.__call__ = told  # type: ignore[method-assign]


def half_a_file(source: Any, target: Any) -> None:
    data = Path(source).read_bytes()
    Path(target).write_bytes(data[: len(data) // 2])
    die()


def after_the_clip() -> None:
    put = results.Results.put

    def put_and_die(self: Any, job_id: str, name: str, path: Any) -> None:
        put(self, job_id, name, path)
        if name == making.MASTER:
            die()

    results.Results.put = put_and_die  # type: ignore[method-assign]


PLACES = {
    "before": lambda: setattr(store.Store, "start", die),
    "denoise": lambda: at_step("denoise", 1),
    "between": lambda: at_step("sharpen", 0),
    "writing": lambda: setattr(results.shutil, "copyfile", half_a_file),
    "written": after_the_clip,
    "publishing": lambda: setattr(making, "_thumbnail", die),
    "row": lambda: setattr(store.Store, "finish", die),
}

if __name__ == "__main__":
    PLACES[sys.argv[1]]()
    worker.main()
