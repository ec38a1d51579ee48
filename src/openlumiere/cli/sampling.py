"""What the commands that make clips share: their options, the model, bars while it samples."""

from __future__ import annotations

import argparse
import json
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openlumiere.errors import LumiereError

from . import parsing, stickers
from .stages import Stopwatch, bar

if TYPE_CHECKING:
    import numpy as np

    from openlumiere.pipelines.clip_pipeline import ClipPipeline
    from openlumiere.pipelines.lumiere import LumierePipeline
    from openlumiere.pipelines.super_resolution import LumiereSuperResolutionPipeline

DEFAULT_MODEL = "emoji-nano"
# Players blur tiny clips: those of the smallest models are enlarged by whole pixels.
MIN_SIDE = 128
_OPAQUE_FORMATS = {".mp4", ".png"}


def add_options(parser: parsing.Parser) -> None:
    """Add what every command that samples takes."""
    parser.add_argument("--seed", type=parsing.seed, help="default: a random one, which is printed")
    parser.add_argument("--steps", type=parsing.positive_int, help="denoising steps, default: the model's")
    parser.add_argument("--guidance", type=parsing.guidance, help="how closely to follow, default: the model's")
    parser.add_argument("--negative", default="", metavar="PROMPT", help="what to keep away from")
    parser.add_argument("--loop", action="store_true", help="make the end flow into the start")
    parser.add_argument(
        "--model", default=DEFAULT_MODEL, help=f"bundled name, local folder or hub id, default: {DEFAULT_MODEL}"
    )
    parser.add_argument("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto")
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16", "float16"], default="auto")
    parser.add_argument(
        "--batch", type=parsing.positive_int, default=1, metavar="WINDOWS",
        help="windows of a long clip that are denoised at once: more are faster on a GPU, and take more memory",
    )  # fmt: skip
    parser.add_argument(
        "--offload", action="store_true", help="keep the clip in the CPU's memory, for long clips on a small GPU"
    )
    stickers.add_options(parser)


def add_transparency(parser: parsing.Parser, kept: str) -> None:
    """Add what becomes of transparency.

    Args:
        kept: when it is kept without being asked for.
    """
    parser.add_argument(
        "--transparent", action=argparse.BooleanOptionalAction,
        help=f"keep transparency in the output, if its format can: the default {kept}",
    )  # fmt: skip
    parser.add_argument(
        "--background", default="white", metavar="COLOUR",
        help="what is transparent lies over this where it is not kept, a name or #rrggbb; default: white",
    )  # fmt: skip


def keeps_alpha(output: str, args: argparse.Namespace) -> bool:
    """Whether the format of a file that is to be written holds transparency: all stickers' do."""
    return args.target is not None or output.endswith("/") or Path(output).suffix.lower() not in _OPAQUE_FORMATS


