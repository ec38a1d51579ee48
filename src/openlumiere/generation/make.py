"""From a request to a finished clip and its file, whichever model makes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from openlumiere.errors import LumiereError
from openlumiere.provenance.marking import Mark, Marker
from openlumiere.video import write_clip
from openlumiere.video.pixels import as_uint8, enlarged

from .backends.base import Backend, Clip
from .inputs import check_files
from .progress import Progress, Watch
from .recipe import UNMARKED, Recipe
from .requests import AnimateRequest, Request
from .stickers import write_sticker

_MIN_SIDE = 128  # pixels; players blur tiny clips: those of the smallest models are enlarged by whole pixels


@dataclass(frozen=True)
class Made:
    """A finished clip.

    Attributes:
        recipe: the request with every choice made, and the model.
        note: a line about the sticker; "" for a clip.
        changes: what is not as it was asked for, see `abilities.Fitted`.
    """

    recipe: Recipe
    note: str = ""
    changes: tuple[str, ...] = ()


def make(
    request: Request,
    model: Backend,
    *,
    marker: Marker | None = None,
    progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    lossless: bool = False,
) -> Made:
    """Make the clip that a request asks for, and write it to the request's `output`.

    The same request, seed included, gives the same clip on the same machine.

    Args:
        marker: marks and signs it, as whatever a user gets should be; None = leave it unmarked, to be measured.
        progress: told of each step.
        cancelled: asked before each step; True = stop.
        lossless: as `write_clip`'s.

    Raises:
        LumiereError: a request that this model cannot fulfil, or files that cannot be read or written.
        Cancelled: `cancelled` said so.
    """
    if not request.output:
        raise LumiereError("say where the clip goes: the request's output is empty")
    check_files(request)
    watch = Watch(progress, cancelled)
    fitted = model.fit(request)
    clip = model.make(fitted.request, watch)
    recipe = Recipe(request=fitted.request, model=model.identity, fps=clip.fps, watermark=clip.watermark)
    mark = None
    if marker is not None:
        edited, placed = sources_of(fitted.request)
        mark = marker.of(recipe.metadata(), family=model.family, edited=edited, placed=placed)
    recipe = replace(recipe, watermark=clip.watermark or (UNMARKED if mark is None else mark.words))
    return Made(recipe, _write(clip, recipe, mark, watch, lossless=lossless), fitted.changes)


def sources_of(request: Request) -> tuple[str | None, tuple[str, ...]]:
    """Return the file that a request edits, and those of which pictures are put into what it makes."""
    source = getattr(request, "source", None)
    if isinstance(request, AnimateRequest):
        return None, (request.source, *(() if request.last is None else (request.last,)))
    return source, ()


def _write(clip: Clip, recipe: Recipe, mark: Mark | None, watch: Watch, *, lossless: bool) -> str:
    """Write the clip, or the sticker of it; a line about the sticker."""
    request, count = recipe.request, len(clip.frames)
    frames = as_uint8(clip.frames)
    # By default nothing is laid under half transparent edges: a GIF's keep their own colour then.
    background = None if request.background == "white" else request.background
    if request.sticker is not None:
        tried = 0

        def advance(note: str) -> None:
            nonlocal tried
            tried += 1
            watch.tell("sticker", tried, 0, note=note)

        watch.tell("sticker", 0, 0)
        report = write_sticker(
            frames, recipe.fps, request.sticker, request.output, background=background,
            period=count / recipe.fps if request.loop else None, metadata=recipe.metadata(), mark=mark,
            progress=advance,
        )  # fmt: skip
        return report.line()
    watch.tell("write", 0, count)
    frames = enlarged(frames, _MIN_SIDE)
    if mark is not None:
        frames = mark.put_into(frames, _enlarged(clip.made_anew))
    write_clip(
        frames, request.output, fps=recipe.fps, metadata=recipe.metadata(), lossless=lossless, background=background
    )
    if mark is not None:
        mark.sign(request.output)
    watch.tell("write", count, count)
    return ""


def _enlarged(where: np.ndarray | None) -> np.ndarray | None:
    return None if where is None else enlarged(where, _MIN_SIDE)
