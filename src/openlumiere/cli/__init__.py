"""The command line, ``lumiere``: thin, and importing late, so that ``lumiere --help`` answers at once."""

from __future__ import annotations

import os
import platform
import sys
import traceback
from collections.abc import Sequence

from . import (
    compare,
    data,
    detect,
    edit,
    evaluate,
    generate,
    info,
    keys,
    mcp,
    models,
    plan,
    serve,
    stickers,
    study,
    training,
    upscale,
)
from .failures import explain
from .parsing import Parser, new_parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 a bug or a failed check, 2 bad input, 130 interrupted."""
    # Read by OpenMP when PyTorch loads: with its default, two threads on a busy machine can be slower than one.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # NumPy's OpenBLAS can't be told to: beside a training `lumiere detect` took 7.6 s with its two threads, 0.7 s with
    # one. On ARM PyTorch computes with OpenBLAS as well, and needs the threads.
    if platform.machine().lower() in ("x86_64", "amd64"):
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    parser = build_parser()
    args, rest = parser.parse_known_args(argv)
    # argparse leaves out positionals that options cut off from the first.
    if rest and not any(word.startswith("-") for word in rest):
        if hasattr(args, "overrides") and all("=" in word for word in rest):  # train t2i --config FILE KEY=VALUE
            args.overrides += rest
            rest = []
        elif not getattr(args, "prompt", "none to give") and len(rest) == 1:  # animate IMAGE --last IMAGE PROMPT
            (args.prompt,), rest = rest, []
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        return int(args.run(args) or 0)
    except KeyboardInterrupt as interrupt:
        return _fail(interrupt, "lumiere: interrupted", 130, debug=args.debug)
    except BrokenPipeError:
        # The reader went away, as in `lumiere info clip.mp4 | head -1`; Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        message, code = explain(error)
        return _fail(error, f"lumiere: error: {message}", code, debug=args.debug)


def build_parser() -> Parser:
    """The parser of the whole command line; a module of this package adds each group of commands."""
    parser = new_parser()
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for group in (
        generate,
        edit,
        upscale,
        stickers,
        serve,
        keys,
        mcp,
        info,
        detect,
        models,
        plan,
        data,
        training,
        evaluate,
        compare,
        study,
    ):
        group.register(commands)
    return parser


def _fail(error: BaseException, line: str, code: int, *, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    for note in getattr(error, "__notes__", ()):  # such as what is kept of a clip
        print(note, file=sys.stderr)
    print(line, file=sys.stderr)
    return code
