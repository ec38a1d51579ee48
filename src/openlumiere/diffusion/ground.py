"""Plain ground: what lies along the edge of frames, a subject standing before it."""

from __future__ import annotations

import torch


def edge_of(frames: torch.Tensor) -> torch.Tensor:
    """Return the pixels along the edge of frames: (..., H, W) -> (..., E)."""
    return torch.cat([frames[..., 0, :], frames[..., -1, :], frames[..., 0], frames[..., -1]], dim=-1)


def ground_of(frames: torch.Tensor) -> torch.Tensor:
    """Return what most of the edge shows, each frame's own: (..., H, W) -> (..., 1, 1), the median of each channel."""
    return edge_of(frames).median(-1).values[..., None, None]
