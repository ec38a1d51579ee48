"""Stages `ssr-image` and `ssr`: super-resolution of single frames, and its temporal layers on windows of clips."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from openlumiere.diffusion.alpha import add_alpha, clamp_premultiplied, premultiply, unpremultiply
from openlumiere.diffusion.noise import progressive_noise
from openlumiere.diffusion.pixels import pixel_unshuffle
from openlumiere.diffusion.upsampling import add_noise, downsample, low_res_channels, upsample_base
from openlumiere.errors import LumiereError
from openlumiere.latents import PixelCodec, VAECodec, load_vae
from openlumiere.pipelines.super_resolution import LumiereSuperResolutionPipeline
from openlumiere.pipelines.text import TextConditions, encode, load_text_encoder
from openlumiere.stunet import STUNet
from openlumiere.training.config import TrainConfig
from openlumiere.training.sheets import on_checkers, sheet

from .denoising import DenoisingTask, make_scheduler, pipeline_options, set_gradient_checkpointing

_SAMPLES = 6


@dataclass(frozen=True)
class LowRes:
    """What a network is given of soft clips.

    Attributes:
        channels: with noise, as the network sees them, (B, C', F, h, w).
        levels: of their noise, (B,).
        base: what its residual is added to, (B, C, F, h, w).
    """

    channels: torch.Tensor
    levels: torch.Tensor
    base: torch.Tensor


class _SuperResolution(DenoisingTask):
    """What both stages share: the soft clip made of the sharp one, and given beside it."""

    module: nn.Module

    def __init__(self, config: TrainConfig, device: torch.device, *, single_frame: bool) -> None:
        self.tokenizer, encoder = load_text_encoder(config.text.encoder)
        self.encoder = encoder.to(device)
        model, shown = config.model, _shown_side(config)
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

    def sharp_clips(self, batch: dict[str, Any]) -> torch.Tensor:
        """A batch's pixels, (B, C, F, H, W), premultiplied where they have alpha; that of opaque data is 1."""
        pixels = batch["pixels"].to(self.device)
        return add_alpha(pixels) if self.config.data.channels == 4 else pixels

    def soften(self, sharp: torch.Tensor, generator: torch.Generator) -> LowRes:
        """Sharp clips as a first stage would have made them, with noise."""
        model = self.config.model
        soft = downsample(sharp, model.scale)
        if self.first_stage is not None:
            passed = torch.rand(len(soft), generator=generator, device=self.device) < model.through_vae
            if passed.any():
                soft[passed] = self.through_vae(soft[passed], generator)
        noise = torch.randn(soft.shape, generator=generator, device=self.device)
        noise = progressive_noise(noise, self.config.optim.noise_correlation)
        levels = torch.randint(0, model.max_noise_level + 1, (len(soft),), generator=generator, device=self.device)
        rough = add_noise(soft, noise, self.scheduler.alphas_cumprod, levels)
        given = low_res_channels(rough, model.scale, model.pixel_unshuffle, upsampled=model.enlarge_low_res)
        base = upsample_base(rough, soft, model.scale, kind=model.residual_base)
        return LowRes(given, levels, pixel_unshuffle(base, model.pixel_unshuffle))

    def through_vae(self, soft: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Soft clips as a first stage on latents returns them: decoded, from latents as right as it makes them."""
        assert self.first_stage is not None
        latents = self.first_stage.encode(soft)
        level = torch.rand(len(soft), 1, 1, 1, 1, generator=generator, device=self.device)
        noise = torch.randn(latents.shape, generator=generator, device=self.device)
        noise = progressive_noise(noise, self.config.optim.noise_correlation)
        decoded = self.first_stage.decode(latents + self.config.model.latent_noise * level * noise).float()
        return clamp_premultiplied(decoded) if soft.shape[1] == 4 else decoded.clamp(-1, 1)

    def loss(self, module: nn.Module, batch: dict[str, Any], generator: torch.Generator) -> torch.Tensor:
        """See `Stage`."""
        sharp = self.sharp_clips(batch)
        soft = self.soften(sharp, generator)

        def predict(noisy: torch.Tensor, timesteps: torch.Tensor, text: TextConditions) -> torch.Tensor:
            return self.call(
                module, torch.cat([noisy, soft.channels], dim=1), timesteps, text.hidden_states, soft.levels
            )

        residual = (self.codec.encode(sharp) - soft.base) * self.config.model.residual_scale
        return self.denoising_loss(batch, generator, predict, residual)

    def call(
        self,
        module: nn.Module,
        sample: torch.Tensor,
        timesteps: torch.Tensor,
        text: torch.Tensor,
        levels: torch.Tensor,
    ) -> torch.Tensor:
        """The network's prediction for clips with low-res ones beside, (B, C + C', F, h, w) -> (B, C, F, h, w)."""
        return module(sample, timesteps, text, class_labels=levels).sample

    def inflated(self) -> STUNet:
        """The network as a STUNet, to sample with."""
        raise NotImplementedError

    @torch.no_grad()
    def sample(self, folder: Path, step: int) -> None:
        """First frames of clips: enlarged, sharpened and real, a row each; half of them through the VAE, if any."""
        model, pipe = self.config.model, super_resolution_pipeline(self.config, self.inflated())
        pipe.register_modules(text_encoder=self.encoder, tokenizer=self.tokenizer)
        pipe.set_progress_bar_config(disable=True)
        items = [self.dataset[i] for i in range(_SAMPLES)]
        real = self.sharp_clips({"pixels": torch.stack([item["pixels"] for item in items])})
        soft = downsample(real, model.scale)
        if self.first_stage is not None:
            half = _SAMPLES // 2
            soft[half:] = self.through_vae(soft[half:], torch.Generator(self.device).manual_seed(0))
        generators = [torch.Generator(self.device).manual_seed(i) for i in range(_SAMPLES)]
        straight = unpremultiply(soft) if soft.shape[1] == 4 else soft
        frames = ((straight + 1) / 2).transpose(1, 2)
        made = pipe(frames, [item["caption"] for item in items], generator=generators, output_type="pt")[0]
        sharp = made.transpose(1, 2).to(real) * 2 - 1
        sharp = premultiply(sharp) if sharp.shape[1] == 4 else sharp
        rows = torch.cat(
            [
                _seen(clips[:, :, 0])
                for clips in (upsample_base(soft, soft, model.scale, kind=model.residual_base), sharp, real)
            ]
        )
        folder.mkdir(parents=True, exist_ok=True)
        sheet(rows.movedim(1, -1).cpu().numpy(), columns=_SAMPLES, zoom=1).save(folder / f"{step:07d}.png")


def _seen(pictures: torch.Tensor) -> torch.Tensor:
    """Pictures in [-1, 1] to look at, (B, 3, H, W) in [0, 1]."""
    return (on_checkers(pictures) if pictures.shape[1] == 4 else (pictures + 1) / 2).clamp(0, 1)


def _shown_side(config: TrainConfig) -> int:
    """Of the clips that are trained on, in pixels."""
    return config.data.crop or config.model.size


def _first_stages_codec(config: TrainConfig, device: torch.device) -> VAECodec:
    """The VAE that a configuration names, if it takes the low-res clips."""
    codec = VAECodec(load_vae(str(config.model.vae)).to(device))
    if codec.pixel_channels != config.data.channels:
        raise LumiereError(
            f"model.vae, {config.model.vae}, takes {codec.pixel_channels} channels: set data.channels to it"
        )
    side, unit = _shown_side(config) // config.model.scale, codec.factor
    if side % unit:
        raise LumiereError(f"low-res clips of {side} pixels, but model.vae takes multiples of {unit}: choose others")
    return codec


class SuperResolutionImage(_SuperResolution):
    """Trains a UNet2DConditionModel from scratch, on single frames."""

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        super().__init__(config, device, single_frame=True)
        channels, beside = _channels(config)
        try:
            self.module: UNet2DConditionModel = UNet2DConditionModel(
                sample_size=_shown_side(config) // config.model.pixel_unshuffle,
                in_channels=channels + beside,
                out_channels=channels,
                class_embed_type="timestep",
                **config.model.unet,
            ).to(device, memory_format=torch.channels_last)
        except (TypeError, ValueError) as error:
            raise LumiereError(f"model.unet is not a UNet2DConditionModel: {error}") from error
        with torch.no_grad():
            # Start as the enlarged clip, which has no residual, and by looking at the low-res clip alone: the noise of
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


def _channels(config: TrainConfig) -> tuple[int, int]:
    """Of a sharp clip, and of the low-res one beside it, as the network sees them."""
    model, unit = config.model, config.model.pixel_unshuffle
    if not model.enlarge_low_res and unit % model.scale:
        raise LumiereError(
            f"without model.enlarge_low_res, model.scale, {model.scale}, must divide model.pixel_unshuffle, {unit}"
        )
    beside = unit if model.enlarge_low_res else unit // model.scale
    return config.data.channels * unit**2, config.data.channels * beside**2


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


def super_resolution_pipeline(config: TrainConfig, unet: STUNet) -> LumiereSuperResolutionPipeline:
    """A pipeline around a network, with the configuration's defaults; the text encoder is named only."""
    return LumiereSuperResolutionPipeline(
        unet=unet,
        scale=config.model.scale,
        residual_scale=config.model.residual_scale,
        enlarge_low_res=config.model.enlarge_low_res,
        residual_base=config.model.residual_base,
        window_frames=config.data.window or config.data.num_frames,
        noise_level=config.model.max_noise_level // 4,
        **pipeline_options(config),
    )
