"""What a model needs of a device's memory for a clip, computed without its weights, and the fastest way that fits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from openlumiere.errors import LumiereError
from openlumiere.files import one_line
from openlumiere.generation.abilities import Abilities
from openlumiere.tables import plain_table

from .base import Loading
from .memory import DENOISERS, quantizable, tile, weight_bytes
from .networks import SECOND_STAGE, Networks, latent_shape, networks
from .source import Source

if TYPE_CHECKING:
    import torch
    from torch import nn

    from openlumiere.counting import Work

_GB = 1e9
# Of a linear layer's weight, by torchao a byte and a scale a row, by bitsandbytes half a byte and a float32 for 64.
_STORED = {"int8": 1.0, "float8": 1.0, "int4": 0.5 + 4 / 64}
# What a GPU's driver and libraries take, and an allocator loses between tensors. Not measured here: there is no GPU.
GPU_BYTES, FRAGMENTED = 500_000_000, 1.1


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
        work: what one call does; None of networks that run once a clip, and of unknown classes.
        calls: how often it is called: at each guided step, in all windows; of a VAE, for a clip.
    """

    name: str
    class_name: str
    weights: int
    linear: int
    itemsize: int
    layer: int
    activations: int
    tiled: int
    work: Work | None = None
    calls: float = 1.0

    @property
    def flops(self) -> int:
        """Of a guided step; of a VAE, to decode a clip."""
        return 0 if self.work is None else round(self.work.flops * self.calls)

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
            part.name: (part.tiled if tiled else part.activations) * (FRAGMENTED if self.gpu else 1.0)
            for part in self.components
        }
        stored = {part.name: part.stored(loading.quantize) for part in self.components}
        if loading.offload == "model":
            most = max(stored[name] + running[name] for name in stored)
        elif loading.offload == "group":  # a layer, and the next one that is copied meanwhile
            most = max(2 * min(part.layer, stored[part.name]) + running[part.name] for part in self.components)
        else:
            most = sum(stored.values()) + max(running.values())
        return round(most) + (GPU_BYTES if self.gpu else 0)

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
        parts = [["component", "class", "weights", "activations", "tiled", "TFLOPs"]]
        for part in self.components:
            sizes = (part.weights, part.activations, part.tiled)
            flops = f"{part.flops / 1e12:.3g}" if part.work else ""
            parts.append([part.name, part.class_name, *(_gigabytes(size) for size in sizes), flops])
        loading = Loading(memory=1)
        ways = [["way to load it", "most at once"]]
        ways += [[name, _gigabytes(self.total(way))] for name, way in self.ways(loading)]
        clip = f"{self.model}, {self.width}x{self.height}, {self.num_frames} frames, {self.dtype}, computed"
        note = "TFLOPs: of a guided step; of a VAE, to decode the clip"
        return f"{clip}\n\n{plain_table(parts)}\n{note}\n\n{plain_table(ways)}"


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

    Left out is what text encoders, and pictures and clips that are encoded, take; both are smaller. A CPU's 3-D
    convolutions take more than is computed here.

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
    return needs_of(networks(source, dtype), abilities, size=size, num_frames=num_frames, dtype=dtype, gpu=gpu)


def needs_of(
    model: Networks, abilities: Abilities, *, size: tuple[int, int] | None, num_frames: int | None,
    dtype: torch.dtype, gpu: bool, windowed: bool = True,
) -> Needs:  # fmt: skip
    """Compute `needs` of networks that are on the meta device already.

    Args:
        windowed: make longer clips in windows, as our models do; False = in one pass.
    """
    width, height = size or (abilities.width, abilities.height)
    if width is None or height is None:
        raise LumiereError(f"{model.name}: its clips have the size of what they are made from; name one")
    frames = num_frames or abilities.num_frames
    ours = abilities.family == "lumiere"
    shape = latent_shape(model, abilities, (frames, height, width))
    seen, windows = _windows(shape[0], abilities, windowed=windowed)
    components = [
        _component(
            name, net, shape if name == "vae" else (seen, *shape[1:]), windows=windows,
            quantized=name in quantizable(model.index) and not ours,
        )
        for name, net in model.nets.items() if name != SECOND_STAGE
    ]  # fmt: skip
    if SECOND_STAGE in model.nets:
        components.append(_second_stage(model, (frames, height, width)))
    return Needs(
        model=model.name, components=tuple(components), width=width, height=height, num_frames=frames,
        dtype=str(dtype).removeprefix("torch."), gpu=gpu, offloadable=not ours,
    )  # fmt: skip


