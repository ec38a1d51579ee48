"""Transparency: laid over a colour, brought to one bit, and the colours that lie unseen under it.

Everywhere in files and arrays alpha is *straight*: a pixel's colour is that of its subject, however transparent.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from .pixels import colour

_BLEED_LEVELS = 5  # of a pyramid: colours reach 2^5 pixels out
# Below the first alpha a pixel of one bit is never shown, above the second always: faint haze leaves no specks.
_ONE_BIT_RANGE = (24, 231)
_EDGE = 5  # pixels: alpha that goes from nothing to all within so many is the antialiasing of an edge


def opaque(pixels: np.ndarray, background: str = "white") -> np.ndarray:
    """Lay transparent pixels over a colour: uint8 (..., 4) or (..., 3) -> (..., 3).

    Args:
        background: a colour's name or ``#rrggbb``.
    """
    below = np.array(colour(background), np.float32)
    if pixels.shape[-1] == 3:
        return np.ascontiguousarray(pixels)
    alpha = pixels[..., 3:].astype(np.float32) / 255.0
    return (pixels[..., :3] * alpha + below * (1.0 - alpha)).round().astype(np.uint8)


def bleed(frames: np.ndarray) -> np.ndarray:
    """Give fully transparent pixels the colours of the edges near them, and far from all the clip's mean colour.

    Encoders that blur or halve the resolution of colours would otherwise mix the colour that happens to lie there,
    mostly black, into the visible edge: a dark fringe. The filling is smooth, so it costs few bytes.

    Args:
        frames: uint8, (frames, height, width, 4).
    """
    weights = frames[..., 3].astype(np.float64)
    total = weights.sum()
    rest = np.einsum("fhwc,fhw->c", frames[..., :3], weights) / total if total else np.zeros(3)
    ground = (*(int(value) for value in rest.round()), 255)
    bled = frames.copy()
    for frame in bled:
        hidden = frame[..., 3] == 0
        frame[hidden, :3] = _filling(Image.fromarray(frame), ground)[hidden]
    return bled


def _filling(frame: Image.Image, ground: tuple[int, ...]) -> np.ndarray:
    """Fill by push-pull: the frame is halved again and again, each size laid over the next smaller one, upsampled."""
    levels = [frame]
    while len(levels) <= _BLEED_LEVELS and max(levels[-1].size) > 1:
        width, height = levels[-1].size
        # Pillow weighs colours by alpha when it resizes RGBA.
        levels.append(levels[-1].resize(((width + 1) // 2, (height + 1) // 2), Image.Resampling.BOX))
    filled = Image.new("RGBA", levels[-1].size, ground)
    for level in reversed(levels):
        filled = Image.alpha_composite(filled.resize(level.size, Image.Resampling.BILINEAR), level)
    return np.asarray(filled)[..., :3]


def one_bit(alpha: np.ndarray) -> np.ndarray:
    """Threshold alpha, where pixels can only be shown or not: uint8 (height, width) -> bool.

    Wide fades are dithered in a fixed pattern, which does not flicker; an edge that is merely antialiased is cut where
    alpha is a half, as dots along it would look torn.
    """
    plane = Image.fromarray(np.ascontiguousarray(alpha))
    least, most = (
        np.asarray(plane.filter(find(_EDGE))) for find in (ImageFilter.MinFilter, ImageFilter.MaxFilter)
    )  # fmt: skip
    low, high = _ONE_BIT_RANGE
    height, width = alpha.shape
    pattern = np.tile(_bayer(8), (-(-height // 8), -(-width // 8)))[:height, :width]
    threshold = np.where((least < low) & (most > high), 128, low + (high - low) * pattern)
    shown: np.ndarray = alpha >= threshold
    return shown


def _bayer(side: int) -> np.ndarray:
    """Return Bayer's matrix of thresholds in (0, 1); `side` is a power of 2."""
    matrix = np.zeros((1, 1))
    while len(matrix) < side:
        matrix = np.block([[4 * matrix, 4 * matrix + 2], [4 * matrix + 3, 4 * matrix + 1]])
    return (matrix + 0.5) / side**2
