"""A finished clip as the sticker that a request asks for."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from openlumiere.errors import LumiereError
from openlumiere.provenance.marking import Mark, Marker
from openlumiere.video import read_clip, read_metadata
from openlumiere.video.stickers import StickerReport, make_sticker

from .options import sticker_words
from .recipe import STICKER_KEY, WATERMARK_KEY, is_ours
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
    mark: Mark | None = None,
    spare: int = 0,
    progress: Callable[[str], None] | None = None,
) -> StickerReport:
    """Write a clip as a sticker, with the options that it was made with in its metadata.

    Args:
        mark: put into the finished frames, with which the file is signed; None = neither.
        spare: bytes to leave for somebody else's signature.

    Other arguments and errors as `video.stickers.make_sticker`'s.
    """
    note = {**(metadata or {}), STICKER_KEY: shlex.join(sticker_words(sticker))}
    if mark is not None:
        note[WATERMARK_KEY], spare = mark.words, mark.room(output)
    report = make_sticker(
        frames, fps, sticker.target, output,
        crop=sticker.crop, outline=sticker.outline, outline_colour=sticker.outline_colour, background=background,
        period=period, speed_up=sticker.speed_up, metadata=note, change=None if mark is None else mark.put_into,
        spare=spare, progress=progress,
    )  # fmt: skip
    if mark is None or not mark.sign(report.path):
        return report
    return replace(report, measured=replace(report.measured, size=report.path.stat().st_size))


def sticker_from_file(
    source: str,
    sticker: Sticker,
    output: str | Path,
    *,
    background: str | None = None,
    period: float | None = None,
    marker: Marker | None = None,
    spare: int = 0,
    progress: Callable[[str], None] | None = None,
) -> StickerReport:
    """Make a sticker of a clip's file; what made the clip stays in the metadata.

    A clip that was made here keeps its mark, or gets one, and its sticker is signed; one of other programs is neither.

    Args:
        period: seconds after which the clip repeats itself; None = its length if it was made as a loop, else looked
            for.
        marker: of this installation; None = neither mark nor sign.
        spare: as of `write_sticker`.

    Raises:
        LumiereError: no clip, a still picture, or as `write_sticker`.
    """
    metadata = read_metadata(source)
    clip = read_clip(source)
    if len(clip.frames) == 1 and Path(source).suffix.lower() == ".png":
        raise LumiereError(f"{source} is a still picture; make it move with: lumiere animate {source}")
    if period is None and metadata.get("loop"):
        period = len(clip.frames) / clip.fps
    mark = marker.of(metadata, edited=source) if marker is not None and is_ours(metadata) else None
    return write_sticker(
        clip.frames, clip.fps, sticker, output,
        background=background, period=period, metadata=metadata, mark=mark, spare=spare,
        progress=progress,
    )  # fmt: skip
