"""Finding marks: whether a clip has one, what it says, when and where; see `search` for how, and how surely."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from openlumiere.errors import LumiereError

from .analysis import MOST_FRAMES, Geometry, chosen_frames, details
from .payload import Payload
from .search import Mark, Plane, look
from .watermark import check_frames, check_keys

FALSE_POSITIVES = 1e-6
_FRAMES_A_SECOND = 4  # that are looked at, at least
_LOCAL = 1e-3  # chance that a second or a region without a mark is told as marked
_BLOCK = 32  # side of a region, pixels of the plane


@dataclass(frozen=True, kw_only=True)
class Detection:
    """What was found in a clip.

    Attributes:
        present: whether it is marked under one of the keys.
        p_value: bound on the chance of evidence like this in a clip without a mark, all keys counted.
        payload: what the mark says; None where it can't be read.
        key: index of the key that found it; None where not present.
        geometry: how the clip was cropped, scaled, rotated or mirrored; None where not present.
        seconds: for each second (the last may be shorter), whether it is marked.
        regions: rows of blocks with a side of a quarter of the shorter side, whether each is marked.
    """

    present: bool
    p_value: float
    payload: Payload | None = None
    key: int | None = None
    geometry: Geometry | None = None
    seconds: tuple[bool, ...] = ()
    regions: tuple[tuple[bool, ...], ...] = ()


def detect(
    frames: np.ndarray, keys: Sequence[bytes], *, fps: float = 16, false_positives: float = FALSE_POSITIVES
) -> Detection:
    """Look for a mark under each key in turn, until one is found.

    Args:
        frames: (F, H, W, 3 or 4), uint8 or float in [0, 1]; a picture is a clip of one frame.
        keys: secret bytes.
        fps: frames per second, to tell seconds.
        false_positives: chance that a clip without a mark is told as marked, for all keys together.

    Raises:
        LumiereError: frames of another shape or kind, or smaller than 32 pixels; no key, or a short one; no rate.
    """
    check_frames(frames)
    check_keys(keys)
    if not fps > 0:
        raise LumiereError(f"{fps} frames per second; give more than 0")
    second_of = (np.arange(len(frames)) / fps).astype(int)
    chosen = chosen_frames(len(frames), max(MOST_FRAMES, math.ceil(len(frames) / fps) * _FRAMES_A_SECOND))
    details_seen = details([frames[index] for index in chosen])
    seen = details_seen.evidence()
    plane = Plane(seen.sum(axis=0), details_seen.weights().sum(axis=0))
    least = 1.0
    for index, key in enumerate(keys):
        mark = look(plane, key)
        chance = min(1.0, len(keys) * mark.p_value)
        if chance <= false_positives:
            seconds = (seen[second_of[chosen] == second].sum(axis=0) for second in range(second_of[-1] + 1))
            return Detection(
                present=True, p_value=chance, payload=mark.payload, key=index, geometry=mark.geometry,
                seconds=tuple(mark.chance_in(part) <= _LOCAL for part in seconds),
                regions=_regions(mark, plane.image),
            )  # fmt: skip
        least = min(least, chance)
    return Detection(present=False, p_value=least)


def _regions(mark: Mark, image: np.ndarray) -> tuple[tuple[bool, ...], ...]:
    """Tell for each block whether it is marked, the rest left out."""
    tops, lefts = (np.linspace(0, n, max(1, round(n / _BLOCK)) + 1).astype(int) for n in image.shape)

    def marked(top: int, bottom: int, left: int, right: int) -> bool:
        alone = np.zeros_like(image)
        alone[top:bottom, left:right] = image[top:bottom, left:right]
        return mark.chance_in(alone) <= _LOCAL

    return tuple(
        tuple(marked(top, bottom, left, right) for left, right in pairwise(lefts)) for top, bottom in pairwise(tops)
    )
