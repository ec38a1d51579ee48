"""Tiny, real components of each family of text-to-image models: U-Nets, text encoders, tokenizers, VAEs, pipelines."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    IFPipeline,
    IFSuperResolutionPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from openlumiere import STUNet
from openlumiere.autoencoder import RGBAAutoencoder
from openlumiere.diffusion.layout import layout_of
from openlumiere.pipelines.clip_pipeline import ClipPipeline
from openlumiere.pipelines.lumiere import LumierePipeline
from openlumiere.pipelines.planner import PathPlanner
from openlumiere.pipelines.super_resolution import LumiereSuperResolutionPipeline
from openlumiere.pipelines.text import MINILM, load_text_encoder
from openlumiere.training.state import EMA

TEXT_DIM = 16
CORPUS = "a tiger walking to the left on green background red heart bouncing blurry still picture of the sea"

_COMMON: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": [8, 16, 24],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 4,
    "cross_attention_dim": TEXT_DIM,
}
_IF: dict[str, Any] = _COMMON | {
    "in_channels": 3,
    "out_channels": 6,
    "act_fn": "gelu",
    "down_block_types": ["ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D", "SimpleCrossAttnDownBlock2D"],
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "up_block_types": ["SimpleCrossAttnUpBlock2D", "SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"],
    "cross_attention_dim": 32,  # that norm has 32 groups
    "cross_attention_norm": "group_norm",
    "encoder_hid_dim": TEXT_DIM,
    "encoder_hid_dim_type": "text_proj",
    "addition_embed_type": "text",
    "addition_embed_type_num_heads": 2,
    "resnet_time_scale_shift": "scale_shift",
}

# One U-Net of each structure that STUNet knows, with three levels.
UNETS: dict[str, dict[str, Any]] = {
    "stable-diffusion": _COMMON
    | {
        "layers_per_block": 2,
        "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    },
    "stable-diffusion-2": _COMMON
    | {
        "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
        "attention_head_dim": [2, 4, 4],
        "use_linear_projection": True,
        "upcast_attention": True,
    },
    "stable-diffusion-xl": _COMMON
    | {
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "attention_head_dim": [2, 4, 4],
        "use_linear_projection": True,
        "transformer_layers_per_block": [1, 1, 2],
        "cross_attention_dim": 2 * TEXT_DIM,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": TEXT_DIM + 6 * 8,
    },
    "deepfloyd-if": _IF,
    "deepfloyd-if-upscaler": _IF
    | {
        "in_channels": 6,
        "layers_per_block": [1, 1, 2],
        "only_cross_attention": True,
        "class_embed_type": "timestep",
        "time_embedding_act_fn": "gelu",
        "time_embedding_dim": 32,
        "resnet_skip_time_act": True,
        "resnet_out_scale_factor": 2**0.5,
        "mid_block_scale_factor": 2**0.5,
    },
    "bundled": _COMMON  # the structure of configs/emoji-nano
    | {
        "in_channels": 12,
        "out_channels": 12,
        "layers_per_block": [1, 2, 1],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "resnet_time_scale_shift": "scale_shift",
        "encoder_hid_dim": 2 * TEXT_DIM,
        "encoder_hid_dim_type": "text_proj",
        "addition_embed_type": "text",
        "addition_embed_type_num_heads": 2,
    },
    "no-text-in-the-middle": _COMMON
    | {
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
        "mid_block_type": "UNetMidBlock2D",
        "up_block_types": ["UpBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"],
        "center_input_sample": True,
    },
    "self-attention": _COMMON
    | {
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"],
        "mid_block_type": None,
        "up_block_types": ["AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
    },
    "class-beside-time": _COMMON
    | {
        "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
        "class_embed_type": "simple_projection",
        "class_embeddings_concat": True,
        "projection_class_embeddings_input_dim": 6,
    },
}
# Told where the subject is.
LAYOUT = {"class_embed_type": "simple_projection", "projection_class_embeddings_input_dim": 6}
UNETS["bundled-layout"] = UNETS["bundled"] | LAYOUT
# Down-sampling ResNets halve by pooling, so diffusers itself runs them on multiples alone.
ANY_SIZE = [name for name in UNETS if not name.startswith("deepfloyd") and name != "self-attention"]


def unet(name: str, seed: int = 0) -> UNet2DConditionModel:
    """A random U-Net of the structure `name`."""
    torch.manual_seed(seed)
    return UNet2DConditionModel.from_config(UNETS[name]).eval()


def wake(net: STUNet, seed: int = 1) -> STUNet:
    """Move every temporal weight away from where it starts, as training does: the zero projections come alive."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in net.temporal.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=generator)
    return net


