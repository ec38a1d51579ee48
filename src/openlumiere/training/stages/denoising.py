"""What stages `t2i` and `t2v` share: data, prompts, the denoising loss, the pipeline around the network."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, UNet2DConditionModel
from torch import nn
from torch.utils.data import Dataset

from openlumiere.data.emoji.dataset import EmojiClips
from openlumiere.diffusion.layout import LAYOUT_DIM, drop
from openlumiere.errors import LumiereError
from openlumiere.latents import Codec, VAECodec
from openlumiere.pipelines.lumiere import LumierePipeline
from openlumiere.pipelines.text import PromptCache, TextConditions
from openlumiere.stunet import STUNet
from openlumiere.stunet.t2i import takes_layout
from openlumiere.training.cached import CachedLatents
from openlumiere.training.config import TrainConfig
from openlumiere.training.objective import annealed_shift, diffusion_loss

# Settings that change how cached items are used, not what they are.
_NOT_IN_CACHE = ("cache", "cached", "workers", "layout_dropout", "on_device")
_PROMPTS_AT_ONCE = 256  # on a GPU

# (noisy clip, timesteps, text) -> prediction
Predict = Callable[[torch.Tensor, torch.Tensor, TextConditions], torch.Tensor]


class DenoisingTask:
    """Base of the stages that denoise clips, given text.

    Args:
        scheduler: the noise schedule.
        encode_prompts: prompts to what the network is told; many come at once on a GPU.
        codec: pixels in [-1, 1] to what the network denoises.

    Attributes:
        clips: the data set as pixels.
        dataset: what is trained on: the same, or its latents.
    """

    step: int = 0  # see `Stage`

    def __init__(
        self,
        config: TrainConfig,
        device: torch.device,
        *,
        single_frame: bool,
        scheduler: Any,
        encode_prompts: Callable[[list[str]], TextConditions],
        codec: Codec,
    ) -> None:
        self.config, self.device = config, device
        if config.model.size % codec.factor:
            of = "" if isinstance(codec, VAECodec) else "model.pixel_unshuffle, "
            raise LumiereError(f"model.size, {config.model.size}, must be a multiple of {of}{codec.factor}")
        channels = codec.pixel_channels if isinstance(codec, VAECodec) else None
        self.clips = self.dataset = make_dataset(config, single_frame=single_frame, channels=channels, device=device)
        if config.data.cache is not None:
            self.dataset = cached_latents(config, self.clips, codec, device)
        self.scheduler, self.codec = scheduler, codec
        at_once = _PROMPTS_AT_ONCE if device.type == "cuda" else 1
        self.text = PromptCache(encode_prompts, at_once=at_once)

    def denoising_loss(
        self, batch: dict[str, Any], generator: torch.Generator, predict: Predict, clips: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Loss of one batch; `clips`: what is denoised, the batch's own when None."""
        if clips is None:
            known = batch.get("latents")
            clips = self.codec.encode(batch["pixels"].to(self.device)) if known is None else known.to(self.device)
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

    def draw_layout(
        self, unet: UNet2DConditionModel, batch: dict[str, Any], generator: torch.Generator
    ) -> torch.Tensor | None:
        """The layouts that the network is told of a batch, (B, F, 6), or None where its T2I, `unet`, takes none.

        Those of some clips are left out, whatever is told of their prompts; so are those that the data don't hold.
        """
        if not takes_layout(unet):
            return None
        if "layout" not in batch:
            batch_size, _, frames, *_ = batch["latents" if "latents" in batch else "pixels"].shape
            return torch.zeros(batch_size, frames, LAYOUT_DIM, device=self.device)
        return drop(batch["layout"].to(self.device), self.config.data.layout_dropout, generator)

    def sample_prompts(self) -> list[str]:
        """The configuration's prompts, or the first captions of the data set."""
        return self.config.sample_prompts or [self.dataset[i]["caption"] for i in range(8)]

    def sample_layouts(self, unet: UNet2DConditionModel, count: int, num_frames: int) -> torch.Tensor | None:
        """The layouts of the data set's first clips, (count, F, 6); None where there are none, or none are taken."""
        if not takes_layout(unet):
            return None
        found = [self.dataset[i].get("layout") for i in range(count)]
        layouts = [layout for layout in found if layout is not None and len(layout) == num_frames]
        return torch.stack(layouts) if len(layouts) == count else None