# -------------------------------------------------------------------------------------------------- without weights


def _component(
    name: str, net: nn.Module, shape: tuple[int, int, int], *, windows: int, quantized: bool
) -> ComponentNeeds:
    import torch

    from openlumiere.counting import count, peak_bytes

    from .tracing import calls_a_step, decode, decodes, denoise

    own = next(net.parameters()).dtype
    calls, work = 1.0, None
    if name == "vae":
        with torch.no_grad():
            work = count(decode(net, shape, own))
        calls = decodes(net, shape[0])
        tile(net)
        tiled = peak_bytes(decode(net, shape, own))
        tile(net, on=False)
    else:
        run = denoise(net, shape, own) if name in DENOISERS else None
        if run is not None:
            with torch.no_grad():
                work = count(run)
            calls = calls_a_step(net) * windows
        tiled = 0 if work is None else work.peak_bytes
    layers = [sum(w.numel() for w in layer.parameters(recurse=False)) for layer in net.modules()]
    linear = sum(layer.weight.numel() for layer in net.modules() if isinstance(layer, torch.nn.Linear))
    return ComponentNeeds(
        name=name, class_name=type(net).__name__, weights=weight_bytes([net]), linear=linear if quantized else 0,
        itemsize=own.itemsize, layer=max(layers) * own.itemsize, tiled=tiled,
        activations=0 if work is None else work.peak_bytes, work=work, calls=calls,
    )  # fmt: skip


def _windows(num_frames: int, abilities: Abilities, *, windowed: bool) -> tuple[int, int]:
    """How many frames a network sees at once, and in how many windows it sees a clip."""
    length = abilities.window_frames
    if abilities.family != "lumiere" or length is None or length >= num_frames or not windowed:
        return num_frames, 1
    from openlumiere.diffusion.windows import plan_windows

    return length, len(plan_windows(num_frames, length, length // 2))


def _second_stage(model: Networks, clip: tuple[int, int, int]) -> ComponentNeeds:
    """What a second stage needs, all its windows one after the other."""
    import torch

    from openlumiere.counting import count
    from openlumiere.diffusion.windows import plan_windows
    from openlumiere.stunet.summary import example_inputs

    net: Any = model.nets[SECOND_STAGE]
    options = model.second_stage
    frames, height, width = clip
    length = min(int(options.get("window_frames", 16)), frames)
    fold = int(options.get("pixel_unshuffle", 1))
    windows = plan_windows(frames, length, min(int(options.get("window_overlap", 2)), length - 1))
    halves = 2 if float(options.get("guidance_scale", 1.0)) > 1 else 1
    inputs = example_inputs(net, length, batch=halves, size=(height // fold, width // fold))
    with torch.no_grad():
        work = count(lambda: net(**inputs))
    own = net.dtype.itemsize
    layers = [sum(w.numel() for w in layer.parameters(recurse=False)) for layer in net.modules()]
    return ComponentNeeds(
        name=SECOND_STAGE, class_name=type(net).__name__, weights=weight_bytes([net]), linear=0, itemsize=own,
        layer=max(layers) * own, activations=work.peak_bytes, tiled=work.peak_bytes, work=work, calls=len(windows),
    )  # fmt: skip


def _gigabytes(size: int) -> str:
    return f"{size / _GB:.2f} GB"
