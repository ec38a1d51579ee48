"""The masks that stage `conditional` trains with: which part of a clip is given, drawn from one mixture.

M is 1 where the clip is given. Every kind is a task that the network is then asked for: see `MIXTURE`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F

from openlumiere.errors import LumiereError

STAGES_WITH_MASKS = ("conditional", "distill")

# A pixel whose colour changes by more than this (of 2) over the clip moves.
_MOVES = 0.1


@dataclass(frozen=True)
class Subject:
    """What masks are drawn for.

    Attributes:
        clip: (3, F, H, W) in [-1, 1].
        alpha: of the moving object, (F, H, W) in [0, 1]; None where it is not known.
        rng: all that is random.
    """

    clip: torch.Tensor
    alpha: torch.Tensor | None
    rng: np.random.Generator

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames, height and width."""
        _, frames, height, width = self.clip.shape
        return frames, height, width


def draw_mask(
    clip: torch.Tensor,
    rng: np.random.Generator,
    *,
    alpha: torch.Tensor | None = None,
    kinds: Sequence[str] | None = None,
    text_alone: float = 1.0,
) -> torch.Tensor:
    """Draw one mask, float (1, F, H, W), 1 = given. See `Subject` for the arguments.

    Args:
        kinds: of `MIXTURE`, equally often; None = all of them, by their shares.
        text_alone: so many times its share has the mask by which nothing is given.

    Raises:
        LumiereError: an unknown kind.
    """
    unknown = [kind for kind in kinds or () if kind not in MIXTURE]
    if unknown:
        raise LumiereError(f"unknown kinds of masks {unknown}; known: {', '.join(MIXTURE)}")
    shares = np.array([1.0 if kinds else MIXTURE[kind][0] for kind in kinds or MIXTURE])
    if kinds is None:
        shares[list(MIXTURE).index("none")] *= text_alone
    drawn = list(kinds or MIXTURE)[rng.choice(len(shares), p=shares / shares.sum())]
    return draw_kind(drawn, clip, rng, alpha=alpha)


def draw_kind(
    kind: str, clip: torch.Tensor, rng: np.random.Generator, *, alpha: torch.Tensor | None = None
) -> torch.Tensor:
    """Draw a mask of one kind of `MIXTURE`."""
    subject = Subject(clip, alpha, rng)
    return MIXTURE[kind][1](subject).expand(subject.shape).float()[None].contiguous()


# ---------------------------------------------------------------------------------------------- whole frames


def _frames(subject: Subject, given: list[int] | range | np.ndarray) -> torch.Tensor:
    mask = torch.zeros(subject.shape[0], 1, 1)
    mask[torch.as_tensor(np.asarray(given), dtype=torch.long)] = 1
    return mask


