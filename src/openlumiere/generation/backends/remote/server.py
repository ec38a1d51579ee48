"""Another server's ``/v1/videos``: its answers, and what is done where there is none.

What only reads is asked again until it is answered. What begins a clip is sent again only where nothing was sent, where
the server refused it, or where it takes an ``Idempotency-Key``.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from openlumiere import extras
from openlumiere.errors import LumiereError
from openlumiere.files import one_line
from openlumiere.generation.progress import Watch

if TYPE_CHECKING:
    import httpx

KEY_VARIABLES = ("LUMIERE_API_KEY", "OPENAI_API_KEY")
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_LOOK_SECONDS = 0.2  # between two looks whether to stop
_LONGEST_PAUSE = 30.0  # seconds
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Patience:
    """Seconds.

    Attributes:
        connect, read: for a connection, and for the next bytes of an answer.
        send: for the answer to a request with files.
        silence: that a server may not answer before it is given up.
        busy: that it may ask to wait, in all.
        poll: between two questions how far a clip is, unless the server says otherwise.
        pause: before the first repetition; doubled each time.
    """

    connect: float = 10.0
    read: float = 30.0
    send: float = 120.0
    silence: float = 600.0
    busy: float = 3600.0
    poll: float = 1.0
    pause: float = 1.0


class Refused(LumiereError):  # noqa: N818 - what HTTP calls it
    """A server answered with an error of whoever asks; `status` is HTTP's."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Uncertain(Exception):  # noqa: N818 - a state, not an error
    """A request was sent, and whether the server has it is not known."""


@dataclass(frozen=True)
class Address:
    """What ``http://HOST:PORT#NAME`` says.

    Attributes:
        url: of the server.
        name: of the model there; "" = its own choice.
    """

    url: str
    name: str

    @classmethod
    def of(cls, model: str) -> Address:
        """Read a model's name.

        Raises:
            LumiereError: no host, or a password, which would end in files and logs.
        """
        parts = urlsplit(model)
        if parts.username or parts.password or parts.query:
            raise LumiereError(f"the address of a model holds no key; set {KEY_VARIABLES[0]} instead")
        if not parts.hostname:
            raise LumiereError(f"{model}: give an address such as http://127.0.0.1:8000#emoji")
        path = parts.path.rstrip("/").removesuffix("/v1")
        return cls(f"{parts.scheme}://{parts.netloc}{path}", parts.fragment)


