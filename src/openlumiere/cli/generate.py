"""`lumiere generate`: prompts to clips."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from openlumiere.errors import LumiereError
from openlumiere.generation import jobs
from openlumiere.generation.abilities import Abilities
from openlumiere.generation.requests import GenerateRequest

from . import batches, options, parsing, running, stickers
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
            "lumiere generate --prompts prompts.txt -o clips --ray local --workers 2",
            "lumiere generate --prompts million.jsonl --seed 1 -o s3://bucket/clips --ray auto",
        ],
    )
    parser.add_argument("prompt", nargs="?", help="what to show")
    parser.add_argument(
        "-o",
        "--output",
        help=".mp4 (H.264), .mov (ProRes), .webm (VP9), .webp, .apng or .gif (looping), .png (contact sheet), "
        "no suffix: frames; "
        "default: a new .mp4, .webp if transparent, named after the prompt; with --prompts: the folder for the clips, "
        "or an address such as s3://bucket/clips",
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
    options.add_ray(parser, "with --prompts: make the clips")
    options.add_both_stages(parser)
    parser.add_argument("--no-loop", action="store_true", help="with --for, which else makes loops")


def run(args: argparse.Namespace) -> int | None:
    args.loop = args.loop or (args.target is not None and not args.no_loop)
    if args.prompts is None and args.prompt is None:
        raise LumiereError('say what to show: lumiere generate "a tiger walking to the left", or give --prompts')
    if args.prompts is not None and args.prompt is not None:
        raise LumiereError("give either a prompt or --prompts FILE, not both")
    if args.prompts is None and args.ray is not None:
        raise LumiereError("--ray: it makes batches; give it --prompts FILE")
    options.check_ray(args)
    stickers.check_options(args)
    args.abilities = options.abilities(args)
    if args.prompts is not None:
        return _run_batch(args)
    from openlumiere.generation.inputs import check_files

    requests = jobs.from_prompt(_request(_fields(args), args.abilities, prompt=args.prompt), count=args.num)
    for request in requests:  # before anything slow is done
        check_files(request)
    running.make_all(requests, args, about=lambda request: request.prompt)
    return None


def _run_batch(args: argparse.Namespace) -> int:
    from openlumiere.generation.prompt_files import PromptFile
    from openlumiere.storage import Storage

    if args.output is None:
        raise LumiereError("--prompts needs a folder for the clips: add -o FOLDER")
    storage, args.output = Storage(args.output), None
    storage.check()
    template = partial(_request, _fields(args), args.abilities)
    prompts = PromptFile(path=Path(args.prompts), template=template, seed=args.seed, count=args.num)
    return batches.make_batch(prompts, storage, args)


def _fields(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of a request that the options say."""
    return {**options.both_stages_fields(args), "num_frames": args.frames, "fps": args.fps}


def _request(fields: dict[str, Any], abilities: Abilities, **own: Any) -> GenerateRequest:
    """A request of the options, and of what a line of prompts says instead."""
    return options.fitted(GenerateRequest(**{**fields, **own}), abilities)
