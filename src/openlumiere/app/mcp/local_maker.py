"""Clips for assistants, made by this process, one after the other."""

from __future__ import annotations

import asyncio
import itertools
import logging
import queue
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from openlumiere.app.moderation.moderator import Moderator
from openlumiere.app.moderation.stills import stills
from openlumiere.bundled import DEFAULT_MODEL, bundled_models
from openlumiere.errors import LumiereError
from openlumiere.files import one_line, remove_leftovers
from openlumiere.generation import jobs
from openlumiere.generation.abilities import Abilities
from openlumiere.generation.backends.find import read_abilities
from openlumiere.generation.models import for_model
from openlumiere.generation.plain import to_plain
from openlumiere.generation.progress import Cancelled
from openlumiere.generation.requests import Request, files_of, with_files

from .makers import ClipState, local_file

if TYPE_CHECKING:
    from openlumiere.generation.backends.base import Backend
    from openlumiere.generation.make import Made
    from openlumiere.generation.progress import Progress
    from openlumiere.provenance.marking import Marker

_log = logging.getLogger(__name__)


@dataclass
class _Job:
    """A clip in the making; the thread that makes it writes `state`, all others `stop`."""

    request: Request
    model: str
    state: ClipState
    stop: threading.Event = field(default_factory=threading.Event)


