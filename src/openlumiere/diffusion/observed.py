"""Where the subject of given frames is, read from transparency or a plain background, and paths through there."""

from __future__ import annotations

import math

import torch

from .ground import edge_of, ground_of
from .layout import hermite, reach
from .turning import Turning, turning

# A pixel belongs to the subject if its alpha, or its difference from the background, is above this.
_SEEN = 0.1
# A background is plain if so many of the pixels along the frame's edge are no part of the subject.
_PLAIN = 0.6
# Of the subject's pixels this share is cut off at each side, as sparks and speckles say little about where it is.
_STRAY = 0.005
# The subject's larger extent, of the side of its square: the mean over the bundled model's subjects.
_FILLED = 0.85
_SHORT = 8  # frames between two that are seen: so few are crossed smoothly, whatever a plan says
_WEIGHTS = (1.0, 1.0, 1.0, 0.1)  # by which plans are chosen: position, the logarithm of the size, the angle
_BACK = 16  # frames in which a path comes back to where a user told it to be


def observed_path(frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the path of the one subject of frames, (F, 4), see `diffusion.layout`, and in which it is seen, (F,).

    It is taken to stand upright where it is seen first; where it turns from there, see `diffusion.turning`, the same
    point of it is followed. It is not seen, and its row 0, where a frame is neither transparent nor has a plain
    background, or shows nothing else, or where it is partly outside of the frame while it is inside of others.

    Args:
        frames: (3 or 4, F, H, W) in [-1, 1], premultiplied where they have alpha.
    """
    values = frames.float().cpu() / 2 + 0.5
    _, count, height, width = values.shape
    see_through = values[3] if len(values) == 4 else torch.ones(count, height, width)
    colours = values[:3]
    ground = ground_of(colours)  # (3, F, 1, 1)
    transparent = ground_of(see_through)[:, 0, 0] < _SEEN
    differs = (colours - ground).abs().amax(0)
    subject = torch.where(transparent[:, None, None], see_through, differs) > _SEEN
    at_edge = edge_of(subject.float()).mean(-1)
    seen = (at_edge < 1 - _PLAIN) & subject.flatten(1).any(1)
    inside = seen & (at_edge == 0)
    seen = inside if inside.any() else seen
    left, right = _extent(subject.sum(1))
    top, bottom = _extent(subject.sum(2))
    side = torch.maximum((right - left) / width, (bottom - top) / height) / _FILLED
    path = torch.stack([(left + right) / width - 1, (top + bottom) / height - 1, side, torch.zeros(count)], dim=1)
    path = path * seen[:, None]
    at = seen.nonzero()[:, 0]
    if len(at) > 1:
        alone = torch.cat([(colours - ground * ~transparent[:, None, None]) * subject, subject[None]])
        found = turning(alone[:, at], subject[at].float())
        if found is not None:
            path[at] = _turning_path(path[at[0]], found)
    return path, seen


def _turning_path(first: torch.Tensor, found: Turning) -> torch.Tensor:
    """Return the path of a subject that turns, (S, 4), from its row where it is seen first."""
    scale = found.extent / found.extent[0]
    x, y = first[:2] - found.centroid[0]
    sine, cosine = found.angle.sin(), found.angle.cos()
    centre = found.centroid + scale[:, None] * torch.stack([cosine * x - sine * y, sine * x + cosine * y], dim=1)
    return torch.cat([centre, (first[2] * scale)[:, None], found.angle[:, None]], dim=1)


def path_through_observed(
    path: torch.Tensor, seen: torch.Tensor, plans: torch.Tensor, *, told: int = 0
) -> torch.Tensor:
    """Return a path, (F, 4), that goes through where the subject is seen, and elsewhere as one of some plans does.

    What a plan misses is made up for evenly in time. The one is taken that moves most like what is seen, and that
    keeps the subject in the frame: a single frame says nothing of how it moves, but from where it is some ways lead
    out.

    Args:
        path, seen: as of `observed_path`, seen in one frame at least.
        plans: (K, F, 4), each what the prompt may mean.
        told: so many columns of the plans are a user's word, which holds but for some frames next to those seen.
    """
    at = seen.nonzero()[:, 0]
    known, planned = _even(path), _even(plans)
    turns = known[at, 3].expand(len(planned), -1)
    turned, as_planned = bool(turns.any()), planned[:, at, 3]
    # What looks the same from all sides may turn as planned.
    turns = _unwrapped(turns, as_planned) if turned else as_planned - as_planned[:, :1]
    missed = known[at] - planned[:, at]  # (K, S, 4)
    missed[..., 3] = turns - planned[:, at, 3]  # upright where it is seen first
    made_up = _in_between(missed, at, len(path))
    away = (torch.arange(len(path))[:, None] - at).abs().amin(1)
    made_up[..., :told] *= (1 - away / _BACK).clamp(min=0)[:, None]
    wholes = planned + made_up
    # The more is seen, the less it matters where a plan leads.
    unlike = len(at) * (missed.var(1, correction=0) * torch.tensor(_WEIGHTS)).sum(-1)
    outside = (reach(_with_sides(wholes)) - 1).clamp(min=0).square().mean(-1)
    best = int((unlike + outside).argmin())
    known[at, 3] = turns[best] if turned else 0.0
    whole = wholes[best]
    times = at.to(torch.float64) / (len(path) - 1 if len(path) > 1 else 1)
    smooth = hermite(known[at], times, len(path)).to(whole)
    gaps = torch.zeros(len(path), dtype=torch.bool)
    for start, end in zip(at[:-1].tolist(), at[1:].tolist(), strict=True):
        gaps[start : end + 1] |= end - start <= _SHORT
    whole = torch.where(gaps[:, None], smooth, whole)
    columns = 4 if turned else 3
    whole[at, :columns] = known[at, :columns].to(whole)
    return _with_sides(whole).float()


def _unwrapped(angles: torch.Tensor, planned: torch.Tensor) -> torch.Tensor:
    """Return angles, (K, S), with the whole turns from one to the next by which they come nearest to a plan's."""
    steps, wanted = angles.diff(dim=1), planned.diff(dim=1)
    steps = steps + 2 * math.pi * ((wanted - steps) / (2 * math.pi)).round()
    return torch.cat([angles[:, :1], angles[:, :1] + steps.cumsum(1)], dim=1)


def _even(path: torch.Tensor) -> torch.Tensor:
    """Return (..., 4), with the side's logarithm, in which growing to twice the size is even."""
    path = path.to(torch.float64).clone()
    path[..., 2] = path[..., 2].clamp(min=1e-3).log()
    return path


def _with_sides(path: torch.Tensor) -> torch.Tensor:
    """Return what `_even` was made of."""
    path = path.clone()
    path[..., 2] = path[..., 2].exp()
    return path


def _in_between(values: torch.Tensor, at: torch.Tensor, count: int) -> torch.Tensor:
    """Interpolate (..., S, D) at rising frames to (..., count, D) linearly; the outermost hold beyond."""
    frames = torch.arange(count)
    after = torch.searchsorted(at, frames).clamp(max=len(at) - 1)
    before = (torch.searchsorted(at, frames, right=True) - 1).clamp(min=0)
    span = (at[after] - at[before]).clamp(min=1)
    share = ((frames - at[before]) / span).clamp(0, 1)[:, None].to(values)
    return torch.lerp(values[..., before, :], values[..., after, :], share)


def _extent(counts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return where the pixels of each row of counts, (F, N), begin and end, but for the stray ones: (F,) each."""
    share = counts.cumsum(1) / counts.sum(1, keepdim=True).clamp(min=1)
    return (share <= _STRAY).sum(1).float(), (share < 1 - _STRAY).sum(1).float() + 1
