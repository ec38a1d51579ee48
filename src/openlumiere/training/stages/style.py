"""Stage `style`: a text-to-image network learns to draw as a few reference pictures do (the paper's section 4.1)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torch import nn

from openlumiere import __version__
from openlumiere.diffusion import draws
from openlumiere.errors import LumiereError
from openlumiere.files import write_json
from openlumiere.pipelines.text import TextConditions, load_text_encoder
from openlumiere.training.datasets import PictureDataConfig
from openlumiere.training.previews import sheet

from .denoising import DenoisingConfig, DenoisingTask, FrameModelConfig
from .t2v import build_pipeline


@dataclass(frozen=True, kw_only=True)
class StyleModelConfig(FrameModelConfig):
    """A network that learns a style; its `size` and `pixel_unshuffle` are those of `t2i`."""

    t2i: str | None = None  # the model that the style is for
    lora_rank: int = 16  # 0 trains all weights


@dataclass(frozen=True, kw_only=True)
class StyleDataConfig(PictureDataConfig):
    """Pictures in the style, see `data.style_images`."""

    kind: str = "pictures"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind != "pictures":
            raise LumiereError(f"data.kind {self.kind!r}: a style is learnt from pictures; leave data.kind out")


@dataclass(frozen=True, kw_only=True)
class StyleConfig(DenoisingConfig):
    """Configuration of stage `style`."""

    model: StyleModelConfig = field(default_factory=StyleModelConfig)
    data: StyleDataConfig = field(default_factory=StyleDataConfig)


def recipe(*, images: str, model: str, output: str) -> dict[str, Any]:
    """Return the settings of a style for which no configuration was written.

    Args:
        images: see `data.style_images`.
        model: folder of the model that the style is for.
        output: folder of the run; the style itself is its ``export``.
    """
    return {
        "stage": "style",
        "output": output,
        "model": {"t2i": model},
        "data": {"kind": "pictures", "folder": images},
        "optim": {
            "lr": 1e-3, "warmup_steps": 10, "max_steps": 150, "batch_size": 32, "ema_decay": 0.98, "snr_gamma": 10.0,
        },
        "checkpoint_every": 50,
        "sample_every": 0,
    }  # fmt: skip


class Style(DenoisingTask):
    """Fine-tunes the spatial weights of a model, by LoRA (Hu et al. 2021) or all of them."""

    Config = StyleConfig
    config: StyleConfig

    def __init__(self, config: StyleConfig, device: torch.device) -> None:
        self.pipe = build_pipeline(config, config.model.t2i).to(device)
        if self.pipe.text_encoder is None:
            tokenizer, encoder = load_text_encoder(config.text.encoder)
            self.pipe.register_modules(text_encoder=encoder.to(device), tokenizer=tokenizer)
        self.pipe.set_progress_bar_config(disable=True)
        for part in self.pipe.components.values():
            if isinstance(part, nn.Module):
                part.requires_grad_(False)
        self.module: nn.Module = self.pipe.unet.spatial
        rank = config.model.lora_rank
        if rank:
            layers = [name for name, part in self.module.named_modules() if isinstance(part, (nn.Linear, nn.Conv2d))]
            # alpha = rank: what is learned counts in full, whoever loads it.
            self.module.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=layers))
        else:
            self.module.requires_grad_(True)
        height, width = self.pipe.frame_size
        if height != width:
            raise LumiereError(f"stage style draws square pictures; this model's are {width}x{height}")
        sizes = dataclasses.replace(config.model, size=height, pixel_unshuffle=self.pipe.config.pixel_unshuffle)
        super().__init__(
            dataclasses.replace(config, model=sizes),
            device,
            single_frame=True,
            scheduler=DDIMScheduler.from_config(self.pipe.scheduler.config),
            encode_prompts=lambda prompts: self.pipe.encode_prompts(prompts, together=len(prompts) > 1),
            codec=self.pipe.codec,
        )

    def loss(self, module: nn.Module, batch: dict[str, Any], generator: draws.Generator) -> torch.Tensor:
        """See `Stage`."""
        layout = self.draw_layout(self.pipe.unet.spatial, batch, generator)
        labels = {} if layout is None else {"class_labels": layout[:, 0]}

        def predict(noisy: torch.Tensor, timesteps: torch.Tensor, text: TextConditions) -> torch.Tensor:
            pictures = noisy[:, :, 0].contiguous(memory_format=torch.channels_last)
            # DeepFloyd IF also predicts a variance, which the loss leaves alone.
            return self.pipe.call_network(module, pictures, timesteps, text, **labels)[:, : pictures.shape[1], None]

        return self.denoising_loss(batch, generator, predict)

    def sample(self, folder: Path, step: int) -> None:
        """Write a sheet of the first frames of clips, one a prompt."""
        prompts = self.sample_prompts()
        generators = [torch.Generator(self.device).manual_seed(i) for i in range(len(prompts))]
        frames = self.pipe(prompts, num_frames=self.pipe.unet.frame_multiple, generator=generators, upscale=False)[0]
        folder.mkdir(parents=True, exist_ok=True)
        sheet(frames[:, 0]).save(folder / f"{step:07d}.png")

    def export(self, folder: Path) -> None:
        """Write a style folder: a LoRA in diffusers' format, or the whole ``unet``; and ``style.json``."""
        rank = self.config.model.lora_rank
        folder.mkdir(parents=True, exist_ok=True)
        if rank:
            lora = convert_state_dict_to_diffusers(get_peft_model_state_dict(self.module))
            half = {name: value.to(torch.float16).contiguous() for name, value in lora.items()}
            StableDiffusionLoraLoaderMixin.save_lora_weights(folder, unet_lora_layers=half)
        else:
            self.module.save_pretrained(folder / "unet")  # type: ignore[operator]
        note = {"openlumiere": __version__, "lora_rank": rank, "steps": self.config.optim.max_steps}
        write_json(folder / "style.json", note)
