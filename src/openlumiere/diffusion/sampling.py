"""The denoising loop: from noise to a clip by the steps of a diffusers scheduler, windows merged at each step."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from openlumiere.errors import LumiereError
from openlumiere.files import one_line

from .timesteps import sampling_timesteps
from .windows import Denoiser, Windows, denoise_in_windows

# Of diffusers; DPM-Solver's SDE variants, which are options of deterministic ones, aside.
_STOCHASTIC = {
    "CosineDPMSolverMultistepScheduler", "DDPMParallelScheduler", "DDPMScheduler", "DDPMWuerstchenScheduler",
    "DPMSolverSDEScheduler", "EulerAncestralDiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "LCMScheduler",
    "RePaintScheduler", "SASolverScheduler", "ScoreSdeVeScheduler", "TCDScheduler", "UnCLIPScheduler",
}  # fmt: skip
_ADVICE = "use DPMSolverMultistepScheduler or EulerDiscreteScheduler"


@dataclass(frozen=True)
class Img2ImgStart:
    """Start from a noisy version of a clip rather than from noise alone (SDEdit, Meng et al. 2021).

    Attributes:
        clip: without noise, (B, C, F, h, w) as the network sees it.
        strength: share of the steps that is taken, in [0, 1].
    """

    clip: torch.Tensor
    strength: float


@dataclass(frozen=True)
class KnownRegion:
    """The part of a clip that is given: after each step it is the given clip under its own noise.

    In training the noisy clip holds what is given under its noise; so it must in sampling, where the network's own
    prediction would drift away from it.

    Attributes:
        clip: without noise, (B, C, F, h, w) as the network sees it.
        mask: 1 where it is given, of the same shape.
    """

    clip: torch.Tensor
    mask: torch.Tensor

    def impose(
        self, latents: torch.Tensor, noise: torch.Tensor, scheduler: Any, timestep: torch.Tensor
    ) -> torch.Tensor:
        """Return `latents` with the known region at the noise of `timestep`, (1,); (0,) = without noise."""
        known = self.clip.to(latents)
        if len(timestep):
            known = scheduler.add_noise(known, noise, timestep)
        return torch.lerp(latents, known, self.mask.to(latents))


def denoise(
    denoisers_at: Callable[[torch.Tensor], Sequence[Denoiser]],
    scheduler: Any,
    latents: torch.Tensor,
    timesteps: torch.Tensor,
    windows: Windows,
    *,
    noise: torch.Tensor,
    known: KnownRegion | None = None,
    generator: torch.Generator | list[torch.Generator] | None = None,
    window_batch_size: int = 1,
    on_step: Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor] | None = None,
    wants_denoised: bool = False,
) -> torch.Tensor:
    """Denoise clips, (B, C, F, h, w), on the device that they are on.

    Args:
        denoisers_at: the networks at a timestep, see `windows.denoise_in_windows`.
        scheduler: any of diffusers' that steps on ``(prediction, timestep, sample)``, its timesteps set.
        latents, timesteps: as `start_from` returns them.
        noise: of unit variance, that `known` is seen under.
        generator: for schedulers that add noise of their own.
        window_batch_size: windows denoised at once.
        on_step: called with the step, its timestep, the latents after it and, if `wants_denoised`, the clip that they
            are on the way to, see `denoised_estimate`; returns the latents to go on with.
    """
    extra = {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}
    for i, t in enumerate(timesteps):
        scaled = scheduler.scale_model_input(latents, t)
        prediction = denoise_in_windows(denoisers_at(t), scaled, windows, batch_size=window_batch_size)
        # Before the step, by which schedulers count where they are.
        denoised = denoised_estimate(scheduler, prediction, latents, t) if wants_denoised else None
        latents = scheduler.step(prediction, t, latents, **extra, return_dict=False)[0]
        if known is not None:
            latents = known.impose(latents, noise, scheduler, timesteps[i + 1 : i + 2])
        if on_step is not None:
            latents = on_step(i, t, latents, denoised)
    return latents


def denoised_estimate(
    scheduler: Any, prediction: torch.Tensor, latents: torch.Tensor, timestep: torch.Tensor
) -> torch.Tensor:
    """Return the clip without noise that a network's prediction stands for, (B, C, F, h, w).

    Args:
        scheduler: any of diffusers' that can add noise; at the step of `timestep`. KDPM2's, which also looks between
            timesteps, does not tell the noise there: every second estimate is then wrong.
        prediction: of noise, velocity, flow or the clip itself, as the scheduler's `prediction_type` says; what follows
            the channels of the clip, such as DeepFloyd IF's variance, is left out.
        latents: the noisy clip before the step.
        timestep: of all clips, or one of each, (B,).
    """
    at = timestep.reshape(-1)
    one, zero = latents.new_ones(len(at), 1, 1, 1, 1), latents.new_zeros(len(at), 1, 1, 1, 1)
    kept, sigma = scheduler.add_noise(one, zero, at), scheduler.add_noise(zero, one, at)
    prediction = prediction[:, : latents.shape[1]]
    match scheduler.config.prediction_type:
        case "sample":
            return prediction
        case "flow_prediction":
            return latents - sigma * prediction
        case "v_prediction":  # which sees the clip at unit variance (Salimans and Ho 2022, appendix D)
            scale = (kept**2 + sigma**2).sqrt()
            return (kept / scale * latents - sigma * prediction) / scale
        case _:
            return (latents - sigma * prediction) / kept


def steps_left(steps: int, strength: float, *, least: int = 0) -> int:
    """Return how many of the steps a clip takes that starts from a noisy clip rather than from noise."""
    return max(round(steps * strength), least)


def start_from(
    scheduler: Any, noise: torch.Tensor, start: Img2ImgStart | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what sampling starts from, noise or a noisy clip, and the timesteps that are left.

    Raises:
        LumiereError: a scheduler that cannot leave out its first steps.
    """
    timesteps = scheduler.timesteps
    if start is None:
        return noise * scheduler.init_noise_sigma, timesteps
    if hasattr(scheduler, "prk_timesteps"):  # of PNDM, whose first steps are Runge-Kutta's, by count
        raise LumiereError(f"{type(scheduler).__name__} cannot start from a clip; {_ADVICE}")
    # Schedulers of second order take each step but the first in two, and list its timestep twice.
    steps = -(-len(timesteps) // scheduler.order)
    skipped = scheduler.order * (steps - steps_left(steps, start.strength))
    clip = start.clip.to(noise)
    if skipped >= len(timesteps):
        return clip, timesteps[:0]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(skipped)
    return scheduler.add_noise(clip, noise, timesteps[skipped : skipped + 1]), timesteps[skipped:]


def check_scheduler(scheduler: Any, *, shift: float, noise_correlation: float) -> None:
    """Refuse a scheduler that cannot sample a model as it was trained.

    Args:
        shift: of the timesteps, see `diffusion.timesteps`; other than 1 the scheduler must take chosen timesteps.
        noise_correlation: of adjacent frames, see `diffusion.noise`; above 0 the scheduler must add no noise of its
            own, which would be independent.

    Raises:
        LumiereError: naming one that can.
    """
    name = type(scheduler).__name__
    if shift != 1.0 and "timesteps" not in inspect.signature(scheduler.set_timesteps).parameters:
        raise LumiereError(f"{name} cannot sample at chosen timesteps, which this model needs; {_ADVICE}")
    # A scheduler made from another's config remembers options that it does not have.
    known = inspect.signature(type(scheduler).__init__).parameters
    sde = "algorithm_type" in known and str(scheduler.config["algorithm_type"]).startswith("sde")
    if noise_correlation and (name in _STOCHASTIC or sde):
        raise LumiereError(f"{name} adds noise that differs from frame to frame, this model's does not; {_ADVICE}")


def set_timesteps(scheduler: Any, steps: int, device: torch.device, *, shift: float = 1.0) -> None:
    """Set a scheduler's timesteps, shifted towards noise (see `diffusion.timesteps`).

    Raises:
        LumiereError: the scheduler's options do not allow chosen timesteps.
    """
    if shift == 1.0:
        scheduler.set_timesteps(steps, device=device)
        return
    chosen = sampling_timesteps(steps, scheduler.config.num_train_timesteps, shift)
    try:
        scheduler.set_timesteps(timesteps=chosen, device=device)
    except ValueError as error:
        raise LumiereError(f"{type(scheduler).__name__}: {one_line(error)}; {_ADVICE}") from error
