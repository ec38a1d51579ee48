"""Stage `t2i`: the text-to-image U-Net that STUNet grows from, trained on single frames."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from openlumiere.diffusion import draws
from openlumiere.errors import LumiereError
from openlumiere.latents import Codec, PixelCodec, VAECodec, load_vae
from openlumiere.pipelines.text import TextConditions, encode, load_text_encoder
from openlumiere.stunet import STUNet
from openlumiere.training.datasets import CachedClipDataConfig
from openlumiere.training.previews import sheet

from .denoising import (
    DenoisingConfig,
    DenoisingTask,
    FrameModelConfig,
    make_scheduler,
    new_pipeline,
    set_gradient_checkpointing,
)


@dataclass(frozen=True, kw_only=True)
class TextToImageModelConfig(FrameModelConfig):
    """A UNet2DConditionModel."""

    vae: str | None = None  # folder of the VAE whose latents the network works on; None = on pixels
    unet: dict[str, Any] = field(default_factory=dict)  # arguments of diffusers' UNet2DConditionModel


@dataclass(frozen=True, kw_only=True)
class TextToImageConfig(DenoisingConfig):
    """Configuration of stage `t2i`."""

    model: TextToImageModelConfig = field(default_factory=TextToImageModelConfig)
    data: CachedClipDataConfig = field(default_factory=CachedClipDataConfig)


class TextToImage(DenoisingTask):
    """Trains a UNet2DConditionModel from scratch."""

    Config = TextToImageConfig
    config: TextToImageConfig

    def __init__(self, config: TextToImageConfig, device: torch.device) -> None:
        model = config.model
        vae = self.vae = None if model.vae is None else load_vae(model.vae).to(device)
        codec: Codec = PixelCodec(model.pixel_unshuffle) if vae is None else VAECodec(vae)
        self.tokenizer, encoder = load_text_encoder(config.text.encoder)
        self.encoder = encoder.to(device)
        super().__init__(
            config,
            device,
            single_frame=True,
            scheduler=make_scheduler(config),
            encode_prompts=lambda prompts: encode(
                prompts, [self.tokenizer], [self.encoder], max_length=config.text.max_length, together=len(prompts) > 1
            ),
            codec=codec,
        )
        try:
            self.module = UNet2DConditionModel(
                sample_size=model.size // codec.factor,
                in_channels=codec.channels,
                out_channels=codec.channels,
                **model.unet,
            ).to(device, memory_format=torch.channels_last)
        except (TypeError, ValueError) as error:
            raise LumiereError(f"model.unet is not a UNet2DConditionModel: {error}") from error
        set_gradient_checkpointing(self.module, config)

    def loss(self, module: nn.Module, batch: dict[str, Any], generator: draws.Generator) -> torch.Tensor:
        """See `Stage`."""
        layout = self.draw_layout(self.module, batch, generator)
        labels = None if layout is None else layout[:, 0]

        def predict(noisy: torch.Tensor, timesteps: torch.Tensor, text: TextConditions) -> torch.Tensor:
            pictures = noisy[:, :, 0].contiguous(memory_format=torch.channels_last)
            return module(pictures, timesteps, text.hidden_states, class_labels=labels).sample[:, :, None]

        return self.denoising_loss(batch, generator, predict)

    def sample(self, folder: Path, step: int) -> None:
        """Write a sheet of pictures, one a prompt, with the layouts of the first samples if the network takes any."""
        # A freshly inflated network is the T2I itself on clips of one frame.
        twin = UNet2DConditionModel.from_config(self.module.config)
        twin.load_state_dict(self.module.state_dict())
        unet = STUNet.from_unet(twin.to(self.device, memory_format=torch.channels_last), resampled_levels=[])
        prompts = self.sample_prompts()
        generators = [torch.Generator(self.device).manual_seed(i) for i in range(len(prompts))]
        pipe = new_pipeline(self.config, unet.eval(), self.vae)
        pipe.register_modules(text_encoder=self.encoder, tokenizer=self.tokenizer)
        pipe.set_progress_bar_config(disable=True)
        layouts = self.sample_layouts(self.module, len(prompts), num_frames=1)
        frames = pipe(prompts, num_frames=1, generator=generators, layout=layouts)[0][:, 0]
        folder.mkdir(parents=True, exist_ok=True)
        sheet(frames).save(folder / f"{step:07d}.png")

    def export(self, folder: Path) -> None:
        """Write diffusers' folders `unet` and `scheduler`, and `vae` where there is one."""
        if self.vae is not None:
            self.vae.save_pretrained(folder / "vae")
        self.module.save_pretrained(folder / "unet")
        self.scheduler.save_pretrained(folder / "scheduler")
