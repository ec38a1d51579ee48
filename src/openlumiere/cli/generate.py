"""`lumiere generate`: prompts to clips."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from openlumiere.errors import LumiereError

from . import jobs, making, parsing, sampling, stickers
from .jobs import Job
from .parsing import Commands, add_command
from .recipe import GenerateRecipe
from .stages import Stopwatch

_FRAMES = 80  # of the clips that the bundled models are trained on


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
            'lumiere generate "a waving hand" --for telegram -o wave.webm',
            "lumiere generate --prompts prompts.txt -o clips    # stop it and start it again: it goes on",
        ],
    )
    parser.add_argument("prompt", nargs="?", help="what to show")
    parser.add_argument(
        "-o",
        "--output",
        help=".mp4 (H.264), .mov (ProRes), .webm (VP9), .webp, .apng or .gif (looping), .png (contact sheet), "
        "no suffix: frames; "
        "default: a new .mp4, .webp if transparent, named after the prompt; with --prompts: the folder for the clips",
    )
    parser.add_argument(
        "--frames", type=parsing.positive_int,
        help="default: 80, or as many as a sticker may last; longer clips are made in windows",
    )  # fmt: skip
    parser.add_argument("--fps", type=parsing.positive_float, default=16.0, help="frames per second, default: 16")
    parser.add_argument(
        "--prompts",
        metavar="FILE",
        help='one prompt a line, or JSON such as {"prompt": ..., "seed": 1, "output": "a.webp"}; '
        "clips that are there are skipped",
    )
    making.add_options(parser)
    parser.add_argument("--no-loop", action="store_true", help="with --for, which else makes loops")


def run(args: argparse.Namespace) -> None:
    watch = Stopwatch()
    args.loop = args.loop or (args.target is not None and not args.no_loop)
    planned = _plan(args)
    if not planned:
        return
    sampling.check_model(args.model)
    pipe = sampling.load(args, watch)
    making.set_styles(pipe, args)
    stage = making.second_stage(pipe, args)
    frames = args.frames or _length(args, pipe.unet.frame_multiple)
    for number, job in enumerate(planned, 1):
        if len(planned) > 1:
            print(f"clip {number} of {len(planned)}: {job.prompt}", flush=True)
        recipe = GenerateRecipe(num_frames=frames, fps=args.fps, **making.recipe_of(pipe, stage, job, args))
        making.make(pipe, stage, recipe, job.output, args, watch, num_frames=recipe.num_frames)
    print(watch.report())


def _length(args: argparse.Namespace, multiple: int) -> int:
    """Frames by default: as long as a sticker may last, so that a loop stays whole."""
    if args.target is None:
        return _FRAMES
    from openlumiere.video.stickers import target_for

    seconds = target_for(args.target).max_seconds
    most = _FRAMES if seconds is None else min(int(seconds * args.fps + 1e-6), _FRAMES)
    return max(most // multiple, 1) * multiple


def _plan(args: argparse.Namespace) -> list[Job]:
    """The clips to make, each with a file that can be written, before anything slow is done."""
    from openlumiere.video import colour

    colour(args.background)
    how: dict[str, Any] = {
        "negative": args.negative, "seed": args.seed, "count": args.num, "transparent": sampling.wants_alpha(args),
        "suffix": stickers.suffix_for(args),
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
        stickers.check_output(job.output, args)
    return planned
