"""What a training's configuration describes, before anything that it starts from is trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from diffusers import DDIMScheduler, UNet2DConditionModel

from openlumiere.autoencoder import RGBAAutoencoder
from openlumiere.errors import LumiereError
from openlumiere.generation.backends.networks import Networks, build, networks, without_weights
from openlumiere.generation.backends.source import Source
from openlumiere.stunet import STUNet
from openlumiere.training import config_files
from openlumiere.training.stages.denoising import make_scheduler

from .target import Target, abilities_of, inflate, t2i_of_parts

STAGES = ("t2i", "t2v", "conditional")
_COLOURS = 3


def of_configuration(path: Path, overrides: list[str]) -> Target:
    """Build what a training's configuration describes.

    What it starts from is read where it lies; if nothing lies there yet, the configuration beside it is taken whose
    ``output`` that is in.

    Raises:
        LumiereError: another stage, or something to start from of which nothing is known.
    """
    config = config_files.load(path, overrides)
    if config.stage not in STAGES:
        raise LumiereError(f"{path}: stage {config.stage} is not estimated; give one of {', '.join(STAGES)}")
    if config.stage == "t2i":
        unet = _t2i(config, path)
        return Target(name=str(path), networks=unet, abilities=None, net=_unet(unet), config=config)
    built = _clip_model(config, path)
    net: Any = built.nets["unet"]
    if config.stage == "conditional":
        _widen(net, built, config)
    abilities = replace(
        abilities_of(str(path), built), num_inference_steps=config.sample_steps, guidance_scale=config.sample_guidance,
        window_frames=config.data.window or config.data.frames_of_clip,
    )  # fmt: skip
    return Target(name=str(path), networks=built, abilities=abilities, net=net, config=config)


def _t2i(config: Any, path: Path) -> Networks:
    """The U-Net, and the VAE, of stage `t2i`."""
    model = config.model
    nets: dict[str, Any] = {}
    fold, channels = model.pixel_unshuffle, _COLOURS * model.pixel_unshuffle**2
    if model.vae is not None:
        vae = nets["vae"] = _vae(model.vae, path)
        fold, channels = 2 ** (len(vae.config.block_out_channels) - 1), vae.config.latent_channels
        fold *= vae.config.get("patch_size", 1)
    shape = {"sample_size": model.size // fold, "in_channels": channels, "out_channels": channels}
    try:
        nets["unet"] = without_weights(lambda: UNet2DConditionModel(**shape, **model.unet))
    except (TypeError, ValueError) as error:
        raise LumiereError(f"{path}: model.unet is not a UNet2DConditionModel: {error}") from error
    return Networks(name=str(path), nets=nets, index={"pixel_unshuffle": 1 if "vae" in nets else fold})


def _vae(place: str, path: Path) -> Any:
    source = Source(place)
    if Path(place).is_dir():
        config = source.main.json("config.json")
        ours = config["_class_name"] == "RGBAAutoencoder"
        return build("openlumiere.autoencoder" if ours else "diffusers", config["_class_name"], config)
    recipe = _recipe_of(place, path)
    options = recipe.model.autoencoder
    return without_weights(lambda: RGBAAutoencoder(**options | {"sample_size": recipe.model.size}))


def _clip_model(config: Any, path: Path) -> Networks:
    """The clip model that stages `t2v` and `conditional` train, its T2I inflated where it is not yet."""
    model, place = config.model, config.model.t2i
    if place is None:
        raise LumiereError(f"{path}: stage {config.stage} needs model.t2i: the folder that stage t2i exported")
    if not Path(place).exists() and (recipe := _recipe_of(place, path, needed=place.count("/") != 1)) is not None:
        started = _t2i(recipe, path) if recipe.stage == "t2i" else _clip_model(recipe, path)
    else:
        source = Source(place, may_download=True)
        whole = source.main.class_name
        started = networks(source, _float32()) if whole else t2i_of_parts(source, None)
    net: Any = started.nets.get("unet")
    if isinstance(net, STUNet) and model.spatial_only:
        net = net.spatial
    if isinstance(net, UNet2DConditionModel):
        net = inflate(net, model.temporal)
    if not isinstance(net, STUNet):
        raise LumiereError(f"{path}: model.t2i = {place} holds no U-Net that can be inflated")
    return Networks(name=str(path), nets=started.nets | {"unet": net}, index=started.index)


def _recipe_of(place: str, path: Path, *, needed: bool = True) -> Any:
    """The configuration beside another that writes what that one starts from."""
    for other in sorted(path.parent.glob("*.yaml")):
        try:
            recipe = config_files.load(other)
        except LumiereError:  # a plan of stages, or no configuration
            continue
        if Path(place).is_relative_to(recipe.output):
            return recipe
    if needed:
        raise LumiereError(f"{path} starts from {place}, which is not here, and no configuration beside it writes it")
    return None


def _widen(net: STUNet, built: Networks, config: Any) -> None:
    """Add what stage `conditional` adds."""
    masks = 1 if "vae" in built.nets else int(built.index["pixel_unshuffle"]) ** 2
    if not net.config["condition_channels"]:
        net.add_condition_channels(net.spatial.config["in_channels"] + masks)
    if config.model.condition_blocks and not net.config["condition_blocks"]:
        net.add_condition_to_blocks()
    if config.model.condition_gate and not net.config["condition_gate"]:
        schedule = make_scheduler(config) if config.scheduler else DDIMScheduler()
        net.add_gate(schedule.alphas_cumprod, schedule.config.prediction_type)
    net.to("meta")


def _unet(built: Networks) -> UNet2DConditionModel:
    net = built.nets["unet"]
    assert isinstance(net, UNet2DConditionModel)
    return net


def _float32() -> Any:
    import torch

    return torch.float32
