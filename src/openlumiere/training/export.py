"""`lumiere export`: a training run, finished or not, to a pipeline that can be used and shared."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, FrozenDict
from torch import nn

from openlumiere.bundled import CHECKSUMS, write_checksums
from openlumiere.errors import LumiereError
from openlumiere.files import read_json, replacing
from openlumiere.pipelines.load import resolve_model
from openlumiere.pipelines.lumiere import LumierePipeline
from openlumiere.pipelines.planner import PathPlanner
from openlumiere.pipelines.super_resolution import LumiereSuperResolutionPipeline
from openlumiere.stunet import STUNet

from . import state
from .config_files import load
from .stages.conditional import Conditional
from .stages.distill import Distill
from .stages.super_resolution import build_super_resolution
from .stages.t2v import TextToVideo

_STAGES: dict[str, type[TextToVideo]] = {"t2v": TextToVideo, "conditional": Conditional, "distill": Distill}
_INDEX = "model_index.json"


def export(
    run: Path,
    out: Path,
    *,
    super_resolution: Path | None = None,
    planner: Path | None = None,
    dtype: torch.dtype = torch.float16,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    guidance_rescale: float | None = None,
    guidance_interval: tuple[float, float] | None = None,
    upscale_steps: int | None = None,
    noise_level: int | None = None,
) -> Path:
    """Write the moving average of a `t2v`, `conditional` or `distill` run's newest checkpoint as a `LumierePipeline`.

    Args:
        run: the run's output folder; or a model, to be written anew with other defaults or another second stage.
        out: folder to write: a new one, an empty one, or one with a model of ours, which is replaced; what lies beside
            that model, such as a README.md and styles, stays.
        super_resolution: output folder of an `ssr` run, which becomes the pipeline's second stage.
        planner: output folder of a `planner` run, for models that are told where their subject is.
        dtype: of the saved weights; they are read back in whatever precision the user asks for.
        num_inference_steps, guidance_scale, guidance_rescale, guidance_interval: the pipeline's defaults; the run's own
            when None.
        upscale_steps, noise_level: likewise of the second stage.

    Raises:
        LumiereError: no such run, runs that do not belong together, or other files in `out`.
    """
    kept = _beside_the_model(out)
    if (run / _INDEX).exists():
        pipe = LumierePipeline.from_pretrained(resolve_model(str(run)), torch_dtype=dtype, local_files_only=True)
    else:
        config = _config(run, *_STAGES)
        pipe = _STAGES[config.stage].build(config)
        _take_average(run, pipe.unet, dtype)
        if pipe.vae is not None:
            nn.Module.to(pipe.vae, dtype)
        if pipe.super_resolution is not None:  # of the model that the run started from
            nn.Module.to(pipe.super_resolution.unet, dtype)
    defaults = {
        "num_inference_steps": num_inference_steps,
        "guidance_scale": guidance_scale,
        "guidance_rescale": guidance_rescale,
        "guidance_interval": guidance_interval,
    }
    pipe.register_to_config(**_given(defaults))
    if super_resolution is not None:
        second = build_super_resolution(_config(super_resolution, "ssr"))
        if second.config.text_encoder_id != pipe.config.text_encoder_id:
            raise LumiereError(
                f"{super_resolution} reads prompts by another text encoder than {run}, so they can't be one model; use "
                f"it alone: lumiere upscale CLIP --model {super_resolution}/export/pipeline"
            )
        _take_average(super_resolution, second.unet, dtype)
        pipe.register_modules(super_resolution=second)
        second.register_to_config(**_given({"num_inference_steps": upscale_steps, "noise_level": noise_level}))
    if planner is not None:
        pipe.register_modules(planner=_read_planner(planner, pipe, dtype))
    _forget_origin(pipe)
    with replacing(out.resolve()) as partial:
        pipe.save_pretrained(partial)
        for path in kept:
            if path.is_dir():
                shutil.copytree(path, partial / path.name)
            else:
                shutil.copy2(path, partial / path.name)
        write_checksums(partial)
    return out


def _beside_the_model(out: Path) -> list[Path]:
    """Return what a folder holds besides the model that is to be replaced there, such as its card and its styles.

    Raises:
        LumiereError: a file, or a folder that is neither empty nor a model of ours: nothing there may be removed.
    """
    if not out.exists():
        return []
    found = list(out.iterdir()) if out.is_dir() else [out]
    if not found:
        return []
    index = read_json(out / _INDEX) if (out / _INDEX).is_file() else {}
    if index.get("_class_name") not in (LumierePipeline.__name__, LumiereSuperResolutionPipeline.__name__):
        raise LumiereError(f"{out} holds something else than a model of openlumiere; name a new or an empty folder")
    return [path for path in found if path.name not in {*index, _INDEX, CHECKSUMS}]


def _config(run: Path, *stages: str) -> Any:
    if not state.checkpoints(run):
        raise LumiereError(f"{run} holds neither a checkpoint nor a model; give the output folder of a training run")
    config = load(run / "config.yaml")
    if config.stage not in stages:
        raise LumiereError(f"{run} is a run of stage {config.stage}; one of stage {' or '.join(stages)} is needed")
    return config


def _take_average(run: Path, unet: STUNet, dtype: torch.dtype) -> None:
    parameters = dict(unet.named_parameters())
    with torch.no_grad():
        for name, value in state.read(state.checkpoints(run)[-1], "ema").items():
            parameters[name].copy_(value)
    # Not ModelMixin.to, which warns of layers to be kept in float32 even where there are none.
    nn.Module.to(unet, dtype)


def _read_planner(run: Path, pipe: LumierePipeline, dtype: torch.dtype) -> PathPlanner:
    """The planner that a run exported, or that a model's folder `planner` holds, for a pipeline that can follow it."""
    if not pipe.unet.takes_layout:
        raise LumiereError(f"a planner is for models that are told where their subject is; leave --planner {run} out")
    folder = run
    if not (run / "config.json").is_file():
        folder = run / "export" / "planner"
        encoder = _config(run, "planner").text.encoder
        if encoder != pipe.config.text_encoder_id:
            raise LumiereError(
                f"{run} reads prompts by {encoder}, this model by {pipe.config.text_encoder_id}: train anew"
            )
    try:
        planner = PathPlanner.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise LumiereError(
            f"{folder} holds no planner; let the run come to its end: lumiere train {run}/config.yaml"
        ) from error
    nn.Module.to(planner, dtype)
    return planner


def _forget_origin(pipe: LumierePipeline) -> None:
    """Leave out the folders that parts were loaded from, which mean nothing elsewhere."""
    stage = pipe.super_resolution
    for part in (pipe, *pipe.components.values(), *(() if stage is None else stage.components.values())):
        if isinstance(part, ConfigMixin):
            kept = {key: value for key, value in part.config.items() if key != "_name_or_path"}
            part._internal_dict = FrozenDict(kept)


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
