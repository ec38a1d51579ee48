"""Pixels to what a network denoises, and back: one interface for pixels in blocks and for latents of a VAE.

A codec turns clips, (B, C, F, H, W) in [-1, 1], into (B, channels, F, H / factor, W / factor). Clips have three
channels, or four, premultiplied (see `diffusion.alpha`), where `has_alpha`; opaque clips then get an alpha of 1.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch

from .autoencoder import RGBAAutoencoder
from .diffusion.alpha import EMPTY, add_alpha
from .diffusion.conditioning import downsample_mask
from .diffusion.pixels import pixel_shuffle, pixel_unshuffle
from .errors import LumiereError
from .files import one_line

_FRAMES_AT_ONCE = 8  # all 80 at once would take more memory than the network itself
_PIXELS_AT_ONCE = 2**21  # on a GPU, which small frames don't fill by eights


def load_vae(folder: str | Path) -> Any:
    """Read a VAE, ours or one of diffusers', frozen and ready to encode.

    Raises:
        LumiereError: the folder holds none.
    """
    try:
        name = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))["_class_name"]
        kind = RGBAAutoencoder if name == RGBAAutoencoder.__name__ else getattr(diffusers, name)
        vae = kind.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise LumiereError(f"{folder} holds no VAE ({one_line(error)}); train one, or name another") from error
    return vae.eval().requires_grad_(False)


class _Codec:
    """What both codecs say of their clips' channels."""

    pixel_channels: int

    @property
    def has_alpha(self) -> bool:
        """Whether clips are premultiplied RGBA."""
        return self.pixel_channels == 4

    @property
    def blank(self) -> float:
        """Value of a pixel of which nothing is known: gray, or transparent where there is alpha.

        An autoencoder of RGBA knows empty pictures; half transparent gray it has never seen.
        """
        return EMPTY if self.has_alpha else 0.0


@dataclass(frozen=True)
class PixelCodec(_Codec):
    """Blocks of factor x factor pixels as channels, exactly: pixel unshuffle (Shi et al. 2016).

    Attributes:
        factor: pixels along one side of a position of the network's input.
        pixel_channels: of clips: 3, or 4 with alpha.
    """

    factor: int = 1
    pixel_channels: int = 3

    @property
    def channels(self) -> int:
        """Channels of an encoded clip."""
        return self.pixel_channels * self.factor**2

    @property
    def mask_channels(self) -> int:
        """Channels of an encoded mask: one for each pixel of a block."""
        return self.factor**2

    def encode(self, clips: torch.Tensor) -> torch.Tensor:
        """Encode clips, (B, 3 or 4, F, H, W) -> (B, channels, F, h, w)."""
        return pixel_unshuffle(add_alpha(clips) if self.has_alpha else clips, self.factor)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode what `encode` returns; the exact inverse."""
        return pixel_shuffle(latents, self.factor)

    def encode_mask(self, mask: torch.Tensor) -> torch.Tensor:
        """Encode M, (B, 1, F, H, W) -> (B, mask_channels, F, h, w)."""
        return pixel_unshuffle(mask, self.factor)

    def keep_known(self, latents: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return encoded clips with blank pixels where the encoded M is 0."""
        known = mask.to(latents).repeat(1, latents.shape[1] // mask.shape[1], 1, 1, 1)
        return torch.where(known > 0.5, latents, self.blank)


class VAECodec(_Codec):
    """Latents of a VAE of diffusers or of `RGBAAutoencoder`, a few frames at a time.

    A VAE that overflows in half precision, as its ``force_upcast`` says (Stable Diffusion XL's), runs in float32.
    """

    mask_channels = 1
    _blank: torch.Tensor | None

    def __init__(self, vae: Any) -> None:
        self.vae, self._blank = vae, None
        self.pixel_channels = int(vae.config.in_channels)  # 3, or 4 with alpha

    @property
    def factor(self) -> int:
        """Pixels along one side of a latent position."""
        ratio = getattr(self.vae, "spatial_compression_ratio", None)
        return int(ratio) if ratio else 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def channels(self) -> int:
        """Channels of the latents."""
        return int(self.vae.config.latent_channels)

    @torch.no_grad()
    def encode(self, clips: torch.Tensor) -> torch.Tensor:
        """Encode clips, (B, 3 or 4, F, H, W) -> (B, channels, F, h, w)."""
        clips = add_alpha(clips) if self.has_alpha else clips
        with _upcast(self.vae):
            frames = clips.transpose(1, 2).flatten(0, 1).to(self.vae.dtype)
            parts = frames.split(_at_once(frames, frames.shape[-2] * frames.shape[-1]))
            latents = torch.cat([self.vae.encode(part).latent_dist.mode() for part in parts])
        scaled = (latents - self._shift) * self.vae.config.scaling_factor
        return scaled.unflatten(0, (len(clips), -1)).transpose(1, 2)

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode latents, (B, channels, F, h, w) -> (B, 3 or 4, F, H, W), about [-1, 1]."""
        frames = latents.transpose(1, 2).flatten(0, 1) / self.vae.config.scaling_factor + self._shift
        parts = frames.split(_at_once(frames, frames.shape[-2] * frames.shape[-1] * self.factor**2))
        with _upcast(self.vae):
            pixels = torch.cat([self.vae.decode(part.to(self.vae.dtype)).sample for part in parts])
        return pixels.unflatten(0, (len(latents), -1)).transpose(1, 2)

    def encode_mask(self, mask: torch.Tensor) -> torch.Tensor:
        """Encode M, (B, 1, F, H, W) -> (B, 1, F, h, w): 1 where all pixels of a position are given."""
        return downsample_mask(mask, self.factor)

    def keep_known(self, latents: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return latents that are an empty picture's where the encoded M is 0.

        A latent near a border knows what lies beyond it: blank is blank, whatever was encoded around it.
        """
        return torch.where(mask > 0.5, latents, self.blank_latent(latents.device).to(latents))

    def blank_latent(self, device: torch.device) -> torch.Tensor:
        """Return what a position of a blank picture is encoded to, (channels, 1, 1, 1); computed once."""
        if self._blank is None:
            # The middle of a picture so large that the padding around it is out of the autoencoder's sight.
            middle = 12
            side = 2 * middle * self.factor
            empty = torch.full((1, self.pixel_channels, 1, side, side), self.blank, device=device)
            self._blank = self.encode(empty)[0, :, :, middle, middle, None, None].cpu()
        return self._blank

    @property
    def _shift(self) -> float:
        return getattr(self.vae.config, "shift_factor", None) or 0.0


Codec = PixelCodec | VAECodec


@contextmanager
def _upcast(vae: Any) -> Iterator[None]:
    """Run a VAE that overflows in half precision in float32."""
    overflows = vae.dtype == torch.float16 and bool(getattr(vae.config, "force_upcast", False))
    if overflows:
        vae.float()
    try:
        yield
    finally:
        if overflows:
            vae.half()


def _at_once(frames: torch.Tensor, pixels: int) -> int:
    """Return how many frames of so many pixels are encoded or decoded together."""
    return max(_FRAMES_AT_ONCE, _PIXELS_AT_ONCE // pixels) if frames.is_cuda else _FRAMES_AT_ONCE
