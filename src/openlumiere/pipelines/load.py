"""Find and load a pipeline by a bundled model's name, a local folder or a hub id; clear errors for each way to fail."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from openlumiere.bundled import bundled_folder, bundled_models, damaged_files
from openlumiere.errors import LumiereError
from openlumiere.stunet import STUNet

from .clip_pipeline import ClipPipeline
from .lumiere import LumierePipeline
from .super_resolution import LumiereSuperResolutionPipeline

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_pipeline(model: str = "emoji-nano", *, device: str = "auto", dtype: str = "auto") -> LumierePipeline:
    """Load a pipeline, ready to be called.

    Args:
        model: name of a bundled model, a folder written by `save_pretrained`, or a hub id.
        device: "auto" (CUDA, then MPS, then the CPU), or a torch device.
        dtype: "auto" (float32 on the CPU, where half precision is slower; bfloat16 or float16 on a GPU) or a name.

    Raises:
        LumiereError: unknown model, damaged weights, a folder that holds another kind of model, no such device.
    """
    pipe: LumierePipeline = _load(LumierePipeline, model, resolve_model(model), device, dtype)
    return pipe


def load_super_resolution(
    model: str = "emoji-nano", *, device: str = "auto", dtype: str = "auto"
) -> LumiereSuperResolutionPipeline:
    """Load a second stage alone, ready to be called: a model's, or one in a folder of its own.

    Args and errors as `load_pipeline`'s; a model without a second stage is an error too.
    """
    source = resolve_model(model, kinds=(LumierePipeline, LumiereSuperResolutionPipeline))
    if Path(source).is_dir() and _class_name(Path(source)) == LumiereSuperResolutionPipeline.__name__:
        alone: LumiereSuperResolutionPipeline = _load(LumiereSuperResolutionPipeline, model, source, device, dtype)
        return alone
    pipe: LumierePipeline = _load(LumierePipeline, model, source, device, dtype)
    if pipe.super_resolution is None:
        raise LumiereError(f"{model} has no super-resolution stage; choose another --model")
    return pipe.super_resolution


def _load(kind: type[ClipPipeline], model: str, source: str, device: str, dtype: str) -> Any:
    place = resolve_device(device)
    number = _resolve_dtype(dtype, place)
    try:
        pipe = kind.from_pretrained(source, torch_dtype=number, local_files_only=Path(source).is_dir())
    except LumiereError:
        raise
    except Exception as error:
        if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
            raise
        raise LumiereError(_why_not(model, source, error)) from error
    second = getattr(pipe, "super_resolution", None)
    for part in (*pipe.components.values(), *(second.components.values() if second is not None else ())):
        if isinstance(part, STUNet):
            part.to(memory_format=torch.channels_last)
    return pipe.to(place)


def resolve_model(model: str, *, kinds: Sequence[type[ClipPipeline]] = (LumierePipeline,)) -> str:
    """The folder or hub id behind a model's name; damaged folders, and those of other pipelines, are refused."""
    if model in bundled_models():
        folder = bundled_folder(model)
    elif Path(model).is_dir():
        folder = Path(model)
    elif Path(model).exists():
        raise LumiereError(f"--model {model}: that is a file; give the folder that holds model_index.json")
    elif model.count("/") == 1 and not model.startswith((".", "/", "~")):
        return model  # a hub id
    else:
        raise LumiereError(
            f"unknown model {model!r}: give a bundled one ({', '.join(bundled_models()) or 'none installed'}), "
            "a folder, or a hub id such as owner/name"
        )
    name = _class_name(folder)
    if name == LumiereSuperResolutionPipeline.__name__ and LumiereSuperResolutionPipeline not in kinds:
        raise LumiereError(f"{folder} holds a second stage alone; use it with: lumiere upscale CLIP --model {folder}")
    if name not in {kind.__name__ for kind in kinds}:
        raise LumiereError(
            f"{folder} holds a {name}, not a clip model; inflate it first: lumiere inflate {folder} -o FOLDER"
        )
    damaged = damaged_files(folder)
    if damaged:
        raise LumiereError(f"{folder / damaged[0]} is damaged or missing: install the model again")
    return str(folder)


def _class_name(folder: Path) -> str:
    try:
        return str(json.loads((folder / "model_index.json").read_text(encoding="utf-8")).get("_class_name", ""))
    except (OSError, ValueError) as error:
        raise LumiereError(f"{folder} holds no model: model_index.json is missing or damaged") from error


def resolve_device(device: str) -> torch.device:
    """`device`, or the best one there is for "auto"."""
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
        return torch.device(device)
    except (RuntimeError, AssertionError) as error:
        raise LumiereError(f"--device {device} cannot be used here; try --device cpu") from error


def _resolve_dtype(dtype: str, device: torch.device) -> torch.dtype:
    if dtype == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        return torch.float16 if device.type == "mps" else torch.float32
    if dtype not in _DTYPES:
        raise LumiereError(f"--dtype {dtype}: choose auto, {', '.join(_DTYPES)}")
    return _DTYPES[dtype]


def _why_not(model: str, source: str, error: Exception) -> str:
    reason = " ".join(str(error).split())[:200]
    if Path(source).is_dir():
        return f"{source} is damaged: {reason}; install or save the model again"
    return f"cannot load {model!r} from the hub: check the name and the network ({reason})"
