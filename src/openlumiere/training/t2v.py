"""Stage `t2v`: the temporal layers of a STUNet, trained on clips; the T2I stays frozen, as in the paper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from openlumiere.errors import LumiereError
from openlumiere.stunet import STUNet
from openlumiere.video import write_clip

from .config import TrainConfig
from .task import DenoisingTask, new_pipeline, set_gradient_checkpointing


class TextToVideo(DenoisingTask):
    """Inflates a trained T2I and trains what inflation added."""

    module: STUNet

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        super().__init__(config, device, single_frame=False)
        self.module = build_stunet(config).to(device, memory_format=torch.channels_last)
        set_gradient_checkpointing(self.module, config)

    def loss(self, module: nn.Module, batch: dict[str, Any], generator: torch.Generator) -> torch.Tensor:
        """See `Stage`."""
        return self.denoising_loss(batch, generator, lambda noisy, t, text: module(noisy, t, text).sample)

    def sample(self, folder: Path, step: int) -> None:
        """A looping clip and a contact sheet for each prompt."""
        pipe = self.pipeline(self.module)
        for i, prompt in enumerate(self.sample_prompts()):
            generator = torch.Generator(self.device).manual_seed(i)
            clip = pipe(prompt, num_frames=self.config.data.num_frames, generator=generator)[0][0]
            folder.mkdir(parents=True, exist_ok=True)
            for suffix in (".webp", ".png"):
                write_clip(
                    clip, folder / f"{step:07d}-{i:02d}{suffix}", fps=self.config.data.fps, metadata={"prompt": prompt}
                )

    def export(self, folder: Path) -> None:
        """The temporal weights alone in `temporal`, and a whole pipeline in `pipeline`."""
        self.module.save_temporal(folder / "temporal")
        new_pipeline(self.config, self.module).save_pretrained(folder / "pipeline")


def build_stunet(config: TrainConfig) -> STUNet:
    """The network that a configuration describes: its T2I, inflated."""
    if config.model.t2i is None:
        raise LumiereError("stage t2v needs model.t2i: the folder that stage t2i exported, or another T2I's")
    try:
        unet = UNet2DConditionModel.from_pretrained(
            config.model.t2i, subfolder="unet", local_files_only=Path(config.model.t2i).exists()
        )
    except (OSError, ValueError) as error:
        raise LumiereError(
            f"cannot read a U-Net from model.t2i = {config.model.t2i}; train it first: lumiere train t2i"
        ) from error
    try:
        return STUNet.from_unet(unet, **config.model.temporal)
    except TypeError as error:
        raise LumiereError(f"model.temporal: {error}; see STUNet for what can be set") from error
