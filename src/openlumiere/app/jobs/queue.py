"""The queue, by DBOS: durable, in SQLite or PostgreSQL, its arguments and results as JSON.

A workflow's argument is a job's id alone: what is to be made stands in the store. Version and names are fixed, so that
a newer server goes on with what an older one left; `worker` says who runs what.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import sqlalchemy as sa
from dbos import DBOS, DBOSClient, DBOSPortableJSONSerializer
from sqlalchemy.exc import DatabaseError

from openlumiere.app.settings import Settings
from openlumiere.errors import LumiereError
from openlumiere.files import one_line

from .database import driver_url
from .store import Job, Store

_APPLICATION, _VERSION, _QUEUE, _WORKFLOW = "openlumiere", "1", "clips", "make_clip"
_POLL_SECONDS = 0.25  # between two looks of an idle worker
_LONGEST_STEP = 3600  # seconds that a worker that is told to stop may take for the step that it is in


class Queue:
    """The queue as those see it who ask: jobs go in, and are cancelled.

    Raises:
        LumiereError: the database cannot be reached.
    """

    def __init__(self, settings: Settings) -> None:
        self._store = Store(settings.store_url, webhooks=settings.webhooks)
        self._client = DBOSClient(
            system_database_url=_prepared(settings),
            serializer=DBOSPortableJSONSerializer(),
            application_name=_APPLICATION,
        )
        self._client.register_queue(_QUEUE, worker_concurrency=1, polling_interval_sec=_POLL_SECONDS)

    def submit(self, job: Job) -> None:
        """Let a job be made; one that is in the queue already stays where it is."""
        self._client.enqueue(
            {
                "workflow_name": _WORKFLOW, "queue_name": _QUEUE, "workflow_id": job.id, "app_version": _VERSION,
                "application_name": _APPLICATION,
            },
            job.id,
        )  # fmt: skip

    def cancel(self, job_id: str) -> None:
        """End a job that waits, and stop one under way within a step. The worker passes over what has ended."""
        self._store.request_cancel(job_id)

    def repair(self, *, older_than: float) -> None:
        """Queue what its server died before queueing, and again what the queue let go without its having ended.

        Args:
            older_than: UTC epoch seconds; younger jobs may be on their way.
        """
        waiting = {job.id: job for job in self._store.changes() if job.created_at < older_than}
        if not waiting:
            return
        found = self._client.list_workflows(workflow_ids=list(waiting), load_input=False, load_output=False)
        known = {workflow.workflow_id: workflow.status for workflow in found}
        for job in waiting.values():
            status = known.get(job.id)
            if status in ("ENQUEUED", "PENDING", "DELAYED"):
                continue
            if status is not None:  # as after an error of the database; the store's attempts are not without end
                self._client.delete_workflow(job.id)
            self.submit(job)

    def release(self, worker: str) -> None:
        """Put what a worker that stopped has begun back to where it was in the queue."""
        pending = self._client.list_workflows(
            status="PENDING", executor_id=worker, queue_name=_QUEUE, load_input=False, load_output=False
        )
        if pending:
            self._client.resume_workflows([workflow.workflow_id for workflow in pending], queue_name=_QUEUE)
        self._store.release_worker(worker)

    def forget(self, job_id: str) -> None:
        """Remove what the queue knows of a job."""
        self._client.delete_workflows([job_id])

    def close(self) -> None:
        """Give the connections back."""
        self._client.destroy()


class Handler(Protocol):
    """What a worker does with a job."""

    def begin(self, job_id: str) -> Job | None:
        """Take a job; None = there is nothing to be done."""

    def make(self, job: Job) -> bool:
        """Make the clip; return whether there is one."""

    def publish(self, job: Job) -> bool:
        """Make what belongs to the clip, and end the job."""


@contextlib.contextmanager
def working(settings: Settings, worker: str, handler: Handler) -> Iterator[Callable[[str], None]]:
    """Take jobs from the queue, one at a time, until the context ends; what was begun is then put back.

    DBOS notes that a step is done, and runs it no second time. Whatever was under way when a process ended is run
    again: by itself when it is started as the same `worker`, or by another that calls what this yields.

    Yields:
        A function that takes over the jobs of a worker that vanished.
    """
    url = _prepared(settings)

    @DBOS.workflow(name=_WORKFLOW, max_recovery_attempts=None)  # the store counts attempts, and fails the job
    def make_clip(job_id: str) -> None:
        job = handler.begin(job_id)
        if job is not None and DBOS.run_step({"name": "make"}, handler.make, job):
            DBOS.run_step({"name": "publish"}, handler.publish, job)

    DBOS(
        config={
            "name": _APPLICATION, "system_database_url": url, "application_version": _VERSION, "executor_id": worker,
            "serializer": DBOSPortableJSONSerializer(), "log_level": "ERROR",
        }
    )  # fmt: skip
    DBOS.launch()
    try:
        DBOS.register_queue(_QUEUE, worker_concurrency=1, polling_interval_sec=_POLL_SECONDS)
        yield lambda vanished: _take_over(vanished)
    finally:
        # First no more jobs are taken; then the one under way is waited for.
        DBOS.destroy(workflow_completion_timeout_sec=_LONGEST_STEP, destroy_registry=True)


def _take_over(vanished: str) -> None:
    # The public `resume_workflow` asks for no executor: it would also restart what a third worker has taken meanwhile.
    DBOS._recover_pending_workflows([vanished])


def _prepared(settings: Settings) -> str:
    """Return the queue's address, its tables made."""
    _quiet()
    url = driver_url(settings.queue_url)
    if url.get_backend_name() == "sqlite":
        path = Path(url.database or "")
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(sqlite3.connect(path, timeout=30)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")  # stays with the file: readers and the writer go on together
        plain = f"sqlite:///{path}"
    else:
        plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    try:
        DBOS.migrate(plain)
    except (DatabaseError, sqlite3.Error) as error:
        shown = sa.make_url(plain).render_as_string(hide_password=True)
        raise LumiereError(f"cannot use the queue in {shown}: {one_line(error)}") from error
    return plain


def _quiet() -> None:
    """Have DBOS tell of errors only, through our own log."""
    logger = logging.getLogger("dbos")
    if not logger.handlers:  # it adds one that writes to the terminal where there is none
        logger.addHandler(logging.NullHandler())
    logger.setLevel(logging.ERROR)