def _some(subject: Subject) -> int:
    """Draw a number of frames from 2 to half of the clip's, small ones more often."""
    most = max(subject.shape[0] // 2, 2)
    return int(np.exp(subject.rng.uniform(np.log(2), np.log(most + 1))))


def _every_nth(subject: Subject) -> torch.Tensor:
    frames = subject.shape[0]
    step = int(subject.rng.choice([n for n in (2, 4, 5, 8, 10, 16, 20) if 2 * n <= frames] or [1]))
    return _frames(subject, range(int(subject.rng.integers(step)), frames, step))


def _every_other(subject: Subject) -> torch.Tensor:
    return _frames(subject, range(0, subject.shape[0], 2))


# ---------------------------------------------------------------------------------------------- regions


def _grid(subject: Subject) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the pixels' coordinates, y and x in [0, 1]."""
    _, height, width = subject.shape
    y, x = ((torch.arange(side) + 0.5) / side for side in (height, width))
    return y[:, None], x[None]


def _path(subject: Subject) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw a region's centre in each frame, y and x, (F, 1, 1) each: at rest, or on a line across the frame."""
    frames, rng = subject.shape[0], subject.rng
    start = rng.uniform(0.2, 0.8, 2)
    end = start if rng.random() < 0.5 else rng.uniform(0.2, 0.8, 2)
    way = np.linspace(start, end, frames)
    y, x = (torch.from_numpy(way[:, axis]).float()[:, None, None] for axis in (0, 1))
    return y, x


def _inside(
    subject: Subject, y: torch.Tensor, x: torch.Tensor, half: np.ndarray, *, strokes: bool = True
) -> torch.Tensor:
    """Draw a box, an ellipse or a brush stroke around a centre, `half` its height and width; 1 inside, (F, H, W)."""
    rng, (rows, columns) = subject.rng, _grid(subject)
    v, u = (rows - y) / half[0], (columns - x) / half[1]
    match rng.integers(3 if strokes else 2):
        case 0:
            return ((v.abs() < 1) & (u.abs() < 1)).float()
        case 1:
            return (v.square() + u.square() < 1).float()
        case _:
            points = torch.from_numpy(rng.uniform(-0.85, 0.85, (int(rng.integers(2, 6)), 2))).float()
            thick = float(rng.uniform(0.25, 0.5))
            near = [_distance(v, u, a, b) for a, b in pairwise(points)]
            return (torch.stack(near).amin(0) < thick).float()


def _distance(v: torch.Tensor, u: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the distance of each pixel from the segment between two points."""
    along = b - a
    nearest = ((v - a[0]) * along[0] + (u - a[1]) * along[1]) / along.square().sum().clamp(min=1e-6)
    nearest = nearest.clamp(0, 1)
    return ((v - a[0] - nearest * along[0]).square() + (u - a[1] - nearest * along[1]).square()).sqrt()


def _region(subject: Subject) -> torch.Tensor:
    """Draw a region to be changed, at rest or moving."""
    return 1 - _inside(subject, *_path(subject), subject.rng.uniform(0.1, 0.35, 2))


def _around_object(subject: Subject) -> torch.Tensor:
    """Draw a region that follows the object; any region where the object is not known."""
    if subject.alpha is None or not subject.alpha.amax(dim=(1, 2)).gt(0.5).any():
        return _region(subject)
    (rows, columns), rng = _grid(subject), subject.rng
    weight = subject.alpha.clamp(min=0) + 1e-6
    total = weight.sum((1, 2), keepdim=True)
    y, x = ((weight * axis).sum((1, 2), keepdim=True) / total for axis in (rows, columns))
    if rng.random() < 0.4:  # its outline, with some room
        radius = int(rng.integers(1, max(subject.shape[1] // 8, 2)))
        return 1 - _grown((subject.alpha > 0.1).float(), radius)
    spread = ((weight * ((rows - y).square() + (columns - x).square())).sum((1, 2)) / total.flatten()).sqrt()
    half = np.full(2, float(spread.amax())) * rng.uniform(1.5, 2.5, 2)
    return 1 - _inside(subject, y, x, half, strokes=False)


def _border(subject: Subject) -> torch.Tensor:
    """Outpainting: a rectangle is given, what lies around it is to be made."""
    rows, columns = _grid(subject)
    rng = subject.rng
    top, left = rng.uniform(0, 0.35, 2) * (rng.random(2) < 0.7)
    bottom, right = 1 - rng.uniform(0.05, 0.35, 2) * (rng.random(2) < 0.7)
    return ((rows > top) & (rows < bottom) & (columns > left) & (columns < right)).float()[None]


def _cinemagraph(subject: Subject) -> torch.Tensor:
    """The first frame whole, and of the others what stays as it is there."""
    moves = (subject.clip - subject.clip[:, :1]).abs().amax(dim=(0, 1)) > _MOVES
    region = _grown(moves.float()[None], int(subject.rng.integers(1, max(subject.shape[1] // 8, 2))))
    mask = (1 - region).repeat(subject.shape[0], 1, 1)
    mask[0] = 1
    return mask


def _grown(region: torch.Tensor, radius: int) -> torch.Tensor:
    return F.max_pool2d(region[:, None], 2 * radius + 1, stride=1, padding=radius)[:, 0]


# How often each kind is drawn, and how; the shares add up to 1.
MIXTURE: dict[str, tuple[float, Callable[[Subject], torch.Tensor]]] = {
    "none": (0.24, lambda s: torch.zeros(s.shape)),
    "all": (0.02, lambda s: torch.ones(s.shape)),
    "first frame": (0.16, lambda s: _frames(s, [0])),
    "first and last frame": (0.06, lambda s: _frames(s, [0, s.shape[0] - 1])),
    "first frames": (0.07, lambda s: _frames(s, range(_some(s)))),
    "last frames": (0.04, lambda s: _frames(s, range(s.shape[0] - _some(s), s.shape[0]))),
    "every n-th frame": (0.10, _every_nth),
    "every other frame": (0.0, _every_other),  # temporal super-resolution of keyframes, a baseline
    "region": (0.10, _region),
    "region around the object": (0.09, _around_object),
    "border": (0.07, _border),
    "cinemagraph": (0.05, _cinemagraph),
}