class Server:
    """The connection to a server.

    Args:
        watch: asked, while something is waited for, whether to stop.
    """

    def __init__(self, url: str, patience: Patience, watch: Watch | None = None) -> None:
        extras.require("httpx")
        import httpx

        self.url, self._patience, self._watch = url, patience, watch or Watch()
        self.may_have_begun = False  # whether what begins a clip was sent, and not refused
        key = next((value for name in KEY_VARIABLES if (value := os.environ.get(name))), "")
        self._client = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(patience.read, connect=patience.connect),
            trust_env=urlsplit(url).hostname not in _LOOPBACK,  # no proxy leads to this machine
        )

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def once(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Ask once, whatever is answered.

        Raises:
            LumiereError: nothing is.
        """
        import httpx

        try:
            return self._client.request(method, path, **more)
        except httpx.HTTPError as error:
            raise self.unreachable(error) from error

    def read(self, path: str, **more: Any) -> httpx.Response:
        """Get an answer, asking again until there is one.

        Raises:
            LumiereError: there is none for too long, or it is a refusal.
        """
        return self._insist(lambda: self._client.get(path, **more))

    def download(self, path: str, folder: Path, **more: Any) -> Path:
        """Fetch a file whole, from its start again where the connection is cut; its suffix is that of its type.

        Raises:
            LumiereError: as `read`.
        """

        def fetch() -> httpx.Response:
            # Storage elsewhere is not sent the key: httpx leaves it out.
            with self._client.stream("GET", path, follow_redirects=True, **more) as response:
                if response.is_error:
                    response.read()
                    return response
                kind = response.headers.get("content-type", "").partition(";")[0].strip()
                fetched.append(folder / f"clip{_SUFFIXES.get(kind, '.mp4')}")
                with open(fetched[-1], "wb") as file:
                    for part in response.iter_bytes():
                        self._watch.ask()
                        file.write(part)
                return response

        fetched: list[Path] = []
        self._insist(fetch)
        return fetched[-1]

    def begin(self, path: str, *, again: bool, **more: Any) -> httpx.Response:
        """Send what begins a clip. Whatever is raised, `may_have_begun` says whether the server may have it.

        Args:
            again: the server takes it for the same, however often it is sent.

        Raises:
            LumiereError: the server refused it, or cannot be reached.
            Uncertain: it was sent, and there was no answer.
        """
        import httpx

        timeout = httpx.Timeout(self._patience.send, connect=self._patience.connect)

        def attempt() -> httpx.Response:
            try:
                response = self._client.post(path, timeout=timeout, **more)
            except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout):
                raise  # nothing was sent
            except BaseException as error:
                self.may_have_begun = True
                if again or not isinstance(error, httpx.HTTPError):
                    raise
                raise Uncertain(one_line(error)) from error
            if response.status_code >= 500 and not _is_busy(response):
                self.may_have_begun = True
                if not again:
                    raise Uncertain(f"HTTP {response.status_code}")
            return response

        return self._insist(attempt)

    def _insist(self, attempt: Callable[[], httpx.Response]) -> httpx.Response:
        import httpx

        silent_since: float | None = None
        waited, pause = 0.0, self._patience.pause
        while True:
            try:
                response = attempt()
            except httpx.HTTPError as error:
                failure = self.unreachable(error)
            else:
                if response.is_success:
                    return response
                failure = self.refused(response)
                if _is_busy(response):
                    seconds = _seconds(response.headers.get("retry-after"), pause)
                    waited += seconds
                    if waited > self._patience.busy:
                        raise LumiereError(f"{failure}; try again in {seconds:.0f} s")
                    self._pause(seconds, f"{failure}; asked again in {seconds:.0f} s")
                    silent_since = None
                    continue
                if response.status_code < 500:
                    raise failure
            now = time.monotonic()
            silent_since = now if silent_since is None else silent_since
            if now - silent_since + pause > self._patience.silence:
                raise failure
            self._pause(pause, f"{failure}; asked again in {pause:.0f} s")
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _pause(self, seconds: float, why: str) -> None:
        _LOG.warning("%s", why)
        self.wait(seconds, why)

    def wait(self, seconds: float, why: str = "") -> None:
        """Wait, and ask meanwhile whether to stop.

        Args:
            why: is told.
        """
        if why:
            self._watch.tell("text", 0, 1, note=why)
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._watch.ask()
            time.sleep(min(left, _LOOK_SECONDS))
        self._watch.ask()

    def videos(self, most: int = 100) -> Iterator[Mapping[str, Any]]:
        """Yield the newest clips that the server tells of; none where it lists none."""
        try:
            listed = self.read("/v1/videos", params={"limit": most, "order": "desc"}).json()["data"]
        except (LumiereError, ValueError, KeyError, TypeError):
            return
        yield from (video for video in listed if isinstance(video, dict))

    def unreachable(self, error: BaseException) -> LumiereError:
        """Return the line that says that there was no answer."""
        return LumiereError(f"cannot reach {self.url} ({one_line(error)}); is the server running there?")

    def refused(self, response: httpx.Response) -> Refused:
        """Return the line that a refusal says."""
        status = response.status_code
        if status == 401:
            return Refused(f"{self.url} wants a key: set {' or '.join(KEY_VARIABLES)}", status)
        return Refused(one_line(f"{self.url}: {_message(response) or f'HTTP {status}'}", 500), status)


_SUFFIXES = {"video/webm": ".webm", "video/quicktime": ".mov", "image/webp": ".webp", "image/gif": ".gif",
             "image/apng": ".apng"}  # fmt: skip


def _is_busy(response: httpx.Response) -> bool:
    """Whether a server has refused a request now, and says that it may take it later."""
    return response.status_code == 429 or (response.status_code == 503 and "retry-after" in response.headers)


def _message(response: httpx.Response) -> str:
    """What a server says of an error: OpenAI's form, FastAPI's, or others'."""
    try:
        told = response.json()
    except ValueError:
        return ""
    if not isinstance(told, dict):
        return ""
    error = told.get("error", told.get("detail", told.get("message", "")))
    if isinstance(error, dict):
        error = error.get("message", "")
    if isinstance(error, list) and error and isinstance(error[0], dict):  # pydantic's
        error = f"{'.'.join(map(str, error[0].get('loc', ())[-1:]))}: {error[0].get('msg', '')}"
    return error if isinstance(error, str) else ""


def _seconds(text: str | None, default: float) -> float:
    try:
        return max(float(text or ""), 0.1)
    except ValueError:
        return max(default, 0.1)
