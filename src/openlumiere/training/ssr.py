"""Stages `ssr-image` and `ssr`: super-resolution of single frames, and its temporal layers on windows of clips."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from openlumiere.diffusion.enlarging import enlarge, roughen, shrink
from openlumiere.diffusion.noise import correlate
from openlumiere.diffusion.pixels import fold
from openlumiere.errors import LumiereError
from openlumiere.pipelines.super_resolution import LumiereSuperResolutionPipeline
from openlumiere.pipelines.text import TextConditions, encode, load_text_encoder
from openlumiere.stunet import STUNet

from .config import TrainConfig
from .pictures import sheet
from .task import DenoisingTask, make_scheduler, pipeline_options, set_gradient_checkpointing

_SAMPLES = 6


class _SuperResolution(DenoisingTask):
    """What both stages share: the soft clip made of the sharp one, and given beside it."""

    module: nn.Module

    def __init__(self, config: TrainConfig, device: torch.device, *, single_frame: bool) -> None:
        self.tokenizer, encoder = load_text_encoder(config.text.encoder)
        self.encoder = encoder.to(device)
        if config.model.size % (config.model.scale * config.model.pixel_unshuffle):
            raise LumiereError(
                f"model.size, {config.model.size}, must be a multiple of model.scale x model.pixel_unshuffle, "
                f"{config.model.scale} x {config.model.pixel_unshuffle}"
            )
        super().__init__(
            config,
            device,
            single_frame=single_frame,
            scheduler=make_scheduler(config),
            encode_prompts=lambda prompts: encode(
                prompts, [self.tokenizer], [self.encoder], max_length=config.text.max_length, together=len(prompts) > 1
            ),
            encode_clips=lambda clips: fold(clips, config.model.pixel_unshuffle),
        )

    def soften(self, batch: dict[str, Any], generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """The soft clips with noise, enlarged, as the network sees them, and the noise's levels, (B,)."""
        model = self.config.model
        soft = shrink(batch["pixels"].to(self.device), model.scale)
        noise = torch.randn(soft.shape, generator=generator, device=self.device)
        noise = correlate(noise, self.config.optim.noise_correlation)
        levels = torch.randint(0, model.max_noise_level + 1, (len(soft),), generator=generator, device=self.device)
        soft = roughen(soft, noise, self.scheduler.alphas_cumprod, levels)
        return fold(enlarge(soft, model.scale), model.pixel_unshuffle), levels

    def loss(self, module: nn.Module, batch: dict[str, Any], generator: torch.Generator) -> torch.Tensor:
        """See `Stage`."""
        soft, levels = self.soften(batch, generator)

        def predict(noisy: torch.Tensor, timesteps: torch.Tensor, text: TextConditions) -> torch.Tensor:
            return self.call(module, torch.cat([noisy, soft], dim=1), timesteps, text.hidden_states, levels)

        sharp = self.encode_clips(batch["pixels"].to(self.device))
        return self.denoising_loss(batch, generator, predict, (sharp - soft) * self.config.model.residual_scale)

    def call(
        self,
        module: nn.Module,
        sample: torch.Tensor,
        timesteps: torch.Tensor,
        text: torch.Tensor,
        levels: torch.Tensor,
    ) -> torch.Tensor:
        """The network's prediction for clips, (B, 2C, F, h, w) -> (B, C, F, h, w)."""
        return module(sample, timesteps, text, class_labels=levels).sample

    def inflated(self) -> STUNet:
        """The network as a STUNet, to sample with."""
        raise NotImplementedError

    def sample(self, folder: Path, step: int) -> None:
        """First frames of clips: enlarged, sharpened and real, a row each."""
        pipe = super_resolution_pipeline(self.config, self.inflated())
        pipe.register_modules(text_encoder=self.encoder, tokenizer=self.tokenizer)
        pipe.set_progress_bar_config(disable=True)
        items = [self.dataset[i] for i in range(_SAMPLES)]
        real = torch.stack([item["pixels"] for item in items]).to(self.device)
        soft = shrink(real, self.config.model.scale)
        generators = [torch.Generator(self.device).manual_seed(i) for i in range(_SAMPLES)]
        frames = ((soft + 1) / 2).transpose(1, 2)
        sharp = pipe(frames, [item["caption"] for item in items], generator=generators, output_type="pt")[0]
        before, wanted = (((clips[:, :, 0] + 1) / 2).clamp(0, 1) for clips in (enlarge(soft, pipe.config.scale), real))
        rows = torch.cat([before, sharp[:, 0].to(real.device), wanted]).movedim(1, -1).cpu().numpy()
        folder.mkdir(parents=True, exist_ok=True)
        sheet(rows, columns=_SAMPLES, zoom=1).save(folder / f"{step:07d}.png")


