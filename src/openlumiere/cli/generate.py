"""`lumiere generate`: prompts to clips."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from openlumiere.errors import LumiereError
from openlumiere.generation import jobs
from openlumiere.generation.requests import GenerateRequest

from . import options, parsing, running, stickers
from .parsing import Commands, add_command


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
        help="default: the model's, 80, or as many as a sticker may last; longer clips are made in windows",
    )  # fmt: skip
    parser.add_argument("--fps", type=parsing.positive_float, help="frames per second, default: the model's, 16")
    parser.add_argument(
        "--prompts",
        metavar="FILE",
        help='one prompt a line, or JSON such as {"prompt": ..., "seed": 1, "output": "a.webp"}; '
        "clips that are there are skipped",
    )
    options.add_both_stages(parser)
    parser.add_argument("--no-loop", action="store_true", help="with --for, which else makes loops")


def run(args: argparse.Namespace) -> None:
    args.loop = args.loop or (args.target is not None and not args.no_loop)
    requests = _requests(args)
    if requests:
        running.make_all(requests, args, about=lambda request: request.prompt)


def _requests(args: argparse.Namespace) -> list[GenerateRequest]:
    """The clips to make, each with files that can be read and written, before anything slow is done."""
    from openlumiere.generation.inputs import check_files

    if args.prompts is None and args.prompt is None:
        raise LumiereError('say what to show: lumiere generate "a tiger walking to the left", or give --prompts')
    if args.prompts is not None and args.prompt is not None:
        raise LumiereError("give either a prompt or --prompts FILE, not both")
    stickers.check_options(args)
    args.abilities = options.abilities(args)
    requests = _from_prompt(args) if args.prompts is None else _from_file(args)
    for request in requests:
        check_files(request)
    return requests


def _from_prompt(args: argparse.Namespace) -> list[GenerateRequest]:
    return jobs.from_prompt(_request(args, prompt=args.prompt), count=args.num)


def _from_file(args: argparse.Namespace) -> list[GenerateRequest]:
    if args.output is None:
        raise LumiereError("--prompts needs a folder for the clips: add -o FOLDER")
    folder, args.output = Path(args.output), None
    every = jobs.from_file(Path(args.prompts), partial(_request, args), folder=folder, seed=args.seed, count=args.num)
    wanted = [request for request in every if not Path(request.output).exists()]
    print(f"{len(wanted)} clips to make, {len(every) - len(wanted)} already there and skipped", flush=True)
    for request in wanted:
        Path(request.output).parent.mkdir(parents=True, exist_ok=True)
    return wanted


def _request(args: argparse.Namespace, **own: Any) -> GenerateRequest:
    """A request of the options, and of what a line of prompts says instead."""
    fields = {**options.both_stages_fields(args), **own}
    return options.fitted(GenerateRequest(**fields, num_frames=args.frames, fps=args.fps), args.abilities)
