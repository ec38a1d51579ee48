"""Which of the vocabulary's motions a path makes, by rules; and how fast, where and how large the subject is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from openlumiere.data.emoji.scenes import vocabulary

# What a scene's paths do at the least: a crossing covers 0.5 of [-1, 1], growing doubles the size, the slowest spin
# turns by 1.26 radians a second. Half of that is asked for.
_RANGE = 0.25
_GROWTH = 1.4
_RADIANS_A_SECOND = 0.6
_STEADY = 0.8  # of the way that a path goes along an axis, the share that a crossing gains


@dataclass(frozen=True)
class PathReport:
    """What a path does.

    Attributes:
        motion: a key of the vocabulary.
        period: in seconds, of motions that repeat themselves; None of others, and where less than two turning points
            are there.
        degrees: turned from the first frame to the last, clockwise.
        place, size: keys of the vocabulary, the nearest to the path's middle and side.
    """

    motion: str
    period: float | None
    degrees: float
    place: str
    size: str


def describe_path(path: np.ndarray, seconds: float) -> PathReport:
    """Describe a path.

    Args:
        path: (F, 4), as `diffusion.layout` has them, the angle not wrapped.
        seconds: length of the clip.
    """
    words = vocabulary()
    x, y, side, angle = path.T
    turned = angle[-1] - angle[0]
    growth = side[-1] / side[0]
    period = None
    if abs(turned) / seconds > _RADIANS_A_SECOND:
        motion, period = "spin", 2 * math.pi * seconds / abs(turned)
    elif max(growth, 1 / growth) > _GROWTH:
        motion = "grow" if growth > 1 else "shrink"
    elif max(np.ptp(x), np.ptp(y)) > _RANGE:
        across = np.ptp(x) > np.ptp(y)
        along = x if across else y
        gained = along[-1] - along[0]
        if abs(gained) > _STEADY * np.abs(np.diff(along)).sum():
            motion = ("right" if gained > 0 else "left") if across else ("down" if gained > 0 else "up")
        else:
            motion = "sway" if across else "bounce"
            period = _period(along, seconds)
    else:
        motion = "still"
    scale = float(np.sqrt(side.min() * side.max())) / (0.85 if motion in ("grow", "shrink") else 1.0)
    centre = (float(x.mean()), float(y.mean()))
    return PathReport(
        motion, period, math.degrees(turned),
        place=min(words["places"], key=lambda key: math.dist(words["places"][key]["at"], centre)),
        size=min(words["sizes"], key=lambda key: abs(math.log(words["sizes"][key]["scale"] / scale))),
    )  # fmt: skip


def _period(along: np.ndarray, seconds: float) -> float | None:
    """Return the mean time between highest points (smallest values), all in the upper half of the path's range."""
    middle = (along.min() + along.max()) / 2
    above = along < middle
    # One highest point in each stretch above the middle, whole stretches alone.
    edges = np.flatnonzero(np.diff(above.astype(int))) + 1
    peaks = [a + int(along[a:b].argmin()) for a, b in pairwise(edges) if above[a]]
    if len(peaks) < 2:
        return None
    return (peaks[-1] - peaks[0]) / (len(peaks) - 1) * seconds / len(along)
