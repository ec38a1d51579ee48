"""`lumiere inflate`: turn a text-to-image model into a clip model, its temporal layers still to be trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline, MotionAdapter

from openlumiere.errors import LumiereError
from openlumiere.files import one_line, replacing
from openlumiere.stunet.motion import CarriedModule, carry_motion, motion_options
from openlumiere.stunet.summary import table
from openlumiere.tables import plain_table

from .clip_pipeline import ClipPipeline
from .lumiere import LumierePipeline


def inflate(source: str, out: Path, *, num_frames: int = 80, motion: str | None = None, **options: Any) -> str:
    """Inflate a text-to-image pipeline and save it as a `LumierePipeline`.

    Args:
        source: hub id or folder of a text-to-image pipeline.
        out: folder to write.
        num_frames: length that the printed cost is for.
        motion: hub id or folder of an AnimateDiff motion adapter, from which the coarsest level's temporal attention
            starts, see `stunet.motion`.
        options: of `STUNet.from_unet`.

    Returns:
        A table of the levels, parameters and costs, and one of what became of the adapter.

    Raises:
        LumiereError: `out` holds something, `source` no text-to-image model with a U-Net that can be inflated, or
            `motion` no adapter of its shape.
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
    adapter = None if motion is None else _motion_adapter(motion)
    unet = t2i.components.get("unet")
    if adapter is not None and unet is not None:
        options = motion_options(adapter, unet) | options
    pipe = LumierePipeline.from_t2i(t2i, **options)
    carried = [] if adapter is None else carry_motion(pipe.unet.temporal, adapter)
    with replacing(out) as partial:
        pipe.save_pretrained(partial)
    return "\n\n".join([table(pipe.unet, num_frames), *([_carried_table(carried)] if carried else [])])


def _motion_adapter(motion: str) -> MotionAdapter:
    local = Path(motion).is_dir()
    try:
        adapter = MotionAdapter.from_pretrained(motion, local_files_only=local)
    except Exception as error:
        where = "is no motion adapter" if local else "cannot be loaded from the hub (check name and network)"
        raise LumiereError(f"--motion: {motion!r} {where}: {one_line(error)}") from error
    return adapter


def _carried_table(carried: list[CarriedModule]) -> str:
    """What became of an adapter's modules; those of finer levels, where ours are convolutions, are not in it."""
    rows = [(module.place, str(module.carried), str(module.fresh), module.left_out) for module in carried]
    return plain_table([("coarsest level", "attention carried", "fresh", "left out"), *rows])
