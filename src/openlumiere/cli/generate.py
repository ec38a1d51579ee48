"""`lumiere generate`: prompts to clips."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from openlumiere.errors import LumiereError

from . import jobs, making, parsing, sampling
from .jobs import Job
from .parsing import Commands, add_command
from .recipe import GenerateRecipe
from .stages import Stopwatch


def register(commands: Commands) -> None:
    parser = add_command(
        commands,
        "generate",
        run,
        help="make a clip that shows what a prompt says",
        more="The same seed gives the same clip on the same machine.",
        example=[
            'lumiere generate "a tiger walking to the left on a green background" -o tiger.mp4',
            'lumiere generate "a heart growing" --style flat --style-strength 0.8 -o flat.webp',
            'lumiere generate "a waving hand" --transparent -o wave.webp',
            'lumiere generate "a red heart growing" --seed 7 --num 4 -o heart.webp',
            "lumiere generate --prompts prompts.txt -o clips    # stop it and start it again: it goes on",
        ],
    )
    parser.add_argument("prompt", nargs="?", help="what to show")
    parser.add_argument(
        "-o",
        "--output",
        help=".mp4 (H.264), .mov (ProRes), .webp or .gif (looping), .png (contact sheet), no suffix: frames; "
        "default: a new .mp4, .webp if transparent, named after the prompt; with --prompts: the folder for the clips",
    )
    parser.add_argument(
        "--frames", type=parsing.positive_int, default=80, help="default: 80; longer clips are made in windows"
    )
    parser.add_argument("--fps", type=parsing.positive_float, default=16.0, help="frames per second, default: 16")
    parser.add_argument(
        "--prompts",
        metavar="FILE",
        help='one prompt a line, or JSON such as {"prompt": ..., "seed": 1, "output": "a.webp"}; '
        "clips that are there are skipped",
    )
    making.add_options(parser)


def run(args: argparse.Namespace) -> None:
    watch = Stopwatch()
    planned = _plan(args)
    if not planned:
        return
    sampling.check_model(args.model)
    pipe = sampling.load(args, watch)
    making.set_styles(pipe, args)
    stage = making.second_stage(pipe, args)
    for number, job in enumerate(planned, 1):
        if len(planned) > 1:
            print(f"clip {number} of {len(planned)}: {job.prompt}", flush=True)
        recipe = GenerateRecipe(num_frames=args.frames, fps=args.fps, **making.recipe_of(pipe, stage, job, args))
        making.make(pipe, stage, recipe, job.output, args, watch, num_frames=recipe.num_frames)
    print(watch.report())


def _plan(args: argparse.Namespace) -> list[Job]:
    """The clips to make, each with a file that can be written, before anything slow is done."""
    from openlumiere.video import check_writable, colour

    colour(args.background)
    how: dict[str, Any] = {
        "negative": args.negative, "seed": args.seed, "count": args.num, "transparent": sampling.wants_alpha(args),
    }  # fmt: skip
    if args.prompts is None:
        if args.prompt is None:
            raise LumiereError('say what to show: lumiere generate "a tiger walking to the left", or give --prompts')
        planned = jobs.from_prompt(args.prompt, output=args.output, **how)
    else:
        if args.prompt is not None:
            raise LumiereError("give either a prompt or --prompts FILE, not both")
        if args.output is None:
            raise LumiereError("--prompts needs a folder for the clips: add -o FOLDER")
        folder = Path(args.output)
        every = jobs.from_file(Path(args.prompts), folder=folder, **how)
        planned = [job for job in every if not Path(job.output).exists()]
        print(f"{len(planned)} clips to make, {len(every) - len(planned)} already there and skipped", flush=True)
        for job in planned:
            Path(job.output).parent.mkdir(parents=True, exist_ok=True)
    for job in planned:
        check_writable(job.output)
    return planned