def second_stage(*, channels: int = 3) -> LumiereSuperResolutionPipeline:
    """A super-resolution pipeline, twice as large, with random weights that do something.

    Args:
        channels: 4 = on premultiplied RGBA.
    """
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=16, in_channels=8 * channels, out_channels=4 * channels, block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4, attention_head_dim=4, cross_attention_dim=384, class_embed_type="timestep",
    )  # fmt: skip
    tokenizer, encoder = load_text_encoder()
    pipe = LumiereSuperResolutionPipeline(
        unet=wake(STUNet.from_unet(unet)), text_encoder=encoder, tokenizer=tokenizer, pixel_unshuffle=2, scale=2,
        scheduler=DPMSolverMultistepScheduler(prediction_type="v_prediction"), num_inference_steps=2, window_frames=8,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    return pipe


def planner(*, text_layers: Sequence[int] | None = None) -> PathPlanner:
    """With random weights: its paths hang on the prompt, and on chance."""
    torch.manual_seed(0)
    planner = PathPlanner(text_layers=text_layers, width=32, hidden=32, depth=1, num_inference_steps=2).eval()
    torch.nn.init.normal_(planner.mean, std=0.2)
    torch.nn.init.constant_(planner.scale, 0.2)
    return planner


def conditioned(*, upscale: bool = False, layout: bool = False) -> LumierePipeline:
    """On 16 x 16 pixels folded by 2, widened, with random weights that do something; windows of 8 frames.

    Args:
        upscale: with a second stage, twice as large.
        layout: told where the subject is, with a planner.
    """
    second = second_stage()
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=12, out_channels=12, block_out_channels=(8, 16), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4, attention_head_dim=4, cross_attention_dim=384, **(LAYOUT if layout else {}),
    )  # fmt: skip
    more: dict[str, Any] = {"planner": planner()} if layout else {}
    if upscale:
        second.register_to_config(num_inference_steps=1)
        more |= {"super_resolution": second}
    pipe = LumierePipeline(
        unet=wake(STUNet.from_unet(unet)), scheduler=second.scheduler, text_encoder=second.text_encoder,
        tokenizer=second.tokenizer, pixel_unshuffle=2, num_inference_steps=2, window_frames=8, **more,
    )  # fmt: skip
    pipe.unet.add_condition_channels(pipe.condition_channels)
    torch.nn.init.normal_(pipe.unet.temporal.condition_in.weight, std=0.2)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def transparent(*, sharpened: int | None = None) -> LumierePipeline:
    """On latents of 16 x 16 pixels of RGBA, widened, with random weights that do something; windows of 8 frames.

    Args:
        sharpened: channels of a second stage, twice as large: 3, or 4 with alpha. None = there is none.
    """
    second = second_stage(channels=sharpened or 3)
    torch.manual_seed(0)
    vae = RGBAAutoencoder(latent_channels=4, block_out_channels=(8,), sample_size=16).eval()
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8, 16), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4, attention_head_dim=4, cross_attention_dim=384,
    )  # fmt: skip
    more: dict[str, Any] = {}
    if sharpened:
        second.register_to_config(num_inference_steps=1)
        more = {"super_resolution": second}
    pipe = LumierePipeline(
        unet=wake(STUNet.from_unet(unet)), scheduler=second.scheduler, text_encoder=second.text_encoder,
        tokenizer=second.tokenizer, vae=vae, num_inference_steps=2, window_frames=8, **more,
    )  # fmt: skip
    pipe.unet.add_condition_channels(pipe.condition_channels)
    torch.nn.init.normal_(pipe.unet.temporal.condition_in.weight, std=0.2)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def inputs(
    t2i: UNet2DConditionModel, *, batch: int = 2, frames: int = 8, size: tuple[int, int] = (8, 8), seed: int = 2
):
    """What ``net(**inputs)`` needs: a noisy clip (B, C, F, H, W), and conditions that differ in the batch."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    config = t2i.config
    text_dim = config["encoder_hid_dim"] or config["cross_attention_dim"]
    given: dict[str, Any] = {
        "sample": noise(batch, config["in_channels"], frames, *size),
        "timestep": torch.randint(1000, (batch,), generator=generator),
        "encoder_hidden_states": noise(batch, 5, text_dim),
    }
    if config["class_embed_type"] == "timestep":
        given["class_labels"] = torch.randint(1000, (batch,), generator=generator)
    elif config["class_embed_type"] is not None:
        given["class_labels"] = noise(batch, config["projection_class_embeddings_input_dim"])
    if config["addition_embed_type"] == "text_time":
        time_ids = torch.tensor([[64.0, 64, 0, 0, 64, 64]]).repeat(batch, 1)
        given["added_cond_kwargs"] = {"text_embeds": noise(batch, TEXT_DIM), "time_ids": time_ids}
    return given


def random_layout(batch: int, frames: int, seed: int = 0) -> torch.Tensor:
    """Return layouts of random paths, (B, F, 6)."""
    path = torch.rand(batch, frames, 4, generator=torch.Generator().manual_seed(seed))
    return layout_of(path + torch.tensor([-0.5, -0.5, 0.2, 0.0]))


def inflated(name: str, **options: Any) -> tuple[STUNet, UNet2DConditionModel, dict[str, Any]]:
    """A fresh STUNet, an untouched copy of its T2I, and inputs for both."""
    t2i = unet(name)
    given = inputs(t2i)
    return STUNet.from_unet(copy.deepcopy(t2i), **options).eval(), t2i, given


@torch.no_grad()
def run(net: STUNet, given: dict[str, Any]) -> torch.Tensor:
    return net(**given).sample


def clip_tokenizer(folder: Path) -> CLIPTokenizer:
    """Byte-level BPE without merges, from files as CLIP's are: a token for each character."""
    letters = [chr(c) for c in range(33, 127)]
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    return CLIPTokenizer.from_pretrained(folder, model_max_length=77)


