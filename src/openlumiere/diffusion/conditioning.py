"""Conditioning on a part of a clip: C, what is given, and M, where it is given (the paper's ⟨J, C, M⟩).

M is 1 where C is given, as in the paper. Users say it the other way round, as in diffusers' inpainting pipelines: white
is what should change. `given_where` turns one into the other, and nothing else does.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from openlumiere.errors import LumiereError


def given_where(change: torch.Tensor) -> torch.Tensor:
    """Turn a user's mask in [0, 1], 1 or white = change, into M: float, 1 = given; any shape."""
    return (change < 0.5).float()


def masked(clips: torch.Tensor, mask: torch.Tensor, *, blank: float = 0.0) -> torch.Tensor:
    """Return C: clips where they are given, and blank elsewhere; (B, C, F, H, W) by (B, 1, F, H, W).

    Args:
        blank: 0, which is gray, or `alpha.EMPTY`, which is transparent, for clips with premultiplied alpha.
    """
    if mask.shape != (len(clips), 1, *clips.shape[2:]):
        raise LumiereError(f"a mask of shape {tuple(mask.shape)} does not fit clips of shape {tuple(clips.shape)}")
    mask = mask.to(clips)
    return clips * mask + blank * (1 - mask)


def propagate_in_time(clips: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Propagate C and M in time: a frame sees what it is not given as other frames are given it.

    Where the paper leaves C blank, a network has to carry details through all of its temporal levels; here each frame
    sees them where they were. Between two frames C is a blend, beyond the last one it is that one's; M is 1 / (1 + d),
    d frames from where C was given, so that 1 still means given, and less a guess.

    Args:
        clips: C, (B, C, F, h, w), of pixel blocks as channels or of latents.
        mask: M, (B, m, F, h, w), where m divides C as `pixel_unshuffle` lays channels out.

    Returns:
        Both, of the shapes that they had; 0 where a position is given in no frame.
    """
    count = clips.shape[2]
    at = torch.arange(count, device=clips.device)[:, None, None].expand(mask.shape)
    before = torch.where(mask > 0.5, at, -1).cummax(2).values
    after = torch.where(mask > 0.5, at, count).flip(2).cummin(2).values.flip(2)
    share = (at - before).to(clips) / (after - before).clamp(min=1)
    share = torch.where(before < 0, 1, torch.where(after == count, 0, share))
    known = mask.amax(2, keepdim=True) > 0.5
    copies = (1, clips.shape[1] // mask.shape[1], 1, 1, 1)
    first = clips.gather(2, before.clamp(min=0).repeat(copies))
    last = clips.gather(2, after.clamp(max=count - 1).repeat(copies))
    away = torch.minimum(torch.where(before < 0, count, at - before), torch.where(after == count, count, after - at))
    blend = torch.lerp(first, last, share.repeat(copies)) * known.to(clips).repeat(copies)
    return blend, known.to(mask) / (1 + away)


def downsample_mask(mask: torch.Tensor, factor: int) -> torch.Tensor:
    """Return M at the resolution of a latent space: 1 where all of a block's pixels are given.

    (B, 1, F, H, W) -> (B, 1, F, H / factor, W / factor).
    """
    return mask if factor == 1 else -F.max_pool3d(-mask, (1, factor, factor))


def paste(clips: torch.Tensor, given: torch.Tensor, mask: torch.Tensor, *, feather: int = 0) -> torch.Tensor:
    """Put what was given back over what was made; (B, C, F, H, W), M as (B, 1, F, H, W).

    Args:
        feather: pixels over which the given part fades into the made one, inside the given part; 0 = a hard border.
    """
    weight = mask.to(clips)
    if feather > 0:
        # Given pixels that are nearer than `feather` to a border count less, linearly: average M over growing squares.
        rings = [_eroded(weight, radius) for radius in range(feather + 1)]
        weight = torch.stack(rings).mean(0)
    return torch.lerp(clips, given.to(clips), weight.expand_as(clips))  # exact at both ends


def _eroded(mask: torch.Tensor, radius: int) -> torch.Tensor:
    size = (1, 2 * radius + 1, 2 * radius + 1)
    return -F.max_pool3d(-mask, size, stride=1, padding=(0, radius, radius))
