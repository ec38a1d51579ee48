"""What the stages that denoise share: settings, data, prompts, the denoising loss, the pipeline around the network."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, UNet2DConditionModel
from torch import nn
from torch.utils.data import Dataset

from openlumiere.data.emoji.captions import renamed
from openlumiere.data.emoji.dataset import EmojiClips
from openlumiere.data.emoji.vocabulary import TRANSPARENT, vocabulary
from openlumiere.diffusion import draws
from openlumiere.diffusion.layout import LAYOUT_DIM, drop
from openlumiere.errors import LumiereError
from openlumiere.latents import Codec, VAECodec
from openlumiere.pipelines.lumiere import LumierePipeline
from openlumiere.pipelines.text import PromptCache, TextConditions
from openlumiere.stunet import STUNet
from openlumiere.stunet.t2i import takes_layout
from openlumiere.training.cached import CachedLatents, ShownLatents
from openlumiere.training.config import DiffusionOptimizerConfig, ModelConfig, TextConfig, TrainConfig
from openlumiere.training.datasets import ClipDataConfig, PictureDataConfig, WindowedClipDataConfig, make_dataset
from openlumiere.training.masks import STAGES_WITH_MASKS
from openlumiere.training.objective import annealed_shift, diffusion_loss

# Settings that change how cached items are used, not what they are.
_NOT_IN_CACHE = ("cache", "cached", "workers", "layout_dropout", "on_device", "other_names")
_LATER = ("motions", "periods", "stills", "canonical")  # caches are older than these
_PROMPTS_AT_ONCE = 256  # on a GPU

# (noisy clip, timesteps, text) -> prediction
Predict = Callable[[torch.Tensor, torch.Tensor, TextConditions], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class FrameModelConfig(ModelConfig):
    """What frames the network works on."""

    size: int = 32  # height and width of a frame in pixels
    pixel_unshuffle: int = 2


@dataclass(frozen=True, kw_only=True)
class DenoisingConfig(TrainConfig):
    """What all stages that denoise have."""

    model: FrameModelConfig = field(default_factory=FrameModelConfig)
    data: PictureDataConfig = field(default_factory=ClipDataConfig)
    text: TextConfig = field(default_factory=TextConfig)
    optim: DiffusionOptimizerConfig = field(default_factory=DiffusionOptimizerConfig)
    scheduler: dict[str, Any] = field(default_factory=dict)  # arguments of diffusers' DDIMScheduler


class DenoisingTask:
    """Base of the stages that denoise clips, given text.

    Args:
        scheduler: the noise schedule.
        encode_prompts: prompts to the network's text conditions; many come at once on a GPU.
        codec: pixels in [-1, 1] to what the network denoises.

    Attributes:
        clips: the data set as pixels.
        dataset: what is trained on: the same, or its latents.
    """

    step: int = 0  # see `Stage`

    def __init__(
        self,
        config: DenoisingConfig,
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
        if getattr(config.data, "cache", None) is not None:
            self.dataset = cached_latents(config, self.clips, codec, device)
        self.scheduler, self.codec = scheduler, codec
        at_once = _PROMPTS_AT_ONCE if device.type == "cuda" else 1
        self.text = PromptCache(encode_prompts, at_once=at_once)

    def denoising_loss(
        self, batch: dict[str, Any], generator: draws.Generator, predict: Predict, clips: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the loss of one batch; `clips` is what is denoised, the batch's own when None."""
        clips = self.encoded(batch) if clips is None else clips
        text = self.text(self.captions(batch, generator))
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

    def encoded(self, batch: dict[str, Any]) -> torch.Tensor:
        """Return a batch's clips as the network sees them, (B, C, F, h, w)."""
        known = batch.get("latents")
        return self.codec.encode(batch["pixels"].to(self.device)) if known is None else known.to(self.device)

    def captions(self, batch: dict[str, Any], generator: draws.Generator) -> list[str]:
        """Return a batch's captions, some of them in other words, or emptied for guidance."""
        captions: list[str] = batch["caption"]
        if share := getattr(self.config.data, "other_names", 0.0):
            still = batch.get("still", torch.zeros(len(captions), dtype=torch.bool)).tolist()  # none of the subjects
            captions = [text if other else renamed(text, share) for text, other in zip(captions, still, strict=True)]
        dropped = draws.rand(len(captions), generator=generator) < self.config.text.dropout
        return ["" if empty else text for empty, text in zip(dropped.tolist(), captions, strict=True)]

    def draw_layout(
        self, unet: UNet2DConditionModel, batch: dict[str, Any], generator: draws.Generator
    ) -> torch.Tensor | None:
        """Return a batch's layouts, (B, F, 6), or None where the network's T2I, `unet`, takes none.

        Those of some clips are dropped, independently of their prompts; data without layouts count as dropped.
        """
        if not takes_layout(unet):
            return None
        if "layout" not in batch:
            batch_size, _, frames, *_ = batch["latents" if "latents" in batch else "pixels"].shape
            return torch.zeros(batch_size, frames, LAYOUT_DIM, device=self.device)
        return drop(batch["layout"].to(self.device), self.config.data.layout_dropout, generator)

    def sample_prompts(self) -> list[str]:
        """Return the configuration's prompts, or the first captions of the data set."""
        return self.config.sample_prompts or [self.dataset[i]["caption"] for i in range(8)]

    def sample_layouts(self, unet: UNet2DConditionModel, count: int, num_frames: int) -> torch.Tensor | None:
        """Return the layouts of the first clips, (count, F, 6); None where there are none, or the T2I takes none."""
        if not takes_layout(unet):
            return None
        found = [self.dataset[i].get("layout") for i in range(count)]
        layouts = [layout for layout in found if layout is not None and len(layout) == num_frames]
        return torch.stack(layouts) if len(layouts) == count else None


