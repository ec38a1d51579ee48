"""Stages `ssr-image` and `ssr`: super-resolution of single frames, and its temporal layers on windows of clips."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from openlumiere.diffusion import draws
from openlumiere.diffusion.alpha import add_alpha, clamp_premultiplied, premultiply, unpremultiply
from openlumiere.diffusion.noise import progressive_noise
from openlumiere.diffusion.pixels import pixel_unshuffle
from openlumiere.diffusion.upsampling import RESIDUAL_BASES, add_noise, downsample, low_res_channels, upsample_base
from openlumiere.errors import LumiereError
from openlumiere.latents import PixelCodec, VAECodec, load_vae
from openlumiere.pipelines.super_resolution import LumiereSuperResolutionPipeline
from openlumiere.pipelines.text import TextConditions, encode, load_text_encoder
from openlumiere.stunet import STUNet
from openlumiere.training.datasets import ClipDataConfig
from openlumiere.training.previews import on_checkers, sheet

from .denoising import (
    DenoisingConfig,
    DenoisingTask,
    FrameModelConfig,
    make_scheduler,
    pipeline_options,
    set_gradient_checkpointing,
)

_SAMPLES = 6


@dataclass(frozen=True, kw_only=True)
class SuperResolutionModelConfig(FrameModelConfig):
    """From low-res clips to those of `size`."""

    scale: int = 4  # from the low-res clip's side to `size`
    max_noise_level: int = 60  # of the low-res clip, see diffusion/upsampling.py
    residual_scale: float = 8.0  # brings residuals to a variance near 1
    # Folder of the VAE that a first stage's clips are decoded by, so that the second learns to undo its blur
    vae: str | None = None
    through_vae: float = 0.5  # fraction of low-res clips that pass through `vae`, if named
    latent_noise: float = 0.15  # most noise on the latents of those
    # See LumiereSuperResolutionPipeline
    enlarge_low_res: bool = True
    residual_base: str = "noisy"

    def __post_init__(self) -> None:
        if self.residual_base not in RESIDUAL_BASES:
            raise LumiereError(f"model.residual_base {self.residual_base!r}: use {' or '.join(RESIDUAL_BASES)}")
        if not 0 <= self.through_vae <= 1:
            raise LumiereError(f"model.through_vae must be between 0 and 1, not {self.through_vae}")


@dataclass(frozen=True, kw_only=True)
class ImageModelConfig(SuperResolutionModelConfig):
    """The network of single frames."""

    unet: dict[str, Any] = field(default_factory=dict)  # arguments of diffusers' UNet2DConditionModel


@dataclass(frozen=True, kw_only=True)
class ClipModelConfig(SuperResolutionModelConfig):
    """The network of windows of clips."""

    t2i: str | None = None  # the folder that stage ssr-image exported: the frozen spatial half
    temporal: dict[str, Any] = field(default_factory=dict)  # arguments of `STUNet.from_unet`


@dataclass(frozen=True, kw_only=True)
class WindowDataConfig(ClipDataConfig):
    """Windows of clips."""

    window: int = 0  # so many consecutive frames are shown, at a random position; 0 = all


@dataclass(frozen=True, kw_only=True)
class _SuperResolutionConfig(DenoisingConfig):
    model: SuperResolutionModelConfig = field(default_factory=SuperResolutionModelConfig)
    data: ClipDataConfig = field(default_factory=ClipDataConfig)


@dataclass(frozen=True, kw_only=True)
class SuperResolutionImageConfig(_SuperResolutionConfig):
    """Configuration of stage `ssr-image`."""

    model: ImageModelConfig = field(default_factory=ImageModelConfig)


@dataclass(frozen=True, kw_only=True)
class SuperResolutionConfig(_SuperResolutionConfig):
    """Configuration of stage `ssr`."""

    model: ClipModelConfig = field(default_factory=ClipModelConfig)
    data: WindowDataConfig = field(default_factory=WindowDataConfig)


@dataclass(frozen=True)
class LowRes:
    """What a network is given of low-res clips.

    Attributes:
        channels: with noise, as the network sees them, (B, C', F, h, w).
        levels: of their noise, (B,).
        base: what its residual is added to, (B, C, F, h, w).
    """

    channels: torch.Tensor
    levels: torch.Tensor
    base: torch.Tensor


class _SuperResolution(DenoisingTask):
    """What both stages share: the low-res clip made of the high-res one, and given with it."""

    config: _SuperResolutionConfig
    module: nn.Module

    def __init__(self, config: _SuperResolutionConfig, device: torch.device, *, single_frame: bool) -> None:
        self.tokenizer, encoder = load_text_encoder(config.text.encoder)
        self.encoder = encoder.to(device)
        model, shown = config.model, _trained_side(config)
        if shown % (model.scale * model.pixel_unshuffle):
            raise LumiereError(
                f"{'data.crop' if config.data.crop else 'model.size'}, {shown}, must be a multiple of "
                f"model.scale x model.pixel_unshuffle, {model.scale} x {model.pixel_unshuffle}"
            )
        self.first_stage = None if model.vae is None else _first_stages_codec(config, device)
        super().__init__(
            config,
            device,
            single_frame=single_frame,
            scheduler=make_scheduler(config),
            encode_prompts=lambda prompts: encode(
                prompts, [self.tokenizer], [self.encoder], max_length=config.text.max_length, together=len(prompts) > 1
            ),
            codec=PixelCodec(model.pixel_unshuffle, config.data.channels),
        )

    def high_res_clips(self, batch: dict[str, Any]) -> torch.Tensor:
        """Return a batch's pixels, (B, C, F, H, W), premultiplied where they have alpha; that of opaque data is 1."""
        pixels = batch["pixels"].to(self.device)
        return add_alpha(pixels) if self.config.data.channels == 4 else pixels

    def low_res_of(self, high_res: torch.Tensor, generator: draws.Generator) -> LowRes:
        """Return the low-res clips that a first stage would have made of high-res ones, with noise."""
        model = self.config.model
        low_res = downsample(high_res, model.scale)
        if self.first_stage is not None:
            share = draws.share_of(generator, len(low_res))
            whole = draws.rand(share.total, generator=share.generator) < model.through_vae
            if whole.any():
                passed = whole[share.first : share.first + share.count]
                low_res[passed] = self.through_vae(low_res[passed], share.where(whole))
        noise = draws.randn(*low_res.shape, generator=generator)
        noise = progressive_noise(noise, self.config.optim.noise_correlation)
        levels = draws.randint(0, model.max_noise_level + 1, len(low_res), generator=generator)
        noisy = add_noise(low_res, noise, self.scheduler.alphas_cumprod, levels)
        channels = low_res_channels(noisy, model.scale, model.pixel_unshuffle, upsampled=model.enlarge_low_res)
        base = upsample_base(noisy, low_res, model.scale, kind=model.residual_base)
        return LowRes(channels, levels, pixel_unshuffle(base, model.pixel_unshuffle))

    def through_vae(self, low_res: torch.Tensor, generator: draws.Generator) -> torch.Tensor:
        """Return low-res clips as a first stage on latents does: decoded, from latents with its errors, as noise."""
        assert self.first_stage is not None
        count, _, frames, height, width = low_res.shape
        unit = self.first_stage.factor
        level = draws.rand(count, 1, 1, 1, 1, generator=generator)
        shape = (self.first_stage.channels, frames, height // unit, width // unit)
        noise = draws.randn(count, *shape, generator=generator)
        if not count:  # other processes have all such clips of the batch
            return low_res
        latents = self.first_stage.encode(low_res)
        noise = progressive_noise(noise, self.config.optim.noise_correlation)
        decoded = self.first_stage.decode(latents + self.config.model.latent_noise * level * noise).float()
        return clamp_premultiplied(decoded) if low_res.shape[1] == 4 else decoded.clamp(-1, 1)

    def loss(self, module: nn.Module, batch: dict[str, Any], generator: draws.Generator) -> torch.Tensor:
        """See `Stage`."""
        high_res = self.high_res_clips(batch)
        low_res = self.low_res_of(high_res, generator)

        def predict(noisy: torch.Tensor, timesteps: torch.Tensor, text: TextConditions) -> torch.Tensor:
            return self.call(
                module, torch.cat([noisy, low_res.channels], dim=1), timesteps, text.hidden_states, low_res.levels
            )

        residual = (self.codec.encode(high_res) - low_res.base) * self.config.model.residual_scale
        return self.denoising_loss(batch, generator, predict, residual)

    def call(
        self,
        module: nn.Module,
        sample: torch.Tensor,
        timesteps: torch.Tensor,
        text: torch.Tensor,
        levels: torch.Tensor,
    ) -> torch.Tensor:
        """Return the prediction for noisy clips joined with low-res ones, (B, C + C', F, h, w) -> (B, C, F, h, w)."""
        return module(sample, timesteps, text, class_labels=levels).sample

    def inflated(self) -> STUNet:
        """Return the network as a STUNet, to sample with."""
        raise NotImplementedError

    @torch.no_grad()
    def sample(self, folder: Path, step: int) -> None:
        """Write first frames of clips: by Lanczos, by the network and real, a row each.

        Half of the low-res ones pass through the VAE, if there is one.
        """
        model, pipe = self.config.model, super_resolution_pipeline(self.config, self.inflated())
        pipe.register_modules(text_encoder=self.encoder, tokenizer=self.tokenizer)
        pipe.set_progress_bar_config(disable=True)
        items = [self.dataset[i] for i in range(_SAMPLES)]
        real = self.high_res_clips({"pixels": torch.stack([item["pixels"] for item in items])})
        low_res = downsample(real, model.scale)
        if self.first_stage is not None:
            half = _SAMPLES // 2
            low_res[half:] = self.through_vae(low_res[half:], torch.Generator(self.device).manual_seed(0))
        generators = [torch.Generator(self.device).manual_seed(i) for i in range(_SAMPLES)]
        straight = unpremultiply(low_res) if low_res.shape[1] == 4 else low_res
        frames = ((straight + 1) / 2).transpose(1, 2)
        made = pipe(frames, [item["caption"] for item in items], generator=generators, output_type="pt")[0]
        upsampled = made.transpose(1, 2).to(real) * 2 - 1
        upsampled = premultiply(upsampled) if upsampled.shape[1] == 4 else upsampled
        rows = torch.cat(
            [
                _rgb(clips[:, :, 0])
                for clips in (upsample_base(low_res, low_res, model.scale, kind=model.residual_base), upsampled, real)
            ]
        )
        folder.mkdir(parents=True, exist_ok=True)
        sheet(rows.movedim(1, -1).cpu().numpy(), columns=_SAMPLES, zoom=1).save(folder / f"{step:07d}.png")


def _rgb(pictures: torch.Tensor) -> torch.Tensor:
    """Return pictures in [-1, 1] as RGB, (B, 3, H, W) in [0, 1], over a checkerboard where they are transparent."""
    return (on_checkers(pictures) if pictures.shape[1] == 4 else (pictures + 1) / 2).clamp(0, 1)


def _trained_side(config: _SuperResolutionConfig) -> int:
    """Return the side of the clips that are trained on, in pixels."""
    return config.data.crop or config.model.size


def _first_stages_codec(config: _SuperResolutionConfig, device: torch.device) -> VAECodec:
    """Return the VAE that a configuration names, if it takes the low-res clips."""
    codec = VAECodec(load_vae(str(config.model.vae)).to(device))
    if codec.pixel_channels != config.data.channels:
        raise LumiereError(
            f"model.vae, {config.model.vae}, takes {codec.pixel_channels} channels: set data.channels to it"
        )
    side, unit = _trained_side(config) // config.model.scale, codec.factor
    if side % unit:
        raise LumiereError(f"low-res clips of {side} pixels, but model.vae takes multiples of {unit}: choose others")
    return codec


class SuperResolutionImage(_SuperResolution):
    """Trains a UNet2DConditionModel from scratch, on single frames."""

    Config = SuperResolutionImageConfig
    config: SuperResolutionImageConfig

    def __init__(self, config: SuperResolutionImageConfig, device: torch.device) -> None:
        super().__init__(config, device, single_frame=True)
        channels, low_res_channels = _channels(config)
        try:
            self.module: UNet2DConditionModel = UNet2DConditionModel(
                sample_size=_trained_side(config) // config.model.pixel_unshuffle,
                in_channels=channels + low_res_channels,
                out_channels=channels,
                class_embed_type="timestep",
                **config.model.unet,
            ).to(device, memory_format=torch.channels_last)
        except (TypeError, ValueError) as error:
            raise LumiereError(f"model.unet is not a UNet2DConditionModel: {error}") from error
        with torch.no_grad():
            # Start as the upsampled clip, which has no residual, and by looking at the low-res clip alone: the noise of
            # many more channels would drown it, and says nothing where one step is taken.
            self.module.conv_out.weight.zero_()
            self.module.conv_out.bias.zero_()
            self.module.conv_in.weight[:, :channels].zero_()
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
        """Write diffusers' folders `unet` and `scheduler`."""
        self.module.save_pretrained(folder / "unet")
        self.scheduler.save_pretrained(folder / "scheduler")


class SuperResolution(_SuperResolution):
    """Inflates what stage `ssr-image` exported, and trains what inflation added, on windows of clips."""

    Config = SuperResolutionConfig
    config: SuperResolutionConfig

    def __init__(self, config: SuperResolutionConfig, device: torch.device) -> None:
        super().__init__(config, device, single_frame=False)
        self.module: STUNet = build_super_resolution(config).unet.to(device, memory_format=torch.channels_last)
        set_gradient_checkpointing(self.module, config)

    def inflated(self) -> STUNet:
        """See `_SuperResolution`."""
        return self.module

    def export(self, folder: Path) -> None:
        """Write the temporal weights alone in `temporal`, and a whole pipeline in `pipeline`."""
        self.module.save_temporal(folder / "temporal")
        super_resolution_pipeline(self.config, self.module).save_pretrained(folder / "pipeline")


def _channels(config: _SuperResolutionConfig) -> tuple[int, int]:
    """Return the channels of a high-res clip and of its low-res one, as the network sees them."""
    model, unit = config.model, config.model.pixel_unshuffle
    if not model.enlarge_low_res and unit % model.scale:
        raise LumiereError(
            f"without model.enlarge_low_res, model.scale, {model.scale}, must divide model.pixel_unshuffle, {unit}"
        )
    low_res_unit = unit if model.enlarge_low_res else unit // model.scale
    return config.data.channels * unit**2, config.data.channels * low_res_unit**2


def build_super_resolution(config: SuperResolutionConfig) -> LumiereSuperResolutionPipeline:
    """Return the pipeline that a configuration of stage `ssr` describes, its temporal layers untrained."""
    source = config.model.t2i
    if source is None:
        raise LumiereError("stage ssr needs model.t2i: the folder that stage ssr-image exported")
    try:
        unet = UNet2DConditionModel.from_pretrained(source, subfolder="unet", local_files_only=True)
    except (OSError, ValueError) as error:
        raise LumiereError(
            f"cannot read a U-Net from model.t2i = {source}; train it first (stage ssr-image, see configs/)"
        ) from error
    wanted = sum(_channels(config))
    if unet.config["in_channels"] != wanted:
        raise LumiereError(
            f"the U-Net of model.t2i = {source} takes {unet.config['in_channels']} channels, this configuration gives "
            f"{wanted}: set data.channels, pixel_unshuffle, scale and enlarge_low_res as in its stage ssr-image"
        )
    try:
        return super_resolution_pipeline(config, STUNet.from_unet(unet, **config.model.temporal))
    except TypeError as error:
        raise LumiereError(f"model.temporal: {error}; see STUNet for what can be set") from error


def super_resolution_pipeline(config: _SuperResolutionConfig, unet: STUNet) -> LumiereSuperResolutionPipeline:
    """Return a pipeline around a network, with the configuration's defaults; the text encoder is named only."""
    return LumiereSuperResolutionPipeline(
        unet=unet,
        scale=config.model.scale,
        residual_scale=config.model.residual_scale,
        enlarge_low_res=config.model.enlarge_low_res,
        residual_base=config.model.residual_base,
        window_frames=getattr(config.data, "window", 0) or config.data.num_frames,
        noise_level=config.model.max_noise_level // 4,
        **pipeline_options(config),
    )
