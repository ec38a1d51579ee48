"""Whether a network knows what a picture shows: how well it predicts it under noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from openlumiere.diffusion.ground import ground_of
from openlumiere.diffusion.sampling import denoised_estimate, set_timesteps

from .text import TextConditions

if TYPE_CHECKING:
    from .lumiere import LumierePipeline

_NOISE = 0.93  # share of the schedule's timesteps at which it is asked
_STEPS = 50  # among which that one is chosen
# Share of a subject's variance that is left unexplained. The bundled model leaves at most 0.59 of its own subjects',
# and at least 0.69 of other emoji's and of drawings in flat colours (12, 12 and 5, each on nothing, blue and white).
_KNOWN = 0.64
_DIFFERS = 0.1  # of the largest difference from the ground: what differs by less is no part of the subject


def is_familiar(predict_clean: Callable[[torch.Tensor], torch.Tensor], pictures: torch.Tensor) -> torch.Tensor:
    """Return which pictures, (B, C, h, w) as the network sees them, it knows: (B,).

    A diffusion model's error in denoising a picture says how likely the picture is to it, given a prompt (Li et al.
    2023, Your diffusion model is secretly a zero-shot classifier). It is taken of the subject, which is what differs
    from the ground that lies along the edge.

    Args:
        predict_clean: unit noise, (B, C, h, w), to what the network takes the pictures to be, seen under that noise.
    """
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(0)).to(pictures)
    error = (predict_clean(noise) - pictures).float()
    known = []
    for picture, wrong in zip(pictures.float(), error, strict=True):
        differs = (picture - ground_of(picture)).square().mean(0)
        subject = differs >= _DIFFERS * differs.max()
        known.append(wrong[:, subject].square().mean() < _KNOWN * picture[:, subject].var())
    return torch.stack(known)


def knows(
    pipe: LumierePipeline, clips: torch.Tensor, mask: torch.Tensor, text: TextConditions, layout: torch.Tensor
) -> torch.Tensor:
    """Return of which clips, (B,), a model's network knows what the first frame shows that is given whole.

    Those of which none is don't matter.

    Args:
        clips, mask: what is given, and M, see `InpaintInput`.
        text: of the clips' prompts.
        layout: where subjects are, (B, F, 6).
    """
    frames, rows = pipe.unet.frame_multiple, torch.arange(len(clips))
    first = mask.flatten(3).amin(3)[:, 0].cpu().argmax(1)
    pictures = pipe.encode_clips(clips[rows, :, first][:, :, None])[:, :, 0]
    where = layout[rows, first].to(pictures)
    scheduler = pipe.scheduler
    set_timesteps(scheduler, _STEPS, pictures.device, shift=pipe.config.timestep_shift)
    steps = scheduler.timesteps
    at = steps[(steps - _NOISE * scheduler.config.num_train_timesteps).abs().argmin()][None]

    def predict_clean(noise: torch.Tensor) -> torch.Tensor:
        noisy = scheduler.add_noise(pictures, noise, at)
        still = noisy[:, :, None].expand(-1, -1, frames, -1, -1)
        prediction = pipe.call_network(
            pipe.unet, still, at, text,
            frame_positions=torch.zeros(len(still), frames, device=still.device),
            layout=where[:, None].expand(-1, frames, -1),
        )  # fmt: skip
        return denoised_estimate(scheduler, prediction, still, at)[:, :, 0]

    return is_familiar(predict_clean, pictures).cpu()
