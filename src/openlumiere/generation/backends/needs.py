"""What a model needs of a device's memory for a clip, computed without its weights, and the fastest way that fits."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from openlumiere.errors import LumiereError
from openlumiere.files import one_line
from openlumiere.generation.abilities import Abilities
from openlumiere.tables import plain_table

from .base import Loading
from .memory import DENOISERS, quantizable, tile, weight_bytes
from .source import INDEX, Part, Source

if TYPE_CHECKING:
    import torch
    from torch import nn

_GB = 1e9
# Of a linear layer's weight, by torchao a byte and a scale a row, by bitsandbytes half a byte and a float32 for 64.
_STORED = {"int8": 1.0, "float8": 1.0, "int4": 0.5 + 4 / 64}
_ALWAYS_FLOAT32 = ("AutoencoderKLWan", "CLIPVisionModel")  # of Wan
# What a GPU's driver and libraries take, and an allocator loses between tensors. Not measured here: there is no GPU.
_GPU_BYTES, _FRAGMENTED = 500_000_000, 1.1


@dataclass(frozen=True, kw_only=True)
class ComponentNeeds:
    """What one network needs.

    Attributes:
        weights: bytes of all its weights.
        linear: number of weights in linear layers, if it can be quantized.
        itemsize: bytes of one of them, if not quantized.
        layer: bytes of its largest layer.
        activations: most bytes of tensors that are alive at once while it runs, beside the weights.
        tiled: the same where the VAE decodes frame by frame, and in tiles.
    """

    name: str
    class_name: str
    weights: int
    linear: int
    itemsize: int
    layer: int
    activations: int
    tiled: int

    def stored(self, quantize: str | None) -> int:
        """Return the bytes of its weights, some perhaps quantized."""
        if quantize is None:
            return self.weights
        return self.weights - round(self.linear * (self.itemsize - _STORED[quantize]))


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a model needs for a clip; prints as a table.

    Attributes:
        width, height: of the clip, pixels.
        gpu: whether for a GPU, whose driver takes memory too.
        offloadable: whether it can be loaded in other ways than as it is.
    """

    model: str
    components: tuple[ComponentNeeds, ...]
    width: int
    height: int
    num_frames: int
    dtype: str
    gpu: bool
    offloadable: bool = True

    def total(self, loading: Loading) -> int:
        """Return the bytes that are taken at most at once, if it is loaded so."""
        tiled = bool(loading.offload or loading.quantize or loading.memory)
        running = {
            part.name: (part.tiled if tiled else part.activations) * (_FRAGMENTED if self.gpu else 1.0)
            for part in self.components
        }
        stored = {part.name: part.stored(loading.quantize) for part in self.components}
        if loading.offload == "model":
            most = max(stored[name] + running[name] for name in stored)
        elif loading.offload == "group":  # a layer, and the next one that is copied meanwhile
            most = max(2 * min(part.layer, stored[part.name]) + running[part.name] for part in self.components)
        else:
            most = sum(stored.values()) + max(running.values())
        return round(most) + (_GPU_BYTES if self.gpu else 0)

    def ways(self, loading: Loading) -> list[tuple[str, Loading]]:
        """Return the ways to load it, fastest and most exact first, each with its name; said options are kept."""
        offloads: list[Any] = [loading.offload]
        if self.gpu and self.offloadable and not loading.offload:
            offloads += ["model", "group"]
        kinds: list[Any] = [loading.quantize]
        can_quantize = any(part.linear for part in self.components)
        if loading.quantize is None and can_quantize:
            kinds += ["int8", "int4"] if self.gpu else ["int8"]
        found = []
        for quantize in kinds:
            for offload in offloads:
                options = [f"--offload {offload}"] * bool(offload) + [f"--quantize {quantize}"] * bool(quantize)
                name = " ".join(options) or "as it is"
                if not options:
                    found.append((name, replace(loading, memory=None)))
                    if not self.offloadable:
                        continue
                    name = "VAE tiled"
                found.append((name, replace(loading, offload=offload, quantize=quantize)))
        return found

    def __str__(self) -> str:
        parts = [["component", "class", "weights", "activations", "tiled"]]
        for part in self.components:
            sizes = (part.weights, part.activations, part.tiled)
            parts.append([part.name, part.class_name, *(_gigabytes(size) for size in sizes)])
        loading = Loading(memory=1)
        ways = [["way to load it", "most at once"]]
        ways += [[name, _gigabytes(self.total(way))] for name, way in self.ways(loading)]
        clip = f"{self.model}, {self.width}x{self.height}, {self.num_frames} frames, {self.dtype}, computed"
        return f"{clip}\n\n{plain_table(parts)}\n\n{plain_table(ways)}"


