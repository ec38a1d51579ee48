"""Clips and masks as users have them, to tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from openlumiere.errors import LumiereError
from openlumiere.video import colour


def rgb(colour_name: str) -> tuple[float, float, float]:
    """A colour's name or ``#rrggbb`` as red, green and blue in [0, 1]."""
    red, green, blue = (value / 255 for value in colour(colour_name))
    return red, green, blue


def lay_frames_over(frames: np.ndarray, background: str) -> np.ndarray:
    """Frames of straight alpha over a colour: (F, H, W, 4), uint8 or in [0, 1], -> (F, H, W, 3) in [0, 1]."""
    pixels = (frames / np.float32(255) if frames.dtype == np.uint8 else frames).astype(np.float32)
    return pixels[..., :3] * pixels[..., 3:] + np.array(rgb(background), np.float32) * (1 - pixels[..., 3:])


def as_clips(clip: torch.Tensor | np.ndarray | list[Any]) -> torch.Tensor:
    """What a user has, one clip or a batch, as (B, 3 or 4, F, H, W) in [-1, 1]; alpha stays straight.

    Args:
        clip: a tensor, (F, 3, H, W) or (B, F, 3, H, W), or an array, (F, H, W, 3) or (B, F, H, W, 3), in [0, 1] or of
            uint8, or the same with alpha as a fourth colour; or a list of PIL images, or of such lists.
    """
    if isinstance(clip, list):
        if not clip:
            raise LumiereError("the clip has no frames")
        if isinstance(clip[0], (list, np.ndarray, torch.Tensor)):
            return torch.cat([as_clips(each) for each in clip])
        clip = np.stack([np.asarray(frame.convert("RGBA" if "A" in frame.getbands() else "RGB")) for frame in clip])
    if isinstance(clip, np.ndarray):
        clip = torch.from_numpy(np.ascontiguousarray(clip)).movedim(-1, -3)
    if clip.dtype == torch.uint8:
        clip = clip.float() / 255
    if clip.ndim == 4:
        clip = clip[None]
    if clip.ndim != 5 or clip.shape[2] not in (3, 4) or 0 in clip.shape:
        raise LumiereError(
            f"a clip of shape {tuple(clip.shape)} cannot be read: frames of 3 colours, or 4 with alpha, are wanted"
        )
    return clip.transpose(1, 2).float() * 2 - 1


def as_mask(mask: torch.Tensor | np.ndarray | Any, shape: tuple[int, ...]) -> torch.Tensor:
    """A user's mask, 1 or white = change, for clips of the shape (B, C, F, H, W), as float (B, 1, F, H, W) in [0, 1].

    Args:
        mask: a tensor or array of booleans, of uint8 or in [0, 1], (H, W) for all frames, (F, H, W) for all clips, or
            (B, F, H, W); or a PIL image.
    """
    if not isinstance(mask, torch.Tensor):
        array = mask if isinstance(mask, np.ndarray) else np.asarray(mask.convert("L"))
        mask = torch.from_numpy(np.ascontiguousarray(array))
    mask = mask.float() / 255 if mask.dtype == torch.uint8 else mask.float()
    batch, _, *clip = shape
    wanted = (batch, *clip)
    if mask.ndim not in (2, 3, 4) or any(a not in (1, b) for a, b in zip(mask.shape[::-1], wanted[::-1], strict=False)):
        raise LumiereError(
            f"a mask of shape {tuple(mask.shape)} does not fit {batch} clip(s) of {tuple(clip)}: resize it"
        )
    return mask.expand(wanted)[:, None]
