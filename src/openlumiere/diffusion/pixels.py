"""Pixels as the network sees them: blocks of p x p pixels as channels.

An exact, invertible stand-in for a latent space (Shi et al. 2016, "pixel unshuffle"): a U-Net starts at a p-th of
the frame's size, so that its costly first level has 1/p^2 of the positions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def pixel_unshuffle(clip: torch.Tensor, factor: int) -> torch.Tensor:
    """(B, C, F, H, W) -> (B, C * factor^2, F, H / factor, W / factor)."""
    return clip if factor == 1 else F.pixel_unshuffle(_frames_first(clip), factor).transpose(1, 2)


def pixel_shuffle(clip: torch.Tensor, factor: int) -> torch.Tensor:
    """(B, C * factor^2, F, H, W) -> (B, C, F, H * factor, W * factor); inverse of `pixel_unshuffle`."""
    return clip if factor == 1 else F.pixel_shuffle(_frames_first(clip), factor).transpose(1, 2)


def _frames_first(clip: torch.Tensor) -> torch.Tensor:
    # PyTorch's shuffles refuse some layouts of five dimensions, such as a Fourier transform over time leaves.
    return clip.transpose(1, 2).contiguous()
