"""The waves that carry a watermark, and the plane on which embedding and detection see a clip."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from hashlib import shake_256

import numpy as np

from .coding import CODED_BITS

SIDE = 128  # pixels of a clip's shorter side on the plane
TILE = 80  # pixels of the plane after which the waves repeat
PATTERNS = 8  # of a key
_SLOWEST = 5.0  # waves in a tile; slower ones drown in the picture's own shading
PILOT = 0.55  # of a wave's amplitude: the part whose sign is known
DATA = float(np.sqrt(1 - PILOT**2))
_LABEL = b"openlumiere watermark 1"


def _waves() -> np.ndarray:
    """Return the slowest waves that fit, one for each coded bit: int (216, 2), down and across."""
    reach = np.arange(-TILE // 2, TILE // 2)
    down, across = (grid.ravel() for grid in np.meshgrid(reach, reach, indexing="ij"))
    length = np.hypot(down, across)
    half = (length >= _SLOWEST) & ((down > 0) | ((down == 0) & (across > 0)))
    order = np.lexsort((across, down, length))
    chosen = order[half[order]][:CODED_BITS]
    return np.stack([down[chosen], across[chosen]], axis=1)


WAVES = _waves()
RINGS = np.digitize(np.hypot(*WAVES.T), np.arange(_SLOWEST + 1, 40))  # which waves are of about one length


@dataclass(frozen=True)
class Pattern:
    """One of a key's patterns.

    Attributes:
        phases: of each wave, as complex numbers of magnitude 1, (216,).
        order: which coded bit each wave carries, (216,).
    """

    phases: np.ndarray
    order: np.ndarray

    def amplitudes(self, signs: np.ndarray) -> np.ndarray:
        """Return each wave's complex amplitude for these coded signs, (216,)."""
        return self.phases * (PILOT + 1j * DATA * signs[self.order])


@lru_cache(maxsize=64)
def patterns(key: bytes) -> tuple[Pattern, ...]:
    """Return a key's patterns."""
    return tuple(_pattern(key, number) for number in range(PATTERNS))


def keyed(key: bytes, *what: bytes, count: int) -> np.ndarray:
    """Return numbers that only the key tells, uniform in [0, 1), (count,)."""
    text = b"".join(len(part).to_bytes(4, "big") + part for part in (_LABEL, key, *what))
    return np.frombuffer(shake_256(text).digest(4 * count), dtype=">u4") / 2**32


def _pattern(key: bytes, number: int) -> Pattern:
    values = keyed(key, b"pattern", bytes([number]), count=2 * CODED_BITS)
    return Pattern(np.exp(2j * np.pi * values[:CODED_BITS]), np.argsort(values[CODED_BITS:], kind="stable"))


def plane_size(height: int, width: int) -> tuple[int, int]:
    """Return a frame's height and width on the plane."""
    scale = SIDE / min(height, width)
    return round(height * scale), round(width * scale)


def draw(amplitudes: np.ndarray, height: int, width: int, shift: np.ndarray, mirrored: bool) -> np.ndarray:
    """Draw the sum of the waves at a frame's own size: float32 (height, width), root mean square 1.

    Args:
        amplitudes: of each wave, (216,), see `Pattern.amplitudes`.
        shift: where the tile begins, pixels of the plane, down and across.
        mirrored: left for right.
    """
    scale = SIDE / min(height, width)
    y, x = ((np.arange(n) + 0.5) * scale for n in (height, width))
    across = -WAVES[:, 1] if mirrored else WAVES[:, 1]
    down = np.exp(2j * np.pi / TILE * np.outer(y - shift[0], WAVES[:, 0])) * amplitudes
    drawn = (down @ np.exp(2j * np.pi / TILE * np.outer(across, x - shift[1]))).real
    return (drawn / np.sqrt(len(WAVES) / 2)).astype(np.float32)


def resize(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize float32 (..., H, W), averaging over what becomes one pixel."""
    down, across = _resizing(frames.shape[-2], height), _resizing(frames.shape[-1], width)
    return down @ (frames @ across.T)


@lru_cache(maxsize=32)
def _resizing(before: int, after: int) -> np.ndarray:
    """Return the matrix of resizing by a triangular filter, as wide as a pixel of the coarser grid."""
    centres = (np.arange(after) + 0.5) * before / after - 0.5
    weights = np.maximum(0, 1 - np.abs(centres[:, None] - np.arange(before)) / max(before / after, 1))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


@lru_cache(maxsize=32)
def _blurring(size: int, sigma: float) -> np.ndarray:
    places = np.arange(size)
    return np.exp(-((places[:, None] - places) ** 2) / (2 * sigma**2)).astype(np.float32)


def blur(frames: np.ndarray, sigma: float, weights: np.ndarray | None = None) -> np.ndarray:
    """Return means around each pixel, by a Gaussian of `sigma` pixels and by weights: float32 (..., H, W)."""
    down, across = (_blurring(n, sigma) for n in frames.shape[-2:])
    if weights is None:
        return down @ frames @ across / np.outer(down.sum(1), across.sum(1))
    return (down @ (frames * weights) @ across) / np.maximum(down @ weights @ across, 1e-6)
