"""Stickers on the command line: `lumiere sticker`, and ``--for`` of the commands that make clips."""

from __future__ import annotations

import argparse
from pathlib import Path

from openlumiere.errors import LumiereError
from openlumiere.generation.jobs import free_names
from openlumiere.generation.options import shape_words
from openlumiere.generation.requests import Sticker

from . import marking, parsing
from .parsing import Commands, add_command
from .progress import Stopwatch, attempts_bar

# As openlumiere.video.stickers.TARGETS, which imports NumPy: the test holds them together.
NAMES = ("telegram", "telegram-emoji", "whatsapp", "discord", "discord-emoji", "slack")


def register(commands: Commands) -> None:
    parser = add_command(
        commands,
        "sticker",
        run,
        help="make a sticker of a clip",
        more="Format, size, length, frame rate and bytes are what the service takes; the file is checked.",
        example=[
            "lumiere sticker wave.webp --for telegram",
            "lumiere sticker cat.gif --for whatsapp --crop subject --outline 8 -o cat.webp",
            "lumiere sticker frames/ --for slack --speed-up",
        ],
    )
    parser.add_argument("clip", help="a video, an animated picture, or a folder of frames; with alpha or without")
    parser.add_argument("-o", "--output", help="default: the clip's name with the service's before its suffix")
    add_options(parser, required=True)
    parser.add_argument(
        "--background", metavar="COLOUR",
        help="what a GIF's half transparent edge is laid over, a name or #rrggbb; default: its own colour",
    )  # fmt: skip
    marking.add_no_mark(parser)
    parser.add_argument(
        "--period", type=parsing.positive_float, metavar="SECONDS",
        help="after which the clip repeats itself, to cut it to whole loops; default: looked for",
    )  # fmt: skip


def add_options(parser: parsing.Parser, *, required: bool = False) -> None:
    """Add what makes a sticker of a clip."""
    group = parser.add_argument_group("stickers")
    group.add_argument(
        "--for", dest="target", choices=NAMES, required=required,
        help="make a sticker or emoji as this service takes it",
    )  # fmt: skip
    group.add_argument("--crop", choices=["subject"], help="cut to what is not transparent, with a margin")
    group.add_argument(
        "--outline", type=parsing.whole, default=0, metavar="PIXELS",
        help="draw a line around it, so wide in the finished sticker; default: 0",
    )  # fmt: skip
    group.add_argument("--outline-colour", default="white", metavar="COLOUR", help="default: white")
    group.add_argument("--speed-up", action="store_true", help="play what is too long faster, rather than cut it")


def sticker_of(args: argparse.Namespace) -> Sticker | None:
    """Return the sticker that the options ask for."""
    return None if args.target is None else _sticker(args, args.target)


def check_options(args: argparse.Namespace) -> None:
    """Refuse options of stickers without one."""
    given = shape_words(_sticker(args, ""))
    if args.target is None and given:
        raise LumiereError(f"{given[0]} is for stickers; say of which service: --for {'|'.join(NAMES)}")


def _sticker(args: argparse.Namespace, target: str) -> Sticker:
    return Sticker(
        target=target, crop=args.crop is not None, outline=args.outline, outline_colour=args.outline_colour,
        speed_up=args.speed_up,
    )  # fmt: skip


def run(args: argparse.Namespace) -> None:
    from openlumiere.generation.stickers import sticker_from_file
    from openlumiere.video import check_writable, colour
    from openlumiere.video.stickers import target_for

    watch = Stopwatch()
    output = args.output or _free_name(args.clip, args.target, target_for(args.target).suffixes[0])
    check_writable(output)
    target_for(args.target, output)
    for name in (args.outline_colour, args.background or "white"):
        colour(name)
    marker = marking.marker(args)
    with watch.stage("sticker"), attempts_bar() as progress:

        def advance(tried: str) -> None:
            progress.set_postfix_str(tried, refresh=False)
            progress.update()

        report = sticker_from_file(
            args.clip, _sticker(args, args.target), output,
            background=None if args.background == "white" else args.background, period=args.period, marker=marker,
            progress=advance,
        )  # fmt: skip
    print(f"wrote {output} for {args.target}: {report.line()}")
    print(watch.report())


def _free_name(clip: str, target: str, suffix: str) -> str:
    """A name beside the clip that replaces no other file."""
    path = Path(clip.rstrip("/"))
    stem = path.name if path.is_dir() else path.stem
    return free_names(str(path.with_name(f"{stem}.{target}")), 1, suffix)[0]
