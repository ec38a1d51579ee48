"""Tiny random pipelines of the families whose networks are transformers, saved in the published layout."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    AutoencoderKLLTXVideo,
    AutoencoderKLWan,
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    CogVideoXImageToVideoPipeline,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    LTXConditionPipeline,
    LTXPipeline,
    LTXVideoTransformer3DModel,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
    WanTransformer3DModel,
    WanVACEPipeline,
    WanVACETransformer3DModel,
)
from torch import nn
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    T5Config,
    T5EncoderModel,
    UMT5Config,
    UMT5EncoderModel,
)

import tiny
from openlumiere.generation.backends.base import Loading
from openlumiere.generation.backends.find import load_backend


class Models:
    """The kinds of a family, each saved and loaded once."""

    def __init__(self, save: Callable[[Path, str], Path], folder: Path) -> None:
        self.saved = cache(lambda kind: str(save(folder / kind, kind)))
        self.loaded = cache(lambda kind: load_backend(self.saved(kind), Loading(device="cpu")))


_CARD = "---\nlicense: {licence}\n---\nRandom weights.\n"


def _saved(pipe: DiffusionPipeline, folder: Path, licence: str) -> Path:
    pipe.save_pretrained(folder, safe_serialization=True)
    (folder / "README.md").write_text(_CARD.format(licence=licence), encoding="utf-8")
    return folder


def _lively(vae: Any) -> Any:
    """With weights so large that latents tell pixels apart; as they are initialised, all come to nearly the same."""
    with torch.no_grad():
        for layer in vae.modules():
            if isinstance(layer, (nn.Conv2d, nn.Conv3d)):
                layer.weight *= 2
    return vae.eval()


def _text(folder: Path, *, multilingual: bool = False) -> dict[str, Any]:
    tokenizer = tiny.t5_tokenizer(folder / "spiece")
    config, encoder = (UMT5Config, UMT5EncoderModel) if multilingual else (T5Config, T5EncoderModel)
    sizes = {"d_model": tiny.TEXT_DIM, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "dropout_rate": 0.0}
    tokenizer.model_max_length = 512  # as theirs
    return {"text_encoder": encoder(config(vocab_size=len(tokenizer), **sizes)).eval(), "tokenizer": tokenizer}


# ------------------------------------------------------------------------------------------------------ Wan

_WAN: dict[str, Any] = {
    "patch_size": (1, 2, 2), "num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 16, "out_channels": 16,
    "text_dim": tiny.TEXT_DIM, "freq_dim": 32, "ffn_dim": 32, "num_layers": 2, "rope_max_seq_len": 32,
}  # fmt: skip
_VISION_DIM = 16


def save_wan(folder: Path, kind: str = "t2v") -> Path:
    """Save a Wan: "t2v", "i2v", "flf2v" or "vace" of 2.1, "t2v-2.2" or "i2v-2.2" of two networks, "ti2v" of 2.2-5B."""
    torch.manual_seed(0)
    parts = _text(folder, multilingual=True) | {"vae": _wan_vae(residual=kind == "ti2v")}
    parts["scheduler"] = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, num_train_timesteps=1000
    )
    net: type[Any] = WanVACETransformer3DModel if kind == "vace" else WanTransformer3DModel
    sizes = _WAN | _wan_sizes(kind)
    parts["transformer"] = net(**sizes).eval()
    options: dict[str, Any] = {}
    if kind.endswith("2.2"):
        parts["transformer_2"], options = net(**sizes).eval(), {"boundary_ratio": 0.9 if "i2v" in kind else 0.875}
    elif kind == "ti2v":
        options = {"expand_timesteps": True}
    pipeline: type[Any] = WanPipeline
    if kind == "vace":
        pipeline = WanVACEPipeline
    elif kind in ("i2v", "flf2v", "i2v-2.2"):
        pipeline = WanImageToVideoPipeline
        parts |= {} if kind == "i2v-2.2" else _wan_vision()
    return _saved(pipeline(**parts, **options), folder, "apache-2.0")


def _wan_sizes(kind: str) -> dict[str, Any]:
    images = {"image_dim": _VISION_DIM, "added_kv_proj_dim": 24, "in_channels": 36}
    return {
        "i2v": images,
        "flf2v": images | {"pos_embed_seq_len": 2 * (4 * 4 + 1)},
        "i2v-2.2": {"in_channels": 36},
        "vace": {"vace_layers": [0], "vace_in_channels": 96},
        "ti2v": {"in_channels": 48, "out_channels": 48},
    }.get(kind, {})


def _wan_vae(*, residual: bool) -> AutoencoderKLWan:
    sizes: dict[str, Any] = {"base_dim": 4, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1}
    if residual:
        sizes |= {
            "z_dim": 48, "is_residual": True, "patch_size": 2, "in_channels": 12, "out_channels": 12,
            "scale_factor_spatial": 16, "latents_mean": [0.0] * 48, "latents_std": [1.0] * 48,
        }  # fmt: skip
    return _lively(AutoencoderKLWan(temperal_downsample=[False, True, True], **sizes))


def _wan_vision() -> dict[str, Any]:
    config = CLIPVisionConfig(
        hidden_size=_VISION_DIM, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=16,
        patch_size=4, projection_dim=_VISION_DIM,
    )  # fmt: skip
    size = {"height": 16, "width": 16}
    return {
        "image_encoder": CLIPVisionModel(config).eval(),
        "image_processor": CLIPImageProcessor(size=size, crop_size=size),
    }


# ------------------------------------------------------------------------------------------------------ LTX


def save_ltx(folder: Path, kind: str = "condition") -> Path:
    """Save an LTX: "condition" (from 0.9.5 on, keyframes, a VAE told the timestep), or "text" (before)."""
    torch.manual_seed(0)
    keyframes = kind == "condition"
    block = "LTXVideo095DownBlock3D" if keyframes else "LTXVideoDownBlock3D"
    vae = AutoencoderKLLTXVideo(
        latent_channels=8, block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4,
        down_block_types=(block,) * 4, layers_per_block=(1,) * 5, decoder_layers_per_block=(1,) * 5,
        timestep_conditioning=keyframes, decoder_inject_noise=(False,) * 5,
    )  # fmt: skip
    transformer = LTXVideoTransformer3DModel(
        in_channels=8, out_channels=8, num_attention_heads=2, attention_head_dim=12, cross_attention_dim=24,
        num_layers=1, caption_channels=tiny.TEXT_DIM,
    )  # fmt: skip
    shift: dict[str, Any] = {} if keyframes else {"use_dynamic_shifting": True, "base_shift": 0.95, "max_shift": 2.05}
    pipeline: type[Any] = LTXConditionPipeline if keyframes else LTXPipeline
    pipe = pipeline(
        **_text(folder), vae=_lively(vae), transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(**shift),
    )  # fmt: skip
    return _saved(pipe, folder, "other\nlicense_name: ltxv-of-a-test")


# ------------------------------------------------------------------------------------------------------ CogVideoX


def save_cogvideox(folder: Path, kind: str = "t2v") -> Path:
    """Save a CogVideoX: "t2v" (as 2b), "i2v" (as 5b-I2V), or "t2v-1.5" and "i2v-1.5"."""
    torch.manual_seed(0)
    images, newer = kind.startswith("i2v"), kind.endswith("1.5")
    vae = AutoencoderKLCogVideoX(
        block_out_channels=(8,) * 4, down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4, latent_channels=4, layers_per_block=1, norm_num_groups=2,
        sample_height=32, sample_width=48, invert_scale_latents=newer,
    )  # fmt: skip
    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=8 if images else 4, out_channels=4,
        time_embed_dim=8, text_embed_dim=tiny.TEXT_DIM, num_layers=1, sample_width=6, sample_height=4,
        sample_frames=17 if newer else 9, patch_size=2, patch_size_t=2 if newer else None,
        ofs_embed_dim=8 if newer and images else None,
        use_rotary_positional_embeddings=images or newer, use_learned_positional_embeddings=images and not newer,
    )  # fmt: skip
    options = {
        "prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "snr_shift_scale": 1.0,
        "timestep_spacing": "trailing",
    }  # fmt: skip
    pipeline: type[Any] = CogVideoXImageToVideoPipeline if images else CogVideoXPipeline
    scheduler: type[Any] = CogVideoXDPMScheduler if images or newer else CogVideoXDDIMScheduler
    pipe = pipeline(**_text(folder), vae=_lively(vae), transformer=transformer.eval(), scheduler=scheduler(**options))
    return _saved(pipe, folder, "apache-2.0" if kind == "t2v" else "other\nlicense_name: cogvideox-of-a-test")
