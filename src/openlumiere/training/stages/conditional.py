"""Stage `conditional`: a clip model learns to complete clips of which a part is given (the paper's section 4.2)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler
from torch import nn

from openlumiere.diffusion import draws
from openlumiere.diffusion.alpha import lay_over, unpremultiply
from openlumiere.pipelines.conditions import ConcatCondition
from openlumiere.pipelines.lumiere import LumierePipeline
from openlumiere.pipelines.text import TextConditions
from openlumiere.training.cached import in_latents
from openlumiere.training.datasets import CompletedClipDataConfig
from openlumiere.training.masks import MIXTURE, draw_kind, draw_mask
from openlumiere.video import write_clip

from .t2v import TextToVideo, TextToVideoConfig, TextToVideoModelConfig

_SAMPLES_SEED = 1
_TOLD_STILL = 0.5


@dataclass(frozen=True, kw_only=True)
class ConditionalModelConfig(TextToVideoModelConfig):
    """A STUNet that is given a part of the clip."""

    masks: list[str] | None = None  # kinds of training/masks.py, equally often; None = its mixture
    condition_blocks: bool = False  # see STUNet.add_condition_to_blocks
    condition_gate: bool = False  # see STUNet.add_gate
    spread_condition: bool | None = None  # see diffusion/conditioning.py; None = the model's own
    follow_layout: bool | None = None  # the same
    canonical: bool | None = None  # see diffusion/canonical.py; the same
    picture_strength: float | None = None  # see LumierePipeline; the same
    # Where clips are completed the subject's layout is seen in frames that are given whole, roughly, and otherwise
    # unknown; so it is moved by as much (standard deviation, in units of the layout), or left out of so many clips.
    layout_jitter: float = 0.0
    region_layout_dropout: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ConditionalConfig(TextToVideoConfig):
    """Configuration of stage `conditional`."""

    model: ConditionalModelConfig = field(default_factory=ConditionalModelConfig)
    data: CompletedClipDataConfig = field(default_factory=CompletedClipDataConfig)


class Conditional(TextToVideo):
    """Widens a clip model's first convolution for ⟨J, C, M⟩, and trains it and the temporal layers on.

    Masks are drawn from `masks.MIXTURE`, "none" among them, so that the network goes on making clips of text alone.
    """

    Config: type[ConditionalConfig] = ConditionalConfig
    config: ConditionalConfig

    @staticmethod
    def build(config: Any) -> LumierePipeline:
        """Return the pipeline of `TextToVideo.build`, widened where it is not yet."""
        pipe = TextToVideo.build(config)
        if not pipe.unet.config["condition_channels"]:
            pipe.unet.add_condition_channels(pipe.condition_channels)
        if config.model.condition_blocks and not pipe.unet.config["condition_blocks"]:
            pipe.unet.add_condition_to_blocks()
        if config.model.condition_gate and not pipe.unet.config["condition_gate"]:
            schedule = DDIMScheduler.from_config(pipe.scheduler.config)
            pipe.unet.add_gate(schedule.alphas_cumprod, schedule.config.prediction_type)
        for name in ("spread_condition", "follow_layout", "canonical", "picture_strength"):
            if (value := getattr(config.model, name)) is not None:
                pipe.register_to_config(**{name: value})
        return pipe

    def loss(self, module: nn.Module, batch: dict[str, Any], generator: draws.Generator) -> torch.Tensor:
        """See `Stage`."""
        batch, condition = self.draw_condition(batch, generator)
        conditions = self.conditions_beside(condition, batch, generator)
        channels = self.seen(condition, batch, conditions.get("layout"), generator)

        def predict(noisy: torch.Tensor, timesteps: torch.Tensor, text: TextConditions) -> torch.Tensor:
            given = torch.cat([noisy, channels.to(noisy)], dim=1)
            return self.pipe.call_network(module, given, timesteps, text, **conditions)[:, : noisy.shape[1]]

        return self.denoising_loss(batch, generator, predict)

    def draw_condition(
        self, batch: dict[str, Any], generator: draws.Generator
    ) -> tuple[dict[str, Any], ConcatCondition]:
        """Return a batch, encoded where it is drawn on the device, and C and M of masks drawn for its clips."""
        if self.config.data.on_device and self.pipe.vae is not None:
            batch = in_latents(batch, self.codec.encode, small=True)
        # Masks of clips whose latents are kept are drawn at the latents' own resolution.
        kept = "latents" in batch
        clips, alphas = batch["small" if kept else "pixels"], batch.get("alpha")
        masks = []
        still, share = batch.get("still"), self.config.data.stills
        for index, seed in enumerate(draws.seeds(len(clips), generator=generator)):
            alpha = None if alphas is None else alphas[index, 0]
            # Text alone has as many clips as without still pictures, all of them of the subjects.
            text_alone = 1 / (1 - share) if still is None or not still[index] else 0.0
            rng = np.random.default_rng(seed)
            masks.append(
                draw_mask(clips[index], rng, alpha=alpha, kinds=self.config.model.masks, text_alone=text_alone)
            )
        mask = torch.stack(masks).to(self.device)
        if kept:
            return batch, self.pipe.condition_of(batch["latents"].to(self.device), mask)
        return batch, self.pipe.encode_condition(clips.to(self.device), mask)

    def seen(
        self, condition: ConcatCondition, batch: dict[str, Any], layout: torch.Tensor | None, generator: draws.Generator
    ) -> torch.Tensor:
        """Return what a network sees of a condition, (B, C, F, h, w); of half of the still pictures that they are."""
        still = batch.get("still")
        told = draws.rand(len(condition.channels), generator=generator) < _TOLD_STILL
        condition = self.pipe.follow(condition, layout, rigid=None if still is None else (still > 0) & told)
        return condition.seen(torch.arange(condition.channels.shape[2])[None])

    def conditions_beside(
        self, condition: ConcatCondition, batch: dict[str, Any], generator: draws.Generator
    ) -> dict[str, torch.Tensor]:
        """Return `frame_conditions`, with layouts that are as uncertain as they are where clips are completed."""
        conditions = self.frame_conditions(batch, generator)
        layout, model = conditions.get("layout"), self.config.model
        if layout is None or not (model.layout_jitter or model.region_layout_dropout):
            return conditions
        given = condition.channels[:, -self.codec.mask_channels :].flatten(3) > 0.5
        whole = given.all(3).all(1).any(1)  # (B,)
        regions_alone = given.flatten(1).any(1) & ~whole
        dropped = draws.rand(len(layout), generator=generator).to(self.device) < model.region_layout_dropout
        moved = torch.zeros(len(layout), 1, layout.shape[-1], device=self.device)
        moved[..., :3] = draws.randn(len(layout), 1, 3, generator=generator).to(self.device) * model.layout_jitter
        told = layout[..., -1:]  # what was dropped before stays 0
        layout = layout + moved * whole[:, None, None] * told
        return conditions | {"layout": layout * ~(regions_alone & dropped)[:, None, None]}

    def sample(self, folder: Path, step: int) -> None:
        """Write a looping clip for each kind of mask: what is given, and what was made of it, side by side."""
        folder.mkdir(parents=True, exist_ok=True)
        for index, kind in enumerate(self.config.model.masks or MIXTURE):
            item: dict[str, Any] = {
                key: value.cpu() if torch.is_tensor(value) else value for key, value in self.clips[index].items()
            }
            rng = np.random.default_rng(_SAMPLES_SEED)
            alpha = item["alpha"][0] if "alpha" in item else None
            mask = draw_kind(kind, item["pixels"], rng, alpha=alpha)[0]
            clip = item["pixels"][None]
            straight, shown = (unpremultiply(clip), lay_over(clip, (1, 1, 1))) if len(clip[0]) == 4 else (clip, clip)
            frames, shown = ((pixels[0] + 1) / 2 for pixels in (straight.transpose(1, 2), shown.transpose(1, 2)))
            made = self.pipe(
                item["caption"],
                num_frames=len(frames),
                video=frames,
                mask=1 - mask,
                hold_given=False,  # to see what the network itself makes of what it is given
                paste_given=False,
                upscale=False,
                num_inference_steps=self.config.sample_steps,
                guidance_scale=self.config.sample_guidance,
                generator=torch.Generator(self.device).manual_seed(index),
            )[0][0]
            shown = (shown * mask[:, None] + 0.5 * (1 - mask[:, None])).permute(0, 2, 3, 1).numpy()
            path = folder / f"{step:07d}-{kind.replace(' ', '-')}.webp"
            write_clip(
                np.concatenate([shown, made], axis=2), path, fps=self.config.data.shown_fps,
                metadata={"prompt": item["caption"]}, min_side=128,
            )  # fmt: skip
