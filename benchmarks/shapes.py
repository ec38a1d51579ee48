"""The shapes that are measured: a T2I U-Net and how it is inflated."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from openlumiere.autoencoder import RGBAAutoencoder
from openlumiere.errors import LumiereError
from openlumiere.latents import VAECodec
from openlumiere.training import config_files

_CONFIGS = Path(__file__).resolve().parents[1] / "configs"
_COLOURS = 3

# unet/config.json of Stable Diffusion 1.5; what it leaves out is UNet2DConditionModel's default.
_SD15 = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A network's shape.

    Attributes:
        unet: arguments of UNet2DConditionModel, `sample_size` among them.
        temporal: options of `STUNet.from_unet`.
        text: tokens and their width, as the network is given them.
    """

    name: str
    unet: dict[str, Any]
    temporal: dict[str, Any]
    text: tuple[int, int]

    @property
    def size(self) -> int:
        """Height and width, in positions."""
        return int(self.unet["sample_size"])

    def clip(self, num_frames: int) -> tuple[int, ...]:
        """Of one clip as the network sees it, (B, C, F, H, W)."""
        return 1, int(self.unet["in_channels"]), num_frames, self.size, self.size

    def at(self, size: int) -> Shape:
        """The same network on inputs of another size."""
        return replace(self, unet=self.unet | {"sample_size": size})


def load_shape(name: str) -> Shape:
    """`sd15`, or a folder with a T2I's and a clip model's training configurations, or such a folder's name in configs/.

    A T2I on latents is taken to be on those of the folder's autoencoder.

    Raises:
        LumiereError: nothing of this name.
    """
    if name == "sd15":
        return Shape(name=name, unet=_SD15, temporal={}, text=(77, 768))
    folder = next((f for f in (_CONFIGS / name, Path(name)) if (f / "t2v.yaml").is_file()), None)
    if folder is None:
        known = ["sd15", *sorted(path.parent.name for path in _CONFIGS.glob("*/t2v.yaml"))]
        raise LumiereError(f"unknown shape {name!r}: give {', '.join(known)}, or a folder with t2i.yaml and t2v.yaml")
    t2i, t2v = config_files.load(folder / "t2i.yaml"), config_files.load(folder / "t2v.yaml")
    if t2i.model.vae is None:
        pixels = t2i.model.pixel_unshuffle
        channels = _COLOURS * pixels**2
    else:  # what it was trained to be
        vae = RGBAAutoencoder(**config_files.load(folder / "autoencoder.yaml").model.autoencoder)
        pixels, channels = VAECodec(vae).factor, int(vae.config.latent_channels)
    unet = t2i.model.unet | {
        "sample_size": t2i.model.size // pixels,
        "in_channels": channels,
        "out_channels": channels,
    }
    width = unet.get("encoder_hid_dim") or unet["cross_attention_dim"]
    return Shape(
        name=folder.name,
        unet=unet,
        temporal=t2v.model.temporal,
        text=(t2i.text.max_length, int(width)),
    )
