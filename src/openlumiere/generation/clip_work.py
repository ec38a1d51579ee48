"""Clips of requests as a batch: what each process loads, and how it makes one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from openlumiere.batch.work import Work
from openlumiere.provenance.marking import Marker
from openlumiere.storage import Storage

from .backends.base import Backend
from .progress import Progress
from .requests import Request


@dataclass(frozen=True)
class ClipMade:
    """What is told of a clip that was made.

    Attributes:
        seed: of its noise.
        note: a line about the sticker; "" for a clip.
        lines: the model's notes, and what is not as it was asked for, see `abilities.Fitted`.
    """

    seed: int
    note: str = ""
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClipWork(Work[Request, ClipMade]):
    """Makes clips of requests whose `output` is a name in a storage.

    Attributes:
        load_model: loads the model.
        storage: where the clips go.
        progress: told of each step, within one process.
        marker: marks and signs the clips, with keys that all machines see; None = they are unmarked.
    """

    load_model: Callable[[], Backend]
    storage: Storage
    progress: Callable[[Progress], None] | None = None
    marker: Marker | None = None

    def name(self, item: Request) -> str:
        return item.output

    def folder(self) -> Path | None:
        return self.storage.folder

    def is_done(self, item: Request) -> bool:
        return self.storage.exists(item.output)

    def finder(self) -> Callable[[Request], bool]:
        exists = self.storage.finder()
        return lambda item: exists(item.output)

    def load(self) -> Callable[[Request], ClipMade]:
        return partial(self._make, self.load_model())

    def _make(self, model: Backend, request: Request) -> ClipMade:
        from .make import make

        with self.storage.writing(request.output) as path:
            made = make(replace(request, output=path), model, marker=self.marker, progress=self.progress)
        seed = made.recipe.request.seed
        assert seed is not None  # as it was made
        return ClipMade(seed, made.note, (*model.notes, *made.changes))
