"""Attempts at a sticker's file: what is given up of its frames, to bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

from openlumiere.video.encoders.films import write_webm
from openlumiere.video.encoders.pictures import (
    one_bit_frames,
    write_apng,
    write_gif,
    write_indexed_apng,
    write_indexed_gif,
    write_webp,
)
from openlumiere.video.metadata import note_text
from openlumiere.video.palette import despeckle, nearest, palette_of

from .timing import resample

# Highest rates that players honour: browsers show delays of 10 ms and less as 100 ms.
MAX_FPS = {".webm": 240, ".webp": 90, ".png": 90, ".apng": 90, ".gif": 50}
PALETTED = frozenset({".png", ".apng", ".gif"})
_WEBM_SPEED = 4
_WEBP_TOP = 95  # beyond, files grow and pictures don't get better
_DITHERED = 90  # from this quality on a GIF's colours are dithered
_LARGEST_STEP = 40  # of 255: how far a palette's pixel may depart from its own colour at quality 0


@dataclass(frozen=True)
class Settings:
    """What an attempt keeps.

    Attributes:
        quality: 0 to 100; 100 is without loss in an animated PNG.
        num_frames: of the whole sticker.
        colours: of a palette, at most 256; without meaning for WebM and WebP.
        detail: 1 = all, 0.5 = as if drawn at half the size.
    """

    quality: int
    num_frames: int
    colours: int = 256
    detail: float = 1.0


class Encoder:
    """Encodes the same frames with different settings.

    Args:
        frames: uint8, (frames, height, width, 4).
        duration: seconds.
        suffix: of the format.
        background: what a GIF's half transparent edges are laid over, where given.
        metadata: kept in the file.
    """

    def __init__(
        self, frames: np.ndarray, duration: float, suffix: str, *,
        background: str | None = None, metadata: Mapping[str, str | int | float] | None = None,
    ) -> None:  # fmt: skip
        self._frames, self._duration, self._suffix = frames, duration, suffix
        self._background, self._metadata = background, metadata
        self._softened = lru_cache(maxsize=1)(self._soften)
        self._paletted = lru_cache(maxsize=2)(self._find_palette)

    def __call__(self, settings: Settings) -> bytes:
        """Encode: the file's bytes."""
        count, quality = settings.num_frames, settings.quality
        fps, file = count / self._duration, io.BytesIO()
        note = note_text(fps, count, self._metadata)
        is_gif = self._suffix == ".gif"
        plain = settings.colours == 256 and quality >= (_DITHERED if is_gif else 100)
        if self._suffix in PALETTED and not plain:
            index, table = self._paletted(settings.colours, settings.detail)
            index = despeckle(resample(index, count), table, round(_LARGEST_STEP * (1 - quality / 100)))
            (write_indexed_gif if is_gif else write_indexed_apng)(index, table, file, fps, note)
            return file.getvalue()
        pixels = resample(self._softened(settings.detail), count)
        if self._suffix == ".webm":
            write_webm(pixels, file, fps, note, quality=quality, speed=_WEBM_SPEED)
        elif self._suffix == ".webp":
            webp, alpha = min(quality, _WEBP_TOP), min(30 + quality, 100)
            write_webp(pixels, file, fps, note, lossless=False, quality=webp, alpha_quality=alpha)
        elif is_gif:
            write_gif(pixels, file, fps, note, background=self._background)
        else:
            write_apng(pixels, file, fps, note)
        return file.getvalue()

    def _soften(self, detail: float) -> np.ndarray:
        if detail == 1:
            return self._frames
        height, width = self._frames.shape[1:3]
        small = max(round(width * detail), 1), max(round(height * detail), 1)
        pictures = (Image.fromarray(frame).resize(small, Image.Resampling.BOX) for frame in self._frames)
        return np.stack([np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC)) for picture in pictures])

    def _find_palette(self, colours: int, detail: float) -> tuple[np.ndarray, np.ndarray]:
        """All frames as indices into a palette."""
        pixels = self._softened(detail)
        if self._suffix == ".gif":
            pixels = one_bit_frames(pixels, self._background)
        table = palette_of(pixels, colours)
        return nearest(pixels, table), table
