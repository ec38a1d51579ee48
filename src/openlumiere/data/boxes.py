"""Boxes around the subject of a user's clip, as `metadata.jsonl` may hold them, and the layouts that they give.

``"boxes": [[x0, y0, x1, y1], ...]``: left, top, right and bottom in pixels of the source. One box holds for the whole
clip; more are spread evenly over it, the n-th of N at the middle of the n-th of N equal parts, so that a box for each
frame is that frame's. ``"box_times": [...]``, in seconds from the clip's start, says other times. Between boxes they
are interpolated; null stands for a moment at which the subject is not seen; the layout is unknown up to the next box.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from openlumiere.diffusion.layout import LAYOUT_DIM, layout_of
from openlumiere.errors import LumiereError


@dataclass(frozen=True)
class Boxes:
    """The subject's boxes in one clip.

    Attributes:
        corners: (N, 4), pixels of the source; not a number where the subject is not seen.
        times: (N,), rising, in seconds; None = evenly over the clip.
    """

    corners: np.ndarray
    times: np.ndarray | None

    @classmethod
    def read(cls, row: dict[str, Any]) -> Boxes | None:
        """Read those of a row of a table; None where it has none.

        Raises:
            LumiereError: malformed boxes or times, without saying where.
        """
        if row.get("boxes") is None:
            if row.get("box_times") is not None:
                raise LumiereError("has box_times without boxes; add the boxes")
            return None
        boxes, times = row["boxes"], row.get("box_times")
        if not isinstance(boxes, list) or not boxes or not all(box is None or _is_box(box) for box in boxes):
            raise LumiereError("has boxes that are not [[left, top, right, bottom], ...] in pixels; correct them")
        if times is not None:
            rising = isinstance(times, list) and all(_is_number(time) for time in times)
            if not rising or len(times) != len(boxes) or any(b <= a for a, b in pairwise(times)):
                raise LumiereError("has box_times that are not rising seconds, one for each box; correct them")
        corners = np.array([[math.nan] * 4 if box is None else box for box in boxes], dtype=np.float64)
        return cls(corners, None if times is None else np.array(times, dtype=np.float64))

    def row(self) -> dict[str, Any]:
        """Return what `read` reads."""
        boxes = [None if math.isnan(box[0]) else box for box in self.corners.tolist()]
        return {"boxes": boxes, "box_times": None if self.times is None else self.times.tolist()}

    def at(self, seconds: np.ndarray, duration: float) -> np.ndarray:
        """Interpolate the corners at some times of a clip: (T, 4), not a number where the subject is not seen."""
        count = len(self.corners)
        times = (np.arange(count) + 0.5) * duration / count if self.times is None else self.times
        columns = [np.interp(seconds, times, column) for column in np.nan_to_num(self.corners).T]
        seen = ~np.isnan(self.corners[:, 0])
        # Known only where the boxes on both sides are: 1 between two that are seen, less next to one that is not.
        known = np.interp(seconds, times, seen.astype(float)) == 1.0
        return np.where(known[:, None], np.stack(columns, axis=1), math.nan)


def layout_in_square(corners: np.ndarray, left: float, top: float, side: float) -> torch.Tensor:
    """Convert boxes to layouts, see `diffusion.layout`, as seen in a square cut out of the source: (T, 4) -> (T, 6).

    Args:
        corners: in pixels of the source, not a number where unknown.
        left, top, side: of the square, in pixels of the source.
    """
    known = torch.from_numpy(~np.isnan(corners).any(1))
    x0, y0, x1, y1 = torch.from_numpy(np.nan_to_num(corners, nan=0.0)).unbind(1)
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    square = torch.maximum(x1 - x0, y1 - y0) / side
    path = torch.stack(
        [2 * (x - left) / side - 1, 2 * (y - top) / side - 1, square.where(known, 1.0), torch.zeros_like(x)], dim=1
    )
    return (layout_of(path) * known[:, None]).float().reshape(-1, LAYOUT_DIM)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_box(box: Any) -> bool:
    return (
        isinstance(box, list)
        and len(box) == 4
        and all(_is_number(value) for value in box)
        and box[0] < box[2]
        and box[1] < box[3]
    )