def within_memory(source: Source, abilities: Abilities, loading: Loading) -> Loading:
    """Return how a model is loaded so that the clips it makes by default fit into `loading.memory`.

    The first that fits: as it is, the VAE tiled, networks offloaded one at a time, layers offloaded, then the same with
    weights in int8, then in int4. What `loading` says is kept.

    Raises:
        LumiereError: nothing fits; says what is needed at least.
    """
    if loading.memory is None:
        return loading
    from openlumiere.pipelines.load import resolve_device, resolve_dtype

    device = resolve_device(loading.device)
    try:
        found = needs(source, abilities, dtype=resolve_dtype(loading.dtype, device), gpu=device.type != "cpu")
    except RuntimeError as error:  # of networks that cannot run at that size
        raise LumiereError(
            f"--memory: what {source.name} needs cannot be computed ({one_line(error)}); leave it out"
        ) from error
    ways = found.ways(loading)
    for _, way in ways:
        if found.total(way) <= loading.memory:
            return way
    name, least = min(ways, key=lambda way: found.total(way[1]))
    raise LumiereError(
        f"--memory {_gigabytes(loading.memory)}: {source.name} needs {_gigabytes(found.total(least))} at least "
        f"({name}) for {found.width}x{found.height}, {found.num_frames} frames; choose a smaller model"
    )


def needs(
    source: Source, abilities: Abilities, *, size: tuple[int, int] | None = None, num_frames: int | None = None,
    dtype: torch.dtype | None = None, gpu: bool = True,
) -> Needs:  # fmt: skip
    """Compute what a model needs for a clip: its networks are built, and run, without weights on the meta device.

    Left out are the activations of text encoders, of pictures and clips that are encoded, and of second stages, which
    work in short windows; all are smaller. A CPU's 3-D convolutions take more than is computed here.

    Args:
        size: width and height, pixels; None = the model's own.
        num_frames: None = the model's own.
        dtype: of weights and activations; None = bfloat16.
        gpu: add what a GPU's driver takes.

    Raises:
        LumiereError: files that cannot be read; no size, of a model that has none of its own.
    """
    import torch

    dtype = dtype or torch.bfloat16
    width, height = size or (abilities.width, abilities.height)
    if width is None or height is None:
        raise LumiereError(f"{source.name}: its clips have the size of what they are made from; name one")
    frames = num_frames or abilities.num_frames
    nets = _networks(source, dtype)
    index = _index(source)
    ours = abilities.family == "lumiere"
    shape = _latent_shape(source, nets, abilities, (frames, height, width))
    return Needs(
        model=source.name,
        components=tuple(
            _component(name, net, shape, dtype=dtype, quantized=name in quantizable(index) and not ours)
            for name, net in nets.items()
        ),
        width=width, height=height, num_frames=frames, dtype=str(dtype).removeprefix("torch."), gpu=gpu,
        offloadable=not ours,
    )  # fmt: skip


# -------------------------------------------------------------------------------------------------- without weights


