"""Pixels of 8 bits, and colours by name."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageColor

from openlumiere.errors import LumiereError

_SIXTEEN_BIT = 65535


def as_uint8(frames: np.ndarray) -> np.ndarray:
    """Round frames to 8 bits: (frames, height, width, 3 or 4), float in [0, 1] (clamped) or uint8 -> uint8.

    Raises:
        LumiereError: another shape or type, or values that are not numbers.
    """
    frames = np.asarray(frames)
    if frames.ndim != 4 or frames.shape[-1] not in (3, 4) or 0 in frames.shape:
        raise LumiereError(f"frames of shape {frames.shape}: give (frames, height, width, 3 or 4), none of them 0")
    if frames.dtype == np.uint8:
        return frames
    if not np.issubdtype(frames.dtype, np.floating):
        raise LumiereError(f"frames of type {frames.dtype}: give floats in [0, 1] or uint8")
    if not np.isfinite(frames).all():
        raise LumiereError("frames hold values that are not numbers; sample again in float32 (--dtype float32)")
    return (frames.astype(np.float32) * 255.0).round().clip(0, 255).astype(np.uint8)


def enlarged(frames: np.ndarray, min_side: int) -> np.ndarray:
    """Enlarge frames (F, H, W, ...) whose shorter side is below `min_side` by a whole factor, nearest neighbour."""
    side = min(frames.shape[1:3])
    if side >= min_side:
        return frames
    factor = math.ceil(min_side / side)
    return frames.repeat(factor, axis=1).repeat(factor, axis=2)


def colour(name: str) -> tuple[int, int, int]:
    """Return a colour's 8-bit red, green and blue, by its name or ``#rrggbb``."""
    try:
        return ImageColor.getrgb(name)[:3]
    except ValueError as error:
        raise LumiereError(f"{name!r} is no colour; give a name such as white, or #rrggbb") from error


def eight_bit(picture: Image.Image) -> Image.Image:
    """Bring gray of 16 bits, or of floating point, to 8 bits; Pillow's own conversion would cut off at 255.

    Floating point that stays within [0, 1] is taken to fill that range, everything else to fill 16 bits.
    """
    if not picture.mode.startswith(("I", "F")):
        return picture
    values = np.asarray(picture, np.float64)
    top = 1.0 if values.max() <= 1 and not np.array_equal(values, values.round()) else _SIXTEEN_BIT
    return Image.fromarray((np.clip(values / top, 0, 1) * 255).round().astype(np.uint8))
