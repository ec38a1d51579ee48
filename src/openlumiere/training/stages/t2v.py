"""Stage `t2v`: the temporal layers of a STUNet, trained on clips; the T2I stays frozen, as in the paper."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, DiffusionPipeline, UNet2DConditionModel
from torch import nn

from openlumiere.bundled import model_folder
from openlumiere.diffusion import draws
from openlumiere.errors import LumiereError
from openlumiere.latents import load_vae
from openlumiere.pipelines.lumiere import LumierePipeline
from openlumiere.pipelines.text import TextConditions, load_text_encoder
from openlumiere.stunet import STUNet
from openlumiere.training.datasets import WindowedClipDataConfig
from openlumiere.video import write_clip

from .denoising import (
    DenoisingConfig,
    DenoisingTask,
    FrameModelConfig,
    make_scheduler,
    new_pipeline,
    set_gradient_checkpointing,
)


@dataclass(frozen=True, kw_only=True)
class TextToVideoModelConfig(FrameModelConfig):
    """A STUNet on a frozen T2I."""

    t2i: str | None = None  # the T2I, or the clip model, that the network starts from; see `build_pipeline`
    spatial_only: bool = False  # of a clip model, take the frozen half and train temporal layers anew
    temporal: dict[str, Any] = field(default_factory=dict)  # arguments of `STUNet.from_unet`


@dataclass(frozen=True, kw_only=True)
class TextToVideoConfig(DenoisingConfig):
    """Configuration of stage `t2v`."""

    model: TextToVideoModelConfig = field(default_factory=TextToVideoModelConfig)
    data: WindowedClipDataConfig = field(default_factory=WindowedClipDataConfig)


class TextToVideo(DenoisingTask):
    """Inflates a trained T2I and trains what inflation added."""

    Config: type[TextToVideoConfig] = TextToVideoConfig
    config: TextToVideoConfig

    @staticmethod
    def build(config: Any) -> LumierePipeline:
        """Return the pipeline that a configuration describes, its temporal layers untrained."""
        model = config.model
        pipe = build_pipeline(config, model.t2i, temporal=model.temporal, spatial_only=model.spatial_only)
        # Clips are sampled as they were trained, whatever the model that training starts from has.
        pipe.register_to_config(
            timestep_shift=config.optim.timestep_shift,
            noise_correlation=config.optim.noise_correlation,
            window_frames=config.data.window or config.data.frames_of_clip,
        )
        return pipe

    def __init__(self, config: TextToVideoConfig, device: torch.device) -> None:
        self.pipe = self.build(config).to(device)
        if self.pipe.text_encoder is None:
            tokenizer, encoder = load_text_encoder(config.text.encoder)
            self.pipe.register_modules(text_encoder=encoder.to(device), tokenizer=tokenizer)
        for name in ("text_encoder", "text_encoder_2", "vae"):
            part = getattr(self.pipe, name)
            if part is not None:
                part.requires_grad_(False)
        self.pipe.set_progress_bar_config(disable=True)
        self.module: STUNet = self.pipe.unet
        self.module.to(memory_format=torch.channels_last)
        set_gradient_checkpointing(self.module, config)
        schedule = make_scheduler(config) if config.scheduler else DDIMScheduler.from_config(self.pipe.scheduler.config)
        super().__init__(
            config,
            device,
            single_frame=False,
            scheduler=schedule,
            encode_prompts=lambda prompts: self.pipe.encode_prompts(prompts, together=len(prompts) > 1),
            codec=self.pipe.codec,
        )

    def loss(self, module: nn.Module, batch: dict[str, Any], generator: draws.Generator) -> torch.Tensor:
        """See `Stage`."""
        conditions = self.frame_conditions(batch, generator)

        def predict(noisy: torch.Tensor, timesteps: torch.Tensor, text: TextConditions) -> torch.Tensor:
            # DeepFloyd IF also predicts a variance, which the loss leaves alone.
            return self.pipe.call_network(module, noisy, timesteps, text, **conditions)[:, : noisy.shape[1]]

        return self.denoising_loss(batch, generator, predict)

    def frame_conditions(self, batch: dict[str, Any], generator: draws.Generator) -> dict[str, torch.Tensor]:
        """Return arguments of `STUNet.forward`: the frames' positions in their clip, layouts.

        Whole clips have no positions, as frame n of F is at n / F.
        """
        conditions = {}
        if "frame_positions" in batch:
            conditions["frame_positions"] = batch["frame_positions"].to(self.device)
        layout = self.draw_layout(self.module.spatial, batch, generator)
        return conditions if layout is None else conditions | {"layout": layout}

    def sample(self, folder: Path, step: int) -> None:
        """Write a looping clip and a contact sheet for each prompt."""
        data, prompts = self.config.data, self.sample_prompts()
        layouts = None  # prompts of the configuration's own say other things than the data's layouts
        if not self.config.sample_prompts:
            layouts = self.sample_layouts(self.module.spatial, len(prompts), data.frames_of_clip)
        for i, prompt in enumerate(prompts):
            generator = torch.Generator(self.device).manual_seed(i)
            clip = self.pipe(
                prompt,
                num_frames=data.frames_of_clip,
                num_inference_steps=self.config.sample_steps,
                guidance_scale=self.config.sample_guidance,
                generator=generator,
                layout=None if layouts is None else layouts[i],
            )[0][0]
            folder.mkdir(parents=True, exist_ok=True)
            for suffix in (".webp", ".png"):
                path = folder / f"{step:07d}-{i:02d}{suffix}"
                write_clip(clip, path, fps=data.shown_fps, metadata={"prompt": prompt})

    def export(self, folder: Path) -> None:
        """Write the temporal weights alone in `temporal`, and a whole pipeline in `pipeline`."""
        self.module.save_temporal(folder / "temporal")
        self.pipe.save_pretrained(folder / "pipeline")


def build_pipeline(
    config: DenoisingConfig, source: str | None, *, temporal: dict[str, Any] | None = None, spatial_only: bool = False
) -> LumierePipeline:
    """Return the pipeline that training starts from.

    Args:
        source: what stage `t2i` exported, what `lumiere inflate` or `lumiere export` wrote, a bundled model's name, or
            any text-to-image pipeline of diffusers, by folder or hub id; all but the first bring their own text
            encoders, schedule and VAE.
        temporal: arguments of `STUNet.from_unet`; those of a clip model have to agree.
        spatial_only: of a clip model, take the frozen half alone.

    Raises:
        LumiereError: nothing that can be read there, or arguments that do not fit it.
    """
    if source is None:
        raise LumiereError(
            f"stage {config.stage} needs model.t2i: the folder that stage t2i exported, or another T2I's"
        )
    temporal = temporal or {}
    source = str(model_folder(source) or source)
    folder = Path(source)
    try:
        if (folder / "unet").is_dir() and not (folder / "model_index.json").exists():
            unet = UNet2DConditionModel.from_pretrained(source, subfolder="unet", local_files_only=True)
            vae = load_vae(folder / "vae") if (folder / "vae").is_dir() else None
            return new_pipeline(config, STUNet.from_unet(unet, **temporal), vae)
        if spatial_only:
            grown = STUNet.from_pretrained(source, subfolder="unet", local_files_only=folder.exists())
            vae = load_vae(folder / "vae") if (folder / "vae").is_dir() else None
            return new_pipeline(config, STUNet.from_unet(grown.spatial, **temporal), vae)
        local = folder.exists()
        if DiffusionPipeline.load_config(source, local_files_only=local)["_class_name"] != LumierePipeline.__name__:
            t2i = DiffusionPipeline.from_pretrained(source, local_files_only=local)
            return LumierePipeline.from_t2i(t2i, **temporal)
        pipe = LumierePipeline.from_pretrained(source, local_files_only=local)
        options = pipe.unet.config
        if other := [name for name, value in temporal.items() if name not in options or options[name] != value]:
            raise LumiereError(
                f"{source} is inflated already, with other {', '.join(other)}: leave these out of model.temporal, "
                "or set model.spatial_only to train new temporal layers"
            )
        return pipe
    except TypeError as error:
        raise LumiereError(f"model.temporal: {error}; see STUNet for what can be set") from error
    except (OSError, ValueError) as error:
        if isinstance(error, LumiereError):
            raise
        raise LumiereError(
            f"cannot read a U-Net from model.t2i = {source}; train it first (stage t2i, see configs/)"
        ) from error
