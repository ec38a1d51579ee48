"""Layouts: where a clip's subject is in each frame, how large, and how far it is turned.

A *path* has four columns, as `openlumiere.data.emoji.scenes.trajectory` gives them: x and y of the centre of the
subject's square, in [-1, 1] of the frame, y down; the square's side, as a fraction of the frame's; the angle in
radians, clockwise on screen.

A *layout* is what networks see of it, six numbers a frame: x, y, the side's natural logarithm, sine and cosine of
the angle, and 1 for "given". All six are 0 where nothing is given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from . import draws
from .way_points import WayPoint, check_way_points, columns_of, times_of

LAYOUT_DIM = 6
# What way points leave open: the size that captions don't tell, and upright.
_SIDE, _ANGLE = 0.75, 0.0
_FILLED = 0.95  # of its square's side by a subject, about


def layout_of(path: torch.Tensor) -> torch.Tensor:
    """Return the layout of a path: (..., F, 4) -> (..., F, 6)."""
    x, y, side, angle = path.unbind(-1)
    return torch.stack([x, y, side.log(), angle.sin(), angle.cos(), torch.ones_like(x)], dim=-1)


def reach(path: torch.Tensor) -> torch.Tensor:
    """Return how far the subject reaches from the frame's centre, 1 at its edge: (..., F, 4) -> (..., F)."""
    return path[..., :2].abs().amax(-1) + _FILLED * path[..., 2]


def in_view(path: torch.Tensor) -> torch.Tensor:
    """Step back from a path that leads over the frame's edge until all of its subject is seen: (..., F, 4), likewise.

    Places, distances and sizes shrink together, so that what is asked for stays true: the left stays left, and what is
    large is larger than what is small.
    """
    x, y, side, angle = path.unbind(-1)
    zoom = reach(path).amax(-1, keepdim=True).clamp(min=1).reciprocal()
    return torch.stack([x * zoom, y * zoom, side * zoom, angle], dim=-1)


def is_told(layout: torch.Tensor) -> torch.Tensor:
    """Return which clips' layouts say in all frames where the subject is: (B, F, 6) -> bool (B,)."""
    return (layout[..., 5] > 0.5).all(1)


def drop(layout: torch.Tensor, probability: float, generator: draws.Generator) -> torch.Tensor:
    """Leave out some clips' layouts, each a whole clip's: (B, F, 6) -> (B, F, 6)."""
    kept = draws.rand(len(layout), generator=generator) >= probability
    return layout * kept.to(layout)[:, None, None]


def path_through(
    points: Sequence[WayPoint], num_frames: int, *, loop: bool = False, default: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the smooth path through a user's way points, which it meets at evenly spaced or given times: (F, 4).

    Args:
        points: (x, y), (x, y, size) or (x, y, size, angle): x and y in [0, 1] of the frame, from its left and its top;
            the size of the subject's square as a fraction of the frame's side; the angle in degrees, clockwise. The
            first point is met in the first frame, the last in the last; a single one is a place to stay at. A fifth
            number is when it is met, from 0 to 1 of the clip; size and angle are None then where they are open. Where
            some have times, a point that is the same as the one before it is a stop.
        loop: come round: from the last point on to the first.
        default: a path, (F, 4), for what the points leave open; medium size and upright when None.

    Raises:
        LumiereError: no point, points of other numbers, or outside the frame.
    """
    check_way_points(points)
    count = columns_of(points[0])
    columns = torch.tensor([list(point[:count]) for point in points], dtype=torch.float64)
    columns[:, :2] = 2 * columns[:, :2] - 1
    if columns.shape[1] > 2:
        columns[:, 2] = columns[:, 2].log()  # so that growing to twice the size is even, and no size becomes negative
    if columns.shape[1] > 3:
        columns[:, 3] = columns[:, 3].deg2rad()
    times = times_of(points, loop=loop)
    if times is None:
        columns = catmull_rom(columns, num_frames, loop=loop)
    else:
        columns = hermite(columns, torch.tensor(times, dtype=torch.float64), num_frames, loop=loop)
    if default is None:
        default = torch.tensor([0.0, 0.0, _SIDE, _ANGLE]).expand(num_frames, -1)
    path = default.to(torch.float64).clone()
    path[:, : columns.shape[1]] = columns
    if columns.shape[1] > 2:
        path[:, 2] = columns[:, 2].exp()
    return path.float()


def catmull_rom(points: torch.Tensor, num_frames: int, *, loop: bool = False) -> torch.Tensor:
    """Return the uniform Catmull-Rom spline through N points, (N, D) -> (F, D); two give a straight line.

    See Catmull & Rom 1974.

    Args:
        loop: from the last point on to the first, the frame after the last being the first; a fourth column, an angle
            in radians, then goes on to the nearest whole turn.
    """
    count = len(points)
    if loop:
        turns = _turns(points)
        padded = torch.cat([points[-1:] - turns, points, points[:1] + turns, points[1 % count :][:1] + turns])
        at = torch.arange(num_frames, dtype=points.dtype) * count / num_frames
        segments = count
    else:
        if count == 1:
            return points.expand(num_frames, -1).clone()
        padded = torch.cat([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
        at = torch.arange(num_frames, dtype=points.dtype) * (count - 1) / max(num_frames - 1, 1)
        segments = count - 1
    segment = at.long().clamp(max=segments - 1)
    t = (at - segment)[:, None]
    a, b, c, d = (padded[segment + i] for i in range(4))
    return b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))


def hermite(points: torch.Tensor, times: torch.Tensor, num_frames: int, *, loop: bool = False) -> torch.Tensor:
    """Return the cubic Hermite spline that meets N points, (N, D), at rising times in [0, 1]: (F, D).

    It is `catmull_rom` where times are even, save that what doesn't change between two points stays, so that a point
    given twice is a stop. Before the first time and after the last it stays where it is.

    Args:
        loop: as of `catmull_rom`; frame n of F is at time n / F.
    """
    if loop:
        turns = _turns(points)
        points = torch.cat([points[-1:] - turns, points, points[:1] + turns, points[1 % len(points) :][:1] + turns])
        times = torch.cat([times[-1:] - 1, times, times[:1] + 1, times[1 % len(times) :][:1] + 1])
        at = torch.arange(num_frames, dtype=points.dtype) / num_frames
    else:
        at = torch.linspace(0, 1, num_frames, dtype=points.dtype).clamp(times[0], times[-1])
    if len(points) == 1:
        return points.expand(num_frames, -1).clone()
    slopes = points.diff(dim=0) / times.diff()[:, None]
    tangents = torch.cat([slopes[:1], (points[2:] - points[:-2]) / (times[2:] - times[:-2])[:, None], slopes[-1:]])
    still = slopes == 0
    tangents[:-1][still] = 0
    tangents[1:][still] = 0
    segment = (torch.searchsorted(times, at, right=True) - 1).clamp(0, len(points) - 2)
    span = times.diff()[segment][:, None]
    t = (at - times[segment])[:, None] / span
    a, b = points[segment], points[segment + 1]
    from_a, to_b = tangents[segment] * span, tangents[segment + 1] * span
    return a + t * (from_a + t * (3 * (b - a) - 2 * from_a - to_b + t * (2 * (a - b) + from_a + to_b)))


def _turns(points: torch.Tensor) -> torch.Tensor:
    """Return what a loop adds from its last point to its first: whole turns of a fourth column, an angle."""
    turns = torch.zeros(points.shape[1], dtype=points.dtype)
    if points.shape[1] > 3:
        turn = points[-1, 3] - points[0, 3]
        turns[3] = 2 * math.pi * (turn / (2 * math.pi)).round()
    return turns
