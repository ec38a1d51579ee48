"""Stage `distill`: a clip model learns to do in one step, without guidance, what it did in two guided ones.

Progressive distillation (Salimans and Ho 2022) of a guided model (Meng et al. 2023): run it on its own outcome to halve
the steps again, with `model.guidance: 1`.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler
from torch import nn

from openlumiere.diffusion import draws
from openlumiere.diffusion.guidance import classifier_free_guidance
from openlumiere.diffusion.noise import progressive_noise
from openlumiere.errors import LumiereError
from openlumiere.pipelines.lumiere import LumierePipeline
from openlumiere.training.distillation import distillation_target, halved, levels
from openlumiere.training.objective import loss_weights, target_of

from .conditional import Conditional, ConditionalConfig, ConditionalModelConfig
from .t2v import build_pipeline

# What decides at which noise other stages train; here the model's own sampling does.
_OF_SAMPLING = ("timestep_shift", "timestep_shift_start", "timestep_shift_steps", "uniform_timesteps")


@dataclass(frozen=True, kw_only=True)
class DistillModelConfig(ConditionalModelConfig):
    """The teacher, `t2i`, is a clip model, which the student starts from."""

    guidance: float = 2.0  # of the teacher; 1 where it was distilled itself


@dataclass(frozen=True, kw_only=True)
class DistillConfig(ConditionalConfig):
    """Configuration of stage `distill`; `sample_steps` are the student's, for each of which the teacher takes two."""

    sample_steps: int = 8
    sample_guidance: float = 1.0
    model: DistillModelConfig = field(default_factory=DistillModelConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sample_steps < 1:
            raise LumiereError("sample_steps, those that the student takes, must be at least 1")
        if self.model.guidance < 1:
            raise LumiereError(f"model.guidance {self.model.guidance:g}: choose 1, which is none, or more")
        for name in _OF_SAMPLING:
            if getattr(self.optim, name) != type(self.optim).__dataclass_fields__[name].default:
                raise LumiereError(f"a student learns at the steps that it will take: leave optim.{name} out")


class Distill(Conditional):
    """Trains a copy of a clip model, all of its weights, towards two steps of the model itself.

    Masks are drawn as by stage `conditional` where the model takes any, so that the student edits as well.
    """

    Config = DistillConfig
    config: DistillConfig

    @staticmethod
    def build(config: Any) -> LumierePipeline:
        """Return the pipeline of the teacher, set to sample as the student will."""
        model = config.model
        fixed = (model.spread_condition, model.follow_layout)
        if model.spatial_only or model.condition_blocks or model.condition_gate or any(v is not None for v in fixed):
            raise LumiereError("a student has its teacher's network: leave all but model.t2i, masks and guidance out")
        pipe = build_pipeline(config, model.t2i, temporal=model.temporal)
        # Of first order, as what the student learns is where a step ends; "trailing" steps can be halved.
        pipe.scheduler = DPMSolverMultistepScheduler.from_config(
            pipe.scheduler.config, solver_order=1, timestep_spacing="trailing"
        )
        pipe.register_to_config(
            num_inference_steps=config.sample_steps,
            guidance_scale=1.0,
            guidance_rescale=0.0,
            guidance_interval=(0.0, 1.0),
        )
        return pipe

    def __init__(self, config: DistillConfig, device: torch.device) -> None:
        super().__init__(config, device)
        shift = float(self.pipe.config.timestep_shift)
        self.steps = halved(copy.deepcopy(self.pipe.scheduler), config.sample_steps, shift=shift)
        self.teacher = copy.deepcopy(self.module).eval().requires_grad_(False)
        self.module.requires_grad_(True)

    def loss(self, module: nn.Module, batch: dict[str, Any], generator: draws.Generator) -> torch.Tensor:
        """See `Stage`."""
        condition = None
        if self.module.config["condition_channels"]:
            batch, condition = self.draw_condition(batch, generator)
            where = condition.channels[:, -self.codec.mask_channels :]
        clips = self.encoded(batch)
        if condition is None:
            conditions = self.frame_conditions(batch, generator)
        else:
            conditions = self.conditions_beside(condition, batch, generator)
            channels = self.seen(condition, batch, conditions.get("layout"), generator)
        text, nothing = self.text(self.captions(batch, generator)), self.text([""] * len(clips))
        noise = draws.randn(*clips.shape, generator=generator, dtype=clips.dtype)
        noise = progressive_noise(noise, self.pipe.config.noise_correlation)
        number = (draws.spread(len(clips), generator=generator) * len(self.steps.starts)).long()
        start, middle, end = (
            at[number.cpu()].to(self.device) for at in (self.steps.starts, self.steps.middles, self.steps.ends)
        )
        noisy = self.scheduler.add_noise(clips, noise, start)
        scale = self.config.model.guidance

        def predict(net: Any, noisy: torch.Tensor, timesteps: torch.Tensor, text: Any) -> torch.Tensor:
            seen = noisy if condition is None else torch.cat([noisy, channels.to(noisy)], dim=1)
            return self.pipe.call_network(net, seen, timesteps, text, **conditions)[:, : noisy.shape[1]]

        def guided(noisy: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
            prediction = predict(self.teacher, noisy, timesteps, text)
            if scale == 1.0:
                return prediction
            return classifier_free_guidance(prediction, predict(self.teacher, noisy, timesteps, nothing), scale)

        def impose(made: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
            if condition is None:
                return made
            alpha, sigma = (level.to(made) for level in levels(self.scheduler, timesteps))
            known = where.to(made).repeat(1, made.shape[1] // where.shape[1], 1, 1, 1)
            return torch.lerp(made, alpha * clips + sigma * noise, known)

        with torch.no_grad():
            wanted = distillation_target(guided, self.scheduler, noisy, start, middle, end, impose=impose)
            alpha, sigma = (level.to(noisy) for level in levels(self.scheduler, start))
            target = target_of(self.scheduler, wanted, (noisy - alpha * wanted) / sigma, start)
        error = (predict(module, noisy, start, text).float() - target.float()).square()
        weights = loss_weights(self.scheduler, start, self.config.optim.snr_gamma)
        return (error.flatten(1).mean(1) * weights).mean()

    def export(self, folder: Path) -> None:
        """Write a whole pipeline in `pipeline`: the student's weights are all its own."""
        self.pipe.save_pretrained(folder / "pipeline")
