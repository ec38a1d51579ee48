"""Stickers on the command line: `lumiere sticker`, and ``--for`` of the commands that make clips."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openlumiere.errors import LumiereError

from . import parsing
from .parsing import Commands, add_command
from .stages import Stopwatch

if TYPE_CHECKING:
    import numpy as np

# The key in a file's metadata that tells the options of its sticker, quoted for a shell.
METADATA_KEY = "sticker"
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


def suffix_for(args: argparse.Namespace) -> str | None:
    """The suffix of a sticker whose name the user leaves to us; None where no sticker is asked for."""
    if args.target is None:
        return None
    from openlumiere.video.stickers import target_for

    return target_for(args.target).suffixes[0]


def check_output(output: str, args: argparse.Namespace) -> None:
    """Refuse what could not be written, before any work is done.

    Raises:
        LumiereError: a bad place or colour, a file that the target doesn't take, or options of stickers without one.
    """
    from openlumiere.video import check_writable, colour

    check_writable(output)
    if args.target is None:
        if given := _options(args):
            raise LumiereError(f"{given[0]} is for stickers; say of which service: --for {'|'.join(NAMES)}")
        return
    from openlumiere.video.stickers import target_for

    target_for(args.target, output)
    colour(args.outline_colour)


def write_sticker(
    frames: np.ndarray, output: str, fps: float, metadata: dict[str, Any], args: argparse.Namespace,
    *, period: float | None = None,
) -> str:  # fmt: skip
    """Make a sticker as the options say, behind a counter of attempts.

    Args:
        period: seconds after which the clip repeats itself, if known.

    Returns:
        A line about it.
    """
    from tqdm import tqdm

    from openlumiere.video.stickers import make_sticker

    with tqdm(desc="fitting  ", unit=" attempts", bar_format="{desc}: {n_fmt}{unit}{postfix}") as progress:

        def advance(tried: str) -> None:
            progress.set_postfix_str(tried, refresh=False)
            progress.update()

        report = make_sticker(
            frames, fps, args.target, output,
            crop=args.crop == "subject", outline=args.outline, outline_colour=args.outline_colour,
            background=background_of(args), period=period, speed_up=args.speed_up,
            metadata={**metadata, METADATA_KEY: shlex.join(words(args))}, progress=advance,
        )  # fmt: skip
    return report.line()


def background_of(args: argparse.Namespace | None) -> str | None:
    """What files lay half transparent edges over: nothing by default, as a GIF's edges keep their own colour then."""
    background: str | None = getattr(args, "background", None)
    return None if background == "white" else background


def words(args: argparse.Namespace) -> list[str]:
    """The options as a shell would be given them; none where no sticker is asked for."""
    return [] if args.target is None else ["--for", args.target, *_options(args)]


def _options(args: argparse.Namespace) -> list[str]:
    return [
        *(["--crop", args.crop] if args.crop else []),
        *(["--outline", str(args.outline)] if args.outline else []),
        *(["--outline-colour", args.outline_colour] if args.outline_colour != "white" else []),
        *(["--speed-up"] if args.speed_up else []),
    ]  # fmt: skip


def run(args: argparse.Namespace) -> None:
    from openlumiere.video import colour, read_clip, read_metadata

    watch = Stopwatch()
    output = args.output or _beside(args.clip, args)
    check_output(output, args)
    if args.background is not None:
        colour(args.background)
    with watch.stage("read"):
        metadata = read_metadata(args.clip)
        clip = read_clip(args.clip)
    if len(clip.frames) == 1 and Path(args.clip).suffix.lower() == ".png":
        raise LumiereError(f"{args.clip} is a still picture; make it move with: lumiere animate {args.clip}")
    with watch.stage("sticker"):
        period = args.period or (len(clip.frames) / clip.fps if metadata.get("loop") else None)
        line = write_sticker(clip.frames, output, clip.fps, metadata, args, period=period)
    print(f"wrote {output} for {args.target}: {line}")
    print(watch.report())


def _beside(clip: str, args: argparse.Namespace) -> str:
    """A name that replaces no other file."""
    path = Path(clip.rstrip("/"))
    stem, suffix = path.name if path.is_dir() else path.stem, suffix_for(args)
    names = (f"{stem}.{args.target}{f'-v{i}' if i > 1 else ''}{suffix}" for i in range(1, 1000))
    return next(str(path.with_name(name)) for name in names if not path.with_name(name).exists())