def _component(
    name: str, net: nn.Module, shape: tuple[int, int, int], *, dtype: torch.dtype, quantized: bool
) -> ComponentNeeds:
    import torch

    from .tracing import decode, denoise, peak_bytes

    own = next(net.parameters()).dtype
    if name == "vae":
        activations = peak_bytes(decode(net, shape, own))
        tile(net)
        tiled = peak_bytes(decode(net, shape, own))
    else:
        run = denoise(net, shape, own) if name in DENOISERS else None
        activations = tiled = 0 if run is None else peak_bytes(run)
    layers = [sum(w.numel() for w in layer.parameters(recurse=False)) for layer in net.modules()]
    linear = sum(layer.weight.numel() for layer in net.modules() if isinstance(layer, torch.nn.Linear))
    return ComponentNeeds(
        name=name, class_name=type(net).__name__, weights=weight_bytes([net]), linear=linear if quantized else 0,
        itemsize=own.itemsize, layer=max(layers) * own.itemsize, activations=activations, tiled=tiled,
    )  # fmt: skip


def _index(source: Source) -> dict[str, Any]:
    """What a pipeline's components are, (library, class) by name; an adapter's are its base's, and itself."""
    if source.main.class_name == "MotionAdapter":
        return _base(source).json(INDEX) | {"motion_adapter": ["diffusers", "MotionAdapter"]}
    return source.main.json(INDEX)


def _base(source: Source) -> Part:
    if len(source.parts) > 1:
        return source.parts[1]
    return Part("stable-diffusion-v1-5/stable-diffusion-v1-5", source.may_download)


def _networks(source: Source, dtype: torch.dtype) -> dict[str, nn.Module]:
    """A pipeline's networks by name, on the meta device."""
    import torch

    part = _base(source) if source.main.class_name == "MotionAdapter" else source.main
    found = {}
    for name, value in part.json(INDEX).items():
        if not isinstance(value, list) or len(value) != 2 or not value[1] or name == "safety_checker":
            continue
        config = part.json(f"{name}/config.json")
        if config:
            found[name] = _build(value[0], value[1], config)
    if source.main.class_name == "MotionAdapter":
        from diffusers import MotionAdapter, UNetMotionModel

        adapter = _build("diffusers", MotionAdapter.__name__, source.main.json("config.json"))
        found["unet"] = _without_weights(lambda: UNetMotionModel.from_unet2d(found["unet"], adapter))
        for extra in source.parts[2:]:
            config = extra.json("config.json")
            found["controlnet"] = _build("diffusers", config["_class_name"], config)
    for net in found.values():
        if type(net).__name__ not in _ALWAYS_FLOAT32:
            torch.nn.Module.to(net, dtype)  # diffusers' own warns of float32 where there is none to keep
    return found


def _build(library: str, class_name: str, config: dict[str, Any]) -> Any:
    """A network of its configuration, with neither memory nor weights."""
    kind: Any = getattr(importlib.import_module(library), class_name)
    if hasattr(kind, "config_class") and library == "transformers":
        net = _without_weights(lambda: kind(kind.config_class.from_dict(config)))
        net.tie_weights()  # transformers 5.0 leaves that to loading
        return net
    return _without_weights(lambda: kind.from_config(config))


def _gigabytes(size: int) -> str:
    return f"{size / _GB:.2f} GB"


def _without_weights(build: Callable[[], Any]) -> Any:
    import torch

    with torch.device("meta"):
        net = build().eval()
    return torch.nn.Module.to(net, "meta")  # old constructors of tensors know no default device


def _latent_shape(
    source: Source, nets: dict[str, nn.Module], abilities: Abilities, clip: tuple[int, int, int]
) -> tuple[int, int, int]:
    """Frames, height and width of what the network sees of a clip."""
    frames, height, width = clip
    vae: Any = nets.get("vae")
    if vae is None:  # pixels, folded
        factor = int(_index(source).get("pixel_unshuffle", 1)) * abilities.scale
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