def may_have_alpha(model: str) -> bool:
    """Whether a model's clips can be transparent, as far as that shows before it is loaded: a hub's may be."""
    from openlumiere.bundled import bundled_folder, bundled_models

    folder = bundled_folder(model) if model in bundled_models() else Path(model)
    if not folder.is_dir():
        return True
    try:
        vae = json.loads((folder / "vae" / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(vae.get("in_channels") == 4)


def wants_alpha(args: argparse.Namespace) -> bool | None:
    """Whether clips are to be transparent, as stickers are; None = if the prompt asks for it, or the source is.

    Raises:
        LumiereError: the model makes opaque ones.
    """
    if may_have_alpha(args.model):
        wanted: bool | None = True if args.transparent is None and args.target is not None else args.transparent
        return wanted
    if args.transparent:
        raise opaque_model(args.model)
    return False


def opaque_model(model: str) -> LumiereError:
    """What is wrong with --transparent for a model without alpha."""
    return LumiereError(f"--transparent: {model} makes opaque clips; leave it out, or choose another --model")


def check_model(name: str) -> None:
    """Refuse a model that is nowhere, before PyTorch is imported."""
    from openlumiere.bundled import bundled_models

    is_hub_id = name.count("/") == 1 and not name.startswith((".", "/", "~"))
    if name not in bundled_models() and not Path(name).is_dir() and not is_hub_id:
        known = ", ".join(bundled_models()) or "none"
        raise LumiereError(f"unknown model {name!r}: give a bundled one ({known}), a folder, or a hub id")


def load(args: argparse.Namespace, watch: Stopwatch) -> LumierePipeline:
    """The model."""
    pipe: LumierePipeline = _load("load_pipeline", args, watch)
    return pipe


def load_second_stage(args: argparse.Namespace, watch: Stopwatch) -> LumiereSuperResolutionPipeline:
    """The model's super-resolution stage alone."""
    stage: LumiereSuperResolutionPipeline = _load("load_super_resolution", args, watch)
    return stage


def _load(loader: str, args: argparse.Namespace, watch: Stopwatch) -> Any:
    with watch.stage("load"), bar("loading", 3, "part") as progress:
        logging.getLogger("diffusers").setLevel(logging.ERROR)
        if not args.debug:
            warnings.simplefilter("ignore")  # of libraries, about themselves
        import torch  # noqa: F401

        progress.update()
        from diffusers.utils.logging import disable_progress_bar

        from openlumiere.pipelines import load as loaders

        disable_progress_bar()  # one bar at a time

        progress.update()
        pipe = getattr(loaders, loader)(args.model, device=args.device, dtype=args.dtype)
        progress.update()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def identify(name: str) -> tuple[str, str]:
    """The model's name as another working folder would find it, and its weights' fingerprint where they are local."""
    from openlumiere.bundled import bundled_folder, bundled_models, fingerprint

    if name in bundled_models():
        return name, fingerprint(bundled_folder(name))
    if Path(name).is_dir():
        return str(Path(name).resolve()), fingerprint(Path(name))
    return name, ""


@contextmanager
def watched(pipe: ClipPipeline, stage: str, steps: int, watch: Stopwatch) -> Iterator[Callable[..., dict[str, Any]]]:
    """A bar while `pipe` samples, drawn by the callback that this gives; times of text and of denoising apart."""
    progress = bar(f"{stage.removesuffix('e')}ing", steps, "step")
    times = [time.perf_counter()]

    def begin(*_: object) -> None:
        # Text is encoded by the time that the network is first called.
        times.append(time.perf_counter())
        progress.reset(pipe.num_timesteps)
        hook.remove()

    def advance(_pipe: object, _step: int, _timestep: object, tensors: dict[str, Any]) -> dict[str, Any]:
        progress.update()
        return tensors

    hook = pipe.unet.register_forward_pre_hook(begin)
    try:
        with progress:
            yield advance
    finally:
        hook.remove()
    times.append(time.perf_counter())
    watch.add("text", times[1] - times[0])
    watch.add(stage, times[-1] - times[1])


def write(
    frames: np.ndarray, output: str, fps: float, metadata: dict[str, Any], watch: Stopwatch,
    *, args: argparse.Namespace | None = None, lossless: bool = False,
) -> str:  # fmt: skip
    """Write a clip behind a bar, or make a sticker of it where `args` ask for one.

    Returns:
        A line about the sticker; "" for a clip.
    """
    from openlumiere.video import write_clip

    if args is not None and args.target is not None:
        with watch.stage("sticker"):
            period = len(frames) / fps if args.loop else None
            return stickers.write_sticker(frames, output, fps, metadata, args, period=period)
    with watch.stage("write"), bar("writing", len(frames), "frame") as progress:
        write_clip(
            frames, output, fps=fps, metadata=metadata, min_side=0 if lossless else MIN_SIDE, lossless=lossless,
            background=stickers.background_of(args),
        )  # fmt: skip
        progress.update(len(frames))
    return ""
