"""What the commands that make clips by both stages share: from a loaded model and a recipe to a file."""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openlumiere.errors import LumiereError

from . import parsing, sampling, stickers
from .jobs import Job
from .recipe import EditRecipe, GenerateRecipe
from .stages import Stopwatch

if TYPE_CHECKING:
    import numpy as np
    import torch

    from openlumiere.pipelines.lumiere import LumierePipeline
    from openlumiere.pipelines.super_resolution import LumiereSuperResolutionPipeline
    from openlumiere.pipelines.tasks import Task

    MadeBy = GenerateRecipe | EditRecipe


def add_options(parser: parsing.Parser) -> None:
    """Add what every command that makes clips by both stages takes."""
    parser.add_argument("--num", type=parsing.positive_int, default=1, help="clips of each prompt, with rising seeds")
    parser.add_argument("--no-upscale", action="store_true", help="leave out the super-resolution stage")
    parser.add_argument("--upscale-steps", type=parsing.positive_int, help="its denoising steps, default: the model's")
    parser.add_argument(
        "--style", action="append", default=[], metavar="NAME|FOLDER",
        help="draw in a style that comes with the model, or one of lumiere train style, or a LoRA; twice to mix two",
    )  # fmt: skip
    parser.add_argument(
        "--style-strength", action="append", type=parsing.strength, metavar="A",
        help="0 = none of the style, 1 = all of it, default: 1; once for each --style, or once for all",
    )  # fmt: skip
    parser.add_argument(
        "--path", type=parsing.way_points, metavar="POINTS",
        help='where the subject goes: way points x,y[,size[,degrees]] such as "0.1,0.5 0.9,0.5", as parts of the frame '
        "from its left and its top, evenly spaced in time; default: what the model plans after the prompt",
    )  # fmt: skip
    parser.add_argument(
        "--no-planner", action="store_true", help="don't let the model plan where its subject goes: text alone decides"
    )
    sampling.add_options(parser)
    sampling.add_transparency(parser, "where the prompt asks for no or a transparent background, or the source has one")


def set_styles(pipe: LumierePipeline, args: argparse.Namespace) -> None:
    """Draw in the styles that are asked for."""
    pipe.set_styles(dict(_styles(args)))


def _styles(args: argparse.Namespace) -> list[tuple[str, float]]:
    strengths = args.style_strength or [1.0]
    if args.style_strength and not args.style:
        raise LumiereError("--style-strength: say of which --style")
    if len(strengths) not in (1, max(len(args.style), 1)):
        raise LumiereError(f"{len(strengths)} strengths for {len(args.style)} styles: give one, or one each")
    if len(set(args.style)) < len(args.style):
        raise LumiereError("--style: the same one twice; give it once, with a --style-strength")
    return [(style, strengths[i % len(strengths)]) for i, style in enumerate(args.style)]


def second_stage(pipe: LumierePipeline, args: argparse.Namespace) -> LumiereSuperResolutionPipeline | None:
    """The super-resolution stage, where there is one and it is wanted."""
    stage = None if args.no_upscale else pipe.super_resolution
    if stage is None and args.upscale_steps:
        raise LumiereError("--upscale-steps: there is no super-resolution stage to take them")
    return stage


def recipe_of(
    pipe: LumierePipeline, stage: LumiereSuperResolutionPipeline | None, job: Job, args: argparse.Namespace
) -> dict[str, Any]:
    """What the recipes of all these commands tell."""
    if args.transparent and not pipe.has_alpha:
        raise sampling.opaque_model(args.model)
    kept = "kept" if job.transparent and sampling.keeps_alpha(job.output, args) else "laid over"
    model, weights = sampling.identify(args.model)
    return {
        "prompt": job.prompt,
        "negative_prompt": job.negative_prompt,
        "seed": job.seed,
        "num_inference_steps": args.steps or pipe.config.num_inference_steps,
        "guidance_scale": pipe.config.guidance_scale if args.guidance is None else args.guidance,
        "loop": args.loop,
        "alpha": kept if pipe.has_alpha else "",
        "background": args.background,
        "styles": shlex.join(
            word for name, alpha in _styles(args) for word in ("--style", name, "--style-strength", f"{alpha:.10g}")
        ),
        "layout": _layout_options(args),
        "upscale_steps": 0 if stage is None else args.upscale_steps or stage.config.num_inference_steps,
        "model": model,
        "weights": weights,
        "device": pipe.device.type,
        "dtype": str(pipe.unet.dtype).removeprefix("torch."),
    }


