"""Whether the server lives and is ready, and figures for Prometheus; no prompts in any of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response
from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from openlumiere.app.jobs.store import Store
from openlumiere.app.moderation.moderator import Moderator

from .context import Owner, Parts
from .errors import ApiError

router = APIRouter()
_SEEN_SECONDS = 30.0  # a worker that was heard of since then works
_LOG = logging.getLogger("openlumiere.app")
disable_created_metrics()  # a second line for each figure, that tells when it was first counted


class Metrics:
    """What is counted since the server was started, and what the store tells when it is asked."""

    def __init__(self, store: Store, moderator: Moderator) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Jobs(store))
        self.registry.register(_Refused(moderator))
        self.requests = Counter(
            "lumiere_requests", "Requests by route and status.", ["method", "route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "lumiere_request_seconds", "Time to the first byte of an answer.", registry=self.registry,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60),
        )  # fmt: skip


class _Jobs(Collector):
    """Jobs and workers, as the store tells of them."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def collect(self) -> Iterator[Metric]:
        """Yield the figures of now."""
        counted = self._store.count()
        jobs = GaugeMetricFamily("lumiere_jobs", "Jobs by status.", labels=["status"])
        for status in ("queued", "in_progress", "completed", "failed", "cancelled"):
            jobs.add_metric([status], counted.get(status, 0))
        yield jobs
        yield GaugeMetricFamily("lumiere_queue_length", "Jobs that wait.", value=counted.get("queued", 0))
        yield GaugeMetricFamily("lumiere_clip_seconds", "Of making a clip: the mean of the last 20.",
                                value=self._store.usual_seconds())  # fmt: skip
        yield GaugeMetricFamily("lumiere_workers", "Workers that were heard of lately.", value=seen(self._store))


class _Refused(Collector):
    """Requests that the operator does not allow."""

    def __init__(self, moderator: Moderator) -> None:
        self._moderator = moderator

    def collect(self) -> Iterator[Metric]:
        """Yield the figures of now."""
        refused = CounterMetricFamily("lumiere_refused", "Requests that were not allowed.", labels=["reason"])
        for reason, count in self._moderator.refused.items():
            refused.add_metric([reason], count)
        yield refused


def seen(store: Store) -> int:
    """Return how many workers were heard of in the last half minute."""
    return sum(worker.seen_at > time.time() - _SEEN_SECONDS for worker in store.workers())


class Counted:
    """Around an ASGI application: counts and logs its requests, by their route, never by what they hold."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._metrics.seconds.observe(time.perf_counter() - began)
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            # Addresses that no route has are one: a counter for each would let anyone fill the memory.
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if route != "none" else "any"
            self._metrics.requests.labels(method, route, str(status)).inc()
            if method not in ("GET", "HEAD") or status >= 400:
                _LOG.info("%s %s %d in %.3f s", method, route, status, time.perf_counter() - began)


@router.get("/healthz", response_class=PlainTextResponse)
async def healthz() -> str:
    """Say that the server lives."""
    return "ok\n"


@router.get("/readyz", response_class=PlainTextResponse)
def readyz(parts: Parts) -> str:
    """Say whether clips can be made: the database answers, and a worker was heard of lately."""
    try:
        count = seen(parts.store)
    except SQLAlchemyError as error:
        raise ApiError(503, "the database does not answer") from error
    if not count:
        raise ApiError(503, f"no worker was heard of in {_SEEN_SECONDS:.0f} s")
    return "ok\n"


@router.get("/metrics", response_class=PlainTextResponse)
def metrics(request: Request, owner: Owner) -> Response:
    """Give figures for Prometheus."""
    return Response(generate_latest(request.app.state.metrics.registry), media_type=CONTENT_TYPE_LATEST)
