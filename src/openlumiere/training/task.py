"""What stages `t2i` and `t2v` share: data, prompts, the denoising loss, the pipeline around the network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from torch import nn
from torch.utils.data import Dataset

from openlumiere.data.dataset import EmojiClips
from openlumiere.errors import LumiereError
from openlumiere.pipelines.base import LumierePipeline
from openlumiere.pipelines.text import PromptCache, TextConditions
from openlumiere.stunet import STUNet

from .config import TrainConfig
from .objective import annealed_shift, diffusion_loss

# (noisy clip, timesteps, text) -> prediction
Predict = Callable[[torch.Tensor, torch.Tensor, TextConditions], torch.Tensor]


class DenoisingTask:
    """Base of the stages that denoise clips, given text.

    Args:
        scheduler: the noise schedule.
        encode_prompt: one prompt to what the network is told.
        encode_clips: pixels in [-1, 1] to what the network denoises.
    """

    step: int = 0  # see `Stage`

    def __init__(
        self,
        config: TrainConfig,
        device: torch.device,
        *,
        single_frame: bool,
        scheduler: Any,
        encode_prompt: Callable[[str], TextConditions],
        encode_clips: Callable[[torch.Tensor], torch.Tensor],
    ) -> None:
        self.config, self.device = config, device
        if config.model.size % config.model.pixel_unshuffle:
            raise LumiereError(
                f"model.size, {config.model.size}, must be a multiple of model.pixel_unshuffle, "
                f"{config.model.pixel_unshuffle}"
            )
        self.dataset = make_dataset(config, single_frame=single_frame)
        self.scheduler, self.encode_clips, self.text = scheduler, encode_clips, PromptCache(encode_prompt)

    def denoising_loss(
        self, batch: dict[str, Any], generator: torch.Generator, predict: Predict, clips: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Loss of one batch; `clips`: what is denoised, the batch's own when None."""
        clips = self.encode_clips(batch["pixels"].to(self.device)) if clips is None else clips
        drop = torch.rand(len(clips), generator=generator, device=self.device) < self.config.text.dropout
        captions = ["" if dropped else text for dropped, text in zip(drop.tolist(), batch["caption"], strict=True)]
        text = self.text(captions)
        return diffusion_loss(
            lambda noisy, timesteps: predict(noisy, timesteps, text),
            self.scheduler,
            clips,
            gamma=self.config.optim.snr_gamma,
            generator=generator,
            timestep_shift=annealed_shift(self.config.optim, self.step),
            uniform_timesteps=self.config.optim.uniform_timesteps,
            noise_correlation=self.config.optim.noise_correlation,
        )

    def sample_prompts(self) -> list[str]:
        """The configuration's prompts, or the first captions of the data set."""
        return self.config.sample_prompts or [self.dataset[i]["caption"] for i in range(8)]


def make_scheduler(config: TrainConfig) -> DDIMScheduler:
    """The noise schedule that a configuration describes."""
    try:
        return DDIMScheduler(**config.scheduler)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise LumiereError(f"scheduler is not a DDIMScheduler's configuration: {error}") from error


def new_pipeline(config: TrainConfig, unet: STUNet) -> LumierePipeline:
    """A pipeline around a network on pixels, with the configuration's defaults; the text encoder is named only."""
    return LumierePipeline(
        unet=unet,
        window_frames=frames_shown(config),
        subjects=config.data.subjects,
        **pipeline_options(config),
    )


def frames_shown(config: TrainConfig) -> int:
    """Length of the clips that the network sees in training."""
    data = config.data
    return data.window or len(range(0, data.num_frames, data.every))


def pipeline_options(config: TrainConfig) -> dict[str, Any]:
    """What the pipelines of both stages are told of how their network was trained, and so is to be sampled."""
    return {
        # The training schedule, sampled by DPM-Solver++ (Lu et al. 2022): 15 of its steps look like 25 of DDIM's.
        "scheduler": DPMSolverMultistepScheduler.from_config(make_scheduler(config).config),
        "pixel_unshuffle": config.model.pixel_unshuffle,
        "text_encoder_id": config.text.encoder,
        "max_text_length": config.text.max_length,
        "num_inference_steps": config.sample_steps,
        "guidance_scale": config.sample_guidance,
        "timestep_shift": config.optim.timestep_shift,
        "noise_correlation": config.optim.noise_correlation,
    }


def make_dataset(config: TrainConfig, *, single_frame: bool) -> Dataset[Any]:
    """The data set that a configuration names."""
    data, size = config.data, config.model.size
    match data.kind:
        case "emoji":
            return EmojiClips(
                Path(data.folder), subjects=data.subjects, size=size, num_frames=data.num_frames, fps=data.fps,
                every=data.every, window=1 if single_frame else data.window, seed=config.seed, pool=data.pool,
                with_motion=data.with_motion, channels=data.channels, transparent=data.transparent,
                alpha=config.stage == "conditional",
            )  # fmt: skip
        case "folder":
            from openlumiere.data.folder import ClipFolder

            num_frames = 1 if single_frame else data.window or data.num_frames
            return ClipFolder(Path(data.folder), num_frames=num_frames, fps=data.fps, size=size, seed=config.seed)
        case "pictures":
            from openlumiere.data.pictures import StylePictures

            return StylePictures(Path(data.folder), size=size, seed=config.seed, only=data.subjects)
        case _:
            raise LumiereError(f"data.kind {data.kind!r}: use emoji, folder or pictures")


def set_gradient_checkpointing(module: nn.Module, config: TrainConfig) -> None:
    """Trade time for memory where the configuration asks for it."""
    if config.optim.gradient_checkpointing:
        module.enable_gradient_checkpointing()  # type: ignore[operator]
