"""Who asks, whether the address that they used is ours, and how often.

On loopback everyone is "local". Elsewhere a key is needed: in the ``Authorization`` header, or in the cookie that the
page gets for it. A page of another site can't do anything here: its requests have its own ``Origin``, the cookie stays
away from them, and a name of its own that it points to this machine (DNS rebinding) is none of the server's.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from openlumiere.app.jobs.keys import Keys
from openlumiere.app.settings import Settings

from .errors import ApiError

COOKIE = "lumiere-key"
LOCAL = "local"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; connect-src 'self'; font-src 'self'; manifest-src 'self'; worker-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=(), display-capture=()",
    "X-Frame-Options": "DENY",
}
_SAFE = ("GET", "HEAD", "OPTIONS")
_LONGEST_KEY = 200  # characters
_NAMES = 10_000  # that a bucket remembers before it looks for those that it may forget


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches what listens on a host."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def needs_key(settings: Settings) -> bool:
    """Return whether requests need a key."""
    return not is_loopback(settings.host) if settings.keys is None else settings.keys


class Bucket:
    """So many calls a minute for each name, all of which may come at once.

    Args:
        per_minute: calls.
        clock: seconds.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = float(per_minute), clock
        self._left: dict[str, tuple[float, float]] = {}  # calls left, and when that was
        self._sweep = _NAMES

    def wait(self, name: str) -> float:
        """Return how many seconds a name has to wait; 0 = it may call now."""
        return max(1 - self._now(name), 0) * 60 / self._most

    def take(self, name: str) -> None:
        """Count a call."""
        if len(self._left) >= self._sweep:  # those who have waited long enough are as good as new
            self._left = {key: kept for key, kept in self._left.items() if self._now(key) < self._most}
            self._sweep = max(2 * len(self._left), _NAMES)
        self._left[name] = (self._now(name) - 1, self._clock())

    def _now(self, name: str) -> float:
        left, since = self._left.get(name, (self._most, 0.0))
        return min(self._most, left + (self._clock() - since) * self._most / 60)


class Gate:
    """Says whose request it is.

    Args:
        keys: those that open the server.
    """

    def __init__(self, settings: Settings, keys: Keys) -> None:
        self.keys_needed = needs_key(settings)
        self._keys, self._limits = keys, settings.requests
        self._calls, self._wrong = Bucket(self._limits.per_minute), Bucket(self._limits.wrong_keys_per_minute)

    def owner(self, request: Request) -> str:
        """Return the id of the key that asks, "local" where none is needed; counts the request.

        Raises:
            ApiError: no key or a wrong one (401), or too many requests (429).
        """
        address = request.client.host if request.client else "?"
        owner = self.signed_in(request) if self.keys_needed else LOCAL
        if owner is None:
            raise ApiError(401, "give a key: Authorization: Bearer KEY; the operator makes one with: lumiere keys add")
        name = owner if self.keys_needed else address
        if wait := self._calls.wait(name):
            raise ApiError(429, f"more than {self._limits.per_minute} requests a minute", retry_after=wait)
        self._calls.take(name)
        return owner

    def signed_in(self, request: Request) -> str | None:
        """Return the id of the key that a request carries; None = none, or a wrong one."""
        scheme, _, secret = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and secret:
            return self.check(request, secret.strip())
        return self.check(request, request.cookies.get(COOKIE, ""))

    def check(self, request: Request, secret: str) -> str | None:
        """Return the id of a key; None = there is none such.

        Raises:
            ApiError: too many wrong ones (429).
        """
        address = request.client.host if request.client else "?"
        if not secret:
            return None
        if wait := self._wrong.wait(address):
            raise ApiError(429, "too many wrong keys; try again later", retry_after=wait)
        key = self._keys.check(secret) if len(secret) <= _LONGEST_KEY else None
        if key is None:
            self._wrong.take(address)
        return None if key is None else key.id


class OurAddress:
    """Around an ASGI application: refuses requests to another host's name, and what other sites' pages send."""

    def __init__(self, app: ASGIApp, *, settings: Settings) -> None:
        self._app = app
        own = ("localhost", socket.gethostname(), settings.host, *settings.hosts)
        self._names = {name.lower() for name in own}
        self._loopback_only = is_loopback(settings.host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        error = self._wrong(Request(scope)) if scope["type"] == "http" else None
        await (error.response() if error else self._app)(scope, receive, send)

    def _wrong(self, request: Request) -> ApiError | None:
        host = request.headers.get("host", "")
        if not self._is_ours(host):
            return ApiError(403, "this server is not called that; use the address that it was started with")
        if request.method in _SAFE:
            return None
        origin = request.headers.get("origin")
        foreign = origin is not None and urlsplit(origin).netloc.lower() != host.lower()
        if foreign or request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return ApiError(403, "requests from another site's page are refused")
        return None

    def _is_ours(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            return False
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return name in self._names
        # A page of another site has a name; whoever uses numbers means this machine.
        return address.is_loopback or not self._loopback_only
