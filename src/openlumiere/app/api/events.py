"""Changes of jobs, told to whoever waits for them: one look into the database for all of them together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress

from fastapi.concurrency import run_in_threadpool
from sqlalchemy.exc import SQLAlchemyError

from openlumiere.app.jobs.store import Job, Store

_LOOK_SECONDS = 0.3
_REMEMBERED = 2000  # jobs


class Watcher:
    """One who waits.

    Args:
        owner: whose jobs; `id`: of one of them, None = all.
    """

    def __init__(self, owner: str, id: str | None) -> None:
        self.owner, self.id, self.is_over = owner, id, False
        self._changed: dict[str, Job] = {}  # the last state of each: who is slow misses what lies between
        self._woken = asyncio.Event()

    def wants(self, job: Job) -> bool:
        """Return whether a job is one that is waited for."""
        return job.owner == self.owner and self.id in (None, job.id)

    def tell(self, job: Job) -> None:
        """Note that a job changed."""
        self._changed[job.id] = job
        self._woken.set()

    def end(self) -> None:
        """Let whoever waits go."""
        self.is_over = True
        self._woken.set()

    async def next(self, seconds: float) -> list[Job]:
        """Return the jobs that changed since the last call; [] = none did for so long."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._woken.wait(), seconds)
        self._woken.clear()
        changed, self._changed = self._changed, {}
        return list(changed.values())


class Changes:
    """Looks for changes as long as anyone waits."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._watchers: set[Watcher] = set()
        self._versions: dict[str, int] = {}
        self._queued: dict[str, Job] = {}
        self._task: asyncio.Task[None] | None = None

    @contextmanager
    def watch(self, owner: str, id: str | None = None) -> Iterator[Watcher]:
        """Watch one's own jobs, or one of them. Changes are told from now on."""
        watcher = Watcher(owner, id)
        self._watchers.add(watcher)
        if self._task is None or self._task.done():
            self._versions, self._queued = {}, {}
            self._task = asyncio.create_task(self._look())
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)

    async def follow(self, owner: str, job: Job) -> AsyncIterator[Job | None]:
        """Yield a job as it is and at each change, until it is done; None where nothing happened for a while."""
        with self.watch(owner, job.id) as watcher:
            found: Job | None = await run_in_threadpool(self._store.get, job.id, owner)
            while found is not None:
                yield found
                if found.is_final or found.deleted_at is not None:
                    return
                while not (changed := await watcher.next(15)):
                    if watcher.is_over:
                        return
                    yield None
                found = changed[-1]

    def close(self) -> None:
        """Let all go who wait, as the server stops."""
        for watcher in self._watchers:
            watcher.end()

    async def _look(self) -> None:
        while self._watchers:
            with suppress(SQLAlchemyError):  # the next look may succeed, as when a database restarts
                self._tell(await run_in_threadpool(self._store.changes, None, self._known()))
            await asyncio.sleep(_LOOK_SECONDS)

    def _known(self) -> dict[str, int]:
        watched = {watcher.id for watcher in self._watchers if watcher.id is not None}
        return {**dict.fromkeys(watched, 0), **self._versions}

    def _tell(self, changed: list[Job]) -> None:
        moved = False
        for job in changed:
            self._versions[job.id] = job.version
            self._queued.pop(job.id, None)
            if job.status == "queued":
                self._queued[job.id] = job
            else:
                moved = True
        for id in list(self._versions)[:-_REMEMBERED]:  # of the oldest nobody is told that they were deleted
            del self._versions[id]
        # Where one moves on, all places behind it do.
        for job in [*changed, *(self._queued.values() if moved else ())]:
            for watcher in self._watchers:
                if watcher.wants(job):
                    watcher.tell(job)