def t5_tokenizer(folder: Path) -> T5Tokenizer:
    """A SentencePiece unigram model, trained on a few words, from a file as T5's is."""
    import sentencepiece

    folder.mkdir(parents=True, exist_ok=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS.split() * 4),
        model_prefix=str(folder / "spiece"),
        vocab_size=48,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return T5Tokenizer.from_pretrained(folder, extra_ids=0)


def _clip_config(tokenizer: CLIPTokenizer) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_DIM,
        intermediate_size=32,
        projection_dim=TEXT_DIM,
        num_hidden_layers=3,
        num_attention_heads=2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=16,
    ).eval()


def stable_diffusion(folder: Path) -> StableDiffusionPipeline:
    """Latent, CLIP."""
    torch.manual_seed(0)
    tokenizer = clip_tokenizer(folder / "tokenizer-files")
    return StableDiffusionPipeline(
        unet=unet("stable-diffusion"),
        vae=_vae(),
        text_encoder=CLIPTextModel(_clip_config(tokenizer)).eval(),
        tokenizer=tokenizer,
        scheduler=DDIMScheduler(clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def stable_diffusion_xl(folder: Path) -> StableDiffusionXLPipeline:
    """Latent, two CLIPs."""
    torch.manual_seed(0)
    tokenizer = clip_tokenizer(folder / "tokenizer-files")
    return StableDiffusionXLPipeline(
        unet=unet("stable-diffusion-xl"),
        vae=_vae(),
        text_encoder=CLIPTextModel(_clip_config(tokenizer)).eval(),
        text_encoder_2=CLIPTextModelWithProjection(_clip_config(tokenizer)).eval(),
        tokenizer=tokenizer,
        tokenizer_2=clip_tokenizer(folder / "tokenizer-files"),
        scheduler=EulerDiscreteScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012),
        add_watermarker=False,
    )


def _t5(folder: Path) -> dict[str, Any]:
    tokenizer = t5_tokenizer(folder / "tokenizer-files")
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=TEXT_DIM,
        d_kv=8,
        d_ff=32,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
    )
    return {"text_encoder": T5EncoderModel(config).eval(), "tokenizer": tokenizer}


