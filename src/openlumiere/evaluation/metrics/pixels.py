"""What single pixels of a clip show: its background, its transparency, how much of it moves.

All measures look at the clip averaged down to `SIDE` pixels unless they say otherwise, so that models of any size are
measured alike.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F

from openlumiere.data.emoji.scenes import vocabulary
from openlumiere.errors import LumiereError

SIDE = 32

# A pair of frames differs if at least this share of the pixels changes by more than this much in some channel
# (of 1): a still picture through H.264 stays below both, and real clips stay above (measured in the report).
CHANGED_BY = 3.0 / 255.0
CHANGED_PIXELS = 0.004


def as_clip(
    frames: np.ndarray | torch.Tensor,
    at: np.ndarray | None = None,
    *,
    side: int | None = SIDE,
    channels: int | None = 3,
) -> torch.Tensor:
    """Return frames as classifiers see them.

    Args:
        frames: (F, H, W, 3), uint8 or float in [0, 1].
        at: indices of the frames to take; all when None.
        side: height and width to give them; None = as they are.
        channels: None = 3, or 4 with alpha.

    Returns:
        float32 (F, channels, side, side) in [0, 1].
    """
    # Copied, as torch takes no array that is read-only or runs backwards.
    clip = frames if isinstance(frames, torch.Tensor) else torch.from_numpy(np.array(frames))
    if clip.ndim != 4 or clip.shape[-1] not in ([channels] if channels else (3, 4)):
        wanted = channels or "3 or 4"
        raise LumiereError(f"a clip must have the shape (frames, height, width, {wanted}), not {tuple(clip.shape)}")
    if at is not None:
        clip = clip[torch.from_numpy(at)]
    clip = clip.float() / 255.0 if clip.dtype == torch.uint8 else clip.float().clamp(0.0, 1.0)
    clip = clip.permute(0, 3, 1, 2)
    if side is None or clip.shape[-2:] == (side, side):
        return clip
    return F.interpolate(clip, size=(side, side), mode="bilinear", antialias=True, align_corners=False)


def lab(rgb: torch.Tensor) -> torch.Tensor:
    """Convert sRGB in [0, 1] to CIELAB (D65), over dimension 1 of (N, 3, ...)."""
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    matrix = torch.tensor(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    )
    matrix = matrix / matrix.sum(1, keepdim=True)  # white becomes (1, 1, 1)
    xyz = torch.einsum("ij,nj...->ni...", matrix, linear)
    f = torch.where(xyz > (6 / 29) ** 3, xyz.clamp(min=1e-8) ** (1 / 3), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = f.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


@lru_cache(maxsize=1)
def _named_colors() -> tuple[list[str], torch.Tensor]:
    colors = vocabulary()["backgrounds"]
    return list(colors), lab(torch.tensor(list(colors.values())).float() / 255.0)


def background(clip: torch.Tensor) -> tuple[str, torch.Tensor]:
    """Return the background's name, by vote of all border pixels, and its colour.

    Each pixel votes for the vocabulary's nearest colour in CIELAB, so a subject that crosses the border is outvoted.

    Args:
        clip: (F, 3, SIDE, SIDE) in [0, 1].

    Returns:
        Name, and CIELAB colour of shape (3,): the median of the winner's voters.
    """
    name, pixels = _winners(clip)
    return name, lab(pixels).median(0).values


def ground_color(clip: torch.Tensor) -> torch.Tensor:
    """Return the red, green and blue of a clip's background, (3,): as `background`'s, in sRGB, at any size."""
    return _winners(clip)[1].median(0).values


def _winners(clip: torch.Tensor) -> tuple[str, torch.Tensor]:
    """Return the colour that most border pixels are nearest to, and those pixels, (N, 3)."""
    ring = torch.cat([clip[..., 0, :], clip[..., -1, :], clip[..., 1:-1, 0], clip[..., 1:-1, -1]], dim=-1)
    pixels = ring.transpose(1, 2).reshape(-1, 3)
    names, colors = _named_colors()
    votes = torch.cdist(lab(pixels), colors).argmin(1)
    winner = int(votes.bincount(minlength=len(names)).argmax())
    return names[winner], pixels[votes == winner]


def transparent(frames: np.ndarray | torch.Tensor) -> bool:
    """Return whether most pixels at a clip's border, over all frames, are transparent."""
    clip = as_clip(frames, side=None, channels=None)
    if clip.shape[1] == 3:
        return False
    alpha = clip[:, 3]
    ring = torch.cat([alpha[:, 0], alpha[:, -1], alpha[:, 1:-1, 0], alpha[:, 1:-1, -1]], dim=-1)
    return bool((ring < 0.5).float().mean() > 0.5)


def on_contrast(frames: np.ndarray | torch.Tensor) -> np.ndarray | torch.Tensor:
    """Lay a clip of straight alpha over the vocabulary's colour that is furthest from its subject's; keep others.

    Args:
        frames: (F, H, W, 3 or 4), uint8 or float in [0, 1].

    Returns:
        (F, H, W, 3); float in [0, 1] where there was alpha.
    """
    if frames.shape[-1] == 3:
        return frames
    clip = as_clip(frames, side=None, channels=4)
    alpha = clip[:, 3:]
    own = (clip[:, :3] * alpha).sum((0, 2, 3)) / alpha.sum().clamp(min=1e-6)
    _, colors = _named_colors()
    furthest = int((colors - lab(own[None])).norm(dim=1).argmax())
    behind = torch.tensor(list(vocabulary()["backgrounds"].values())[furthest])[None, :, None, None] / 255
    return (clip[:, :3] * alpha + behind * (1 - alpha)).permute(0, 2, 3, 1)


def moving_fraction(frames: np.ndarray | torch.Tensor) -> float:
    """Return the fraction of adjacent pairs of frames that differ by more than codec noise; 0 for a still picture.

    Args:
        frames: (F, H, W, 3), uint8 or float in [0, 1].
    """
    clip = as_clip(frames)
    if len(clip) < 2:
        return 0.0
    changed = (clip[1:] - clip[:-1]).abs().amax(1) > CHANGED_BY
    return float((changed.float().mean((1, 2)) >= CHANGED_PIXELS).float().mean())
