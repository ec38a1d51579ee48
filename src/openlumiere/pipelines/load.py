"""Find and load a pipeline by a bundled model's name, a local folder or a hub id; clear errors for each way to fail.

Once `openlumiere.LumierePipeline` is imported, diffusers' own ``DiffusionPipeline.from_pretrained(folder)`` finds the
class too; before, it knows none of that name.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from openlumiere.bundled import DEFAULT_MODEL, bundled_models, damaged_files, model_folder
from openlumiere.errors import LumiereError
from openlumiere.files import one_line, read_json
from openlumiere.stunet import STUNet

from .clip_pipeline import ClipPipeline
from .lumiere import LumierePipeline
from .super_resolution import LumiereSuperResolutionPipeline

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_pipeline(model: str = DEFAULT_MODEL, *, device: str = "auto", dtype: str = "auto") -> LumierePipeline:
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
    model: str = DEFAULT_MODEL, *, device: str = "auto", dtype: str = "auto"
) -> LumiereSuperResolutionPipeline:
    """Load a second stage alone, ready to be called: that of a model, or one saved in a folder of its own.

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
    target = resolve_device(device)
    local = Path(source).is_dir()
    try:
        pipe = kind.from_pretrained(
            Path(source) if local else source, torch_dtype=resolve_dtype(dtype, target), local_files_only=local
        )
    except (LumiereError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if local:
            raise LumiereError(f"{source} is damaged: {one_line(error)}; install or save the model again") from error
        raise LumiereError(
            f"cannot load {model!r} from the hub: check the name and the network ({one_line(error)})"
        ) from error
    second = getattr(pipe, "super_resolution", None)
    for component in (*pipe.components.values(), *(second.components.values() if second is not None else ())):
        if isinstance(component, STUNet):
            component.to(memory_format=torch.channels_last)
    return pipe.to(target)


def resolve_model(model: str, *, kinds: Sequence[type[ClipPipeline]] = (LumierePipeline,)) -> str:
    """Return the folder or hub id that a model's name stands for.

    Raises:
        LumiereError: an unknown name, a damaged folder, or one of another kind of pipeline.
    """
    folder = model_folder(model)
    if folder is None:
        if Path(model).exists():
            raise LumiereError(f"--model {model}: that is a file; give the folder that holds model_index.json")
        if model.count("/") == 1 and not model.startswith((".", "/", "~")):
            return model  # a hub id
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
    if damaged := damaged_files(folder):
        raise LumiereError(f"{folder / damaged[0]} is damaged or missing: install the model again")
    return str(folder)


def _class_name(folder: Path) -> str:
    """Read the pipeline's class; diffusers writes (module, class) for those that it loaded from a file of code."""
    if not (folder / "model_index.json").is_file():
        raise LumiereError(f"{folder} holds no model: model_index.json is missing")
    name = read_json(folder / "model_index.json", otherwise="install or save the model again").get("_class_name", "")
    return str(name[-1] if isinstance(name, list) else name)


def resolve_device(device: str) -> torch.device:
    """Return the device of that name; for "auto" the best one there is."""
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
        return torch.device(device)
    except (RuntimeError, AssertionError) as error:
        raise LumiereError(f"the device {device} cannot be used here; try cpu") from error


def resolve_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """Return the dtype of that name; for "auto" the one that suits a device."""
    if dtype == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        return torch.float16 if device.type == "mps" else torch.float32
    if dtype not in _DTYPES:
        raise LumiereError(f"--dtype {dtype}: choose auto, {', '.join(_DTYPES)}")
    return _DTYPES[dtype]