class LocalMaker:
    """Makes clips in this process, by one model that stays loaded; a `Maker`.

    Args:
        folder: for the files; made if missing.
        model: bundled name, local folder or hub id.
        device, dtype: as the command line's options.
        moderator: says what is allowed; None = everything is.
        marker: see `Maker`.
    """

    interval = 0.1

    def __init__(
        self,
        folder: Path,
        *,
        model: str = DEFAULT_MODEL,
        device: str = "auto",
        dtype: str = "auto",
        moderator: Moderator | None = None,
        marker: Marker | None = None,
    ) -> None:
        read_abilities(model, may_download=True)  # refuses what is no model
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        self.folder = folder.resolve()
        self.marker = marker
        self._model, self._device, self._dtype = model, device, dtype
        self._moderator = moderator or Moderator()
        self._loaded: Backend | None = None
        self._jobs: dict[str, _Job] = {}
        self._numbers = itertools.count(1)
        self._waiting: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="maker")
        self._thread.start()

    def submit(self, request: Request, *, model: str = "", suffix: str = "") -> str:
        """Take a request, see `Maker.submit`."""
        from openlumiere.generation.inputs import check_files

        model = model or self._model
        abilities = read_abilities(model, may_download=True)
        request = with_files(request, {name: str(self.fetch(file)) for name, file in files_of(request).items()})
        self._moderate(request)
        request = for_model(request, abilities)
        suffix = suffix or jobs.default_suffix(request)
        # With a seed drawn, and a name that is free by now.
        (request,) = jobs.several(replace(request, output=self._name(request, suffix)), "", count=1)
        check_files(request)
        id = f"clip-{next(self._numbers)}"
        job = _Job(request, model, ClipState(id=id, status="queued", seed=request.seed))
        self._jobs[id] = job
        self._waiting.put(job)
        return id

    def state(self, id: str) -> ClipState:
        """Return how far a clip is, see `Maker.state`."""
        return self._job(id).state

    def cancel(self, id: str) -> None:
        """Stop a clip, see `Maker.cancel`."""
        self._job(id).stop.set()

    def fetch(self, source: str) -> Path:
        """Return a clip's or another file, see `Maker.fetch`."""
        if source not in self._jobs:
            return local_file(source, self.folder)
        return self.state(source).file

    def detect(self, source: str) -> dict[str, Any]:
        """Return whether a file was made here, see `Maker.detect`."""
        from openlumiere.app.detection import detection
        from openlumiere.provenance.identity import Identity

        return detection(self.fetch(source), Identity.load())

    def abilities(self, model: str) -> Abilities:
        """Return what a model can do, see `Maker.abilities`."""
        return read_abilities(model or self._model, may_download=True)

    def models(self) -> list[dict[str, Any]]:
        """Return what each model can do, see `Maker.models`."""
        names = [self._model, *(name for name in bundled_models() if name != self._model)]
        return [{"id": name, **_told(read_abilities(name))} for name in names]

    def close(self) -> None:
        """Stop all clips, and wait for the step that is being done."""
        for job in self._jobs.values():
            job.stop.set()
        self._waiting.put(None)
        self._thread.join()

    def _moderate(self, request: Request) -> None:
        """Refuse what is not allowed, see `Moderator`."""
        texts = {"prompt": request.prompt, "negative_prompt": request.negative_prompt}
        self._moderator.check_words("mcp", texts)
        if not self._moderator.wants_pictures:
            return
        with TemporaryDirectory() as folder:
            pictures = [
                still
                for name, file in files_of(request).items()
                if name != "mask"
                for still in stills(file, f"{folder}/{name}")
            ]
            asyncio.run(self._moderator.classify("mcp", texts, pictures))

    def _job(self, id: str) -> _Job:
        if id not in self._jobs:
            raise LumiereError(f"there is no clip {id!r}; ids are those that were given out since this server started")
        return self._jobs[id]

    def _name(self, request: Request, suffix: str) -> str:
        source = getattr(request, "source", None)  # named as the commands do
        stem = jobs.slug(request.prompt) if source is None else f"{Path(source).stem or 'clip'}.{request.task}"
        return jobs.free_names(str(self.folder / stem), 1, suffix)[0]

    # ------------------------------------------------------------------------------------------ the thread

    def _work(self) -> None:
        while (job := self._waiting.get()) is not None:
            job.state = self._over(job)

    def _over(self, job: _Job) -> ClipState:
        """Make a clip and return its last state."""
        try:
            if job.stop.is_set():
                raise Cancelled
            made = self._make(job)
        except Cancelled as stopped:
            return replace(job.state, status="cancelled", doing="", message=_one_line_of(stopped))
        except LumiereError as error:
            return replace(job.state, status="failed", doing="", message=_one_line_of(error))
        except Exception as error:
            _log.exception("%s failed", job.state.id)
            reason = f"unexpected {type(error).__name__}: {_one_line_of(error)}; the log says where"
            return replace(job.state, status="failed", doing="", message=reason)
        return replace(
            job.state, status="completed", progress=100, doing="", path=Path(job.request.output),
            command=made.recipe.command(), message=made.note,
        )  # fmt: skip

    def _make(self, job: _Job) -> Made:
        job.state = replace(job.state, status="in_progress", doing="loading the model")
        model = self._load(job.model)
        from openlumiere.generation.make import make

        if Path(job.request.output).exists():  # since it was asked for
            job.request = replace(job.request, output=self._name(job.request, Path(job.request.output).suffix))

        def progress(now: Progress) -> None:
            job.state = replace(job.state, doing=doing(now), progress=max(job.state.progress, percent(now)))

        return make(job.request, model, marker=self.marker, progress=progress, cancelled=job.stop.is_set)

    def _load(self, name: str) -> Backend:
        """The model, which takes the place of another one."""
        if self._loaded is None or self._loaded.name != name:
            self._loaded = None  # two may not fit into memory
            from diffusers.utils.logging import disable_progress_bar

            from openlumiere.generation.backends.base import Loading
            from openlumiere.generation.backends.find import load_backend

            logging.getLogger("diffusers").setLevel(logging.ERROR)
            disable_progress_bar()
            self._loaded = load_backend(name, Loading(device=self._device, dtype=self._dtype))
        return self._loaded


def _told(abilities: Abilities) -> dict[str, Any]:
    """Abilities as plain JSON, without the model's name."""
    return {name: value for name, value in to_plain(abilities).items() if name != "model"}


def _one_line_of(error: BaseException) -> str:
    """An error and what was noted of it, such as what is kept of the clip."""
    return one_line("; ".join([str(error) or type(error).__name__, *getattr(error, "__notes__", ())]), 500)


def doing(now: Progress) -> str:
    """Return what is being done in words."""
    if now.note:
        return f"{now.stage}, {now.note}"
    return f"{now.stage}, step {now.step} of {now.total}" if now.total > 1 else now.stage


def percent(now: Progress) -> int:
    """Return how much of a clip is done: the base model's steps are taken for nine tenths."""
    begin, end = {"denoise": (0, 90), "sharpen": (90, 99)}.get(now.stage, (0, 0))
    return int(begin + (end - begin) * now.step / max(now.total, 1))
