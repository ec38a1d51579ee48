"""Tiny random pipelines of the families whose networks are U-Nets, saved in the published layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AnimateDiffPipeline,
    AutoencoderKLTemporalDecoder,
    DDIMScheduler,
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

import tiny

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


# ------------------------------------------------------------------------------------------------------ AnimateDiff

_MOTION = {"motion_norm_num_groups": 4, "motion_num_attention_heads": 2, "motion_max_seq_length": 16}


def save_motion_adapter(folder: Path) -> Path:
    """Save a motion adapter alone, for clips of up to 16 frames, on `save_base`."""
    torch.manual_seed(0)
    adapter = MotionAdapter(block_out_channels=(8, 16, 24), motion_layers_per_block=2, **_MOTION)
    return _saved(_awake(adapter), folder, "apache-2.0")


def save_base(folder: Path) -> Path:
    """Save a Stable Diffusion of 16 x 16 pixels."""
    pipe = tiny.stable_diffusion(folder / "files")
    pipe.register_modules(scheduler=PNDMScheduler(**_BETAS, skip_prk_steps=True, steps_offset=1))
    return _saved(pipe, folder, "creativeml-openrail-m")


def save_sparse_control(folder: Path, *, sketches: bool = False) -> Path:
    """Save a SparseCtrl for `save_base`: of pictures, or of sketches."""
    torch.manual_seed(0)
    controlnet = SparseControlNetModel(
        in_channels=4, conditioning_channels=3 if sketches else 4, block_out_channels=(8, 16, 24),
        down_block_types=("CrossAttnDownBlockMotion", "CrossAttnDownBlockMotion", "DownBlockMotion"),
        layers_per_block=2, norm_num_groups=4, attention_head_dim=4, cross_attention_dim=tiny.TEXT_DIM,
        motion_num_attention_heads=2, motion_max_seq_length=16, concat_conditioning_mask=True,
        conditioning_embedding_out_channels=(4, 4), use_simplified_condition_embedding=not sketches,
    )  # fmt: skip
    return _saved(_awake(controlnet), folder, "apache-2.0")


def save_animatediff(folder: Path) -> Path:
    """Save a whole AnimateDiff, as one pipeline."""
    adapter = MotionAdapter.from_pretrained(save_motion_adapter(folder / "files" / "adapter"))
    pipe = AnimateDiffPipeline.from_pretrained(save_base(folder / "files" / "base"), motion_adapter=adapter)
    scheduler = EulerDiscreteScheduler(beta_schedule="linear", timestep_spacing="linspace")
    pipe.register_modules(scheduler=scheduler)
    return _saved(pipe, folder, "apache-2.0")


# ------------------------------------------------------------------------------------------------------ SVD


def save_svd(folder: Path) -> Path:
    """Save a Stable Video Diffusion of 16 x 16 pixels and 6 frames."""
    torch.manual_seed(0)
    unet = UNetSpatioTemporalConditionModel(
        sample_size=8, block_out_channels=(32, 32), layers_per_block=1, num_frames=6, num_attention_heads=(2, 2),
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        cross_attention_dim=tiny.TEXT_DIM, addition_time_embed_dim=8, projection_class_embeddings_input_dim=24,
    )  # fmt: skip
    vae = AutoencoderKLTemporalDecoder(
        block_out_channels=(32, 32), down_block_types=("DownEncoderBlock2D",) * 2, latent_channels=4, sample_size=16
    )
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=224, patch_size=32,
        projection_dim=tiny.TEXT_DIM,
    )  # fmt: skip
    scheduler = EulerDiscreteScheduler(
        **_BETAS, prediction_type="v_prediction", timestep_type="continuous", timestep_spacing="leading",
        use_karras_sigmas=True, sigma_min=0.002, sigma_max=700.0, interpolation_type="linear", steps_offset=1,
        rescale_betas_zero_snr=False,
    )  # fmt: skip
    pipe = StableVideoDiffusionPipeline(
        vae=vae.eval(), unet=_awake(unet), image_encoder=CLIPVisionModelWithProjection(vision).eval(),
        scheduler=scheduler, feature_extractor=CLIPImageProcessor(crop_size=224, size=224),
    )  # fmt: skip
    return _saved(pipe, folder, "stable-video-diffusion-community")
