"""Way points that a user gives for a clip's subject. Plain Python, so that commands can check them at once."""

from __future__ import annotations

import math
from collections.abc import Sequence

from openlumiere.errors import LumiereError

_LARGEST = 2.0  # side of the subject's square, as a fraction of the frame's


def parse_way_points(text: str) -> list[tuple[float, ...]]:
    """Read ``"0.1,0.5 0.9,0.5"``: points apart by spaces, numbers by commas.

    Raises:
        LumiereError: as `check_way_points`, and for what is no number.
    """
    try:
        points = [tuple(float(number) for number in point.split(",")) for point in text.split()]
    except ValueError as error:
        raise LumiereError(f"{text!r} is not a path such as '0.1,0.5 0.9,0.5': x,y from 0 to 1 each") from error
    check_way_points(points)
    return points


def check_way_points(points: Sequence[Sequence[float]]) -> None:
    """Raise LumiereError for points that `diffusion.layout.path_through` can't use."""
    if not len(points):
        raise LumiereError("a path needs at least one way point, such as 0.5,0.5")
    if any(not 2 <= len(point) <= 4 for point in points) or len({len(point) for point in points}) > 1:
        raise LumiereError("way points are x,y or x,y,size or x,y,size,degrees, all of a path alike")
    for x, y, *rest in points:
        if not (0 <= x <= 1 and 0 <= y <= 1):
            raise LumiereError(f"the way point {x:g},{y:g} lies outside the frame: choose x and y from 0 to 1")
        if rest and not 0 < rest[0] <= _LARGEST:
            raise LumiereError(f"a way point of size {rest[0]:g}: choose a part of the frame's side, above 0 up to 2")
        if len(rest) > 1 and not math.isfinite(rest[1]):
            raise LumiereError(f"a way point turned by {rest[1]:g} degrees: choose a finite number")
