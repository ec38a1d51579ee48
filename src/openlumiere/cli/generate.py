"""`lumiere generate`: prompts to clips."""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from openlumiere.errors import LumiereError

from . import jobs, parsing, sampling
from .jobs import Job
from .parsing import Commands, add_command
from .recipe import GenerateRecipe
from .stages import Stopwatch

if TYPE_CHECKING:
    import numpy as np
    import torch

    from openlumiere.pipelines.base import LumierePipeline
    from openlumiere.pipelines.super_resolution import LumiereSuperResolutionPipeline


def register(commands: Commands) -> None:
    parser = add_command(
        commands,
        "generate",
        run,
        help="make a clip that shows what a prompt says",
        more="The same seed gives the same clip on the same machine.",
        example=[
            'lumiere generate "a tiger walking to the left on a green background" -o tiger.mp4',
            'lumiere generate "a red heart growing" --seed 7 --num 4 -o heart.webp',
            "lumiere generate --prompts prompts.txt -o clips    # stop it and start it again: it goes on",
        ],
    )
    parser.add_argument("prompt", nargs="?", help="what to show")
    parser.add_argument(
        "-o",
        "--output",
        help=".mp4 (H.264), .mov (ProRes), .webp or .gif (looping), .png (contact sheet), no suffix: frames; "
        "default: a new .mp4 named after the prompt; with --prompts: the folder for the clips",
    )
    parser.add_argument(
        "--frames", type=parsing.positive_int, default=80, help="default: 80; longer clips are made in windows"
    )
    parser.add_argument("--fps", type=parsing.positive_float, default=16.0, help="frames per second, default: 16")
    parser.add_argument("--num", type=parsing.positive_int, default=1, help="clips of each prompt, with rising seeds")
    parser.add_argument("--no-upscale", action="store_true", help="leave out the super-resolution stage")
    parser.add_argument("--upscale-steps", type=parsing.positive_int, help="its denoising steps, default: the model's")
    parser.add_argument(
        "--prompts",
        metavar="FILE",
        help='one prompt a line, or JSON such as {"prompt": ..., "seed": 1, "output": "a.webp"}; '
        "clips that are there are skipped",
    )
    sampling.add_options(parser)


def run(args: argparse.Namespace) -> None:
    watch = Stopwatch()
    planned = _plan(args)
    if not planned:
        return
    sampling.check_model(args.model)
    pipe = sampling.load(args, watch)
    model, weights = sampling.identify(args.model)
    stage = None if args.no_upscale else pipe.super_resolution
    if stage is None and args.upscale_steps:
        raise LumiereError("--upscale-steps: there is no super-resolution stage to take them")
    for number, job in enumerate(planned, 1):
        if len(planned) > 1:
            print(f"clip {number} of {len(planned)}: {job.prompt}", flush=True)
        recipe = GenerateRecipe(
            prompt=job.prompt,
            negative_prompt=job.negative_prompt,
            seed=job.seed,
            num_inference_steps=args.steps or pipe.config.num_inference_steps,
            guidance_scale=pipe.config.guidance_scale if args.guidance is None else args.guidance,
            num_frames=args.frames,
            fps=args.fps,
            loop=args.loop,
            upscale_steps=0 if stage is None else args.upscale_steps or stage.config.num_inference_steps,
            model=model,
            weights=weights,
            device=pipe.device.type,
            dtype=str(pipe.unet.dtype).removeprefix("torch."),
        )
        frames = _base(pipe, recipe, args, watch)
        if stage is not None:
            frames = _sharpened(stage, frames, recipe, job.output, args, watch)
        sampling.write(frames, job.output, recipe.fps, recipe.metadata(), watch)
        print(f"wrote {job.output} (seed {job.seed})", flush=True)
    print(watch.report())


def _plan(args: argparse.Namespace) -> list[Job]:
    """The clips to make, each with a file that can be written, before anything slow is done."""
    from openlumiere.video import check_writable

    if args.prompts is None:
        if args.prompt is None:
            raise LumiereError('say what to show: lumiere generate "a tiger walking to the left", or give --prompts')
        planned = jobs.from_prompt(
            args.prompt, negative=args.negative, seed=args.seed, output=args.output, count=args.num
        )
    else:
        if args.prompt is not None:
            raise LumiereError("give either a prompt or --prompts FILE, not both")
        if args.output is None:
            raise LumiereError("--prompts needs a folder for the clips: add -o FOLDER")
        folder = Path(args.output)
        every = jobs.from_file(
            Path(args.prompts), negative=args.negative, seed=args.seed, folder=folder, count=args.num
        )
        planned = [job for job in every if not Path(job.output).exists()]
        print(f"{len(planned)} clips to make, {len(every) - len(planned)} already there and skipped", flush=True)
        for job in planned:
            Path(job.output).parent.mkdir(parents=True, exist_ok=True)
    for job in planned:
        check_writable(job.output)
    return planned


def _base(pipe: LumierePipeline, recipe: GenerateRecipe, args: argparse.Namespace, watch: Stopwatch) -> np.ndarray:
    """The base model's clip, (frames, height, width, 3) in [0, 1]."""
    with sampling.watched(pipe, "denoise", recipe.num_inference_steps, watch) as advance:
        return pipe(
            recipe.prompt,
            negative_prompt=recipe.negative_prompt or None,
            num_frames=recipe.num_frames,
            num_inference_steps=recipe.num_inference_steps,
            guidance_scale=recipe.guidance_scale,
            generator=_generator(recipe),
            upscale=False,
            loop=recipe.loop,
            window_batch_size=args.batch,
            offload_frames=args.offload,
            callback_on_step_end=advance,
        )[0][0]


def _sharpened(
    stage: LumiereSuperResolutionPipeline,
    frames: np.ndarray,
    recipe: GenerateRecipe,
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
        again = shlex.join(["lumiere", "upscale", str(base), "-o", output, "--model", args.model])
        print(f"the base clip is kept in {base}; sharpen it with: {again}", file=sys.stderr)
        raise
    base.unlink()
    return sharp


def _generator(recipe: GenerateRecipe) -> torch.Generator:
    import torch

    # On the CPU whatever the device, so that a seed means the same noise everywhere.
    return torch.Generator("cpu").manual_seed(recipe.seed)
