"""A worker: one process with one model that takes jobs from the queue, one at a time.

It is who its folder says: the first free slot of its data folder, locked as long as it lives. Started again after a
crash it takes the same slot, and goes on at once with what it had begun; a worker that does not come back is missed by
the others when its heartbeats stop.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import FrameType

from filelock import FileLock, Timeout

from openlumiere.app.jobs.queue import Queue, working
from openlumiere.app.jobs.results import Results
from openlumiere.app.jobs.store import Store
from openlumiere.app.jobs.webhooks import Webhooks
from openlumiere.app.settings import Settings, settings_from_json
from openlumiere.errors import LumiereError
from openlumiere.files import one_line, write_text

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_CHORES_SECONDS = 1.0  # between two rounds of chores
_REPAIR_SECONDS = 10.0  # between two looks for jobs that are not in the queue
_UNQUEUED_SECONDS = 30.0  # a job that is not in it so long after it was kept has lost its server
_LOG = logging.getLogger(__name__)


def run(
    settings: Settings,
    *,
    model: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    stop: threading.Event | None = None,
) -> None:
    """Take jobs until told to stop, by SIGTERM, SIGINT or `stop`; a job under way then goes back to the queue.

    Args:
        model: loaded first; None = the first of the settings'. Where it cannot be loaded, other models' jobs are made.
        device, dtype: as `load_pipeline`'s.

    Raises:
        LumiereError: the database, the results or the device cannot be used.
    """
    settings = replace(settings, data=str(settings.folder.resolve()))  # jobs are made in folders of their own
    stop = stop or threading.Event()
    with _stopped_by_signals(stop), _slot(settings) as worker:
        _Worker(settings, worker, device=device, dtype=dtype, stop=stop).run(model or next(iter(settings.models), None))


class _Worker:
    """One worker's parts, and its three threads: jobs (DBOS's), heartbeats, and chores."""

    def __init__(self, settings: Settings, id: str, *, device: str, dtype: str, stop: threading.Event) -> None:
        from .making import Maker  # imports torch
        from .resident import Resident

        self.id, self._settings, self._stop = id, settings, stop
        self._store = Store(settings.store_url, webhooks=settings.webhooks)
        self._store.heartbeat(id, model=None, state="starting")
        self._results, self._queue = Results(settings.results_address), Queue(settings)
        self._resident = Resident(self._store, id, device=device, dtype=dtype, capacity=settings.memory_bytes)
        self._maker = Maker(
            settings, store=self._store, results=self._results, resident=self._resident, worker=id, stop=stop
        )
        self._webhooks = Webhooks(settings)
        self._ended = threading.Event()
        self._repaired_at = 0.0

    def run(self, model: str | None) -> None:
        """Take jobs until told to stop."""
        from .resident import ModelUnusable

        self._maker.remove_leftovers(self.id)  # of this slot's last process
        self._queue.release(self.id)
        beating = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        calling = threading.Thread(target=self._call, name="webhooks", daemon=True)
        beating.start()
        calling.start()
        try:
            if model is not None:
                with suppress(ModelUnusable):  # which is in the log, and told with the models and by each job of it
                    self._resident.load(model)
            self._maker.state = "idle"
            with working(self._settings, self.id, self._maker) as take_over:
                _LOG.info("%s takes jobs", self.id)
                if not self._settings.mark:
                    _LOG.warning("clips are neither marked nor signed, as --no-mark asks")
                while not self._stop.wait(_CHORES_SECONDS):
                    self._chores(take_over)
                _LOG.info("%s stops", self.id)
            self._queue.release(self.id)
        finally:
            self._ended.set()
            beating.join()
            self._store.dismiss(self.id)
            self._queue.close()

    def _beat(self) -> None:
        while not self._ended.wait(self._settings.heartbeat_seconds):
            with _logged("heartbeat"):
                self._store.heartbeat(self.id, model=self._resident.name, state=self._maker.state)

    def _call(self) -> None:
        while not self._ended.wait(_CHORES_SECONDS):
            with _logged("webhooks"):
                self._webhooks.send_due()

    def _chores(self, take_over: Callable[[str], None]) -> None:
        """Do what any worker does beside its work; several may do it at once."""
        with _logged("chores"):
            for gone in self._store.vanished(self._settings.vanished_seconds):
                if gone != self.id:
                    _LOG.warning("%s vanished; its jobs wait again", gone)
                    # First its place in the queue: if it is alive after all, it can no longer end there what another
                    # takes over.
                    take_over(gone)
                    self._store.release_worker(gone)
                    self._maker.remove_leftovers(gone)
                    self._store.dismiss(gone)
            if time.monotonic() - self._repaired_at > _REPAIR_SECONDS:
                self._queue.repair(older_than=time.time() - _UNQUEUED_SECONDS)
                self._repaired_at = time.monotonic()
            for job in self._store.purge(undo_seconds=self._settings.undo_seconds):
                self._results.remove(job)
                self._queue.forget(job)
                self._store.forget(job)


@contextmanager
def _logged(what: str) -> Iterator[None]:
    """Go on after an error, as when a database restarts: the next round tries again."""
    try:
        yield
    except Exception as error:  # the database's, the queue's, or that of wherever results lie
        _LOG.warning("%s: %s: %s", what, type(error).__name__, one_line(error))


@contextmanager
def _stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """Have SIGTERM and SIGINT set `stop`; the second one ends the process at once, and others take its job over."""

    def handle(number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _slot(settings: Settings) -> Iterator[str]:
    """Take the first slot of the data folder that no living process holds; yields its id."""
    folder = settings.folder / "workers"
    folder.mkdir(parents=True, exist_ok=True)
    for number in itertools.count():
        lock = FileLock(folder / f"{number}.lock")
        with suppress(Timeout):
            lock.acquire(timeout=0)
            break
    try:
        name = folder / f"{number}.id"
        if not name.exists():
            write_text(name, f"worker_{secrets.token_hex(6)}")
        yield name.read_text(encoding="utf-8")
    finally:
        lock.release()


def main() -> None:
    """Run as the child of `supervisor.Supervisor`: options come on stdin, whose end says that the parent is gone."""
    options = json.loads(sys.stdin.readline())
    settings = settings_from_json(options.pop("settings"))
    stop = threading.Event()

    def watch() -> None:
        # Not by sys.stdin, whose lock a thread that waits would hold when the interpreter ends.
        while os.read(0, 1024):
            pass
        stop.set()

    threading.Thread(target=watch, name="parent", daemon=True).start()
    logging.basicConfig(level=options.pop("log_level"), format=LOG_FORMAT)
    try:
        run(settings, **options, stop=stop)
    except LumiereError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
