"""Errors as OpenAI's API tells them: ``{"error": {"code", "message", "param", "type"}}``."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from openlumiere.app.jobs.store import QueueFull, QuotaReached
from openlumiere.app.moderation.moderator import NotAllowed, NotChecked
from openlumiere.app.sandbox.uploads import Busy
from openlumiere.errors import LumiereError
from openlumiere.files import one_line

logger = logging.getLogger("openlumiere.app")

# Code and type of each status that is told without one of its own.
_KINDS = {
    400: ("invalid_request", "invalid_request_error"),
    401: ("invalid_api_key", "authentication_error"),
    403: ("forbidden", "permission_error"),
    404: ("not_found", "invalid_request_error"),
    405: ("method_not_allowed", "invalid_request_error"),
    409: ("conflict", "invalid_request_error"),
    411: ("length_required", "invalid_request_error"),
    413: ("too_large", "invalid_request_error"),
    415: ("unsupported_media_type", "invalid_request_error"),
    429: ("rate_limit_exceeded", "rate_limit_error"),
    500: ("server_error", "server_error"),
    503: ("unavailable", "server_error"),
}


class ApiError(Exception):
    """What a request is answered instead of what it asked for.

    Args:
        status: of HTTP.
        param: the field of the request that is wrong.
        code: None = the usual one of the status.
        retry_after: seconds until it may be tried again.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code
        self.headers = {} if retry_after is None else {"Retry-After": str(max(math.ceil(retry_after), 1))}

    def response(self) -> Response:
        """Return the error as a response."""
        return error_response(self.status, str(self), param=self.param, code=self.code, headers=self.headers)


def error_response(
    status: int,
    message: str,
    *,
    param: str | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return an error in OpenAI's form."""
    usual, kind = _KINDS.get(status, _KINDS[400])
    told = {"code": code or usual, "message": message, "param": param, "type": kind}
    return JSONResponse({"error": told}, status_code=status, headers=dict(headers or {}))


def missing(what: str = "video") -> ApiError:
    """Return the error of what is not there, or another's."""
    return ApiError(404, f"there is no such {what}", code=f"{what}_not_found")


def add_handlers(app: FastAPI) -> None:
    """Have an application tell all errors in this form."""

    @app.exception_handler(ApiError)
    async def told(_request: Request, error: ApiError) -> Response:
        return error.response()

    @app.exception_handler(QueueFull)
    async def full(_request: Request, error: QueueFull) -> Response:
        code = "quota_exceeded" if isinstance(error, QuotaReached) else "queue_full"
        return ApiError(429, one_line(error), code=code, retry_after=error.retry_after).response()

    @app.exception_handler(Busy)
    async def busy(_request: Request, error: Busy) -> Response:
        return ApiError(503, one_line(error), retry_after=5).response()

    @app.exception_handler(NotAllowed)
    async def refused(_request: Request, error: NotAllowed) -> Response:
        return ApiError(400, one_line(error), param=error.param, code="content_policy_violation").response()

    @app.exception_handler(NotChecked)
    async def unchecked(_request: Request, error: NotChecked) -> Response:
        return ApiError(503, one_line(error), code="moderation_unavailable", retry_after=30).response()

    @app.exception_handler(LumiereError)
    async def bad(_request: Request, error: LumiereError) -> Response:
        return error_response(400, one_line(error, 500))

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> Response:
        return invalid_response(error.errors())

    @app.exception_handler(HTTPException)
    async def plain(_request: Request, error: HTTPException) -> Response:
        return error_response(error.status_code, one_line(str(error.detail)), headers=error.headers)

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> Response:
        # Starlette logs the traceback; whoever asked learns no more than that it is our fault.
        return error_response(500, "something went wrong here; the server's log says what")


def invalid_response(errors: Any) -> Response:
    """Return the first of pydantic's errors."""
    first = errors[0]
    where = [str(part) for part in first["loc"] if part not in ("body", "query", "path", "header", "cookie")]
    param = ".".join(where) or None
    message = one_line(f"{param}: {first['msg']}" if param else first["msg"])
    return error_response(400, message, param=param)
