"""A job as it is known everywhere: one request for a clip, and what became of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal

import sqlalchemy as sa

from openlumiere.errors import LumiereError

Status = Literal["queued", "in_progress", "completed", "failed", "cancelled"]
FINAL: tuple[Status, ...] = ("completed", "failed", "cancelled")
ACTIVE: tuple[Status, ...] = ("queued", "in_progress")


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
        self.retry_after = max(1, math.ceil(retry_after))


class AskedBefore(LumiereError):  # noqa: N818 - a state, not an error
    """The request of an idempotency key is kept already, as `job`."""

    def __init__(self, job: Job) -> None:
        super().__init__(f"that was asked for before, as {job.id}")
        self.job = job


class QuotaReached(QueueFull):
    """One owner has asked for as much as they may; `retry_after` seconds from now they may ask again."""


_FIELDS = tuple(field.name for field in fields(Job))


def job_of(row: sa.Row) -> Job:
    """Return the job of a row of `database.jobs`."""
    values = {name: getattr(row, name) for name in _FIELDS}
    return Job(**{**values, "files": tuple(row.files)})
