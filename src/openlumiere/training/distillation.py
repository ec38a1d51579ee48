"""Two guided steps of a teacher as the target of one step of a student (Salimans and Ho 2022, Meng et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from openlumiere.diffusion.sampling import denoised_estimate, set_timesteps
from openlumiere.errors import LumiereError

CLEAN = -1  # in place of a timestep: no noise

# (noisy clip, timesteps) -> prediction
Network = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Halved:
    """The timesteps of a student's steps, and what its teacher does meanwhile.

    Attributes:
        starts: where each of the student's steps starts, int64 (N,).
        middles: where the teacher's second step starts.
        ends: where both end, which is where the student's next step starts; `CLEAN` after its last.
    """

    starts: torch.Tensor
    middles: torch.Tensor
    ends: torch.Tensor


def halved(scheduler: Any, steps: int, *, shift: float = 1.0) -> Halved:
    """Return the timesteps of a student's `steps` and of twice as many of its teacher's, as sampling takes them.

    Args:
        scheduler: the one that clips will be sampled with; its timesteps are changed.
        shift: see `diffusion.timesteps`.

    Raises:
        LumiereError: the scheduler's timesteps for half of the steps are not among those for all of them.
    """
    found = []
    for count in (steps, 2 * steps):
        set_timesteps(scheduler, count, torch.device("cpu"), shift=shift)
        found.append([round(float(t)) for t in scheduler.timesteps])
    student, teacher = found
    middles, ends = teacher[1::2], [*student[1:], CLEAN]
    falls = all(start > middle > end for start, middle, end in zip(student, middles, ends, strict=False))
    if teacher[::2] != student or len(middles) != len(student) or not falls:
        raise LumiereError(
            f"{steps} steps of this model's {type(scheduler).__name__}, at {', '.join(map(str, student))}, are not "
            f"every other one of {2 * steps}; choose another sample_steps"
        )
    return Halved(torch.tensor(student), torch.tensor(middles), torch.tensor(ends))


def levels(scheduler: Any, timesteps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return how much of the clip and of the noise there is at timesteps, (B,): alpha and sigma, (B, 1, 1, 1, 1)."""
    alpha_bar = scheduler.alphas_cumprod.to(timesteps.device)[timesteps.clamp(min=0)].double()
    alpha_bar = torch.where(timesteps == CLEAN, 1.0, alpha_bar)
    return alpha_bar.sqrt()[:, None, None, None, None], (1 - alpha_bar).sqrt()[:, None, None, None, None]


def ddim_step(
    scheduler: Any, sample: torch.Tensor, noisy: torch.Tensor, timesteps: torch.Tensor, until: torch.Tensor
) -> torch.Tensor:
    """Take a deterministic step (Song et al. 2021, equation 12 at η = 0) towards `sample`, from one noise to another.

    It is DPM-Solver++'s of first order, too.
    """
    alpha, sigma = (level.to(noisy) for level in levels(scheduler, timesteps))
    alpha_then, sigma_then = (level.to(noisy) for level in levels(scheduler, until))
    return alpha_then * sample + sigma_then * (noisy - alpha * sample) / sigma


def distillation_target(
    teacher: Network,
    scheduler: Any,
    noisy: torch.Tensor,
    start: torch.Tensor,
    middle: torch.Tensor,
    end: torch.Tensor,
    *,
    impose: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = lambda clips, timesteps: clips,
) -> torch.Tensor:
    """Return the clip without noise, (B, C, F, h, w), towards which one step goes as far as two of the teacher.

    Salimans and Ho 2022, appendix G.

    Args:
        teacher: its guided prediction.
        scheduler: of the noise, DDIM's.
        noisy: at `start`, (B, C, F, h, w).
        start, middle, end: timesteps, (B,), see `Halved`.
        impose: ``(clips, timesteps) -> clips`` after each step, as sampling sets what is given.
    """
    clips = noisy
    for now, then in ((start, middle), (middle, end)):
        sample = denoised_estimate(scheduler, teacher(clips, now), clips, now)
        clips = impose(ddim_step(scheduler, sample, clips, now, then), then)
    alpha, sigma = levels(scheduler, start)
    alpha_end, sigma_end = levels(scheduler, end)
    ratio = sigma_end / sigma
    return ((clips.double() - ratio * noisy.double()) / (alpha_end - ratio * alpha)).to(noisy)
