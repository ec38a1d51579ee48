"""What the networks of each family are given for a clip, so that what they cost can be counted without weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from openlumiere.stunet.model import STUNet
from openlumiere.stunet.summary import example_inputs

_Shape = tuple[int, int, int]  # frames, height, width of latents


def denoise(net: Any, shape: _Shape, dtype: torch.dtype) -> Callable[[], Any] | None:
    """Return a call of a network that runs at every step, on its device; None of a class that is not known.

    Both halves of classifier-free guidance are in one batch, where the family's pipelines do so; see `calls_a_step`.

    Args:
        shape: of the latents: frames, height, width.
    """
    if isinstance(net, STUNet):
        return lambda: net(**example_inputs(net, shape[0], batch=2, size=shape[1:]))
    make = _INPUTS.get(type(net).__name__)
    if make is None:
        return None
    device = next(net.parameters()).device
    given = make(net.config, shape, lambda *size: torch.zeros(size, dtype=dtype))
    given = {name: _moved(value, device) for name, value in given.items()}
    return lambda: net(**given)


def calls_a_step(net: Any) -> int:
    """Return how often a guided step calls a network that `denoise` knows."""
    return 2 if "Wan" in type(net).__name__ else 1


def _folded(config: Any, shape: _Shape, floats: Any) -> dict[str, Any]:
    frames, height, width = shape
    text = config["encoder_hid_dim"] if config.get("encoder_hid_dim") else config["cross_attention_dim"]
    return {
        "sample": floats(2, config["in_channels"], frames, height, width), "timestep": torch.tensor(1),
        "encoder_hidden_states": floats(2, 77, text),
    }  # fmt: skip


def _motion(config: Any, shape: _Shape, floats: Any) -> dict[str, Any]:
    given = _folded(config, shape, floats)
    return given | {"encoder_hidden_states": given["encoder_hidden_states"].repeat_interleave(shape[0], dim=0)}


def _svd(config: Any, shape: _Shape, floats: Any) -> dict[str, Any]:
    frames, height, width = shape
    return {
        "sample": floats(2, frames, config["in_channels"], height, width), "timestep": torch.tensor(1),
        "encoder_hidden_states": floats(2, 1, config["cross_attention_dim"]), "added_time_ids": floats(2, 3),
    }  # fmt: skip


def _wan(config: Any, shape: _Shape, floats: Any) -> dict[str, Any]:
    given = {
        "hidden_states": floats(1, config["in_channels"], *shape), "timestep": torch.ones(1),
        "encoder_hidden_states": floats(1, 512, config["text_dim"]),
    }  # fmt: skip
    if config.get("image_dim"):
        given["encoder_hidden_states_image"] = floats(1, 257, config["image_dim"])
    if config.get("vace_in_channels"):
        given["control_hidden_states"] = floats(1, config["vace_in_channels"], *shape)
        given["control_hidden_states_scale"] = floats(len(config["vace_layers"]))
    return given


def _ltx(config: Any, shape: _Shape, floats: Any) -> dict[str, Any]:
    frames, height, width = shape
    return {
        "hidden_states": floats(2, frames * height * width, config["in_channels"]),
        "encoder_hidden_states": floats(2, 128, config["caption_channels"]),
        "encoder_attention_mask": torch.ones(2, 128), "timestep": torch.ones(2),
        "num_frames": frames, "height": height, "width": width,
    }  # fmt: skip


def _cogvideox(config: Any, shape: _Shape, floats: Any) -> dict[str, Any]:
    frames, height, width = shape
    given = {
        "hidden_states": floats(2, frames, config["in_channels"], height, width),
        "encoder_hidden_states": floats(2, config["max_text_seq_length"], config["text_embed_dim"]),
        "timestep": torch.ones(2),
    }  # fmt: skip
    if config["use_rotary_positional_embeddings"]:
        side, time = config["patch_size"], config.get("patch_size_t") or 1
        tokens = -(-frames // time) * (height // side) * (width // side)
        given["image_rotary_emb"] = tuple(floats(tokens, config["attention_head_dim"]) for _ in range(2))
        if config.get("ofs_embed_dim"):
            given["ofs"] = torch.ones(1)
    return given


_INPUTS: dict[str, Callable[[Any, _Shape, Any], dict[str, Any]]] = {
    "UNetMotionModel": _motion,
    "UNet3DConditionModel": _folded,
    "UNetSpatioTemporalConditionModel": _svd,
    "WanTransformer3DModel": _wan,
    "WanVACETransformer3DModel": _wan,
    "LTXVideoTransformer3DModel": _ltx,
    "CogVideoXTransformer3DModel": _cogvideox,
}


def decode(vae: Any, shape: _Shape, dtype: torch.dtype) -> Callable[[], Any]:
    """Return a call that decodes latents, as the family's pipelines do."""
    frames, height, width = shape
    name = type(vae).__name__
    channels = vae.config.get("latent_channels") or vae.config.get("z_dim")
    size: tuple[int, ...] = (1, channels, frames, height, width)
    more: dict[str, Any] = {}
    if name == "AutoencoderKLTemporalDecoder":  # SVD's pipeline decodes this many at once
        size, more = (min(frames, 14), channels, height, width), {"num_frames": min(frames, 14)}
    elif name == "AutoencoderKL":  # frames are a batch, AnimateDiff's by sixteen
        size = (min(frames, 16), channels, height, width)
    elif name == "RGBAAutoencoder":
        size = (1, channels, height, width)
    if name == "AutoencoderKLLTXVideo" and vae.config["timestep_conditioning"]:
        more = {"temb": torch.ones(1, dtype=dtype)}
    device = next(vae.parameters()).device
    latents = torch.zeros(size, dtype=dtype, device=device)
    more = {name: _moved(value, device) for name, value in more.items()}
    return lambda: vae.decode(latents, **more)


def decodes(vae: Any, num_frames: int) -> float:
    """Return how many calls of `decode` a clip of so many frames of latents takes."""
    at_once = {"AutoencoderKLTemporalDecoder": 14, "AutoencoderKL": 16, "RGBAAutoencoder": 1}.get(type(vae).__name__)
    return 1.0 if at_once is None else max(num_frames / at_once, 1.0)


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, tuple):
        return tuple(_moved(part, device) for part in value)
    return value.to(device) if isinstance(value, torch.Tensor) else value