def _layout_options(args: argparse.Namespace) -> str:
    """Where the subject is to go, as the options that say it, quoted for a shell."""
    points = [",".join(repr(number) for number in point) for point in args.path or []]
    words = [f"--path={' '.join(points)}"] if points else []
    return shlex.join([*words, *(["--no-planner"] if args.no_planner else [])])


def make(
    pipe: LumierePipeline,
    stage: LumiereSuperResolutionPipeline | None,
    recipe: MadeBy,
    output: str,
    args: argparse.Namespace,
    watch: Stopwatch,
    *,
    task: Task | None = None,
    feather: int = 0,
    **call: Any,
) -> None:
    """Make one clip and write it.

    Args:
        task: what is given of the clip, at the size of what comes out at the end.
        feather: pixels of the finished clip over which what is given fades into what was made.
        call: further arguments of `LumierePipeline`.
    """
    if task is not None:
        call |= task.given
        call["feather"] = 0 if stage is not None else feather
    frames = _base(pipe, recipe, args, watch, **call)
    if stage is not None:
        frames = _sharpened(stage, frames, recipe, output, args, watch)
        if task is not None and task.mask is not None:
            from openlumiere.pipelines.inputs import paste_given

            frames = paste_given(frames, task.video, task.mask, feather=feather, background=recipe.background)
    if task is not None:
        frames = task.finish(frames, background=recipe.background)
    about = sampling.write(frames, output, recipe.fps, recipe.metadata(), watch, args=args)
    print(f"wrote {output} (seed {recipe.seed}){about and f': {about}'}", flush=True)


def _base(pipe: LumierePipeline, recipe: MadeBy, args: argparse.Namespace, watch: Stopwatch, **call: Any) -> np.ndarray:
    """The base model's clip, (frames, height, width, 3 or 4) in [0, 1]."""
    with sampling.watched(pipe, "denoise", recipe.num_inference_steps, watch) as advance:
        return pipe(
            recipe.prompt,
            negative_prompt=recipe.negative_prompt or None,
            num_inference_steps=recipe.num_inference_steps,
            guidance_scale=recipe.guidance_scale,
            generator=_generator(recipe),
            upscale=False,
            transparent=recipe.alpha == "kept",
            background=recipe.background,
            layout=args.path,
            planner=not args.no_planner,
            loop=recipe.loop,
            window_batch_size=args.batch,
            offload_frames=args.offload,
            callback_on_step_end=advance,
            **call,
        )[0][0]


def _sharpened(
    stage: LumiereSuperResolutionPipeline,
    frames: np.ndarray,
    recipe: MadeBy,
    output: str,
    args: argparse.Namespace,
    watch: Stopwatch,
) -> np.ndarray:
    """The second stage's clip. The base clip lies beside the output until it is done."""
    base = Path(output.rstrip("/")).with_suffix(".base.webp")
    unsharp = replace(recipe, upscale_steps=0)
    sampling.write(frames, str(base), recipe.fps, unsharp.metadata(), watch, lossless=True)
    try:
        with sampling.watched(stage, "sharpen", recipe.upscale_steps, watch) as advance:
            sharp = stage(
                frames,
                recipe.prompt,
                num_inference_steps=recipe.upscale_steps,
                generator=_generator(recipe),
                loop=recipe.loop,
                window_batch_size=args.batch,
                offload_frames=args.offload,
                callback_on_step_end=advance,
            )[0][0]
    except BaseException:
        options = ["-o", output, "--model", args.model, *stickers.words(args)]
        again = shlex.join(["lumiere", "upscale", str(base), *options])
        print(f"the base clip is kept in {base}; sharpen it with: {again}", file=sys.stderr)
        raise
    base.unlink()
    return sharp


def _generator(recipe: MadeBy) -> torch.Generator:
    import torch

    # On the CPU whatever the device, so that a seed means the same noise everywhere.
    return torch.Generator("cpu").manual_seed(recipe.seed)
