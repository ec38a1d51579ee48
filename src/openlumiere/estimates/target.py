"""What is to be estimated: a model, a text-to-image model to inflate, or a training's configuration; no weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from openlumiere.errors import LumiereError
from openlumiere.generation.abilities import NUM_FRAMES, Abilities
from openlumiere.generation.backends.find import drives, is_address, read_abilities
from openlumiere.generation.backends.networks import Networks, build, latent_shape, networks, without_weights
from openlumiere.generation.backends.source import Source
from openlumiere.stunet import STUNet
from openlumiere.stunet.summary import trained_size

_INFLATED_STEPS, _INFLATED_GUIDANCE = 50, 7.5  # of a pipeline that was inflated and nothing else


@dataclass(frozen=True, kw_only=True)
class Target:
    """Networks on the meta device, and what is done with them.

    Attributes:
        abilities: None of a text-to-image model alone, which makes no clips.
        net: what can be trained; None of other families' models.
        config: a training's configuration.
        notes: what could not be known.
    """

    name: str
    networks: Networks
    abilities: Abilities | None
    net: STUNet | UNet2DConditionModel | None = None
    config: Any = None
    notes: tuple[str, ...] = ()


def find(model: str, overrides: list[str] | None = None) -> Target:
    """Find out what a name stands for, of small files alone.

    Args:
        model: as `lumiere generate --model` takes it; a text-to-image pipeline or U-Net, by folder or hub id; a
            STUNet's folder; or a training's YAML file.
        overrides: KEY=VALUE, of a configuration, or, of a text-to-image model, of `STUNet.from_unet`.

    Raises:
        LumiereError: there is nothing of that name, or it cannot be built.
    """
    if is_address(model):
        raise LumiereError(f"{model} is on another machine; give a folder, a hub id or a configuration")
    if model.endswith((".yaml", ".yml")):
        from .configured import of_configuration  # imports training

        return of_configuration(Path(model), overrides or [])
    source = Source(model, may_download=True)
    kind = source.main.class_name
    if drives(kind):
        if overrides:
            raise LumiereError(f"{model} is a whole model: {overrides[0]} can be said of text-to-image models only")
        built = networks(source, torch.float32)
        net = built.nets.get("unet")
        return Target(
            name=model, networks=built, abilities=read_abilities(model, may_download=True),
            net=net if isinstance(net, STUNet) else None,
        )  # fmt: skip
    options = inflation_options(overrides or [])
    if kind == "STUNet":
        built = Networks(name=model, nets={"unet": stunet(source.main.json("config.json"))}, index={})
    elif kind == "UNet2DConditionModel" or (not kind and source.main.json("unet/config.json")):
        built = t2i_of_parts(source, options)
    elif source.main.json("unet/config.json"):
        built = networks(source, torch.float32)
        if isinstance(built.nets["unet"], UNet2DConditionModel):
            built.nets["unet"] = inflate(built.nets["unet"], options)
    else:
        raise LumiereError(f"{model} has no U-Net that could be inflated; give a U-Net text-to-image model or a STUNet")
    net = built.nets["unet"]
    if not isinstance(net, STUNet):
        raise LumiereError(f"{model} holds a {type(net).__name__}, which cannot be inflated")
    return Target(name=model, networks=built, abilities=abilities_of(model, built), net=net)


def stunet(config: dict[str, Any]) -> STUNet:
    """Build a STUNet of its saved configuration."""
    net: STUNet = build("openlumiere.stunet.model", "STUNet", config)
    return net


def inflate(unet: UNet2DConditionModel, options: dict[str, Any]) -> STUNet:
    """Inflate a U-Net on the meta device.

    Raises:
        LumiereError: an unknown option, or a U-Net that cannot be inflated.
    """
    try:
        net: STUNet = without_weights(lambda: STUNet.from_unet(unet, **options))
    except TypeError as error:
        raise LumiereError(f"{error}; see STUNet for what can be set") from error
    return net


def t2i_of_parts(source: Source, options: dict[str, Any] | None) -> Networks:
    """Build a U-Net of a folder of its own, or of what stage t2i exported, inflated unless `options` is None."""
    main = source.main
    unet = build("diffusers", "UNet2DConditionModel", main.json("unet/config.json") or main.json("config.json"))
    nets: dict[str, Any] = {"unet": unet if options is None else inflate(unet, options)}
    if vae := main.json("vae/config.json"):
        ours = vae["_class_name"] == "RGBAAutoencoder"
        nets["vae"] = build("openlumiere.autoencoder" if ours else "diffusers", vae["_class_name"], vae)
    return Networks(name=source.name, nets=nets, index={})


def abilities_of(name: str, built: Networks) -> Abilities:
    """Return what an inflated model does by default: 80 frames of the size that its T2I was trained on."""
    net: Any = built.nets["unet"]
    height, width = trained_size(net.spatial)
    factor = int(built.index.get("pixel_unshuffle", 1))
    if (vae := built.nets.get("vae")) is not None:
        config: Any = vae.config
        factor = config.get("patch_size", 1) * 2 ** (len(config["block_out_channels"]) - 1)
    return Abilities(
        model=name, tasks=("generate",), width=width * factor, height=height * factor, num_frames=NUM_FRAMES,
        num_inference_steps=_INFLATED_STEPS, guidance_scale=_INFLATED_GUIDANCE, frame_multiple=net.frame_multiple,
        window_frames=NUM_FRAMES,
    )  # fmt: skip


def inflation_options(words: list[str]) -> dict[str, Any]:
    """Read options of `STUNet.from_unet` such as ``attention_layers=1``."""
    from openlumiere.training.settings import override

    return override({}, words)


def own_size(target: Target, size: tuple[int, int] | None, num_frames: int | None) -> tuple[int, int, int]:
    """Return frames, height and width of a clip in pixels, the model's own where nothing is said.

    Raises:
        LumiereError: a number of frames, or a size, that the network does not divide.
    """
    abilities = target.abilities or abilities_of(target.name, target.networks)
    width, height = size or (abilities.width, abilities.height)
    frames = num_frames or abilities.num_frames
    if width is None or height is None:
        raise LumiereError(f"{target.name}: its clips have the size of what they are made from; say --size")
    if isinstance(target.net, STUNet):
        if frames % target.net.frame_multiple:
            raise LumiereError(f"--frames {frames}: {target.name} makes multiples of {target.net.frame_multiple}")
        levels = 2 ** (len(target.net.spatial.down_blocks) - 1)
        _, rows, columns = latent_shape(target.networks, abilities, (frames, height, width))
        if min(rows, columns) < levels:
            raise LumiereError(f"--size {width}x{height} is too small for {target.name}: its levels halve it away")
    return frames, height, width
