"""Motion compensation: frames moved along with their subject, from where one layout has it to where another does.

Video coders predict a frame from others this way (Jain & Jain 1981, Displacement measurement and its application in
interframe image coding); here the motion is the layout's, a similarity transform for each frame.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F


def transported(
    frames: torch.Tensor,
    layout: torch.Tensor,
    to: torch.Tensor,
    *,
    beyond: Literal["zeros", "border"] = "zeros",
    interpolation: Literal["bilinear", "bicubic"] = "bilinear",
) -> torch.Tensor:
    """Move each frame so that its subject, which is where `layout` says, comes to where `to` says.

    Args:
        frames: (N, C, h, w).
        beyond: what lies outside of them, 0 or what is nearest at their edges.
        layout, to: (N, 6), see `diffusion.layout`, both given.
        interpolation: bicubic keeps lines sharper, and may leave the range of the values by a few per cent.
    """
    _, _, height, width = frames.shape
    layout, to = layout.to(frames), to.to(frames)
    y, x = (torch.arange(side, device=frames.device).add(0.5).mul(2 / side).sub(1) for side in (height, width))
    dy, dx = y[:, None] - to[:, 1, None, None], x - to[:, 0, None, None]  # from the subject's centre
    shrink = (layout[:, 2] - to[:, 2]).exp()
    # The angle from `layout` to `to`, clockwise with y down; sampling turns back by it.
    sine = to[:, 3] * layout[:, 4] - to[:, 4] * layout[:, 3]
    cosine = to[:, 4] * layout[:, 4] + to[:, 3] * layout[:, 3]
    along, across = ((shrink * part)[:, None, None] for part in (cosine, sine))
    # Of frames that are no squares, whose coordinates are shares of width and height.
    source_x = layout[:, 0, None, None] + along * dx + across * dy * (height / width)
    source_y = layout[:, 1, None, None] - across * dx * (width / height) + along * dy
    grid = torch.stack([source_x, source_y], dim=-1).to(frames)
    return F.grid_sample(frames, grid, mode=interpolation, padding_mode=beyond, align_corners=False)
