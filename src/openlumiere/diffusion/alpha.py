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

_FAINT = 8 / 255  # alpha below which a colour, divided by it, is mostly rounding and noise, and which no eye sees
_REACH = 2  # pixels from which such a pixel then takes its colour
# A whole clip's intermediate values would take more memory than the clip, and blocks above 32 MiB, which the C library
# hands back to the system each time, take longer to get than to fill.
_PIXELS_AT_ONCE = 2**19


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
    at_once = max(_PIXELS_AT_ONCE // (frames.shape[2] * frames.shape[3]), 1)
    straight = torch.cat([_divided(part) for part in frames.split(at_once)])
    return straight.unflatten(0, (len(clips), -1)).transpose(1, 2)


def _divided(frames: torch.Tensor) -> torch.Tensor:
    """(N, 4, H, W), premultiplied to straight."""
    pixels = _valid(frames)
    near = _mean_in(pixels, (2 * _REACH + 1, 1))
    near = _mean_in(near, (1, 2 * _REACH + 1))
    alpha = pixels[:, 3:]
    mixed = torch.lerp(pixels, near, (1 - alpha / _FAINT).clamp_(min=0))
    known = mixed[:, 3:]
    straight = mixed / known.clamp(min=1e-4)
    straight *= known > 1e-4
    straight[:, 3:] = alpha
    return straight.mul_(2).sub_(1)


def _mean_in(frames: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return F.avg_pool2d(frames, size, stride=1, padding=(size[0] // 2, size[1] // 2), count_include_pad=False)


def without_haze(clips: torch.Tensor) -> torch.Tensor:
    """Make what is all but transparent nothing, and what is all but opaque, opaque; premultiplied (B, 4, F, H, W).

    Networks leave an alpha of a few 255ths around a subject. It cannot be seen, but it makes a sticker's file four
    times as large.
    """
    alpha = (clips[:, 3:] + 1) / 2
    opaque = (clips + 1) / alpha.clamp(min=0.5) - 1
    clips = torch.where(alpha > 1 - _FAINT, opaque, clips)
    return torch.where(alpha < _FAINT, torch.full_like(clips, EMPTY), clips)


def clamp_premultiplied(clips: torch.Tensor) -> torch.Tensor:
    """Premultiplied clips, (B, 4, ...), as files and users get them: in [-1, 1], no colour above alpha; float32."""
    return _valid(clips) * 2 - 1


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
    return torch.minimum(pixels, pixels[:, 3:])