def make_scheduler(config: TrainConfig) -> DDIMScheduler:
    """The noise schedule that a configuration describes."""
    try:
        return DDIMScheduler(**config.scheduler)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise LumiereError(f"scheduler is not a DDIMScheduler's configuration: {error}") from error


def new_pipeline(config: TrainConfig, unet: STUNet, vae: Any = None) -> LumierePipeline:
    """A pipeline around a network, with the configuration's defaults; the text encoder is named only."""
    return LumierePipeline(
        unet=unet,
        vae=vae,
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


def cached_latents(config: TrainConfig, source: Dataset[Any], codec: Codec, device: torch.device) -> CachedLatents:
    """The data set's latents, kept on disk where the configuration says."""
    data = config.data
    if not isinstance(codec, VAECodec) or data.cached < 1 or data.pool:
        raise LumiereError(
            "data.cache keeps latents: it needs a model with a VAE, data.cached above 0, and no data.pool"
        )
    described = {name: value for name, value in asdict(data).items() if name not in _NOT_IN_CACHE}
    weights = hashlib.sha256()
    for name, value in sorted(codec.vae.state_dict().items()):
        weights.update(name.encode() + value.float().cpu().numpy().tobytes())
    identity = {"data": described, "size": config.model.size, "seed": config.seed, "vae": weights.hexdigest()[:16]}
    return CachedLatents(
        source, lambda pixels: codec.encode(pixels.to(device)), Path(str(data.cache)), count=data.cached,
        identity=identity, seed=config.seed, small=config.stage == "conditional",
    )  # fmt: skip


def make_dataset(
    config: TrainConfig, *, single_frame: bool, channels: int | None = None, device: torch.device | str = "cpu"
) -> Dataset[Any]:
    """The data set that a configuration names.

    Args:
        channels: of pixels; the configuration's own when None.
        device: where clips are drawn if the configuration wants it to be where the network is.
    """
    data, size = config.data, config.model.size
    match data.kind:
        case "emoji":
            return EmojiClips(
                Path(data.folder), subjects=data.subjects, size=size, num_frames=data.num_frames, fps=data.fps,
                every=data.every, window=1 if single_frame else data.window, seed=config.seed, pool=data.pool,
                with_motion=data.with_motion, channels=data.channels if channels is None else channels,
                transparent=data.transparent, alpha=config.stage == "conditional", crop=data.crop,
                device=device if data.on_device else "cpu",
            )  # fmt: skip
        case "folder":
            from openlumiere.data.folder import ClipFolder

            num_frames = 1 if single_frame else data.window or data.num_frames
            return ClipFolder(Path(data.folder), num_frames=num_frames, fps=data.fps, size=size, seed=config.seed)
        case "artwork":
            from openlumiere.data.artwork import ArtworkClips

            if not single_frame or data.channels != 4:
                raise LumiereError(
                    "data.kind artwork: single pictures with transparency, for stage ssr-image with data.channels=4"
                )
            return ArtworkClips(Path(data.folder), size=size, crop=data.crop, seed=config.seed, sharp=True)
        case "pictures":
            from openlumiere.data.style_images import StylePictures

            return StylePictures(Path(data.folder), size=size, seed=config.seed, only=data.subjects)
        case _:
            raise LumiereError(f"data.kind {data.kind!r}: use emoji, folder, pictures or artwork")


def set_gradient_checkpointing(module: nn.Module, config: TrainConfig) -> None:
    """Trade time for memory where the configuration asks for it."""
    if config.optim.gradient_checkpointing:
        module.enable_gradient_checkpointing()  # type: ignore[operator]
