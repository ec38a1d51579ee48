"""What workers do with jobs, and what is known of them. Every method is one short transaction.

A worker holds a job by its attempt: what it tells counts only as long as nobody took the job over, so that of two
workers that both believe to have it, one writes the result. Times are UTC epoch seconds.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa

from openlumiere.app.settings import DAY

from .database import clock, deliveries, idempotency, jobs, open_database, unusable, workers, writing
from .job import ACTIVE, FINAL, Job, WorkerRow, job_of


class Attempts:
    """The workers' half of `store.Store`.

    Args:
        url: `Settings.store_url`.
        webhooks: addresses that are to be told how a job ended, see `webhooks`.
    """

    def __init__(self, url: str, *, webhooks: Iterable[str] = ()) -> None:
        self._engine = open_database(url)
        self._webhooks = tuple(webhooks)

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

    def purge(self, *, undo_seconds: float) -> list[str]:
        """Return the jobs whose files are to be removed: deleted so long ago, or expired. `forget` each afterwards.

        Whoever dies between the two is followed by the next who calls this. A deleted job under way stops first.
        """
        now = time.time()
        over = jobs.c.deleted_at.is_not(None) & (jobs.c.deleted_at <= now - undo_seconds)
        expired = jobs.c.expires_at.is_not(None) & (jobs.c.expires_at <= now) & ~jobs.c.favourite
        with writing(self._engine) as connection:
            removed = (
                sa.update(jobs)
                .where(jobs.c.status.in_(FINAL), jobs.c.removal == "", over | expired)
                .values(removal="due")
            )
            connection.execute(removed)
            return list(connection.scalars(sa.select(jobs.c.id).where(jobs.c.removal == "due")))

    def forget(self, id: str) -> None:
        """Remove what is known of a purged job; for a day it still counts for its owner's quota."""
        bare: dict[str, Any] = {"request": {}, "searched": "", "recipe": None, "files": [], "error_message": None}
        with writing(self._engine) as connection:
            due = sa.update(jobs).where(jobs.c.id == id, jobs.c.removal == "due")
            connection.execute(due.values(removal="done", callback_url=None, **bare))
            past = jobs.c.created_at < time.time() - DAY
            over = sa.select(jobs.c.id).where(jobs.c.removal == "done", past)
            connection.execute(sa.delete(idempotency).where(idempotency.c.job.in_(over)))
            connection.execute(sa.delete(jobs).where(jobs.c.removal == "done", past))

    # ------------------------------------------------------------------------------------------ workers

    def workers(self) -> list[WorkerRow]:
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

    def note_model(self, model: str, reason: str | None) -> None:
        """Keep why a worker could not load a model; None = it could."""
        with writing(self._engine) as connection:
            connection.execute(sa.delete(unusable).where(unusable.c.model == model))
            if reason is not None:
                connection.execute(unusable.insert().values(model=model, reason=reason))

    def unusable_models(self) -> dict[str, str]:
        """Return the models that could not be loaded when that was last tried, and why."""
        with self._engine.connect() as connection:
            return {row.model: row.reason for row in connection.execute(sa.select(unusable))}

    def vanished(self, seconds: float) -> list[str]:
        """Return the workers that gave no sign of life for so long."""
        gone = sa.select(workers.c.id).where(workers.c.seen_at < clock(self._engine) - seconds)
        with self._engine.connect() as connection:
            return list(connection.scalars(gone))

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

    def release_worker(self, worker: str) -> list[str]:
        """Let the jobs that a worker held wait again, as it is gone; return them."""
        held = (jobs.c.worker == worker) & (jobs.c.status == "in_progress")
        with writing(self._engine) as connection:
            found = list(connection.scalars(sa.select(jobs.c.id).where(held)))
            for id in found:
                self._update(connection, id, held, status="queued", worker=None, seconds_left=None, stage="")
            return found

    def dismiss(self, id: str) -> None:
        """Forget a worker that stopped, or vanished."""
        with writing(self._engine) as connection:
            connection.execute(sa.delete(workers).where(workers.c.id == id))

    # ------------------------------------------------------------------------------------------ parts of these

    def _is(self, id: str, condition: Any) -> bool:
        with self._engine.connect() as connection:
            return bool(connection.scalar(sa.select(sa.func.count()).where(jobs.c.id == id, condition)))

    def _end(self, connection: sa.Connection, id: str, *, attempt: int | None = None, **values: Any) -> bool:
        """Give a job its final status, once, and note who is to be told of it."""
        condition = jobs.c.status.in_(ACTIVE) if attempt is None else _held(attempt)
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
        return job_of(connection.execute(sa.select(jobs).where(jobs.c.id == id)).one())


def _held(attempt: int | None) -> Any:
    """The condition that an attempt still has the job; None = whoever has it."""
    running = jobs.c.status == "in_progress"
    return running if attempt is None else running & (jobs.c.attempts == attempt)
