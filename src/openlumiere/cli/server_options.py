"""Options that several of `lumiere serve`, `worker`, `keys` and `mcp` take, and what is made of them."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from . import parsing
from .parsing import Parser

if TYPE_CHECKING:
    from openlumiere.app.settings import ModerationSettings

DATABASE_VARIABLE = "LUMIERE_DATABASE_URL"  # holds a password, which other users see in a command line
CLASSIFIER_VARIABLE = "LUMIERE_CLASSIFIER_KEY"


def add_data(parser: Parser) -> None:
    parser.add_argument(
        "--data", type=Path, default=_data_folder(), metavar="DIR",
        help="folder of all that is kept, default: $XDG_DATA_HOME/lumiere, or ~/.local/share/lumiere",
    )  # fmt: skip
    parser.add_argument(
        "--database-url", metavar="URL", default=os.environ.get(DATABASE_VARIABLE, ""),
        help="postgresql://USER:PASSWORD@HOST/NAME, for workers on several machines; default: what "
        f"{DATABASE_VARIABLE} says, else SQLite in --data",
    )  # fmt: skip


def add_device(parser: Parser) -> None:
    parser.add_argument("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto")
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16", "float16"], default="auto")


def add_moderation(parser: Parser) -> None:
    group = parser.add_argument_group("what may not be asked for")
    group.add_argument(
        "--block-list", type=Path, metavar="FILE",
        help="refuse prompts that hold one of these words, one or several in a line, such as knife or bloody knife; "
        "knif* is every word that begins so, # begins a comment. Read again when it changes; default: none",
    )  # fmt: skip
    group.add_argument(
        "--classifier", default="", metavar="URL",
        help="ask this address about each prompt and picture, as OpenAI's moderation endpoint is asked, and refuse "
        f"what it flags, or does not answer; its key is taken from {CLASSIFIER_VARIABLE}; default: none",
    )  # fmt: skip
    group.add_argument(
        "--classifier-seconds", type=parsing.positive_float, default=10.0, metavar="N",
        help="to wait for its answer, default: 10",
    )  # fmt: skip


def _data_folder() -> Path:
    return Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share") / "lumiere"


def moderation(args: argparse.Namespace) -> ModerationSettings:
    from openlumiere.app.settings import ModerationSettings

    own = vars(args)
    return ModerationSettings(
        block_list=str(args.block_list.expanduser()) if own.get("block_list") else "",
        classifier=own.get("classifier", ""),
        classifier_key=os.environ.get(CLASSIFIER_VARIABLE, ""),
        classifier_seconds=own.get("classifier_seconds", 10.0),
    )


def log(level: str, *, quiet: bool) -> None:
    """Log to stderr."""
    import logging
    import warnings

    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if quiet:
        warnings.simplefilter("ignore")  # of libraries, about themselves
