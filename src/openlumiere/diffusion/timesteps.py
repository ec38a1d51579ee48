"""Where on the noise schedule to train and to sample.

The more pixels show the same thing, the more noise it takes to hide it. What a clip shows, and how it moves, is
decided at far higher noise than what a picture of its size shows, so timesteps are shifted there (Esser et al. 2024,
equation 23, for resolution; here for frames).
"""

from __future__ import annotations

import torch


def shifted(fraction: torch.Tensor, shift: float) -> torch.Tensor:
    """Map fractions of the schedule, 0 = clean and 1 = noise, towards noise: s u / (1 + (s - 1) u).

    Keeps 0 and 1 in place and is monotone; shift 1 is the identity.
    """
    return shift * fraction / (1 + (shift - 1) * fraction)


def sampling_timesteps(num_inference_steps: int, num_train_timesteps: int, shift: float) -> list[int]:
    """Timesteps to sample at, from pure noise down, spaced as "trailing" and shifted; strictly decreasing.

    May be fewer than asked for, where several would round to the same timestep.
    """
    fraction = torch.arange(num_inference_steps, 0, -1, dtype=torch.float64) / num_inference_steps
    steps = (shifted(fraction, shift) * num_train_timesteps).round().long() - 1
    return sorted({max(step, 0) for step in steps.tolist()}, reverse=True)
