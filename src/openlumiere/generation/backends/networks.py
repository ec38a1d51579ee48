"""The networks of a model, built on the meta device of their configurations: shapes alone, no weights."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from openlumiere.generation.abilities import Abilities

from .source import INDEX, Part, Source

if TYPE_CHECKING:
    import torch
    from torch import nn

SECOND_STAGE = "super_resolution"  # as a component of ours
_KNOWN_AS = {"sr_unet": SECOND_STAGE, f"{SECOND_STAGE}/unet": SECOND_STAGE}  # of older models, and of newer ones
_ALWAYS_FLOAT32 = ("AutoencoderKLWan", "CLIPVisionModel")  # of Wan


@dataclass(frozen=True, kw_only=True)
class Networks:
    """A model's networks on the meta device, and what else its memory depends on.

    Attributes:
        index: what ``model_index.json`` says, components by name as (library, class), and options.
        second_stage: options of the second stage.
    """

    name: str
    nets: dict[str, nn.Module]
    index: dict[str, Any]
    second_stage: dict[str, Any] = field(default_factory=dict)


def networks(source: Source, dtype: torch.dtype) -> Networks:
    """Build a pipeline's networks by name, on the meta device, of their configurations alone."""
    part = _base(source) if source.main.class_name == "MotionAdapter" else source.main
    found = {}
    for name, value in part.json(INDEX).items():
        if not isinstance(value, list) or len(value) != 2 or not value[1] or name == "safety_checker":
            continue
        if name == SECOND_STAGE:
            name = f"{SECOND_STAGE}/unet"
            value = ["openlumiere.stunet.model", "STUNet"]
        config = part.json(f"{name}/config.json")
        if config:
            found[_KNOWN_AS.get(name, name)] = build(value[0], value[1], config)
    if source.main.class_name == "MotionAdapter":
        from diffusers import MotionAdapter, UNetMotionModel

        adapter = build("diffusers", MotionAdapter.__name__, source.main.json("config.json"))
        found["unet"] = without_weights(lambda: UNetMotionModel.from_unet2d(found["unet"], adapter))
        for extra in source.parts[2:]:
            config = extra.json("config.json")
            found["controlnet"] = build("diffusers", config["_class_name"], config)
    cast(found, dtype)
    from .stunet_abilities import second_stage

    index = _index(source)
    stage = second_stage(source, index) if SECOND_STAGE in found else None
    return Networks(name=source.name, nets=found, index=index, second_stage=stage or {})


def cast(nets: Mapping[str, nn.Module], dtype: torch.dtype) -> None:
    """Bring networks to a dtype, but for those that are always loaded in float32."""
    import torch

    for net in nets.values():
        if type(net).__name__ not in _ALWAYS_FLOAT32:
            torch.nn.Module.to(net, dtype)  # diffusers' own warns of float32 where there is none to keep


def latent_shape(model: Networks, abilities: Abilities, clip: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return frames, height and width of what the network sees of a clip of such."""
    frames, height, width = clip
    vae: Any = model.nets.get("vae")
    if vae is None:  # pixels, folded
        factor = int(model.index.get("pixel_unshuffle", 1)) * abilities.scale
        return frames, height // factor, width // factor
    match type(vae).__name__:
        case "AutoencoderKLWan":
            space, time = vae.config["scale_factor_spatial"], vae.config["scale_factor_temporal"]
        case "AutoencoderKLLTXVideo":
            space, time = vae.spatial_compression_ratio, vae.temporal_compression_ratio
        case "AutoencoderKLCogVideoX":
            space, time = (
                2 ** (len(vae.config["block_out_channels"]) - 1),
                int(vae.config["temporal_compression_ratio"]),
            )
        case _:
            space = vae.config.get("patch_size", 1) * 2 ** (len(vae.config["block_out_channels"]) - 1)
            space, time = space * abilities.scale, 1
    return (frames - 1) // time + 1, height // space, width // space


def build(library: str, class_name: str, config: dict[str, Any]) -> Any:
    """Build a network of its configuration, with neither memory nor weights."""
    kind: Any = getattr(importlib.import_module(library), class_name)
    if hasattr(kind, "config_class") and library == "transformers":
        net = without_weights(lambda: kind(kind.config_class.from_dict(config)))
        net.tie_weights()  # transformers 5.0 leaves that to loading
        return net
    return without_weights(lambda: kind.from_config(config))


def without_weights(make: Callable[[], Any]) -> Any:
    """Return the network that a function makes, on the meta device."""
    import torch

    with torch.device("meta"):
        net = make().eval()
    return torch.nn.Module.to(net, "meta")  # old constructors of tensors know no default device


def _index(source: Source) -> dict[str, Any]:
    """What a pipeline's components are, (library, class) by name; an adapter's are its base's, and itself."""
    if source.main.class_name == "MotionAdapter":
        return _base(source).json(INDEX) | {"motion_adapter": ["diffusers", "MotionAdapter"]}
    return source.main.json(INDEX)


def _base(source: Source) -> Part:
    if len(source.parts) > 1:
        return source.parts[1]
    return Part("stable-diffusion-v1-5/stable-diffusion-v1-5", source.may_download)
