"""Models of other servers that speak ``/v1/videos``: another `lumiere serve`, vLLM-Omni, SGLang.

What the client does so that no clip is made, and paid, twice: beside the output lies a ticket (`ticket`) from
before a request is sent until its clip is here. Whoever finds it goes on with that clip.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openlumiere.errors import LumiereError
from openlumiere.files import one_line
from openlumiere.generation.abilities import Abilities, Fitted
from openlumiere.generation.backends.base import Backend, Clip, Loading
from openlumiere.generation.backends.source import Source
from openlumiere.generation.jobs import has_alpha, holds_alpha, wants_alpha
from openlumiere.generation.progress import Cancelled, Paused, Watch
from openlumiere.generation.recipe import ModelIdentity
from openlumiere.generation.requests import AnimateRequest, Request, UpscaleRequest, files_of

from .server import Address, Patience, Refused, Server, Uncertain
from .ticket import Ticket, hash_of, read_ticket, remove_ticket, ticket_path
from .wire import abilities_of, file_field, form_of

if TYPE_CHECKING:
    import httpx

_ASK = Patience(connect=5.0, read=10.0)  # what it can do: short, since commands and the page wait for it
_FAILED = ("failed", "cancelled", "canceled", "expired", "error")
# What servers that do not say what they can do take at least. 81 frames suit models that make 4k+1 and 8k+1.
_ANY: dict[str, Any] = {"tasks": ("generate", "animate"), "last_frame": False, "resizable": True, "num_frames": 81}
_ANYS_FIELDS = (
    "prompt", "negative_prompt", "seed", "num_inference_steps", "guidance_scale", "num_frames", "fps", "size"
)  # fmt: skip
_CLOCKS = 120.0  # seconds by which two machines' may differ


@dataclass(frozen=True)
class _Offer:
    """What a server says of a model.

    Attributes:
        name: of the model there; "" = it has only one, which needs none.
        ours: the server is a `lumiere serve`, which takes all fields, and gives lossless clips.
        again: it takes an ``Idempotency-Key``.
    """

    abilities: Abilities
    name: str
    ours: bool
    again: bool


@dataclass(frozen=True)
class RemoteBackend(Backend):
    """A model of another server.

    Attributes:
        url: of the server.
        offer: what it says of the model.
        patience: how long its silence is borne.
    """

    url: str
    offer: _Offer
    patience: Patience = field(default_factory=Patience)

    def fit(self, request: Request) -> Fitted:
        """Make every choice that a request leaves to the model; see `Backend.fit`.

        A clip that the server has begun for this output keeps its seed.
        """
        fitted = super().fit(request)
        settled, changes = fitted.request, [*fitted.changes]
        if self.abilities.transparent:
            settled = replace(settled, transparent=_keeps_alpha(settled))
        if not self.offer.ours and getattr(settled, "feather", None):
            changes.append(f"feather: {self.name} takes none; left out")
        ticket = read_ticket(self.url, self.offer.name, settled)
        if ticket is not None and ticket.seed != settled.seed:
            path = ticket_path(request.output)
            changes.append(f"seed: {ticket.seed}, of the clip that {self.url} has begun; to begin anew remove {path}")
            settled = replace(settled, seed=ticket.seed)
        return Fitted(settled, tuple(changes))

    def make(self, request: Request, watch: Watch) -> Clip:
        """Have the server make a clip, and fetch it; see `Backend.make`.

        Its ticket lies beside the output until the clip is here, or is not to be. `Cancelled` and an interruption
        cancel it there; after `Paused`, after other errors, or when the process dies, the next call goes on with it.
        """
        with Server(self.url, self.patience, watch) as server:
            ticket = self._ticket(request, server, watch)
            try:
                self._follow(server, ticket.id, watch)
                clip = self._fetched(server, ticket.id)
            except Paused:
                raise
            except (Cancelled, KeyboardInterrupt) as stopped:
                self._cancel(server, ticket, request, stopped)
                raise
            except LumiereError as error:
                if isinstance(error, Refused) and error.status in (404, 410):
                    remove_ticket(request.output)
                    raise
                raise LumiereError(
                    f"{error}; {ticket_path(request.output)} keeps its id: the same command goes on with {ticket.id}"
                ) from error
            remove_ticket(request.output)
            return clip

    # ------------------------------------------------------------------------------------------ asking

    def _ticket(self, request: Request, server: Server, watch: Watch) -> Ticket:
        """The ticket of the clip that the server makes, which is asked for unless it has been."""
        assert request.seed is not None  # as `fit` sets it
        ticket = read_ticket(self.url, self.offer.name, request)
        if ticket is not None and ticket.id:
            return ticket
        if ticket is not None and not self.offer.again:
            return self._found(ticket, request, server, "the request may have been sent")
        ticket = ticket or Ticket(server=self.url, model=self.offer.name, request=hash_of(request), seed=request.seed)
        ticket.write(request.output)
        watch.tell("text", 0, 1)
        try:
            response = self._send(request, server, ticket.key)
        except Uncertain as lost:
            return self._found(ticket, request, server, f"there was no answer ({lost})")
        except (LumiereError, Cancelled) as error:
            if server.may_have_begun:
                error.add_note(f"{ticket_path(request.output)} keeps its key: the same command goes on")
            else:
                remove_ticket(request.output)
            raise
        id = _object(response).get("id")
        if not isinstance(id, str) or not id:
            raise LumiereError(f"{self.url} gave no id of a video; is that a server of /v1/videos?")
        ticket = ticket.with_id(id)
        ticket.write(request.output)
        watch.tell("text", 1, 1)
        return ticket

    def _send(self, request: Request, server: Server, key: str) -> httpx.Response:
        # Without a file this would be another type of form than with one.
        parts: list[Any] = [(name, (None, text)) for name, text in self._form(request, key).items()]
        for name, path in files_of(request).items():
            part = file_field(request, name) if self.offer.ours else "input_reference"
            parts.append((part, self._file(request, name, Path(path))))
        return server.begin("/v1/videos", again=self.offer.again, files=parts, headers={"Idempotency-Key": key})

    def _form(self, request: Request, key: str) -> dict[str, str]:
        if self.offer.ours:
            form = dict(form_of(replace(request, sticker=None)))  # a sticker is made here, of the clip
        else:
            form = {name: text for name, text in form_of(request) if name in _ANYS_FIELDS}
            form |= {"fps": f"{round(float(form['fps']))}"} if "fps" in form else {}
            form["user"] = key  # some tell it again with the clip
        return {**form, **({"model": self.offer.name} if self.offer.name else {})}

    def _file(self, request: Request, name: str, path: Path) -> tuple[str, bytes]:
        """A file as it is sent: a folder of frames as a clip, a picture at its size where nobody fits it there."""
        with tempfile.TemporaryDirectory(prefix="lumiere-") as folder:
            if path.is_dir():
                from openlumiere.video import read_clip, write_clip

                clip = read_clip(path)
                path = write_clip(clip.frames, Path(folder, f"{name}.webp"), fps=clip.fps, lossless=True)
            elif not self.offer.ours and isinstance(request, AnimateRequest) and request.size is not None:
                from openlumiere.video import fit, read_picture

                picture, (width, height) = read_picture(path, background=request.background), request.size
                path = Path(folder, "picture.png")
                fit(picture, (height, width), request.fit).save(path)
            return path.name, path.read_bytes()

    def _found(self, ticket: Ticket, request: Request, server: Server, why: str) -> Ticket:
        """The ticket with the id of the clip, by the key that the server tells again.

        Raises:
            LumiereError: it tells none; sending again might make a second clip.
        """
        others = []
        for video in server.videos():
            if ticket.key in map(str, _texts(video)):
                found = ticket.with_id(str(video["id"]))
                found.write(request.output)
                return found
            if float(video.get("created_at") or 0) >= ticket.sent_at - _CLOCKS:
                others.append(str(video.get("id")))
        path = ticket_path(request.output)
        seen = f"clips that it tells of since then: {', '.join(others[:5])}" if others else "it tells of none yet"
        raise LumiereError(
            f"{self.url}: {why}, so that it may be making the clip ({seen}); to go on with one write its id into "
            f"{path}, to ask anew remove that file"
        )

    # ------------------------------------------------------------------------------------------ following

    def _follow(self, server: Server, id: str, watch: Watch) -> None:
        """Wait for a clip and tell of its steps."""
        while True:
            response = server.read(f"/v1/videos/{id}")
            video = _object(response)
            status = video.get("status")
            if status == "completed":
                return
            if status in _FAILED:
                error = video.get("error")
                message = error.get("message") if isinstance(error, dict) else error
                raise Refused(one_line(f"{self.url}: {message or f'the clip {id} is {status}'}", 500), 410)
            if not isinstance(status, str):
                raise LumiereError(f"{self.url} tells nothing of the clip; is that a server of /v1/videos?")
            watch.tell("denoise", min(_whole(video.get("progress")), 99), 100, note=_doing(video))
            ours = response.headers.get("openai-poll-after-ms", "")
            server.wait(min(int(ours) / 1000, 30) if ours.isdecimal() else self.patience.poll)

    def _fetched(self, server: Server, id: str) -> Clip:
        from openlumiere.provenance.marking import RECIPE_KEY, payload_in
        from openlumiere.video import read_clip, read_metadata

        wanted = {"format": "webp"} if self.offer.ours else {}  # of our servers' formats the one without loss
        with tempfile.TemporaryDirectory(prefix="lumiere-") as folder:
            path = server.download(f"/v1/videos/{id}/content", Path(folder), params=wanted)
            clip, recipe = read_clip(path), read_metadata(path)
        marked = self.offer.ours and payload_in(recipe) is not None
        return Clip(clip.frames, clip.fps, watermark=str(recipe[RECIPE_KEY]) if marked else "")

    def _cancel(self, server: Server, ticket: Ticket, request: Request, stopped: BaseException) -> None:
        """Cancel a clip there; where that fails its ticket stays, and the exception says so."""
        way = ("POST", f"/v1/videos/{ticket.id}/cancel") if self.offer.ours else ("DELETE", f"/v1/videos/{ticket.id}")
        try:
            response = server.once(*way)
            if response.is_error and response.status_code not in (404, 409):
                raise server.refused(response)
        except LumiereError as error:
            stopped.add_note(f"{error}; {ticket.id} may still be made there: the same command goes on with it")
            return
        remove_ticket(request.output)


# -------------------------------------------------------------------------------------------------- loading


def load(source: Source, loading: Loading) -> RemoteBackend:
    """Reach a model of another server, see `find.load_backend`."""
    if loading.quantize or loading.compile or loading.offload or loading.devices:
        raise LumiereError(
            f"{source.name} runs elsewhere: devices, quantizing, compiling and offloading are chosen there"
        )
    address = Address.of(source.name)
    offer = _offer(source.name)
    licence = offer.abilities.licence
    name = f"{address.url}#{offer.name}" if offer.name else address.url
    notes = (f"LICENCE: non-commercial; {licence}",) if offer.abilities.commercial is False else ()
    return RemoteBackend(offer.abilities, ModelIdentity(name=name, licence=licence), address.url, offer, notes=notes)


def read_abilities(source: Source) -> Abilities:
    """Ask a server what a model can do, see `find.read_abilities`."""
    return _offer(source.name).abilities


def _offer(model: str) -> _Offer:
    address = Address.of(model)
    with Server(address.url, _ASK) as server:
        answer = server.once("GET", "/v1/videos/models")
        if answer.status_code in (401, 403) or answer.status_code >= 500:
            raise server.refused(answer)
        told = _object(answer) if answer.is_success else {}
        every = [each for each in told.get("data") or () if isinstance(each, dict)]
        if any("tasks" in each for each in every):
            named = {str(each.get("id")): each for each in every}
            default = next((str(each.get("id")) for each in every if each.get("default")), next(iter(named)))
            name = address.name or default
            if name not in named:
                raise LumiereError(f"{address.url} has no model {name!r}; it has {', '.join(named)}")
            return _Offer(abilities_of(named[name], model), name, ours=True, again=told.get("idempotency") is True)
        listed = server.once("GET", "/v1/models")
        if listed.status_code in (401, 403):
            raise server.refused(listed)
    names = [str(each["id"]) for each in _object(listed).get("data") or () if isinstance(each, dict) and "id" in each]
    if names and address.name and address.name not in names:
        raise LumiereError(f"{address.url} has no model {address.name!r}; it has {', '.join(names)}")
    name = address.name or next(iter(names), "")
    return _Offer(Abilities(model=model, family="remote", **_ANY), name, ours=False, again=False)


def _object(response: httpx.Response) -> dict[str, Any]:
    try:
        told = response.json()
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _texts(value: Any) -> list[str]:
    """All texts in a JSON value."""
    if isinstance(value, Mapping):
        return [text for inner in value.values() for text in _texts(inner)]
    if isinstance(value, list):
        return [text for inner in value for text in _texts(inner)]
    return [value] if isinstance(value, str) else []


def _doing(video: Mapping[str, Any]) -> str:
    """What the server does, in words."""
    if video.get("status") == "queued":
        return f"waiting, {position} before it" if (position := video.get("position")) else "waiting"
    stage, step, total = str(video.get("stage") or "at work"), video.get("step"), _whole(video.get("total_steps"))
    return f"{stage}, step {step} of {total}" if total > 1 else stage


def _whole(value: Any) -> int:
    return int(value) if isinstance(value, (int, float)) else 0


def _keeps_alpha(request: Request) -> bool | None:
    """Whether a clip keeps its alpha; None where there is none to keep."""
    if isinstance(request, UpscaleRequest):
        if not has_alpha(Path(request.source)):
            return request.transparent  # the server says what is wrong with True
        return request.transparent is not False and holds_alpha(request)
    return wants_alpha(request) and holds_alpha(request)
