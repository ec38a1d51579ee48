"""A finished clip as the sticker that a request asks for."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from openlumiere.errors import LumiereError
from openlumiere.video import read_clip, read_metadata
from openlumiere.video.stickers import StickerReport, make_sticker

from .options import sticker_words
from .recipe import STICKER_KEY
from .requests import Sticker


def write_sticker(
    frames: np.ndarray,
    fps: float,
    sticker: Sticker,
    output: str | Path,
    *,
    background: str | None = None,
    period: float | None = None,
    metadata: Mapping[str, str | int | float] | None = None,
    progress: Callable[[str], None] | None = None,
) -> StickerReport:
    """Write a clip as a sticker, with the options that it was made with in its metadata.

    Args and errors as `video.stickers.make_sticker`'s.
    """
    return make_sticker(
        frames, fps, sticker.target, output,
        crop=sticker.crop, outline=sticker.outline, outline_colour=sticker.outline_colour, background=background,
        period=period, speed_up=sticker.speed_up,
        metadata={**(metadata or {}), STICKER_KEY: shlex.join(sticker_words(sticker))}, progress=progress,
    )  # fmt: skip


def sticker_from_file(
    source: str,
    sticker: Sticker,
    output: str | Path,
    *,
    background: str | None = None,
    period: float | None = None,
    progress: Callable[[str], None] | None = None,
) -> StickerReport:
    """Make a sticker of a clip's file; what made the clip stays in the metadata.

    Args:
        period: seconds after which the clip repeats itself; None = its length if it was made as a loop, else looked
            for.

    Raises:
        LumiereError: no clip, a still picture, or as `write_sticker`.
    """
    metadata = read_metadata(source)
    clip = read_clip(source)
    if len(clip.frames) == 1 and Path(source).suffix.lower() == ".png":
        raise LumiereError(f"{source} is a still picture; make it move with: lumiere animate {source}")
    if period is None and metadata.get("loop"):
        period = len(clip.frames) / clip.fps
    return write_sticker(
        clip.frames, clip.fps, sticker, output,
        background=background, period=period, metadata=metadata, progress=progress,
    )  # fmt: skip
