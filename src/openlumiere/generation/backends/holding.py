"""Tasks that a model was not made for: at every step the sampler puts back what is given of a clip.

That is how Lumiere's own sampler completes clips, and what Song et al. (2021, appendix I.2) call imputation: what is
known is brought to the noise level that the sample stands at. A start from a noisy clip (SDEdit, Meng et al. 2021) is
the same, with all of it held until then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from .stepping import StepClock, argument, around


@dataclass(frozen=True)
class Known:
    """What is given of a clip, as the scheduler sees a sample.

    Attributes:
        latents: of the whole clip.
        make: bool, as `latents`: True = this is to be made.
        strength: share of the steps that make it, the last ones; before them all is held (SDEdit).
    """

    latents: torch.Tensor
    make: torch.Tensor
    strength: float = 1.0


@contextmanager
def holding(scheduler: Any, known: Known) -> Iterator[None]:
    """Put what is given back into the sample after each step of a scheduler, under the noise of its next timestep.

    The noise is the sample's own at the start. After the last step what is given stands there as it is.

    Args:
        scheduler: one that adds noise to samples: diffusion (`add_noise`) or flow matching (`scale_noise`).
    """
    clock = StepClock(scheduler)
    noise: torch.Tensor | None = None

    def step(step: Callable[..., Any], *inputs: Any, **options: Any) -> Any:
        nonlocal noise
        if noise is None:
            noise = argument(step, "sample", inputs, options) / getattr(scheduler, "init_noise_sigma", 1)
        found = step(*inputs, **options)
        clock.advance(argument(step, "timestep", inputs, options))
        sample = found[0]
        held = _at_noise_of(scheduler, known.latents.to(sample), noise.to(sample), clock.next_timestep)
        skipped = clock.total - min(int(clock.total * known.strength), clock.total)  # as diffusers' video-to-video
        return _with_sample(
            found, torch.where(known.make.to(sample.device), sample, held) if clock.step > skipped else held
        )

    with around(scheduler, "step", step):
        yield


def _at_noise_of(scheduler: Any, latents: torch.Tensor, noise: torch.Tensor, timestep: Any) -> torch.Tensor:
    """Latents under the noise of a timestep; of None, as they are."""
    if timestep is None:
        return latents
    batch = timestep.reshape(1).to(latents.device)
    if hasattr(scheduler, "add_noise"):
        noisy: torch.Tensor = scheduler.add_noise(latents, noise, batch)
        return noisy
    flowing: torch.Tensor = scheduler.scale_noise(latents, batch, noise)
    return flowing


def _with_sample(found: Any, sample: torch.Tensor) -> Any:
    """What a scheduler's step returned, a tuple or an output class, with another sample."""
    if isinstance(found, tuple):
        return (sample, *found[1:])
    found.prev_sample = sample
    return found


def pool_mask(mask: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
    """Return what is to be made of a clip's latents: all that sees a pixel that is.

    Args:
        mask: bool, (F, H, W), True = make.
        shape: frames, height and width of the latents. Where there are 1 + (F - 1) / n frames, the first stands alone,
            as in causal autoencoders.

    Returns:
        bool, (1, 1, f, h, w).
    """
    frames, height, width = shape
    make = mask[None, None].float()
    make = F.adaptive_max_pool3d(make, (len(mask), height, width))
    if 1 < frames < len(mask) and (len(mask) - 1) % (frames - 1) == 0:
        make = torch.cat([make[:, :, :1], F.adaptive_max_pool3d(make[:, :, 1:], (frames - 1, height, width))], dim=2)
    elif frames != len(mask):
        make = F.adaptive_max_pool3d(make, shape)
    return make > 0


def encode_frames(vae: Any, pixels: torch.Tensor, *, chunk: int = 8) -> torch.Tensor:
    """Encode the frames of a clip one by one, by the autoencoder of a text-to-image model.

    Args:
        pixels: (1, 3, F, H, W) in [-1, 1], where the autoencoder computes.
        chunk: frames that are encoded at once.

    Returns:
        The means, scaled as the denoiser sees them, (1, C, F, h, w).
    """
    dtype, upcast = vae.dtype, vae.dtype == torch.float16 and vae.config.force_upcast  # such overflow in float16
    if upcast:
        vae.to(torch.float32)
    frames = pixels[0].transpose(0, 1).to(vae.dtype)
    latents = torch.cat([vae.encode(part).latent_dist.mode() for part in frames.split(chunk)])
    if upcast:
        vae.to(dtype)
    return (latents.to(dtype) * vae.config.scaling_factor).transpose(0, 1)[None]
