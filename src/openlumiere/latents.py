"""Clips to what a latent network sees, and back, through a VAE of diffusers or of ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import torch

from .autoencoder import RGBAAutoencoder
from .errors import LumiereError

_FRAMES_AT_ONCE = 8  # all 80 at once would take more memory than the network itself
_PIXELS_AT_ONCE = 2**21  # on a GPU, which small frames don't fill by eights


def load_vae(folder: str | Path) -> Any:
    """Read a VAE, ours or one of diffusers', frozen and ready to encode.

    Raises:
        LumiereError: if the folder holds none.
    """
    try:
        name = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))["_class_name"]
        kind = RGBAAutoencoder if name == RGBAAutoencoder.__name__ else getattr(diffusers, name)
        vae = kind.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise LumiereError(
            f"{folder} holds no VAE ({' '.join(str(error).split())[:200]}); train one, or name another"
        ) from error
    return vae.eval().requires_grad_(False)


@torch.no_grad()
def encode_clips(vae: Any, clips: torch.Tensor) -> torch.Tensor:
    """Clips to latents: (B, 3 or 4, F, H, W) in [-1, 1], as the VAE takes them, -> (B, C, F, h, w)."""
    frames = clips.transpose(1, 2).flatten(0, 1).to(vae.dtype)
    parts = frames.split(_at_once(frames, frames.shape[-2] * frames.shape[-1]))
    latents = [vae.encode(part).latent_dist.mode() for part in parts]
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    scaled = (torch.cat(latents) - shift) * vae.config.scaling_factor
    return scaled.unflatten(0, (len(clips), -1)).transpose(1, 2)


@torch.no_grad()
def decode_clips(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """Latents to clips: (B, C, F, h, w) -> (B, 3 or 4, F, H, W), about [-1, 1]."""
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    frames = latents.transpose(1, 2).flatten(0, 1) / vae.config.scaling_factor + shift
    if vae.dtype == torch.float16 and getattr(vae.config, "force_upcast", False):
        vae.float()  # overflows in half precision
    parts = frames.split(_at_once(frames, frames.shape[-2] * frames.shape[-1] * pixels_per_position(vae) ** 2))
    pixels = [vae.decode(part.to(vae.dtype)).sample for part in parts]
    return torch.cat(pixels).unflatten(0, (len(latents), -1)).transpose(1, 2)


def _at_once(frames: torch.Tensor, pixels: int) -> int:
    """How many frames of so many pixels are encoded or decoded together."""
    return max(_FRAMES_AT_ONCE, _PIXELS_AT_ONCE // pixels) if frames.is_cuda else _FRAMES_AT_ONCE


def pixels_per_position(vae: Any) -> int:
    """Pixels of a frame along one side of a latent position."""
    ratio = getattr(vae, "spatial_compression_ratio", None)
    return int(ratio) if ratio else 2 ** (len(vae.config.block_out_channels) - 1)