def make_scheduler(config: DenoisingConfig) -> DDIMScheduler:
    """Return the noise schedule that a configuration describes."""
    try:
        return DDIMScheduler(**config.scheduler)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise LumiereError(f"scheduler is not a DDIMScheduler's configuration: {error}") from error


def new_pipeline(config: DenoisingConfig, unet: STUNet, vae: Any = None) -> LumierePipeline:
    """Return a pipeline around a network, with the configuration's defaults; the text encoder is named only."""
    data, has_alpha = config.data, vae is not None and vae.config.in_channels == 4
    shows_nothing_behind = has_alpha and data.kind == "emoji" and getattr(data, "transparent", 0.0) > 0
    return LumierePipeline(
        unet=unet,
        vae=vae,
        subjects=config.data.subjects,
        transparent_words=vocabulary()[TRANSPARENT]["words"][0] if shows_nothing_behind else None,
        **pipeline_options(config),
    )


def pipeline_options(config: DenoisingConfig) -> dict[str, Any]:
    """Return the options of a pipeline that follow from how its network was trained."""
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


def cached_latents(config: Any, source: Dataset[Any], codec: Codec, device: torch.device) -> Dataset[Any]:
    """Return the data set's latents, kept on disk where the configuration says.

    Of emoji clips whole ones are kept, and windows or strides chosen as they are read.
    """
    data = config.data
    if not isinstance(codec, VAECodec) or data.cached < 1 or data.pool:
        raise LumiereError(
            "data.cache keeps latents: it needs a model with a VAE, data.cached above 0, and no data.pool"
        )
    if isinstance(source, EmojiClips) and isinstance(data, WindowedClipDataConfig) and not source.shown.whole:
        whole = replace(config, data=replace(data, window=0, frame_stride=1))
        clips = make_dataset(whole, single_frame=False, channels=codec.pixel_channels, device=device)
        return ShownLatents(cached_latents(whole, clips, codec, device), source.shown)
    return CachedLatents(
        source, lambda pixels: codec.encode(pixels.to(device)), Path(str(data.cache)), count=data.cached,
        identity=cache_identity(config, codec.vae), seed=config.seed, small=config.stage in STAGES_WITH_MASKS,
    )  # fmt: skip


def cache_identity(config: Any, vae: nn.Module) -> dict[str, Any]:
    """Return all that cached latents depend on, under the names that the first caches have."""
    data = {name: value for name, value in asdict(config.data).items() if name not in _NOT_IN_CACHE}
    data = {name: value for name, value in data.items() if name not in _LATER or value}
    data = {"window": 0, "every": data.pop("frame_stride")} | data
    weights = hashlib.sha256()
    for name, value in sorted(vae.state_dict().items()):
        weights.update(name.encode() + value.float().cpu().numpy().tobytes())
    return {"data": data, "size": config.model.size, "seed": config.seed, "vae": weights.hexdigest()[:16]}


def set_gradient_checkpointing(module: nn.Module, config: DenoisingConfig) -> None:
    """Trade time for memory where the configuration asks for it."""
    if config.optim.gradient_checkpointing:
        module.enable_gradient_checkpointing()  # type: ignore[operator]
