"""Calls that tell other servers how a job ended, signed as standardwebhooks says.

Only addresses that the operator lists are called. What is to be told is noted in the transaction that ends the job, so
that no call is forgotten; it is made by any worker, beside its work, and again, with longer pauses, until it is
answered with a status of 200 to 299.
"""

from __future__ import annotations

import json
import logging
import time
from datetime import UTC, datetime

import httpx
import sqlalchemy as sa
from standardwebhooks import Webhook

import openlumiere
from openlumiere.app.settings import Settings
from openlumiere.files import one_line

from .database import deliveries, jobs, open_database, writing

_TIMEOUT = 10.0  # seconds, of each phase of a call
_PAUSES = (5.0, 30.0, 120.0, 600.0, 3600.0, 6 * 3600.0, 24 * 3600.0)  # seconds before each try after the first
_LOG = logging.getLogger(__name__)


class Webhooks:
    """Makes the calls that are due."""

    def __init__(self, settings: Settings) -> None:
        self._engine, self._listed = open_database(settings.store_url), settings.webhooks
        self._signer = Webhook(settings.webhook_secret) if settings.webhooks else None

    def send_due(self) -> int:
        """Make each call that is due, once; return how many arrived."""
        if self._signer is None:
            return 0
        due = sa.select(deliveries).where(deliveries.c.next_at <= time.time()).order_by(deliveries.c.created_at)
        with self._engine.connect() as connection:
            waiting = connection.execute(due.limit(20)).all()
        return sum(self._send(row) for row in waiting if self._claim(row))

    def _claim(self, row: sa.Row) -> bool:
        """Set the time of the next try, before this one: who dies of it, or takes long, is followed by another."""
        pause = _PAUSES[min(row.tries, len(_PAUSES) - 1)]
        claimed = (
            sa.update(deliveries)
            .where(deliveries.c.id == row.id, deliveries.c.tries == row.tries)
            .values(tries=row.tries + 1, next_at=time.time() + pause)
        )
        with writing(self._engine) as connection:
            return connection.execute(claimed).rowcount == 1

    def _send(self, row: sa.Row) -> bool:
        body = self._body(row)
        if row.address not in self._listed or body is None:
            self._remove(row)  # the operator lists it no more, or the job is gone
            return False
        now = datetime.now(UTC)
        assert self._signer is not None
        headers = {
            "content-type": "application/json", "user-agent": f"openlumiere/{openlumiere.__version__}",
            "webhook-id": row.id, "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._signer.sign(msg_id=row.id, timestamp=now, data=body),
        }  # fmt: skip
        try:
            with httpx.Client(timeout=_TIMEOUT, follow_redirects=False, trust_env=False) as client:
                answer = client.post(row.address, content=body.encode(), headers=headers).status_code
            problem = "" if 200 <= answer < 300 else f"status {answer}"
        except (httpx.HTTPError, OSError) as error:
            problem = one_line(error)
        if not problem:
            self._remove(row)
            return True
        given_up = row.tries >= len(_PAUSES)
        if given_up:
            self._remove(row)
        _LOG.warning(
            "%s to %s: %s; %s", row.event, row.address, problem, "given up" if given_up else "tried again later"
        )
        return False

    def _body(self, row: sa.Row) -> str | None:
        """What is told: OpenAI's fields, and those of standardwebhooks. A prompt is not among them."""
        chosen = sa.select(jobs.c.status, jobs.c.error_code, jobs.c.model).where(
            jobs.c.id == row.job, jobs.c.removal == ""
        )
        with self._engine.connect() as connection:
            job = connection.execute(chosen).first()
        if job is None:
            return None
        data = {"id": row.job, "status": "completed" if job.status == "completed" else "failed", "model": job.model}
        if job.status != "completed":
            data["error"] = {"code": job.error_code or job.status}
        return json.dumps(
            {
                "id": row.id, "object": "event", "type": row.event, "created_at": int(row.created_at),
                "timestamp": datetime.fromtimestamp(row.created_at, UTC).isoformat(), "data": data,
            }
        )  # fmt: skip

    def _remove(self, row: sa.Row) -> None:
        with writing(self._engine) as connection:
            connection.execute(sa.delete(deliveries).where(deliveries.c.id == row.id))
