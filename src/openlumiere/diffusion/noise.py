"""The noise that clips start from.

Independent noise on each frame hides a clip far less than it hides a picture: whatever stays the same can be averaged
over the frames. What a clip shows, and how it moves, is then decided in the very first denoising steps, at noise levels
where a T2I does little. Noise that itself changes slowly hides a clip as it hides a picture, so that the frozen T2I
decides where it was trained to ("progressive" noise: Ge et al. 2023, Preserve Your Own Correlation). Each frame's
noise is standard normal all the same, as the T2I knows it.
"""

from __future__ import annotations

import torch


def progressive_noise(noise: torch.Tensor, correlation: float, *, loop: bool = False) -> torch.Tensor:
    """Turn independent standard normal frames into a stationary first-order autoregressive sequence.

    Frame n of the result is standard normal and correlates with frame m by ``correlation ** |n - m|``.

    Args:
        noise: (B, C, F, H, W).
        correlation: of adjacent frames, in [0, 1]; 0 returns `noise`, 1 repeats one frame.
        loop: measure distances in time around a circle, so that the last frame is the first one's neighbour.
    """
    if correlation == 0.0:
        return noise
    if loop:
        return _progressive_noise_around(noise, correlation)
    fresh = (1.0 - correlation**2) ** 0.5
    frames = list(noise.unbind(2))
    for n in range(1, len(frames)):
        frames[n] = correlation * frames[n - 1] + fresh * frames[n]
    return torch.stack(frames, dim=2)


def _progressive_noise_around(noise: torch.Tensor, correlation: float) -> torch.Tensor:
    count = noise.shape[2]
    step = torch.arange(count, dtype=torch.float64)
    covariance = correlation ** torch.minimum(step, count - step)
    # A circulant covariance is diagonal in Fourier space: scale each frequency by the root of its power.
    power = torch.fft.rfft(covariance).real.clamp(min=0).sqrt().to(noise.device, torch.float32)
    spectrum = torch.fft.rfft(noise.float(), dim=2) * power[:, None, None]
    return torch.fft.irfft(spectrum, n=count, dim=2).to(noise.dtype)