class SuperResolutionImage(_SuperResolution):
    """Trains a UNet2DConditionModel from scratch, on single frames."""

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        super().__init__(config, device, single_frame=True)
        channels = 3 * config.model.pixel_unshuffle**2
        try:
            self.module: UNet2DConditionModel = UNet2DConditionModel(
                sample_size=config.model.size // config.model.pixel_unshuffle,
                in_channels=2 * channels,
                out_channels=channels,
                class_embed_type="timestep",
                **config.model.unet,
            ).to(device, memory_format=torch.channels_last)
        except (TypeError, ValueError) as error:
            raise LumiereError(f"model.unet is not a UNet2DConditionModel: {error}") from error
        set_gradient_checkpointing(self.module, config)

    def call(
        self,
        module: nn.Module,
        sample: torch.Tensor,
        timesteps: torch.Tensor,
        text: torch.Tensor,
        levels: torch.Tensor,
    ) -> torch.Tensor:
        """See `_SuperResolution`."""
        pictures = sample[:, :, 0].contiguous(memory_format=torch.channels_last)
        return super().call(module, pictures, timesteps, text, levels)[:, :, None]

    def inflated(self) -> STUNet:
        """See `_SuperResolution`."""
        twin = UNet2DConditionModel.from_config(self.module.config)
        twin.load_state_dict(self.module.state_dict())
        return STUNet.from_unet(twin.to(self.device, memory_format=torch.channels_last), resampled_levels=[]).eval()

    def export(self, folder: Path) -> None:
        """diffusers' folders `unet` and `scheduler`."""
        self.module.save_pretrained(folder / "unet")
        self.scheduler.save_pretrained(folder / "scheduler")


class SuperResolution(_SuperResolution):
    """Inflates what stage `ssr-image` exported, and trains what inflation added, on windows of clips."""

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        super().__init__(config, device, single_frame=False)
        self.module: STUNet = build_super_resolution(config).unet.to(device, memory_format=torch.channels_last)
        set_gradient_checkpointing(self.module, config)

    def inflated(self) -> STUNet:
        """See `_SuperResolution`."""
        return self.module

    def export(self, folder: Path) -> None:
        """The temporal weights alone in `temporal`, and a whole pipeline in `pipeline`."""
        self.module.save_temporal(folder / "temporal")
        super_resolution_pipeline(self.config, self.module).save_pretrained(folder / "pipeline")


def build_super_resolution(config: TrainConfig) -> LumiereSuperResolutionPipeline:
    """The pipeline that a configuration of stage `ssr` describes, its temporal layers untrained."""
    source = config.model.t2i
    if source is None:
        raise LumiereError("stage ssr needs model.t2i: the folder that stage ssr-image exported")
    try:
        unet = UNet2DConditionModel.from_pretrained(source, subfolder="unet", local_files_only=True)
    except (OSError, ValueError) as error:
        raise LumiereError(
            f"cannot read a U-Net from model.t2i = {source}; train it first: lumiere train ssr-image"
        ) from error
    try:
        return super_resolution_pipeline(config, STUNet.from_unet(unet, **config.model.temporal))
    except TypeError as error:
        raise LumiereError(f"model.temporal: {error}; see STUNet for what can be set") from error


def super_resolution_pipeline(config: TrainConfig, unet: STUNet) -> LumiereSuperResolutionPipeline:
    """A pipeline around a network, with the configuration's defaults; the text encoder is named only."""
    return LumiereSuperResolutionPipeline(
        unet=unet,
        scale=config.model.scale,
        residual_scale=config.model.residual_scale,
        window_frames=config.data.window or config.data.num_frames,
        noise_level=config.model.max_noise_level // 4,
        **pipeline_options(config),
    )
