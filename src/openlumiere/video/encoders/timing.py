"""Frames' times on the coarse clocks of some formats."""

from __future__ import annotations

import math
from itertools import pairwise


def delays(count: int, fps: float, ticks: int) -> list[int]:
    """Return frames' delays in ticks of 1/`ticks` s, rounded so that their sum, at every frame, is the true time."""
    ends = [math.floor(i * ticks / fps + 0.5) for i in range(count + 1)]
    return [b - a for a, b in pairwise(ends)]
