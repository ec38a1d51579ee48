"""The commands that start from a picture or a clip: `animate`, `inpaint`, `outpaint`, `cinemagraph`, `restyle`,
`extend` and `interpolate`.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields
from typing import Any

from openlumiere.generation import jobs
from openlumiere.generation.options import option_of, own_fields, parse_box, parse_proportions
from openlumiere.generation.requests import TASKS, EditRequest, RegionRequest

from . import options, parsing, running, stickers
from .parsing import Commands, add_command


@dataclass(frozen=True)
class _Command:
    """A command; its own options are its request's fields, as `_OPTIONS` describes them.

    Attributes:
        source: what it starts from.
        changes: what a mask is white for.
        help_of: of options that mean something else here.
    """

    task: str
    source: str
    help: str
    examples: tuple[str, ...]
    more: str = ""
    changes: str = ""
    needs_prompt: bool = False
    help_of: tuple[tuple[str, str], ...] = ()


_SOURCES = {
    "image": "any picture; of an animated one the first frame",
    "clip": "a video, an animated WebP or GIF, or a folder of frames",
}
_LENGTH = (("num_frames", "default: the model's, 80"), ("fps", "frames per second, default: the model's, 16"))
_COMMANDS = (
    _Command(
        "animate", "image", "make a picture move",
        (
            'lumiere animate tiger.png "a tiger walking to the left" -o tiger.mp4',
            'lumiere animate closed.png --last open.png "a flower opening" -o flower.webp',
        ),
        more="The clip starts with the picture; with --last it ends with another.",
        help_of=_LENGTH,
    ),
    _Command(
        "inpaint", "clip", "change a region of a clip, or put something into it",
        (
            'lumiere inpaint walk.mp4 "a red hat" --mask hat.png -o hat.mp4',
            'lumiere inpaint walk.mp4 "a plain green background" --box 0,0,64,40',
        ),
        more="All that lies outside the region stays as it is.",
        changes="change",
    ),
    _Command(
        "outpaint", "clip", "make the frame of a clip larger",
        ('lumiere outpaint square.mp4 --to 16:9 "a tiger on a green background" -o wide.mp4',),
    ),
    _Command(
        "cinemagraph", "image", "make a region of a picture move, and nothing else",
        ('lumiere cinemagraph campfire.jpg --mask flame.png "a burning fire" -o campfire.webp',),
        more="The clip is a loop unless --no-loop is given.",
        changes="move",
        help_of=_LENGTH,
    ),
    _Command(
        "restyle", "clip", "make a clip anew after a prompt, keeping how it moves",
        ('lumiere restyle walk.mp4 "a fox walking to the left" --strength 0.7 -o fox.mp4',),
        more="The clip gets noise, and is denoised as the prompt says (SDEdit).",
        needs_prompt=True,
    ),
    _Command(
        "extend", "clip", "make a clip go on",
        ('lumiere extend walk.mp4 --frames 40 "a tiger walking to the left" -o longer.mp4',),
        help_of=(("num_frames", "frames to add, default: half of what the model makes at once, 40"),),
    ),
    _Command(
        "interpolate", "clip", "make new frames between those of a clip",
        ("lumiere interpolate choppy.gif --factor 4 -o smooth.webp",),
        more="The clip lasts as long as before, with more frames per second.",
    ),
)  # fmt: skip


# How each field of a request is given; its default is the request's own.
_OPTIONS: dict[str, dict[str, Any]] = {
    "last": {"metavar": "IMAGE", "help": "the picture that the clip ends with"},
    "mask": {
        "metavar": "FILE",
        "help": "a picture, or a clip, white where it should {changes}; of the same proportions as what it is for",
    },
    "box": {
        "type": parsing.of(parse_box),
        "metavar": "X,Y,W,H",
        "help": "a rectangle instead: left, top, width and height in pixels, or in fractions if none is above 1",
    },
    "to": {
        "type": parsing.of(parse_proportions),
        "required": True,
        "metavar": "W:H",
        "help": "the new proportions, such as 16:9",
    },
    "strength": {"type": parsing.fraction, "help": "0 keeps the clip, 1 keeps nothing of it, default: 0.7"},
    "factor": {"type": parsing.positive_int, "help": "times as many, default: 2"},
    "num_frames": {
        "type": parsing.positive_int,
        "dest": "frames",
        "help": "work on its first frames only, default: all",
    },
    "fps": {
        "type": parsing.positive_float,
        "help": "the rate to work at: the clip's frames are repeated or left out to play on time; default: the "
        "model's, 16",
    },
    "fit": {
        "choices": ["crop", "pad", "stretch"],
        "help": "how inputs of other proportions are brought to the model's: cut off evenly, fill up with the colours "
        "of the edges, or stretch; default: crop",
    },
    "feather": {
        "type": parsing.whole,
        "metavar": "PIXELS",
        "help": "let what is kept fade into what is made over so many pixels of the result, default: 0",
    },
    "rigid": {
        "action": argparse.BooleanOptionalAction,
        "help": "keep the subject as it was drawn, wherever it goes; --no-rigid: it moves by itself, too, as the model "
        "would have it; default: rigid if the model doesn't know what is shown",
    },
}


def register(commands: Commands) -> None:
    for command in _COMMANDS:
        _register(commands, command)


def _register(commands: Commands, command: _Command) -> None:
    kind = TASKS[command.task]
    assert issubclass(kind, EditRequest)
    parser = add_command(
        commands, command.task, run, help=command.help, more=command.more, example=list(command.examples)
    )
    parser.set_defaults(request=kind)
    parser.add_argument("source", metavar=command.source.upper(), help=_SOURCES[command.source])
    optional: dict[str, Any] = {} if command.needs_prompt else {"nargs": "?", "default": ""}
    parser.add_argument("prompt", help="what it should show", **optional)
    parser.add_argument(
        "-o", "--output",
        help=f"as of lumiere generate; default: a new .mp4, or .webp if transparent, named after the {command.source}",
    )  # fmt: skip
    options.add_both_stages(parser)
    region = parser.add_mutually_exclusive_group(required=True) if issubclass(kind, RegionRequest) else parser
    defaults = {field.name: field.default for field in fields(kind)}
    for name in own_fields(kind):
        about = dict(_OPTIONS[name])
        about["help"] = dict(command.help_of).get(name, about["help"]).format(changes=command.changes)
        if "required" not in about:
            about["default"] = defaults[name]
        group: Any = region if name in ("mask", "box") else parser
        group.add_argument(option_of(name), **about)
        if name == "box" and command.task == "cinemagraph":
            parser.add_argument(
                "--no-loop", dest="loop", action="store_false", help="let the end differ from the start"
            )
            parser.set_defaults(loop=True)


def run(args: argparse.Namespace) -> None:
    from openlumiere.generation.inputs import check_files

    stickers.check_options(args)
    own = {name: getattr(args, _OPTIONS[name].get("dest", name)) for name in own_fields(args.request)}
    request: EditRequest = args.request(
        source=args.source, prompt=args.prompt, **options.both_stages_fields(args), **own
    )
    requests = jobs.from_source(options.fitted(request, options.abilities(args)), count=args.num)
    for each in requests:
        check_files(each)
    running.make_all(requests, args, about=lambda request: f"seed {request.seed}")
