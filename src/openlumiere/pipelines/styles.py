"""Styles on disk: what `lumiere train style` writes, LoRA files in diffusers' format, and whole fine-tuned U-Nets."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders import StableDiffusionLoraLoaderMixin

from openlumiere.bundled import STYLES, styles_of
from openlumiere.errors import LumiereError

LORA = "pytorch_lora_weights.safetensors"


def resolve_style(name: str, model: Path | None) -> Path:
    """The file or folder of a style: one that comes with the model, by name, or any other by its path.

    Raises:
        LumiereError: there is none.
    """
    own = [] if model is None else styles_of(model)
    if model is not None and name in own:
        return model / STYLES / name
    path = Path(name)
    if path.exists():
        return path
    raise LumiereError(
        f"unknown style {name!r}: give a folder that lumiere train style wrote, a LoRA file"
        + (f", or one of {', '.join(own)}" if own else "")
    )


def read_style(path: Path, spatial: UNet2DConditionModel) -> dict[str, torch.Tensor]:
    """W_style: the weights that a style gives a text-to-image U-Net, by name; only those that differ.

    Args:
        path: a LoRA's file, a folder with one, or a folder in diffusers' layout with a fine-tuned ``unet``.
        spatial: the U-Net as it is without styles; left as it is.

    Raises:
        LumiereError: no style, or one of a U-Net of another shape.
    """
    try:
        if path.is_dir() and not (path / LORA).exists():
            inside = path / "unet" if (path / "unet").is_dir() else path
            weights = UNet2DConditionModel.from_pretrained(inside, local_files_only=True).state_dict()
        else:
            weights = _merged(path, spatial)
    except LumiereError:
        raise
    except Exception as error:  # of diffusers, peft, safetensors and PyTorch, whatever a file holds
        reason = " ".join(str(error).split())[:200]
        raise LumiereError(f"{path} is no style for this model ({reason}); train one: lumiere train style") from error
    own = spatial.state_dict()
    if {name: value.shape for name, value in weights.items()} != {name: value.shape for name, value in own.items()}:
        raise LumiereError(f"{path} is a style for a U-Net of another shape than this model's")
    return {
        name: value.to(own[name]) for name, value in weights.items() if not torch.equal(value.to(own[name]), own[name])
    }


def _merged(path: Path, spatial: UNet2DConditionModel) -> dict[str, torch.Tensor]:
    """The U-Net's weights with a LoRA merged into them, by peft."""
    folder, name = (path, LORA) if path.is_dir() else (path.parent, path.name)
    lora, alphas = StableDiffusionLoraLoaderMixin.lora_state_dict(str(folder), weight_name=name, local_files_only=True)
    of_unet = {key: value for key, value in lora.items() if key.startswith("unet.")}
    if not of_unet:
        raise LumiereError(f"{path} holds no LoRA of a U-Net in diffusers' format; train one: lumiere train style")
    twin = copy.deepcopy(spatial)
    twin.load_lora_adapter(of_unet, prefix="unet", network_alphas=alphas)
    twin.fuse_lora()
    twin.unload_lora()
    return twin.state_dict()
