"""Jobs, and what became of them, as rows of a database. Every method is one short transaction.

A worker holds a job by its attempt: what it tells counts only as long as nobody took the job over, so that of two
workers that both believe to have it, one writes the result. Times are UTC epoch seconds.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeAlias

import sqlalchemy as sa

from openlumiere.errors import LumiereError
from openlumiere.generation.requests import random_seed, request_from_json

from .database import clock, deliveries, jobs, open_database, workers, writing
from .settings import DAY, Limits

Status = Literal["queued", "in_progress", "completed", "failed", "cancelled"]
FINAL: tuple[Status, ...] = ("completed", "failed", "cancelled")
_Jobs: TypeAlias = "list[Job]"  # inside Store, `list` is its method
_Workers: TypeAlias = "list[WorkerRow]"
_Ids: TypeAlias = list[str]
_ACTIVE: tuple[Status, ...] = ("queued", "in_progress")
_LOCAL_OWNER = "local"
_USUAL_SECONDS = 30.0  # of a job, as long as none was finished
_LONGEST_WAIT = 3600.0  # seconds, that anyone is told to wait
_HERE = jobs.c.removal == ""
_SHOWN = _HERE & jobs.c.deleted_at.is_(None)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One request for a clip, and what became of it.

    Attributes:
        id: unguessable.
        owner: id of the key that asked, or "local".
        request: as `Request.to_json` gives it; files by their name in the job's folder.
        stage, step, total_steps: as `generation.progress.Progress`'s.
        progress: percent of the whole; never falls.
        preview: version of ``preview.webp``, 0 = there is none.
        recipe: what the finished clip's file carries.
        files: names of what is in its folder.
        worker, attempts: who has it, and how many have had it.
        version: grows with each change.
    """

    id: str
    owner: str
    status: Status
    request: dict[str, Any]
    model: str
    created_at: float
    started_at: float | None = None
    completed_at: float | None = None
    expires_at: float | None = None
    stage: str = ""
    step: int = 0
    total_steps: int = 0
    progress: int = 0
    seconds_left: float | None = None
    preview: int = 0
    recipe: dict[str, Any] | None = None
    width: int | None = None
    height: int | None = None
    num_frames: int | None = None
    fps: float | None = None
    transparent: bool | None = None
    files: tuple[str, ...] = ()
    error_code: str | None = None
    error_message: str | None = None
    remixed_from: str | None = None
    favourite: bool = False
    deleted_at: float | None = None
    callback_url: str | None = None
    cancel_requested: bool = False
    worker: str | None = None
    attempts: int = 0
    version: int = 1

    @property
    def is_final(self) -> bool:
        """Return whether nothing more will become of it."""
        return self.status in FINAL


@dataclass(frozen=True, kw_only=True)
class WorkerRow:
    """A worker: the model that it holds, what it does ("starting", "idle", "working"), when it was last seen."""

    id: str
    model: str | None
    state: str
    seen_at: float


class QueueFull(LumiereError):  # noqa: N818 - what the API calls it
    """Too many jobs wait; `retry_after` seconds from now there may be room."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = max(1, math.ceil(min(retry_after, _LONGEST_WAIT)))


class QuotaReached(QueueFull):
    """One owner has asked for as much as they may; `retry_after` seconds from now they may ask again."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message, retry_after)
        self.retry_after = max(1, math.ceil(retry_after))


