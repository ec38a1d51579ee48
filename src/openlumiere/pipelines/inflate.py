"""`lumiere inflate`: turn a text-to-image model into a clip model, its temporal layers still to be trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline

from openlumiere.errors import LumiereError
from openlumiere.files import one_line, replacing
from openlumiere.stunet.summary import table

from .clip_pipeline import ClipPipeline
from .lumiere import LumierePipeline


def inflate(source: str, out: Path, *, num_frames: int = 80, **options: Any) -> str:
    """Inflate a text-to-image pipeline and save it as a `LumierePipeline`.

    Args:
        source: hub id or folder of a text-to-image pipeline.
        out: folder to write.
        num_frames: length that the printed cost is for.
        options: of `STUNet.from_unet`.

    Returns:
        A table of the levels, parameters and costs.

    Raises:
        LumiereError: `out` holds something, or `source` no text-to-image model with a U-Net that can be inflated.
    """
    if out.exists() and any(out.iterdir()):
        raise LumiereError(f"{out} is not empty; choose a new folder")
    local = Path(source).is_dir()
    try:
        t2i = DiffusionPipeline.from_pretrained(source, local_files_only=local)
    except Exception as error:
        where = "is no text-to-image pipeline" if local else "cannot be loaded from the hub (check name and network)"
        raise LumiereError(f"{source!r} {where}: {one_line(error)}") from error
    if isinstance(t2i, ClipPipeline):
        raise LumiereError(f"{source!r} is no text-to-image pipeline but a clip model already: train it, or use it")
    pipe = LumierePipeline.from_t2i(t2i, **options)
    with replacing(out) as partial:
        pipe.save_pretrained(partial)
    return table(pipe.unet, num_frames)
