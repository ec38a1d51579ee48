"""The server: one address for the page, the API and what watches over them. It imports no PyTorch."""

from __future__ import annotations

import webbrowser
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import Response

import openlumiere
from openlumiere import web
from openlumiere.errors import LumiereError
from openlumiere.provenance.identity import Identity
from openlumiere.provenance.marking import Marker

from .api import contents, detecting, health, pages, security, videos
from .api.context import Context
from .api.errors import add_handlers, error_response
from .api.events import Changes
from .api.schemas import Error
from .api.security import Gate, OurAddress, needs_key
from .jobs.keys import Keys
from .jobs.queue import Queue
from .jobs.results import Results
from .jobs.store import Store
from .moderation.moderator import Moderator
from .sandbox.limited import ProcessLimits
from .sandbox.uploads import Uploads
from .settings import Settings
from .workers.supervisor import Supervisor

_SMALL_BODY = 64 * 1024  # bytes, of what carries no files
_FORM = 256 * 1024  # bytes of a form around its files
_TAKES_FILES = (
    "/v1/videos", "/v1/videos/sync", "/v1/videos/edits", "/v1/videos/extensions", "/v1/videos/inspect", "/v1/detect",
)  # fmt: skip
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": Error} for status in (400, 401, 403, 404, 409, 411, 413, 415, 429, 503)
}


def create_app(settings: Settings) -> FastAPI:
    """Make the page and the API on a data folder.

    Raises:
        LumiereError: the database, the results, the keys or the block list cannot be used.
    """
    app = FastAPI(
        title="openlumiere", version=openlumiere.__version__, docs_url=None, redoc_url=None, openapi_url=None,
        lifespan=_until_stopped,
    )  # fmt: skip
    store, identity = Store(settings.store_url, webhooks=settings.webhooks), Identity.load()
    parts = app.state.context = Context(
        settings=settings,
        store=store,
        results=Results(settings.results_address),
        queue=Queue(settings),
        gate=Gate(settings, Keys(settings.store_url)),
        uploads=Uploads(settings.folder / "uploads", settings.uploads, ProcessLimits()),
        moderator=Moderator(settings.moderation),
        changes=Changes(store),
        identity=identity,
        marker=Marker(identity) if settings.mark else None,
    )
    metrics = app.state.metrics = health.Metrics(store, parts.moderator)
    # Videos before contents: `/v1/videos/{id}` comes after what has a name of its own.
    for room in (videos, contents, detecting, pages, health):
        app.include_router(room.router, responses=_ERRORS)
    add_handlers(app)

    @app.get("/openapi.json", include_in_schema=False)
    def openapi() -> dict[str, Any]:
        return app.openapi()

    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    # The last one added is the outermost.
    app.add_middleware(OurAddress, settings=settings)
    app.add_middleware(
        web.Guard,
        headers={**web.HEADERS, **security.HEADERS},
        largest_body=lambda path: parts.settings.uploads.bytes + _FORM if path in _TAKES_FILES else _SMALL_BODY,
        refuse=_refuse,
    )
    app.add_middleware(health.Counted, metrics=metrics)
    return app


@asynccontextmanager
async def _until_stopped(app: FastAPI) -> AsyncIterator[None]:
    yield
    await app.state.context.uploads.close()
    app.state.context.queue.close()


def _refuse(status: int, message: str) -> Response:
    return error_response(status, message)


def _openapi(app: FastAPI) -> dict[str, Any]:
    """What the API says of itself; errors of validation are told as all others, with 400."""
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, routes=app.routes, description=__doc__)
        for path in schema["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
                for status in _ERRORS:  # JSON, whatever the route gives else
                    operation["responses"][str(status)]["content"] = {
                        "application/json": {"schema": {"$ref": "#/components/schemas/Error"}}
                    }
        schema["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        schema["security"] = [{"key": []}, {}]
        app.openapi_schema = schema
    return app.openapi_schema


def serve(
    settings: Settings,
    *,
    workers: int = 1,
    device: str = "auto",
    dtype: str = "auto",
    log_level: str = "INFO",
    open_browser: bool = False,
) -> None:
    """Serve until interrupted, with workers as child processes.

    Args:
        workers: 0 = they are started elsewhere, by `lumiere worker`.
        device, dtype: of their models, as `load_pipeline`'s.
        log_level: of the workers' logs.
        open_browser: show the page in the user's browser.

    Raises:
        LumiereError: the port is taken, the data folder can't be used, or keys are needed and there are none.
    """
    if needs_key(settings) and not any(key.revoked_at is None for key in Keys(settings.store_url).list()):
        raise LumiereError(
            f"whoever reaches {settings.host} needs a key, and there is none: make one with lumiere keys add NAME, or "
            "let everyone in with --no-keys"
        )
    app = create_app(settings)
    taken = web.listen(settings.host, settings.port)
    address = web.address_of(settings.host, taken)
    print(f"open {address}  (Ctrl-C ends)", flush=True)
    if open_browser:
        webbrowser.open(address)  # who comes before the server is up waits for it
    supervisor = Supervisor(settings, count=workers, device=device, dtype=dtype, log_level=log_level)
    supervisor.start()
    try:
        web.run_server(app, taken, on_stop=app.state.context.changes.close)
    finally:
        supervisor.stop()
