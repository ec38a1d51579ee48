"""What the commands' argument parsers share."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import openlumiere
from openlumiere.diffusion.way_points import parse_way_points
from openlumiere.errors import LumiereError

Commands = Any  # argparse's subparsers action, which has no public name
Run = Callable[[argparse.Namespace], "int | None"]


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"lumiere: error: {message}; see: {self.prog} --help\n")

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        # Before Python 3.13 argparse drops "--" even where it is an option's value, as in --negative=--.
        if action.option_strings and arg_strings == ["--"]:
            return "--" if action.type is None else action.type("--")  # type: ignore[operator]
        return super()._get_values(action, arg_strings)


def new_parser() -> Parser:
    """The outermost parser, without commands."""
    parser = Parser(
        prog="lumiere",
        description="Text to a five-second clip by a space-time U-Net.",
        epilog=examples(
            'lumiere generate "a tiger walking to the left on a green background" -o tiger.mp4',
            "lumiere info tiger.mp4",
            "lumiere doctor",
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"lumiere {openlumiere.__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def add_command(commands: Commands, name: str, run: Run, *, help: str, example: list[str], more: str = "") -> Parser:
    """Add a command whose ``--help`` says `help` and `more` and ends with examples."""
    parser: Parser = commands.add_parser(
        name,
        help=help,
        description=f"{help[0].upper()}{help[1:]}.{f' {more}' if more else ''}",
        epilog=examples(*example),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    # SUPPRESS keeps what was said before the command.
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show an error's traceback")
    parser.set_defaults(run=run)
    return parser


def examples(*lines: str) -> str:
    """The closing part of a help text."""
    return "examples:\n" + "\n".join(f"  {line}" for line in lines)


def add_emoji_data(parser: Parser) -> None:
    """Ask for the real emoji clips."""
    parser.add_argument(
        "--data", default=Path("data/emoji-256"), type=Path,
        help="folder that lumiere data emoji wrote, default: data/emoji-256",
    )  # fmt: skip


def positive_int(text: str) -> int:
    """An argument that counts something."""
    return _number(text, int, lambda value: value >= 1, "a whole number, 1 or more")


def positive_float(text: str) -> float:
    """An argument such as frames per second."""
    return _number(text, float, lambda value: value > 0, "a number above 0")


def guidance(text: str) -> float:
    """A guidance scale."""
    return _number(text, float, lambda value: value >= 0, "a number, 0 or more")


def interval(text: str) -> tuple[float, float]:
    """Two numbers from 0 to 1, the smaller first."""
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        low, high = 1.0, 0.0
    if not 0 <= low <= high <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not two numbers from 0 to 1 such as 0.4,1")
    return low, high


def names(text: str) -> tuple[str, ...]:
    """Names with commas between them."""
    found = tuple(part.strip() for part in text.split(","))
    if not all(found):
        raise argparse.ArgumentTypeError(f"{text!r} is not names with commas between them such as cuda:0,cuda:1")
    return found


def timestep(text: str) -> int:
    """A timestep of the noise schedule."""
    return _number(text, int, lambda value: 0 <= value < 1000, "a whole number from 0 to 999")


def whole(text: str) -> int:
    """An argument such as a number of pixels."""
    return _number(text, int, lambda value: value >= 0, "a whole number, 0 or more")


def port(text: str) -> int:
    """A port to listen on; 0 = any free one."""
    return _number(text, int, lambda value: 0 <= value <= 65535, "a port, 0 to 65535")


def fraction(text: str) -> float:
    """An argument such as a strength."""
    return _number(text, float, lambda value: 0 <= value <= 1, "a number from 0 to 1")


def strength(text: str) -> float:
    """How much of a style: any number."""
    return _number(text, float, lambda _: True, "a number")


def seed(text: str) -> int:
    """A seed that torch.Generator takes."""
    return _number(text, int, lambda value: 0 <= value < 2**63, "a whole number from 0 to 2^63 - 1")


def way_points(text: str) -> list[tuple[float | None, ...]]:
    """A path for the subject, such as "0.1,0.5 0.9,0.5"."""
    try:
        return parse_way_points(text)
    except LumiereError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _number(text: str, kind: Callable[[str], Any], fits: Callable[[Any], bool], wanted: str) -> Any:
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or not fits(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
    return value


def memory(text: str) -> int:
    """Read an amount of memory such as ``12GB``, ``12GiB`` or ``800MB``, a number alone in GB; in bytes."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]i?B?)?", text.strip(), re.IGNORECASE)
    if found is None or float(found[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not an amount of memory such as 12GB")
    unit = (found[2] or "GB").upper()
    return int(float(found[1]) * (1024 if "I" in unit else 1000) ** " KMGT".index(unit[0]))


def of(reader: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a type of arguments, of a function that raises LumiereError."""

    def read(text: str) -> Any:
        try:
            return reader(text)
        except LumiereError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return read
