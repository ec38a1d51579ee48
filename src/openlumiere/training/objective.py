"""The training objective: denoise, weighted by the signal-to-noise ratio."""

from __future__ import annotations

from typing import Any

import torch

from openlumiere.diffusion import draws
from openlumiere.diffusion.noise import progressive_noise
from openlumiere.diffusion.timesteps import shifted

from .config import DiffusionOptimizerConfig


def stratified_timesteps(
    batch: int,
    num_train_timesteps: int,
    *,
    generator: draws.Generator,
    device: torch.device,
    shift: float = 1.0,
    uniform: float = 0.0,
) -> torch.Tensor:
    """Return one timestep for each sample, int64 (batch,): evenly spread with a common random offset, then shuffled.

    The loss varies far more between timesteps than between samples, so an even spread lowers the gradient's variance
    (Kingma et al. 2021, low-discrepancy sampler).

    Args:
        shift: above 1 leans towards high noise, see `diffusion.timesteps`.
        uniform: fraction that is spread over the range without a shift, so that low noise, where details are decided,
            is learnt too. Both parts are evenly spread.
    """
    spread = draws.spread(batch, generator=generator).to(device)
    # The inverse of the mixture's distribution, part by part, keeps each part stratified in a batch of any size.
    plain = spread / max(uniform, 1e-12)
    leaning = shifted((spread - uniform) / max(1.0 - uniform, 1e-12), shift)
    fraction = torch.where(spread < uniform, plain, leaning)
    return (fraction * num_train_timesteps).long().clamp(max=num_train_timesteps - 1)


def annealed_shift(optim: DiffusionOptimizerConfig, step: int) -> float:
    """Return the timestep shift at a step: from `timestep_shift_start`, evenly in its logarithm, to `timestep_shift`.

    What moves how is learnt first, at the highest noise; what it looks like later.
    """
    if not optim.timestep_shift_steps:
        return optim.timestep_shift
    progress = min(step / optim.timestep_shift_steps, 1.0)
    return optim.timestep_shift_start ** (1.0 - progress) * optim.timestep_shift**progress


def loss_weights(scheduler: Any, timesteps: torch.Tensor, gamma: float) -> torch.Tensor:
    """Return weights of the squared error, (B,), that cap the loss at low noise.

    The error of the clean sample is weighed by min(SNR + 1, gamma): as plain v prediction does (SNR + 1), but not more
    than gamma, so that the visually unimportant last bits of noise don't rule the gradient. Unlike min-SNR
    (Hang et al. 2023) the weight stays 1 at zero SNR, where subject and background are decided.

    Args:
        gamma: the cap, above 1; 0 weighs all timesteps alike, in terms of what is predicted.
    """
    if gamma <= 0:
        return torch.ones(timesteps.shape, device=timesteps.device)
    alpha_bar = scheduler.alphas_cumprod.to(timesteps.device)[timesteps]
    snr = alpha_bar / (1 - alpha_bar)
    weight_of_sample = (snr + 1).clamp(max=gamma)
    match scheduler.config.prediction_type:
        case "v_prediction":
            return weight_of_sample / (snr + 1)
        case "epsilon":
            return weight_of_sample / snr.clamp(min=1e-8)
        case _:
            return weight_of_sample


def target_of(scheduler: Any, sample: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
    """Return the network's target, by the scheduler's prediction type."""
    match scheduler.config.prediction_type:
        case "v_prediction":
            return scheduler.get_velocity(sample, noise, timesteps)
        case "epsilon":
            return noise
        case _:
            return sample


def diffusion_loss(
    denoise: Any,
    scheduler: Any,
    sample: torch.Tensor,
    *,
    gamma: float,
    generator: draws.Generator,
    timestep_shift: float = 1.0,
    uniform_timesteps: float = 0.0,
    noise_correlation: float = 0.0,
) -> torch.Tensor:
    """Return the mean weighted squared error of one batch; a scalar.

    Args:
        denoise: ``(noisy sample, timesteps) -> prediction``, of the sample's shape.
        sample: clean, (B, C, F, H, W), values in [-1, 1].
        timestep_shift, uniform_timesteps: see `stratified_timesteps`.
        noise_correlation: of adjacent frames, see `diffusion.noise`.
    """
    timesteps = stratified_timesteps(
        len(sample),
        scheduler.config.num_train_timesteps,
        generator=generator,
        device=sample.device,
        shift=timestep_shift,
        uniform=uniform_timesteps,
    )
    noise = draws.randn(*sample.shape, generator=generator, dtype=sample.dtype)
    noise = progressive_noise(noise, noise_correlation)
    noisy = scheduler.add_noise(sample, noise, timesteps)
    error = (denoise(noisy, timesteps).float() - target_of(scheduler, sample, noise, timesteps).float()).square()
    weights = loss_weights(scheduler, timesteps, gamma)
    return (error.flatten(1).mean(1) * weights).mean()
