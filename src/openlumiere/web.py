"""What our two servers, the study's and the app's, share: a socket, headers, limits on bodies, files of a page."""

from __future__ import annotations

import errno
import mimetypes
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import uvicorn
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from openlumiere.errors import LumiereError

HEADERS = {
    "Referrer-Policy": "no-referrer",  # addresses hold ids that nobody should learn
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
}
_TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}


def refusal(status: int, message: str) -> Response:
    """Return an error as FastAPI writes its own."""
    return JSONResponse({"detail": message}, status_code=status)


class Guard:
    """Around an ASGI application: headers on every response, and no body larger than allowed.

    The server reads no more of a body than its Content-Length says, so that what it says can be believed.

    Args:
        headers: of all responses; those that a response has already stay.
        largest_body: bytes; a number, or a function of the request's path.
        refuse: makes the response to what is too large, of a status and a line.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        headers: Mapping[str, str],
        largest_body: int | Callable[[str], int],
        refuse: Callable[[int, str], Response] = refusal,
    ) -> None:
        self._app, self._headers, self._refuse = app, headers, refuse
        self._largest = largest_body if callable(largest_body) else lambda _path: largest_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in {**self._headers, "Cache-Control": "no-store"}.items():
                    headers.setdefault(name, value)
            await send(message)

        respond = self._too_large(Headers(scope=scope), self._largest(scope["path"])) or self._app
        await respond(scope, receive, with_headers)

    def _too_large(self, headers: Headers, largest: int) -> Response | None:
        if "transfer-encoding" in headers:
            return self._refuse(411, "say how long the body is: send Content-Length, not chunks")
        length = headers.get("content-length", "0")
        if not length.isdecimal():
            return self._refuse(400, "Content-Length is no number")
        if int(length) > largest:
            return self._refuse(413, f"the body has {length} bytes; at most {largest} are taken")
        return None


def page_file(folder: Path, name: str) -> FileResponse | None:
    """Return a file of a page, that browsers ask for again each time; None where the page has none of that name.

    Args:
        folder: that the page's files lie in.
        name: below `folder`, as the address has it.
    """
    if name not in {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}:
        return None
    suffix = Path(name).suffix
    kind = _TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
    return FileResponse(folder / name, media_type=kind, headers={"Cache-Control": "no-cache"})


def listen(host: str, port: int) -> socket.socket:
    """Take a port, 0 for any free one.

    Raises:
        LumiereError: it is taken, or not to be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        taken = socket.socket(family, kind, protocol)
        if sys.platform != "win32":  # a server that is started again need not wait for old connections to time out
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(address)
        taken.listen(128)  # who comes before the server is up waits for it
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise LumiereError(f"port {port} is taken; stop what uses it, or choose another with --port") from error
        reason = error.strerror or error
        raise LumiereError(
            f"cannot listen on {host}, port {port} ({reason}); choose another --host or --port"
        ) from error
    return taken


def address_of(host: str, taken: socket.socket) -> str:
    """Return what to open in a browser."""
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{taken.getsockname()[1]}/"


def run_server(app: ASGIApp, taken: socket.socket, *, on_stop: Callable[[], None] | None = None) -> None:
    """Serve an application on a socket until interrupted.

    Args:
        on_stop: called first of all then; lets go of those whose answers never end.
    """

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            if on_stop is not None:
                on_stop()
            await super().shutdown(sockets)

    # No access log: it would hold addresses, and with them ids and tokens.
    # Idle connections stay longer than clients and proxies keep theirs: who closes first may cut off a request.
    config = uvicorn.Config(
        app, access_log=False, log_level="warning", timeout_graceful_shutdown=3, timeout_keep_alive=75
    )
    Server(config).run([taken])
