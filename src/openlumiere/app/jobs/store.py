"""Jobs, and what became of them, as rows of a database. Every method is one short transaction.

Here is what those who ask do; `attempts` has what workers do. Times are UTC epoch seconds.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import sqlalchemy as sa

from openlumiere.app.settings import DAY, Limits
from openlumiere.errors import LumiereError
from openlumiere.generation.requests import random_seed, request_from_json

from .attempts import Attempts
from .database import idempotency, jobs, writing
from .job import ACTIVE, FINAL, AskedBefore, Job, QueueFull, QuotaReached, Status, job_of

__all__ = ["FINAL", "AskedBefore", "Job", "QueueFull", "QuotaReached", "Status", "Store"]

_LOCAL_OWNER = "local"
_USUAL_SECONDS = 30.0  # of a job, as long as none was finished
_Jobs: TypeAlias = "list[Job]"  # inside Store, `list` is its method
_HERE = jobs.c.removal == ""
_SHOWN = _HERE & jobs.c.deleted_at.is_(None)


class Store(Attempts):
    """The jobs in a database; safe to use from several threads and processes."""

    def add(
        self,
        *,
        owner: str = _LOCAL_OWNER,
        request: Mapping[str, Any],
        model: str,
        limits: Limits,
        callback_url: str | None = None,
        remixed_from: str | None = None,
        idempotency_key: str | None = None,
    ) -> Job:
        """Keep a request. A seed is drawn here if it has none, so that a clip begun again is the same clip.

        Args:
            idempotency_key: of the request, unique with the owner.

        Raises:
            AskedBefore: the owner's request of that key is kept already.
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
            if idempotency_key is not None:
                same = (idempotency.c.owner == owner) & (idempotency.c.key == idempotency_key)
                before = connection.scalar(sa.select(idempotency.c.job).where(same))
                if before is not None:
                    raise AskedBefore(self._row(connection, before))
                named = {"owner": owner, "key": idempotency_key, "job": row["id"]}
                connection.execute(idempotency.insert().values(named))
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
        return None if row is None else job_of(row)

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
            return [job_of(row) for row in connection.execute(chosen)]

    def changes(self, owner: str | None = None, known: Mapping[str, int] | None = None) -> _Jobs:
        """Return the jobs that wait or run, and those of `known` whose version is another now.

        Args:
            owner: None = everyone's.
            known: versions by id; what was purged meanwhile is left out.
        """
        chosen = sa.select(jobs).where(_HERE).order_by(jobs.c.number)
        chosen = chosen.where(jobs.c.status.in_(ACTIVE) | jobs.c.id.in_(tuple(known or ())))
        if owner is not None:
            chosen = chosen.where(jobs.c.owner == owner)
        with self._engine.connect() as connection:
            found = [job_of(row) for row in connection.execute(chosen)]
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

    def add_files(self, id: str, files: Iterable[str]) -> None:
        """Note further files of a job, such as a format that was made later."""
        with writing(self._engine) as connection:
            row = self._lock(connection, id)
            if row is not None:
                self._update(connection, id, sa.true(), files=sorted({*row.files, *files}))

    def _check_limits(self, connection: sa.Connection, owner: str, limits: Limits) -> None:
        def count(*where: Any) -> int:
            return connection.scalar(sa.select(sa.func.count()).select_from(jobs).where(*where)) or 0

        own = jobs.c.owner == owner
        waiting = count(jobs.c.status == "queued")
        if waiting >= limits.max_queued:
            raise QueueFull(f"{waiting} jobs wait already; try again later", _usual_seconds(connection))
        active = count(own, jobs.c.status.in_(ACTIVE))
        if active >= limits.max_queued_per_owner:
            message = f"{active} of your jobs are not done yet; wait for one of them"
            raise QuotaReached(message, _usual_seconds(connection))
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

    def _cancel(self, connection: sa.Connection, id: str) -> None:
        row = self._lock(connection, id)
        if row is None or row.status in FINAL:
            return
        if row.status == "queued":
            self._end(connection, id, status="cancelled", cancel_requested=True)
        else:
            self._update(connection, id, sa.true(), cancel_requested=True)


def _usual_seconds(connection: sa.Connection) -> float:
    """How long the last jobs took, in the mean."""
    done = sa.select(jobs.c.started_at, jobs.c.completed_at).where(jobs.c.status == "completed")
    rows = connection.execute(done.order_by(jobs.c.completed_at.desc()).limit(20)).all()
    return sum(row.completed_at - row.started_at for row in rows) / len(rows) if rows else _USUAL_SECONDS
