"""Whether a command marks and signs what it writes: it does, unless ``--no-mark`` is given."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from . import parsing

if TYPE_CHECKING:
    from openlumiere.provenance.marking import Marker


def add_no_mark(parser: parsing.Parser) -> None:
    """Add what leaves out watermark and credentials, see `marker`."""
    parser.add_argument(
        "--no-mark", dest="mark", action="store_false",
        help="put no watermark into the frames and sign nothing, as for clips that are measured; the law may demand "
        "marks on what is published",
    )  # fmt: skip


def marker(args: argparse.Namespace) -> Marker | None:
    """Return what marks and signs; None where `add_no_mark` says so, which is printed."""
    if not args.mark:
        print("--no-mark: what is written is neither marked nor signed", file=sys.stderr, flush=True)
        return None
    from openlumiere.provenance.marking import Marker

    return Marker.load()
