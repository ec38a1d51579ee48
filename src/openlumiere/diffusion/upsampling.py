"""The low-res clip as a super-resolution network sees it: upsampled, with noise of a level that the network knows.

Noise in training, of a random level, teaches the network to mend what a generated clip has wrong instead of trusting
it ("noise conditioning augmentation": Ho et al. 2022, Cascaded Diffusion Models). DeepFloyd IF adds noise to the
upsampled clip (`noise_augment`); the networks trained here get it before upsampling (`add_noise`), where a base model's
errors are, and denoise only what the high-res clip has more than the upsampled one, its residual: plain areas, which
have none, stay plain, most of all where the noise is in what the network sees alone and not in what its residual is
added to.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from openlumiere.errors import LumiereError

from .pixels import pixel_unshuffle

RESIDUAL_BASES = ("noisy", "clean")

_LOBES = 3  # of Lanczos' kernel


def upsample(clips: torch.Tensor, scale: int, *, align_corners: bool = False) -> torch.Tensor:
    """Upsample bilinearly: (B, C, F, H, W) -> (B, C, F, H * scale, W * scale)."""
    size = [side * scale for side in clips.shape[3:]]
    frames = clips.transpose(1, 2).flatten(0, 1).float()
    large = F.interpolate(frames, size=size, mode="bilinear", align_corners=align_corners).to(clips.dtype)
    return large.unflatten(0, (len(clips), -1)).transpose(1, 2)


def upsample_lanczos(clips: torch.Tensor, scale: int) -> torch.Tensor:
    """Upsample by Lanczos' kernel: (B, C, F, H, W) -> (B, C, F, H * scale, W * scale), float32.

    The kernel rings beside an edge, which would be a haze around a cut-out subject; so no pixel leaves the range of
    the four that it lies between.
    """
    down, across = (_lanczos(side, scale, clips.device) for side in clips.shape[3:])
    large = down.weights @ clips.float() @ across.weights.T
    low, high = clips.float(), clips.float()
    for axis, kernel in ((3, down), (4, across)):
        low = torch.minimum(low.index_select(axis, kernel.before), low.index_select(axis, kernel.after))
        high = torch.maximum(high.index_select(axis, kernel.before), high.index_select(axis, kernel.after))
    return large.clamp(low, high)


@dataclass(frozen=True)
class _Kernel:
    """Of one axis: `weights`, (large, small), and the two pixels that each lies between, (large,)."""

    weights: torch.Tensor
    before: torch.Tensor
    after: torch.Tensor


def _lanczos(side: int, scale: int, device: torch.device) -> _Kernel:
    places = (torch.arange(side * scale, device=device) + 0.5) / scale - 0.5
    before = places.floor().long()
    taps = before[:, None] + torch.arange(1 - _LOBES, 1 + _LOBES, device=device)
    away = places[:, None] - taps
    shares = torch.sinc(away) * torch.sinc(away / _LOBES)
    weights = torch.zeros(side * scale, side, device=device)
    weights.scatter_add_(1, taps.clamp(0, side - 1), shares / shares.sum(1, keepdim=True))  # edges are repeated
    return _Kernel(weights, before.clamp(min=0), (before + 1).clamp(max=side - 1))


def downsample(clips: torch.Tensor, scale: int) -> torch.Tensor:
    """Return the mean of each scale x scale block of pixels: (B, C, F, H, W) -> (B, C, F, H / scale, W / scale)."""
    return F.avg_pool3d(clips, (1, scale, scale))


def upsample_base(
    noisy: torch.Tensor, clean: torch.Tensor, scale: int, *, kind: str, align_corners: bool = False
) -> torch.Tensor:
    """Return what a residual is added to: (B, C, F, H, W) -> (B, C, F, H * scale, W * scale).

    Args:
        noisy, clean: the low-res clips with and without the noise that the network sees.
        kind: of `RESIDUAL_BASES`. "noisy": the noisy one, bilinearly; the noise is then part of what is to be mended.
            "clean": the clean one, by Lanczos' kernel: plain ground needs no correction, and edges less.
    """
    if kind == "clean":
        return upsample_lanczos(clean, scale).to(clean.dtype)
    return upsample(noisy, scale, align_corners=align_corners)


def low_res_channels(
    clips: torch.Tensor, scale: int, unit: int, *, upsampled: bool, align_corners: bool = False
) -> torch.Tensor:
    """Fit low-res clips to the resolution of a network on blocks of `unit` pixels: (B, C, F, H, W) -> (B, C', F, h, w).

    Args:
        upsampled: upsample them first, which makes C' = C * unit^2 channels; else C' = C * (unit / scale)^2, which hold
            the same, for less work in the network's first layer.

    Raises:
        LumiereError: without upsampling, if `scale` does not divide `unit`.
    """
    if upsampled:
        return pixel_unshuffle(upsample(clips, scale, align_corners=align_corners), unit)
    if unit % scale:
        raise LumiereError(f"low-res clips that are not enlarged need a pixel_unshuffle, {unit}, that {scale} divides")
    return pixel_unshuffle(clips, unit // scale)


def noise_augment(
    clips: torch.Tensor, noise: torch.Tensor, alphas_cumprod: torch.Tensor, levels: torch.Tensor
) -> torch.Tensor:
    """Add noise of a level each to clips, keeping the variance; (B, ...).

    Args:
        alphas_cumprod: of the schedule, (T,).
        levels: timesteps of it, (B,); 0 is all but none.
    """
    kept = _kept(clips, alphas_cumprod, levels)
    return (kept.sqrt() * clips.float() + (1 - kept).sqrt() * noise.float()).to(clips.dtype)


def add_noise(
    clips: torch.Tensor, noise: torch.Tensor, alphas_cumprod: torch.Tensor, levels: torch.Tensor
) -> torch.Tensor:
    """Add noise of a level each to clips, at the same ratio of signal to noise as `noise_augment`; (B, ...)."""
    kept = _kept(clips, alphas_cumprod, levels)
    return (clips.float() + ((1 - kept) / kept).sqrt() * noise.float()).to(clips.dtype)


def _kept(clips: torch.Tensor, alphas_cumprod: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    if levels.min() < 0 or levels.max() >= len(alphas_cumprod):
        raise LumiereError(f"noise level {int(levels.max())}: choose 0 to {len(alphas_cumprod) - 1}")
    return alphas_cumprod.to(clips.device, torch.float32)[levels.to(clips.device)].view(-1, *[1] * (clips.ndim - 1))
