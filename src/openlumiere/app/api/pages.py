"""The page: its files, and the cookie that it gets for a key."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response

import openlumiere
from openlumiere import web

from .context import Parts
from .errors import ApiError, missing
from .schemas import Session, SessionLimits
from .security import COOKIE

router = APIRouter()
FOLDER = Path(__file__).parents[1] / "page"
_COOKIE_SECONDS = 90 * 86400
_BODY = {"content": {"application/x-www-form-urlencoded": {"schema": {
    "type": "object", "required": ["key"], "properties": {"key": {"type": "string"}}, "examples": [{"key": "lumiere_…"}]
}}}}  # fmt: skip


@router.get("/", response_class=HTMLResponse)
@router.get("/v/{id}", response_class=HTMLResponse)
def page() -> Response:
    """Give the page; it shows the clip that its address names."""
    return _file("index.html")


@router.get("/page/{name:path}", response_class=FileResponse)
def file(name: str) -> Response:
    """Give a file of the page."""
    return _file(name)


def _file(name: str) -> Response:
    found = web.page_file(FOLDER, name)
    if found is None:
        raise missing("file")
    return found


@router.post("/login", status_code=303, response_class=RedirectResponse, openapi_extra={"requestBody": _BODY})
async def login(request: Request, parts: Parts) -> Response:
    """Exchange a key for a cookie that no script reads."""
    form = parse_qs((await request.body()).decode("utf-8", "replace"))
    key = form.get("key", [""])[0].strip()
    if await run_in_threadpool(parts.gate.check, request, key) is None:
        raise ApiError(401, "that is no key of this server", param="key")
    response = RedirectResponse("/", status_code=303)
    response.set_cookie(
        COOKIE, key, max_age=_COOKIE_SECONDS, httponly=True, samesite="strict", secure=request.url.scheme == "https"
    )
    return response


@router.post("/logout", status_code=303, response_class=RedirectResponse)
def logout() -> Response:
    """Forget the key."""
    response = RedirectResponse("/", status_code=303)
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return response


@router.get("/v1/session")
def session(request: Request, parts: Parts) -> Session:
    """Say whether a key is needed and given, and how much may be asked for."""
    needed = parts.gate.keys_needed
    limits = {**vars(parts.settings.uploads), **vars(parts.settings.requests)}
    return Session(
        signed_in=not needed or parts.gate.signed_in(request) is not None,
        keys_needed=needed,
        limits=SessionLimits(**{name: limits[name] for name in SessionLimits.model_fields}),
        version=openlumiere.__version__,
    )
