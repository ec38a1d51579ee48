"""Tiny random pipelines of the families whose networks are U-Nets, saved in the published layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tiny
import torch
from diffusers import (
    AutoencoderKLTemporalDecoder,
    DDIMScheduler,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    MotionAdapter,
    PNDMScheduler,
    SparseControlNetModel,
    StableVideoDiffusionPipeline,
    TextToVideoSDPipeline,
    UNet3DConditionModel,
    UNetSpatioTemporalConditionModel,
)
from torch import nn
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

_CARD = "---\nlicense: {licence}\n---\nRandom weights.\n"
_BETAS: dict[str, Any] = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


def _saved(model: Any, folder: Path, licence: str) -> Path:
    model.save_pretrained(folder, safe_serialization=True)
    (folder / "README.md").write_text(_CARD.format(licence=licence), encoding="utf-8")
    return folder


def _awake(net: nn.Module, seed: int = 1) -> nn.Module:
    """With zero-initialised layers moved away from zero: all of it does something."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in net.parameters():
            if not weight.any():
                weight += 0.1 * torch.randn(weight.shape, generator=generator)
    return net.eval()


# ------------------------------------------------------------------------------------------------------ ZeroScope


def save_zeroscope(folder: Path) -> Path:
    """Save a ZeroScope of 16 x 16 pixels."""
    torch.manual_seed(0)
    base = tiny.stable_diffusion(folder / "files")
    unet = UNet3DConditionModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"), up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        cross_attention_dim=tiny.TEXT_DIM,
    )  # fmt: skip
    pipe = TextToVideoSDPipeline(
        vae=base.vae, text_encoder=base.text_encoder, tokenizer=base.tokenizer, unet=_awake(unet),
        scheduler=DDIMScheduler(**_BETAS, clip_sample=False, set_alpha_to_one=False, steps_offset=1),
    )  # fmt: skip
    return _saved(pipe, folder, "cc-by-nc-4.0")