def _if_scheduler(**options: Any) -> DDPMScheduler:
    return DDPMScheduler(beta_schedule="squaredcos_cap_v2", thresholding=True, sample_max_value=1.5, **options)


def deepfloyd_if(folder: Path) -> IFPipeline:
    """Pixels, T5, a learned variance."""
    torch.manual_seed(0)
    return IFPipeline(
        unet=unet("deepfloyd-if"),
        **_t5(folder),
        scheduler=_if_scheduler(variance_type="learned_range"),
        safety_checker=None,
        feature_extractor=None,
        watermarker=None,
        requires_safety_checker=False,
    )


def deepfloyd_if_upscaler(folder: Path) -> IFSuperResolutionPipeline:
    """DeepFloyd IF stage II."""
    torch.manual_seed(0)
    return IFSuperResolutionPipeline(
        unet=unet("deepfloyd-if-upscaler"),
        **_t5(folder),
        scheduler=_if_scheduler(variance_type="learned_range"),
        image_noising_scheduler=_if_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        watermarker=None,
        requires_safety_checker=False,
    )


def t2i_pipeline(family: str, folder: Path) -> DiffusionPipeline:
    """The text-to-image pipeline of `family`, a key of `PIPELINES`."""
    return PIPELINES[family](folder)


PIPELINES = {
    "stable-diffusion": stable_diffusion,
    "stable-diffusion-xl": stable_diffusion_xl,
    "deepfloyd-if": deepfloyd_if,
}


# A configuration of `lumiere train`: seconds on one core.
TRAINING: dict[str, Any] = {
    "stage": "t2i",
    "seed": 3,
    "model": {
        "size": 16,
        "unet": {
            "block_out_channels": [8, 16],
            "layers_per_block": 1,
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
            "norm_num_groups": 4,
            "attention_head_dim": 4,
            "cross_attention_dim": 16,
            "encoder_hid_dim": 384,
            "encoder_hid_dim_type": "text_proj",
        },
    },
    "scheduler": {
        "beta_schedule": "squaredcos_cap_v2",
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True,
        "timestep_spacing": "trailing",
    },
    "data": {"subjects": ["tiger", "heart"], "pool": 12, "num_frames": 8},
    "optim": {"lr": 2e-3, "warmup_steps": 4, "max_steps": 40, "batch_size": 4, "ema_decay": 0.9, "snr_gamma": 0.0},
    "checkpoint_every": 8,
    "sample_every": 20,
    "sample_steps": 2,
    "sample_prompts": ["a tiger on a green background", "a red heart on a blue background"],
    "log_every": 2,
}


def trained_once(width: int = 4) -> tuple[nn.Module, torch.optim.Optimizer, EMA]:
    """A network, its optimizer and its average, after one step."""
    torch.manual_seed(width)
    module = nn.Sequential(nn.Linear(width, width), nn.Linear(width, 1))
    optimizer = torch.optim.AdamW(module.parameters(), fused=True)
    ema = EMA(module, 0.9)
    module(torch.ones(2, width)).sum().backward()
    optimizer.step()
    ema.update(module)
    return module, optimizer, ema


def saved(pipe: ClipPipeline, folder: Path) -> Path:
    """Save a pipeline as commands load it: with the bundled text encoder named, not carried."""
    pipe.register_to_config(text_encoder_id=MINILM)
    pipe.save_pretrained(folder)
    return folder
