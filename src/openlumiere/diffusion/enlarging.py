"""The soft clip as a super-resolution network sees it: enlarged, and corrupted with noise of a level that it is told.

Noise in training, of a random level, teaches the network to mend what a generated clip has wrong instead of trusting
it ("noise conditioning augmentation": Ho et al. 2022, Cascaded Diffusion Models). DeepFloyd IF corrupts the enlarged
clip (`corrupt`); the networks trained here get the noise before enlarging (`roughen`), where a base model's errors are,
and denoise only what the sharp clip has more than the enlarged one, its residual: plain areas, which have none, stay
plain.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from openlumiere.errors import LumiereError


def enlarge(clips: torch.Tensor, scale: int, *, align_corners: bool = False) -> torch.Tensor:
    """Bilinearly: (B, C, F, H, W) -> (B, C, F, H * scale, W * scale)."""
    size = [side * scale for side in clips.shape[3:]]
    frames = clips.transpose(1, 2).flatten(0, 1).float()
    large = F.interpolate(frames, size=size, mode="bilinear", align_corners=align_corners).to(clips.dtype)
    return large.unflatten(0, (len(clips), -1)).transpose(1, 2)


def shrink(clips: torch.Tensor, scale: int) -> torch.Tensor:
    """The mean of each scale x scale block of pixels: (B, C, F, H, W) -> (B, C, F, H / scale, W / scale)."""
    return F.avg_pool3d(clips, (1, scale, scale))


def corrupt(
    clips: torch.Tensor, noise: torch.Tensor, alphas_cumprod: torch.Tensor, levels: torch.Tensor
) -> torch.Tensor:
    """Clips with noise of a level each, keeping the variance; (B, ...).

    Args:
        alphas_cumprod: of the schedule, (T,).
        levels: timesteps of it, (B,); 0 is all but none.
    """
    kept = _kept(clips, alphas_cumprod, levels)
    return (kept.sqrt() * clips.float() + (1 - kept).sqrt() * noise.float()).to(clips.dtype)


def roughen(
    clips: torch.Tensor, noise: torch.Tensor, alphas_cumprod: torch.Tensor, levels: torch.Tensor
) -> torch.Tensor:
    """Clips with noise of a level each added to them, at the same ratio of signal to noise as `corrupt`; (B, ...)."""
    kept = _kept(clips, alphas_cumprod, levels)
    return (clips.float() + ((1 - kept) / kept).sqrt() * noise.float()).to(clips.dtype)


def _kept(clips: torch.Tensor, alphas_cumprod: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    if levels.min() < 0 or levels.max() >= len(alphas_cumprod):
        raise LumiereError(f"noise level {int(levels.max())}: choose 0 to {len(alphas_cumprod) - 1}")
    return alphas_cumprod.to(clips.device, torch.float32)[levels.to(clips.device)].view(-1, *[1] * (clips.ndim - 1))
