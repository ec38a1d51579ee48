"""Way points that a user gives for a clip's subject. Plain Python, so that commands can check them at once.

A point is (x, y), (x, y, size) or (x, y, size, degrees); with a fifth number, a time, what is left open is None.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from openlumiere.errors import LumiereError

WayPoint = Sequence[float | None]
_LARGEST = 2.0  # side of the subject's square, as a fraction of the frame's
_TIME = 4  # column
_FORM = "x,y or x,y,size or x,y,size,degrees"


def parse_way_points(text: str) -> list[tuple[float | None, ...]]:
    """Read ``"0.1,0.5 0.9,0.5@0.3"``: points apart by spaces, numbers by commas, a time after ``@``.

    Raises:
        LumiereError: as `check_way_points`, and for what is no number.
    """
    points: list[tuple[float | None, ...]] = []
    try:
        for word in text.split():
            numbers, at, time = word.partition("@")
            point: tuple[float | None, ...] = tuple(float(number) for number in numbers.split(","))
            if at:
                if len(point) > _TIME:
                    raise LumiereError(f"the way point {word} has too many numbers: give {_FORM} before its time")
                point = (*point, *[None] * (_TIME - len(point)), float(time))
            points.append(point)
    except ValueError as error:
        if isinstance(error, LumiereError):
            raise
        raise LumiereError(
            f"{text!r} is not a path such as '0.1,0.5 0.9,0.5' or '0.1,0.5 0.5,0.2@0.3 0.9,0.5': x,y from 0 to 1 each"
        ) from error
    check_way_points(points)
    return points


def format_way_points(points: Sequence[WayPoint]) -> str:
    """Return what `parse_way_points` reads as these points."""

    def word(point: WayPoint) -> str:
        numbers = ",".join(repr(number) for number in point[:_TIME] if number is not None)
        return f"{numbers}@{point[_TIME]!r}" if len(point) > _TIME and point[_TIME] is not None else numbers

    return " ".join(map(word, points))


def columns_of(point: WayPoint) -> int:
    """Return how much a point tells: 2 = where, 3 = its size too, 4 = its angle too."""
    return sum(number is not None for number in point[:_TIME])


def times_of(points: Sequence[WayPoint], *, loop: bool = False) -> list[float] | None:
    """Return when each point is met, as parts of the clip; None where none has a time: they are spaced evenly.

    Unless they say otherwise the first is met at 0, the last at 1, or, in a loop, on the way back to the first; those
    between them evenly between their neighbours.
    """
    known = {number: point[_TIME] for number, point in enumerate(points) if len(point) > _TIME}
    given = {number: time for number, time in known.items() if time is not None}
    if not given:
        return None
    last = len(points) if loop else len(points) - 1  # a loop meets its first point again
    given = {0: 0.0, **given}
    given.setdefault(last, 1.0 + (given[0] if loop else 0.0))
    marks = sorted(given)
    times = [given[0]]
    for start, stop in pairwise(marks):
        step = (given[stop] - given[start]) / (stop - start)
        times += [given[start] + step * n for n in range(1, stop - start)] + [given[stop]]
    return times[: len(points)]


def check_way_points(points: Sequence[WayPoint]) -> None:
    """Raise LumiereError for points that `diffusion.layout.path_through` can't use."""
    if not len(points):
        raise LumiereError("a path needs at least one way point, such as 0.5,0.5")
    told = [[number is not None for number in point[:_TIME]] for point in points]
    counts = {sum(each) for each in told}
    open_before = any(sorted(each, reverse=True) != each for each in told)
    if len(counts) > 1 or min(counts) < 2 or open_before or max(map(len, points)) > _TIME + 1:
        raise LumiereError(f"way points are {_FORM}, all of a path alike, each with or without @time")
    for point in points:
        x, y, *rest = [number for number in point[:_TIME] if number is not None]
        if not (0 <= x <= 1 and 0 <= y <= 1):
            raise LumiereError(f"the way point {x:g},{y:g} lies outside the frame: choose x and y from 0 to 1")
        if rest and not 0 < rest[0] <= _LARGEST:
            raise LumiereError(f"a way point of size {rest[0]:g}: choose a part of the frame's side, above 0 up to 2")
        if len(rest) > 1 and not math.isfinite(rest[1]):
            raise LumiereError(f"a way point turned by {rest[1]:g} degrees: choose a finite number")
    times = times_of(points)
    if times and not (min(times) >= 0 and max(times) <= 1 and all(a < b for a, b in pairwise(times))):
        raise LumiereError("times of way points rise from 0, the clip's begin, to 1, its end, such as 0.5,0.2@0.25")
