"""A maker that hands all work to a running `lumiere serve`, over its API."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx

from openlumiere.errors import LumiereError
from openlumiere.files import one_line, replacing
from openlumiere.generation import jobs
from openlumiere.generation.abilities import Abilities
from openlumiere.generation.backends.remote.wire import abilities_of, file_field, form_of
from openlumiere.generation.requests import Request, files_of

from .makers import ClipState, Status, local_file

if TYPE_CHECKING:
    from openlumiere.provenance.marking import Marker

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class ServerMaker:
    """Makes clips on a server; a `Maker`. Finished files are fetched.

    Args:
        url: of the server.
        folder: for the files; made if missing.
        key: opens the server; "" = none.
        model: of requests that name none; "" = the server's own.
        marker: of stickers that are made here, see `Maker`.

    Raises:
        LumiereError: no such address, or no server there that takes the key.
    """

    interval = 1.0

    def __init__(self, url: str, folder: Path, *, key: str = "", model: str = "", marker: Marker | None = None) -> None:
        host = urlsplit(url).hostname
        if urlsplit(url).scheme not in ("http", "https") or not host:
            raise LumiereError(f"--url {url}: give an address such as http://127.0.0.1:8000")
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder.resolve()
        self.marker = marker
        self._url, self._model = url, model
        self._client = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(30, read=120),
            trust_env=host not in _LOOPBACK,  # no proxy leads to this machine
        )
        self._suffixes: dict[str, str] = {}  # that were asked for, by the clip's id
        self._paths: dict[str, Path] = {}  # of files that were fetched
        self._naming = threading.Lock()
        self._abilities = {str(each["id"]): abilities_of(each, str(each["id"])) for each in self.models()}

    def submit(self, request: Request, *, model: str = "", suffix: str = "") -> str:
        """Take a request, see `Maker.submit`."""
        form = dict(form_of(request))
        if model or self._model:
            form["model"] = model or self._model
        with ExitStack() as opened:
            files: list[tuple[str, Any]] = []
            for name, given in files_of(request).items():
                part = file_field(request, name)
                if name == "source" and given.startswith("video_"):
                    form[part] = given
                else:
                    files.append((part, opened.enter_context(open(local_file(given, self.folder), "rb"))))
            # Without a file this would be another type of form than with one.
            parts = [(name, (None, value)) for name, value in form.items()]
            video = self._ask("POST", "/v1/videos", files=[*parts, *files]).json()
        id = str(video["id"])
        self._suffixes[id] = suffix
        return id

    def state(self, id: str) -> ClipState:
        """Return how far a clip is, see `Maker.state`; the file of a finished one is fetched."""
        video = self._ask("GET", f"/v1/videos/{id}").json()
        error = video.get("error") or {}
        status: Status = "cancelled" if error.get("code") == "cancelled" else video["status"]
        stage, step, total = video.get("stage") or "", video.get("step") or 0, video.get("total_steps") or 0
        doing = f"{stage}, step {step} of {total}" if total > 1 else stage
        if status == "queued" and video.get("position"):
            doing = f"{video['position']} before it"
        return ClipState(
            id=id, status=status, progress=int(video.get("progress") or 0), doing=doing, seed=video.get("seed"),
            path=self._fetched(video) if status == "completed" else None, command=video.get("command") or "",
            message=error.get("message") or "",
        )  # fmt: skip

    def cancel(self, id: str) -> None:
        """Stop a clip, see `Maker.cancel`."""
        self._ask("POST", f"/v1/videos/{id}/cancel")

    def fetch(self, source: str) -> Path:
        """Return a clip's or another file, see `Maker.fetch`."""
        if not source.startswith("video_"):
            return local_file(source, self.folder)
        return self.state(source).file

    def detect(self, source: str) -> dict[str, Any]:
        """Return whether a file was made by the server, see `Maker.detect`."""
        with self.fetch(source).open("rb") as file:
            found: dict[str, Any] = self._ask("POST", "/v1/detect", files={"file": file}).json()
        return found

    def abilities(self, model: str) -> Abilities:
        """Return what a model can do, see `Maker.abilities`."""
        name = model or self._model or next(iter(self._abilities), "")
        if name not in self._abilities:
            raise LumiereError(f"the server has no model {name!r}; it has {', '.join(self._abilities)}")
        return self._abilities[name]

    def models(self) -> list[dict[str, Any]]:
        """Return what each model can do, see `Maker.models`."""
        found: list[dict[str, Any]] = self._ask("GET", "/v1/videos/models").json()["data"]
        return found

    def close(self) -> None:
        """Close the connections; clips that are being made go on."""
        self._client.close()

    def _fetched(self, video: Mapping[str, Any]) -> Path:
        """The finished file, in the folder."""
        from openlumiere.video.stickers.targets import target_for

        with self._naming:  # two calls may ask for one file, or for one name
            id = str(video["id"])
            known = self._paths.get(id)
            if known is not None and known.exists():
                return known
            if video.get("sticker"):
                suffix = target_for(video["sticker"]).suffixes[0]
                wanted = {"sticker": str(video["sticker"])}
            else:
                suffix = self._suffixes.get(id) or (".webp" if video.get("transparent") else ".mp4")
                wanted = {"format": suffix.removeprefix(".")}
            path = Path(jobs.free_names(str(self.folder / jobs.slug(video["prompt"])), 1, suffix)[0])
            with replacing(path) as unfinished, open(unfinished, "wb") as file:
                for part in self._streamed(f"/v1/videos/{id}/content", wanted):
                    file.write(part)
            self._paths[id] = path
            return path

    def _streamed(self, address: str, parameters: Mapping[str, str]) -> Iterator[bytes]:
        try:
            with self._client.stream("GET", address, params=dict(parameters)) as response:
                if response.is_error:
                    response.read()
                    raise self._refused(response)
                yield from response.iter_bytes()
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def _ask(self, method: str, address: str, **more: Any) -> httpx.Response:
        try:
            response = self._client.request(method, address, **more)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        if response.is_error:
            raise self._refused(response)
        return response

    def _unreachable(self, error: httpx.HTTPError) -> LumiereError:
        return LumiereError(f"cannot reach {self._url} ({one_line(error)}); is lumiere serve running there?")

    def _refused(self, response: httpx.Response) -> LumiereError:
        if response.status_code == 401:
            return LumiereError(f"{self._url} wants a key: set LUMIERE_API_KEY to one of lumiere keys add")
        try:
            message = str(response.json()["error"]["message"])
        except (ValueError, KeyError, TypeError):
            message = f"no Lumiere server answers there: HTTP {response.status_code}"
        return LumiereError(f"{self._url}: {message}")