class Store:
    """The jobs in a database; safe to use from several threads and processes.

    Args:
        url: `Settings.store_url`.
        webhooks: addresses that are to be told how a job ended, see `webhooks`.
    """

    def __init__(self, url: str, *, webhooks: Iterable[str] = ()) -> None:
        self._engine = open_database(url)
        self._webhooks = tuple(webhooks)

    # ------------------------------------------------------------------------------------------ those who ask

    def add(
        self,
        *,
        owner: str = _LOCAL_OWNER,
        request: Mapping[str, Any],
        model: str,
        limits: Limits,
        callback_url: str | None = None,
        remixed_from: str | None = None,
    ) -> Job:
        """Keep a request. A seed is drawn here if it has none, so that a clip begun again is the same clip.

        Raises:
            QueueFull, QuotaReached: not now.
            LumiereError: a request that cannot be read, or an address that is not on the operator's list.
        """
        if callback_url is not None and callback_url not in self._webhooks:
            raise LumiereError("callback_url: the operator of this server does not list that address")
        asked = request_from_json(request)
        asked = asked if asked.seed is not None else replace(asked, seed=random_seed())
        row: dict[str, Any] = {
            "id": f"video_{secrets.token_urlsafe(16)}", "owner": owner, "status": "queued", "request": asked.to_json(),
            "searched": asked.prompt.casefold(), "model": model, "created_at": time.time(), "files": [],
            "callback_url": callback_url, "remixed_from": remixed_from,
        }  # fmt: skip
        with writing(self._engine, alone=True) as connection:
            self._check_limits(connection, owner, limits)
            connection.execute(jobs.insert().values(row))
            return self._row(connection, row["id"])

    def get(self, id: str, owner: str | None = None) -> Job | None:
        """Return a job; None also where it is another owner's, or deleted.

        Args:
            owner: None = whosever it is, deleted or not.
        """
        chosen = sa.select(jobs).where(jobs.c.id == id, _HERE)
        if owner is not None:
            chosen = chosen.where(jobs.c.owner == owner, _SHOWN)
        with self._engine.connect() as connection:
            row = connection.execute(chosen).first()
        return None if row is None else _job(row)

    def list(
        self,
        owner: str,
        *,
        after: str | None = None,
        limit: int = 20,
        newest_first: bool = True,
        search: str = "",
        favourites: bool = False,
        status: Status | None = None,
    ) -> list[Job]:
        """Return an owner's jobs.

        Args:
            after: id of the last job of the page before.
            search: words that the prompt holds, whatever their case; all of them.
        """
        order = jobs.c.number.desc() if newest_first else jobs.c.number
        chosen = sa.select(jobs).where(jobs.c.owner == owner, _SHOWN).order_by(order).limit(limit)
        for word in search.casefold().split():
            chosen = chosen.where(jobs.c.searched.contains(word, autoescape=True))
        if favourites:
            chosen = chosen.where(jobs.c.favourite)
        if status is not None:
            chosen = chosen.where(jobs.c.status == status)
        if after is not None:
            last = sa.select(jobs.c.number).where(jobs.c.id == after, jobs.c.owner == owner).scalar_subquery()
            chosen = chosen.where(jobs.c.number < last if newest_first else jobs.c.number > last)
        with self._engine.connect() as connection:
            return [_job(row) for row in connection.execute(chosen)]

    def changes(self, owner: str | None = None, known: Mapping[str, int] | None = None) -> _Jobs:
        """Return the jobs that wait or run, and those of `known` whose version is another now.

        Args:
            owner: None = everyone's.
            known: versions by id; what was purged meanwhile is left out.
        """
        chosen = sa.select(jobs).where(_HERE).order_by(jobs.c.number)
        chosen = chosen.where(jobs.c.status.in_(_ACTIVE) | jobs.c.id.in_(tuple(known or ())))
        if owner is not None:
            chosen = chosen.where(jobs.c.owner == owner)
        with self._engine.connect() as connection:
            found = [_job(row) for row in connection.execute(chosen)]
        return [job for job in found if (known or {}).get(job.id) != job.version]

    def place(self, id: str) -> int:
        """Return how many jobs are to be done before this one, those under way included."""
        own = sa.select(jobs.c.number).where(jobs.c.id == id).scalar_subquery()
        before = (jobs.c.status == "in_progress") | ((jobs.c.status == "queued") & (jobs.c.number < own))
        with self._engine.connect() as connection:
            counted = sa.select(sa.func.count()).select_from(jobs).where(before, jobs.c.id != id)
            return connection.scalar(counted) or 0

    def count(self) -> dict[str, int]:
        """Return how many jobs there are of each status."""
        counted = sa.select(jobs.c.status, sa.func.count().label("number")).where(_HERE).group_by(jobs.c.status)
        with self._engine.connect() as connection:
            return {row.status: row.number for row in connection.execute(counted)}

    def usual_seconds(self) -> float:
        """Return how long the last jobs took to make, in the mean; a guess as long as none was finished."""
        with self._engine.connect() as connection:
            return _usual_seconds(connection)

    def request_cancel(self, id: str) -> None:
        """Cancel a job that waits; ask the worker of one under way to stop."""
        with writing(self._engine) as connection:
            self._cancel(connection, id)

    def cancel_requested(self, id: str) -> bool:
        """Return whether a job is to stop; one that is gone is."""
        with self._engine.connect() as connection:
            return connection.scalar(sa.select(jobs.c.cancel_requested).where(jobs.c.id == id)) is not False

    def set_favourite(self, id: str, owner: str, favourite: bool) -> bool:
        """Keep a result whatever its age, or no longer; return whether there is such a job."""
        here = (jobs.c.owner == owner) & _SHOWN
        with writing(self._engine) as connection:
            return self._update(connection, id, here, favourite=favourite)

    def delete(self, id: str, owner: str) -> bool:
        """Hide a job, and cancel it; `purge` removes it later. Return whether there was one."""
        here = (jobs.c.owner == owner) & _SHOWN
        with writing(self._engine) as connection:
            found = self._update(connection, id, here, deleted_at=time.time())
            if found:
                self._cancel(connection, id)
            return found

    def restore(self, id: str, owner: str) -> bool:
        """Show a deleted job again, cancelled where it was not done; return whether it was still there."""
        here = (jobs.c.owner == owner) & jobs.c.deleted_at.is_not(None) & _HERE
        with writing(self._engine) as connection:
            return self._update(connection, id, here, deleted_at=None)

    # ------------------------------------------------------------------------------------------ those who work

    def start(self, id: str, worker: str, *, max_attempts: int) -> Job | None:
        """Take a job; None where nothing is to be done. A job that killed `max_attempts` workers fails."""
        with writing(self._engine) as connection:
            row = self._lock(connection, id)
            if row is None or row.status in FINAL:
                return None
            if row.cancel_requested:
                self._end(connection, id, status="cancelled")
                return None
            if row.attempts >= max_attempts:
                message = f"the worker died {row.attempts} times while making this clip"
                self._end(connection, id, status="failed", error_code="worker_died", error_message=message)
                return None
            self._update(
                connection, id, sa.true(), status="in_progress", worker=worker, attempts=row.attempts + 1,
                started_at=row.started_at or time.time(), stage="", step=0, total_steps=0, seconds_left=None,
            )  # fmt: skip
            return self._row(connection, id)

    def tell(
        self,
        id: str,
        *,
        stage: str,
        step: int,
        total_steps: int,
        progress: int,
        seconds_left: float | None,
        preview: int,
        attempt: int | None = None,
    ) -> bool:
        """Keep how far a job is; return whether it is still the attempt's. Progress never falls."""
        higher = sa.case((jobs.c.progress < progress, progress), else_=jobs.c.progress)
        with writing(self._engine) as connection:
            return self._update(
                connection, id, _held(attempt), stage=stage, step=step, total_steps=total_steps, progress=higher,
                seconds_left=seconds_left, preview=preview,
            )  # fmt: skip

    def is_held(self, id: str, attempt: int) -> bool:
        """Return whether a job is still the attempt's."""
        return self._is(id, _held(attempt))

    def goes_on(self, id: str, attempt: int) -> bool:
        """Return whether a job is still the attempt's, and is not to stop."""
        return self._is(id, _held(attempt) & ~jobs.c.cancel_requested)

    def finish(
        self,
        id: str,
        *,
        recipe: Mapping[str, Any],
        width: int,
        height: int,
        num_frames: int,
        fps: float,
        transparent: bool,
        files: Iterable[str],
        expires_at: float | None = None,
        attempt: int | None = None,
    ) -> bool:
        """Complete a job; return whether it was still the attempt's."""
        with writing(self._engine) as connection:
            return self._end(
                connection, id, attempt=attempt, status="completed", progress=100, recipe=dict(recipe), width=width,
                height=height, num_frames=num_frames, fps=fps, transparent=transparent, files=sorted(files),
                expires_at=expires_at,
            )  # fmt: skip

    def fail(self, id: str, code: str, message: str, *, files: Iterable[str] = (), attempt: int | None = None) -> bool:
        """End a job by an error; return whether it was still the attempt's."""
        with writing(self._engine) as connection:
            return self._end(
                connection, id, attempt=attempt, status="failed", error_code=code, error_message=message,
                files=sorted(files),
            )  # fmt: skip

    def cancelled(self, id: str, *, files: Iterable[str] = (), attempt: int | None = None) -> bool:
        """End a job that was asked to stop; return whether it was still the attempt's."""
        with writing(self._engine) as connection:
            return self._end(connection, id, attempt=attempt, status="cancelled", files=sorted(files))

    def give_back(self, id: str, attempt: int) -> bool:
        """Let a job wait again, untried, as a worker does that is told to stop; return whether it held it."""
        with writing(self._engine) as connection:
            return self._update(
                connection, id, _held(attempt), status="queued", worker=None, attempts=attempt - 1, stage="",
                seconds_left=None,
            )  # fmt: skip

    def add_files(self, id: str, files: Iterable[str]) -> None:
        """Note further files of a job, such as a format that was made later."""
        with writing(self._engine) as connection:
            row = self._lock(connection, id)
            if row is not None:
                self._update(connection, id, sa.true(), files=sorted({*row.files, *files}))

    def purge(self, *, undo_seconds: float) -> _Ids:
        """Return the jobs whose files are to be removed: deleted so long ago, or expired. `forget` each afterwards.

        Whoever dies between the two is followed by the next who calls this. A deleted job under way stops first.
        """
        now = time.time()
        over = jobs.c.deleted_at.is_not(None) & (jobs.c.deleted_at <= now - undo_seconds)
        expired = jobs.c.expires_at.is_not(None) & (jobs.c.expires_at <= now) & ~jobs.c.favourite
        with writing(self._engine) as connection:
            removed = sa.update(jobs).where(jobs.c.status.in_(FINAL), _HERE, over | expired).values(removal="due")
            connection.execute(removed)
            return [*connection.scalars(sa.select(jobs.c.id).where(jobs.c.removal == "due"))]

    def forget(self, id: str) -> None:
        """Remove what is known of a purged job; for a day it still counts for its owner's quota."""
        bare: dict[str, Any] = {"request": {}, "searched": "", "recipe": None, "files": [], "error_message": None}
        with writing(self._engine) as connection:
            due = sa.update(jobs).where(jobs.c.id == id, jobs.c.removal == "due")
            connection.execute(due.values(removal="done", callback_url=None, **bare))
            past = jobs.c.created_at < time.time() - DAY
            connection.execute(sa.delete(jobs).where(jobs.c.removal == "done", past))

    # ------------------------------------------------------------------------------------------ workers

    def workers(self) -> _Workers:
        """Return the workers that are known, those seen last first."""
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(workers).order_by(workers.c.seen_at.desc()))
            return [WorkerRow(id=row.id, model=row.model, state=row.state, seen_at=row.seen_at) for row in rows]

    def heartbeat(self, id: str, *, model: str | None, state: str) -> None:
        """Say that a worker is alive, and what it does."""
        values = {"model": model, "state": state, "seen_at": clock(self._engine)}
        with writing(self._engine) as connection:
            if not connection.execute(sa.update(workers).where(workers.c.id == id).values(values)).rowcount:
                connection.execute(workers.insert().values(id=id, **values))

    def vanished(self, seconds: float) -> _Ids:
        """Return the workers that gave no sign of life for so long."""
        gone = sa.select(workers.c.id).where(workers.c.seen_at < clock(self._engine) - seconds)
        with self._engine.connect() as connection:
            return [*connection.scalars(gone)]

    def take_memory(self, id: str, place: str, needed: int, capacity: int) -> bool:
        """Set memory of a device aside for a worker; return False where it must wait for others to be done.

        Only workers under way are waited for: models of idle ones are not, as nothing would ever end that.

        Args:
            place: the device.
            needed, capacity: bytes, in all.
        """
        others = (workers.c.place == place) & (workers.c.id != id) & (workers.c.state == "working")
        with writing(self._engine, alone=True) as connection:
            taken = connection.scalar(sa.select(sa.func.sum(workers.c.memory)).where(others))
            if taken and taken + needed > capacity:
                return False
            connection.execute(sa.update(workers).where(workers.c.id == id).values(place=place, memory=needed))
            return True

    def release_worker(self, worker: str) -> _Ids:
        """Let the jobs that a worker held wait again, as it is gone; return them."""
        held = (jobs.c.worker == worker) & (jobs.c.status == "in_progress")
        with writing(self._engine) as connection:
            found = [*connection.scalars(sa.select(jobs.c.id).where(held))]
            for id in found:
                self._update(connection, id, held, status="queued", worker=None, seconds_left=None, stage="")
            return found

    def dismiss(self, id: str) -> None:
        """Forget a worker that stopped, or vanished."""
        with writing(self._engine) as connection:
            connection.execute(sa.delete(workers).where(workers.c.id == id))

    # ------------------------------------------------------------------------------------------ parts of these

    def _check_limits(self, connection: sa.Connection, owner: str, limits: Limits) -> None:
        def count(*where: Any) -> int:
            return connection.scalar(sa.select(sa.func.count()).select_from(jobs).where(*where)) or 0

        own = jobs.c.owner == owner
        waiting = count(jobs.c.status == "queued")
        if waiting >= limits.max_queued:
            raise QueueFull(f"{waiting} jobs wait already; try again later", _usual_seconds(connection))
        active = count(own, jobs.c.status.in_(_ACTIVE))
        if active >= limits.max_queued_per_owner:
            message = f"{active} of your jobs are not done yet; wait for one of them"
            raise QuotaReached(message, min(_usual_seconds(connection), _LONGEST_WAIT))
        if limits.max_jobs_per_day is None:
            return
        since = time.time() - DAY
        today = (
            sa.select(jobs.c.created_at).where(own, jobs.c.created_at > since)
            .order_by(jobs.c.created_at.desc()).limit(limits.max_jobs_per_day)
        )  # fmt: skip
        times = [*connection.scalars(today)]
        if len(times) == limits.max_jobs_per_day:
            raise QuotaReached(f"{len(times)} jobs in 24 hours are your quota", times[-1] - since)

    def _is(self, id: str, condition: Any) -> bool:
        with self._engine.connect() as connection:
            return bool(connection.scalar(sa.select(sa.func.count()).where(jobs.c.id == id, condition)))

    def _cancel(self, connection: sa.Connection, id: str) -> None:
        row = self._lock(connection, id)
        if row is None or row.status in FINAL:
            return
        if row.status == "queued":
            self._end(connection, id, status="cancelled", cancel_requested=True)
        else:
            self._update(connection, id, sa.true(), cancel_requested=True)

    def _end(self, connection: sa.Connection, id: str, *, attempt: int | None = None, **values: Any) -> bool:
        """Give a job its final status, once, and note who is to be told of it."""
        condition = jobs.c.status.in_(_ACTIVE) if attempt is None else _held(attempt)
        now = time.time()
        ended = self._update(
            connection, id, condition, completed_at=now, seconds_left=None, preview=0, stage="", **values
        )
        if ended and self._webhooks:
            job = self._row(connection, id)
            event = "video.completed" if job.status == "completed" else "video.failed"
            connection.execute(
                deliveries.insert(),
                [
                    {
                        "id": f"evt_{secrets.token_urlsafe(16)}", "job": id, "event": event, "address": address,
                        "created_at": now, "next_at": now,
                    }
                    for address in ([job.callback_url] if job.callback_url else self._webhooks)
                ],
            )  # fmt: skip
        return ended

    def _update(self, connection: sa.Connection, id: str, condition: Any, **values: Any) -> bool:
        changed = sa.update(jobs).where(jobs.c.id == id, condition).values(version=jobs.c.version + 1, **values)
        return connection.execute(changed).rowcount == 1

    def _lock(self, connection: sa.Connection, id: str) -> sa.Row | None:
        return connection.execute(sa.select(jobs).where(jobs.c.id == id).with_for_update()).first()

    def _row(self, connection: sa.Connection, id: str) -> Job:
        return _job(connection.execute(sa.select(jobs).where(jobs.c.id == id)).one())


def _held(attempt: int | None) -> Any:
    """The condition that an attempt still has the job; None = whoever has it."""
    running = jobs.c.status == "in_progress"
    return running if attempt is None else running & (jobs.c.attempts == attempt)


def _usual_seconds(connection: sa.Connection) -> float:
    """How long the last jobs took, in the mean."""
    done = sa.select(jobs.c.started_at, jobs.c.completed_at).where(jobs.c.status == "completed")
    rows = connection.execute(done.order_by(jobs.c.completed_at.desc()).limit(20)).all()
    return sum(row.completed_at - row.started_at for row in rows) / len(rows) if rows else _USUAL_SECONDS


_FIELDS = tuple(field.name for field in fields(Job))


def _job(row: sa.Row) -> Job:
    values = {name: getattr(row, name) for name in _FIELDS}
    return Job(**{**values, "files": tuple(row.files)})
