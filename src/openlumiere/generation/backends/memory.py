"""What a model takes of a device's memory, and how it is made to take less."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from openlumiere import extras
from openlumiere.errors import LumiereError

from .base import Loading

if TYPE_CHECKING:
    import torch

DENOISERS = ("transformer", "transformer_2", "unet")  # components that run at every step
# Blocks of U-Nets of diffusers that repeat, where the class names none itself.
_BLOCKS = ("BasicTransformerBlock", "TemporalBasicTransformerBlock")
_LIBRARIES = {"int8": "torchao", "float8": "torchao", "int4": "bitsandbytes"}


def weight_bytes(components: Iterable[Any]) -> int:
    """Return the bytes of the parameters of all networks among a pipeline's components; shared ones count once."""
    from torch import nn

    found = {id(w): w for part in components if isinstance(part, nn.Module) for w in part.parameters()}
    return sum(map(_stored_bytes, found.values()))


def _stored_bytes(weight: torch.Tensor) -> int:
    """Bytes of a parameter; of a quantized one those of the tensors that it is put together from."""
    flatten = getattr(weight, "__tensor_flatten__", None)
    if flatten is None:
        return weight.numel() * weight.element_size()
    return sum(_stored_bytes(getattr(weight, name)) for name in flatten()[0])


# -------------------------------------------------------------------------------------------------- at loading


def quantization_config(loading: Loading, components: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a pipeline's ``from_pretrained`` that quantize its largest networks; {} if not wanted.

    Linear layers of the networks that run at every step, and of T5 text encoders, keep their weights in few bits, and
    compute in the pipeline's dtype: int8 and float8 by torchao, int4 (NF4, Dettmers et al. 2023) by bitsandbytes. Pass
    ``torch_dtype`` too.

    Args:
        components: of ``model_index.json``: (library, class) by name.

    Raises:
        LumiereError: the library is not installed, there is no GPU for it, or no component that can be quantized.
    """
    if loading.quantize is None:
        return {}
    names = quantizable(components)
    if not names:
        raise LumiereError(f"--quantize {loading.quantize}: this model cannot be loaded quantized; leave it out")
    extras.require(_LIBRARIES[loading.quantize])
    from diffusers import PipelineQuantizationConfig

    config = {name: _config(loading, library=components[name][0]) for name in names}
    return {"quantization_config": PipelineQuantizationConfig(quant_mapping=config)}


def quantizable(components: Mapping[str, Any]) -> list[str]:
    """Return the names of the components that `quantization_config` quantizes.

    A motion adapter's U-Net is put together after loading, of weights that must still be tensors: none of its.
    """
    if "motion_adapter" in components:
        return []
    return [
        name for name, value in components.items()
        if name in DENOISERS or (name.startswith("text_encoder") and value[1] and "T5" in value[1])
    ]  # fmt: skip


def _config(loading: Loading, *, library: str) -> Any:
    """The library's own configuration; diffusers and transformers have a class each, of one name."""
    import importlib

    from openlumiere.pipelines.load import resolve_device, resolve_dtype

    module = importlib.import_module("transformers" if library == "transformers" else "diffusers")
    if loading.quantize == "int4":
        device = resolve_device(loading.device)
        if device.type != "cuda":
            raise LumiereError(f"--quantize int4: bitsandbytes needs a CUDA GPU, not {device}; choose int8")
        dtype = resolve_dtype(loading.dtype, device)
        return module.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig

    kind = Int8WeightOnlyConfig if loading.quantize == "int8" else Float8WeightOnlyConfig
    return module.TorchAoConfig(kind())


# -------------------------------------------------------------------------------------------------- once loaded


def prepare(pipe: Any, loading: Loading) -> tuple[str, ...]:
    """Place a pipeline of diffusers on its device, offload, tile and compile it, as `loading` says.

    Returns:
        What takes less memory, or longer, a line each.

    Raises:
        LumiereError: no such device, or none whose memory offloading would save.
    """
    from openlumiere.pipelines.load import resolve_device

    device = resolve_device(loading.device)
    if loading.devices:
        raise LumiereError("--devices: this model's clips are made on one device; leave it out")
    if loading.offload == "frames":
        raise LumiereError("--offload frames is for openlumiere's own models; choose model or group")
    if loading.offload and device.type == "cpu":
        raise LumiereError(
            f"--offload {loading.offload} saves a GPU's memory, and clips are made on the CPU here; leave it out"
        )
    notes = _tiled(pipe) if loading.offload or loading.quantize or loading.memory else []
    if loading.offload == "model":
        pipe.enable_model_cpu_offload(device=device)
        notes.append("offload model: one network at a time is in the device's memory; a little slower")
    elif loading.offload == "group":
        offload_groups(pipe, device)
        notes.append("offload group: one layer at a time is in the device's memory; much slower")
    else:
        pipe.to(device)
    if loading.quantize:
        notes.append(f"quantize {loading.quantize}: linear layers in {loading.quantize}; frames differ a little")
    if loading.compile:
        notes.append(_compile(pipe))
    return tuple(notes)


def _tiled(pipe: Any) -> list[str]:
    """Tile the VAE; say so."""
    enabled = tile(getattr(pipe, "vae", None))
    return [f"VAE {' and '.join(enabled)}: frames are decoded in parts; a little slower"] if enabled else []


def tile(vae: Any, *, on: bool = True) -> list[str]:
    """Let a VAE decode one frame or clip, and one part of it, at a time, or no more; return what of both it can."""
    enabled = []
    for name in ("tiling", "slicing"):
        try:
            getattr(vae, f"{'enable' if on else 'disable'}_{name}")()
        except (AttributeError, NotImplementedError):  # diffusers' common class refuses for those that cannot
            continue
        enabled.append(name)
    return enabled


def offload_groups(pipe: Any, device: torch.device) -> None:
    """Keep a pipeline's networks in the CPU's memory, and each layer on the device while it computes.

    Raises:
        LumiereError: a network that diffusers cannot offload so.
    """
    import torch
    from diffusers.hooks import apply_group_offloading

    for name, network in pipe.components.items():
        if not isinstance(network, torch.nn.Module):
            continue
        if not getattr(network, "_supports_group_offloading", True):
            raise LumiereError(f"--offload group: {type(network).__name__} cannot; choose --offload model")
        # What runs at every step has the next layer's weights copied while the last one computes.
        ahead = device.type == "cuda" and name in DENOISERS
        apply_group_offloading(network, onload_device=device, offload_type="leaf_level", use_stream=ahead)


def _compile(pipe: Any) -> str:
    """Compile the repeated blocks of the networks that run at every step, when they first run; say which."""
    compiled = 0
    for name in DENOISERS:
        network = getattr(pipe, name, None)
        if network is None:
            continue
        blocks = getattr(network, "_repeated_blocks", None) or _BLOCKS
        for module in network.modules():
            if type(module).__name__ in blocks:
                module.compile()
                compiled += 1
    if not compiled:
        raise LumiereError(f"--compile: {type(pipe).__name__} has no blocks that repeat; leave it out")
    return f"compile: {compiled} blocks are compiled at the first step, which takes minutes; then faster"
