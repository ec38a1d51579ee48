"""`lumiere upscale`: any clip to a sharper one."""

from __future__ import annotations

import argparse
from dataclasses import replace

from openlumiere.generation import jobs
from openlumiere.generation.recipe import prompt_of
from openlumiere.generation.requests import UpscaleRequest

from . import options, parsing, running, stickers
from .parsing import Commands, add_command


def register(commands: Commands) -> None:
    parser = add_command(
        commands,
        "upscale",
        run,
        help="make a clip sharper",
        more="The clip may have any length, size and rate.",
        example=[
            "lumiere upscale soft.mp4 -o sharp.mp4",
            'lumiere upscale tiger.base.webp "a tiger on a green background" --seed 7 -o tiger.mp4',
        ],
    )
    parser.add_argument("clip", help="a video, an animated WebP or GIF, or a folder of frames")
    parser.add_argument("prompt", nargs="?", help="what it shows, default: what its metadata says")
    parser.add_argument(
        "-o", "--output",
        help="as of lumiere generate; default: a new file named after the clip with .sharp before its suffix, where "
        "that is of a format that holds what the clip does",
    )  # fmt: skip
    parser.add_argument(
        "--noise-level", type=parsing.timestep, metavar="0..999",
        help="noise given to the clip first: more lets more of it be drawn anew, default: the model's",
    )  # fmt: skip
    options.add_sampling(parser)
    options.add_transparency(parser, "where the clip has any")


def run(args: argparse.Namespace) -> None:
    from openlumiere.generation.inputs import check_files
    from openlumiere.video import read_metadata

    stickers.check_options(args)
    prompt = prompt_of(read_metadata(args.clip)) if args.prompt is None else args.prompt
    fields = options.sampling_fields(args)
    request = options.fitted(
        UpscaleRequest(prompt=prompt, source=args.clip, noise_level=args.noise_level, **fields),
        options.abilities(args),
    )
    if not request.output:
        request = replace(request, output=jobs.sharp_name(request))
    check_files(request)
    running.make_all([request], args, about=lambda request: request.output)
