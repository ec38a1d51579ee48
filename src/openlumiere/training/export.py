"""`lumiere export`: a training run, finished or not, to a pipeline that can be used and shared."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from openlumiere.bundled import write_checksums
from openlumiere.errors import LumiereError

from . import state
from .config import load
from .t2v import build_pipeline


def export(
    run: Path,
    out: Path,
    *,
    dtype: torch.dtype = torch.float16,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    guidance_rescale: float | None = None,
) -> Path:
    """Write the moving average of a `t2v` run's newest checkpoint as a `LumierePipeline`.

    Args:
        run: the run's output folder.
        out: folder to write; weights of an older export in it are replaced, a README.md beside them stays.
        dtype: of the saved weights; they are read back in whatever precision the user asks for.
        num_inference_steps, guidance_scale, guidance_rescale: the pipeline's defaults; the run's own when None.
    """
    found = state.checkpoints(run)
    if not found:
        raise LumiereError(f"{run} holds no checkpoint; give the output folder of a training run")
    config = load(run / "config.yaml")
    if config.stage != "t2v":
        raise LumiereError(f"{run} is a run of stage {config.stage}; only t2v runs make clips")
    pipe = build_pipeline(config)
    parameters = dict(pipe.unet.named_parameters())
    with torch.no_grad():
        for name, value in load_file(found[-1] / "ema.safetensors").items():
            parameters[name].copy_(value)
    # Not ModelMixin.to, which warns of layers to be kept in float32 even where there are none.
    nn.Module.to(pipe.unet, dtype)
    defaults = {
        "num_inference_steps": num_inference_steps,
        "guidance_scale": guidance_scale,
        "guidance_rescale": guidance_rescale,
    }
    pipe.register_to_config(**{name: value for name, value in defaults.items() if value is not None})
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    pipe.save_pretrained(partial)
    card = out / "README.md"
    if card.exists():
        shutil.copy(card, partial / card.name)
    write_checksums(partial)
    if out.exists():
        shutil.rmtree(out)
    partial.rename(out)
    return out
