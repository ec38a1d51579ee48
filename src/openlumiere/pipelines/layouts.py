"""Where a clip's subject is to be: from what a user passes, and what a planner makes of the prompt, to layouts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from types import NoneType
from typing import Any

import numpy as np
import torch

from openlumiere.diffusion.layout import LAYOUT_DIM, in_view, layout_of, path_through
from openlumiere.diffusion.observed import observed_path, path_through_observed
from openlumiere.diffusion.way_points import WayPoint, check_way_points, columns_of
from openlumiere.errors import LumiereError
from openlumiere.stunet import STUNet

from .planner import PathPlanner

# A path for each clip, (B, F, 4), as `diffusion.layout` has them.
Plan = Callable[[], torch.Tensor]
# A clip's path, (F, 4), and in which frames it is known, (F,), as `observed_path` has them.
Seen = tuple[torch.Tensor, torch.Tensor]

# Of so many plans the one is taken that moves most like the frames that are given, and stays in view from there.
_PLANS = 8


def layout_condition(
    unet: STUNet,
    layout: Any | None,
    planner: PathPlanner | None,
    prompts: torch.Tensor,
    num_frames: int,
    *,
    loop: bool,
    given: bool,
    seen: Sequence[Seen] | None = None,
    generator: torch.Generator | list[torch.Generator] | None,
) -> torch.Tensor | None:
    """Return what a network is told of where the subjects of B clips are, (B, F, 6); None = nothing.

    Args:
        layout: as `read_layout`'s.
        planner: asked for what the layout leaves open; None = there is none, or it is not wanted.
        prompts: token embeddings, (B, L, D).
        given: a part of the clips is given, and so is where its subject is: no planner says otherwise.
        seen: where it is seen to be, for each clip, see `given_paths`; None = not looked at.
        generator: that the planner draws from.

    Raises:
        LumiereError: as `read_layout`, and a layout for a network that takes none.
    """
    if not unet.takes_layout:
        if layout is not None:
            raise LumiereError("this model was not trained to be told where its subject is: leave the layout out")
        return None
    plan = None
    if planner is not None:
        plan = partial(planner.plan, prompts, num_frames, loop=loop, generator=generator)
    if layout is None and given:
        return None if seen is None or plan is None else _through_seen(seen, plan)
    return read_layout(layout, batch=len(prompts), num_frames=num_frames, loop=loop, plan=plan, seen=seen)


def given_paths(clips: torch.Tensor, mask: torch.Tensor | None) -> list[Seen] | None:
    """Return where the subject of each clip is seen, as `observed_path` does, in the frames that are given whole.

    None where parts of frames are given, of which it is not known whether they show the subject.

    Args:
        clips: (B, 3 or 4, F, H, W) in [-1, 1].
        mask: M, (B, 1, F, H, W); None = the whole clip shows where it is, and none of it is to stay.
    """
    found = []
    for index, clip in enumerate(clips):
        given = torch.ones(clip.shape[1]) if mask is None else mask[index, 0].float().mean((1, 2)).cpu()
        if not ((given == 0) | (given == 1)).all() or not given.any():
            return None
        frames = given.nonzero()[:, 0]
        path, seen = torch.zeros(len(given), 4), torch.zeros(len(given), dtype=torch.bool)
        path[frames], seen[frames] = observed_path(clip[:, frames.to(clip.device)])
        found.append((path, seen))
    return found


def _through_seen(
    seen: Sequence[Seen], plan: Plan, *, told: int = 0, otherwise: torch.Tensor | None = None
) -> torch.Tensor:
    """Return layouts through where subjects are seen, (B, F, 6).

    Args:
        told: so many columns of the plan are a user's word.
        otherwise: those of clips whose subjects are not seen; None = they are not told.
    """
    choice = not told and any(frames.any() for _, frames in seen)
    plans = torch.stack([plan() for _ in range(_PLANS if choice else 1)])  # (K, B, F, 4)
    layouts = torch.zeros(len(seen), plans.shape[2], LAYOUT_DIM) if otherwise is None else otherwise.clone()
    for index, (path, frames) in enumerate(seen):
        if frames.any():
            layouts[index] = layout_of(path_through_observed(path, frames, plans[:, index], told=told))
    return layouts


def read_layout(
    layout: Any | None,
    *,
    batch: int,
    num_frames: int,
    loop: bool,
    plan: Plan | None,
    seen: Sequence[Seen] | None = None,
) -> torch.Tensor | None:
    """Read the layouts of B clips, (B, F, 6); None = not told.

    Args:
        layout: (F, 6) or (B, F, 6), or way points as `diffusion.layout.path_through` takes them, the same for all
            clips; None = by `plan` alone, and so that the subject stays in the frame.
        plan: makes paths of the prompts, for what is not given; None = there is no planner, or none is wanted.
        seen: where the subjects are seen to be, see `given_paths`; a path of way points begins and ends there.

    Raises:
        LumiereError: a layout of another shape, or way points that can't be used.
    """
    if layout is None:
        return None if plan is None else layout_of(in_view(plan()))
    given = _as_tensor(layout)
    if given is not None and given.shape[-1] == LAYOUT_DIM:
        given = given[None] if given.ndim == 2 else given
        if given.ndim != 3 or len(given) not in (1, batch) or given.shape[1] != num_frames:
            raise LumiereError(
                f"a layout of shape {tuple(given.shape)} for {batch} clip(s) of {num_frames} frames: give "
                f"({num_frames}, {LAYOUT_DIM}), ({batch}, {num_frames}, {LAYOUT_DIM}), or way points"
            )
        if not given.isfinite().all():
            raise LumiereError("the layout holds numbers that are not finite")
        return given.float().expand(batch, -1, -1)
    points = _way_points(layout if given is None else given.tolist())
    columns = columns_of(points[0])
    open_ = plan() if plan is not None and columns < 4 else [None] * batch
    paths = torch.stack([path_through(points, num_frames, loop=loop, default=path) for path in open_])
    told = layout_of(paths)
    return told if seen is None else _through_seen(seen, lambda: paths, told=columns, otherwise=told)


def _as_tensor(layout: Any) -> torch.Tensor | None:
    """Return numbers in a regular grid; None for way points of unequal numbers."""
    if isinstance(layout, torch.Tensor):
        return layout.detach().cpu()
    try:
        return torch.as_tensor(np.asarray(layout, dtype=np.float64))
    except (TypeError, ValueError):
        return None


def _way_points(points: Any) -> Sequence[WayPoint]:
    rows = isinstance(points, Sequence) and all(isinstance(point, Sequence) for point in points)
    if not rows or not all(isinstance(number, (int, float, NoneType)) for point in points for number in point):
        raise LumiereError("a layout is an array (F, 6) or (B, F, 6), or way points such as [(0.1, 0.5), (0.9, 0.5)]")
    check_way_points(points)
    return points
