"""Transparency: straight alpha as people have it, premultiplied as networks see it.

Premultiplied colours (Porter & Duff 1984) are straight ones times alpha, so a transparent pixel is nothing, whatever
colour a file keeps under it, and means, blends, feathering and resizing are linear. Clips here are (B, C, F, H, W) in
[-1, 1], each channel times 2 minus 1: premultiplied, a transparent pixel is (-1, -1, -1, -1).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

EMPTY = -1.0  # each channel of a transparent pixel, premultiplied

_FAINT = 8 / 255  # alpha below which a colour, divided by it, is mostly rounding and noise
_REACH = 2  # pixels from which such a pixel then takes its colour
_AT_ONCE = 16  # frames; a whole clip's intermediate values would take more memory than the clip


def add_alpha(clips: torch.Tensor) -> torch.Tensor:
    """Opaque clips with an alpha of 1; clips that have one are left as they are."""
    if clips.shape[1] == 4:
        return clips
    return torch.cat([clips, torch.ones_like(clips[:, :1])], dim=1)


def premultiply(clips: torch.Tensor) -> torch.Tensor:
    """Opaque clips, or ones of straight alpha, (B, 3 or 4, F, H, W) -> premultiplied, (B, 4, F, H, W)."""
    if clips.shape[1] == 3:
        return add_alpha(clips)
    colour, alpha = clips[:, :3], clips[:, 3:]
    return torch.cat([(colour + 1) * (alpha + 1) / 2 - 1, alpha], dim=1)


def unpremultiply(clips: torch.Tensor) -> torch.Tensor:
    """The inverse of `premultiply`, (B, 4, F, H, W), float32; colours above alpha, which none has, are cut to it.

    All but transparent pixels, whose own colour says little, take more and more of their neighbours' as alpha falls
    from 8/255 to 0, so that codecs that blur colours draw no dark rim; black where no neighbour has any.
    """
    frames = clips.transpose(1, 2).flatten(0, 1)
    straight = torch.cat([_divided(part) for part in frames.split(_AT_ONCE)])
    return straight.unflatten(0, (len(clips), -1)).transpose(1, 2)


def _divided(frames: torch.Tensor) -> torch.Tensor:
    """(N, 4, H, W), premultiplied to straight."""
    pixels = _valid(frames)
    near = F.avg_pool2d(pixels, 2 * _REACH + 1, stride=1, padding=_REACH, count_include_pad=False)
    alpha = pixels[:, 3:]
    mixed = torch.lerp(pixels, near, (1 - alpha / _FAINT).clamp(min=0))
    known = mixed[:, 3:]
    colour = torch.where(known > 1e-4, mixed[:, :3] / known.clamp(min=1e-4), 0.0)
    return torch.cat([colour, alpha], dim=1) * 2 - 1


def lay_over(clips: torch.Tensor, background: Sequence[float]) -> torch.Tensor:
    """Premultiplied clips over a colour: (B, 4, F, H, W) -> opaque, (B, 3, F, H, W).

    Args:
        background: red, green and blue in [0, 1].
    """
    pixels = _valid(clips)
    ground = torch.tensor(background, device=clips.device).view(3, 1, 1, 1)
    return ((pixels[:, :3] + ground * (1 - pixels[:, 3:])) * 2 - 1).to(clips.dtype)


def _valid(clips: torch.Tensor) -> torch.Tensor:
    """Premultiplied colours in [0, alpha] and alpha in [0, 1], float32: networks may leave both."""
    pixels = ((clips.float() + 1) / 2).clamp(0, 1)
    return torch.cat([torch.minimum(pixels[:, :3], pixels[:, 3:]), pixels[:, 3:]], dim=1)
