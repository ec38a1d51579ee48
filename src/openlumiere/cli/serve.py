"""`lumiere mcp`: clips and stickers for assistants."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from openlumiere import extras
from openlumiere.generation.models import DEFAULT_MODEL

from .parsing import Commands, add_command

KEY_VARIABLE = "LUMIERE_API_KEY"


def register(commands: Commands) -> None:
    _register_mcp(commands)


def _register_mcp(commands: Commands) -> None:
    mcp = add_command(
        commands,
        "mcp",
        run_mcp,
        help="let assistants make clips and stickers, as a server of the Model Context Protocol",
        more="It speaks over the standard input and output: an assistant's program starts it. It works by itself, or "
        f"with --url hands all work to a running lumiere serve, whose key it takes from {KEY_VARIABLE}.",
        example=["lumiere mcp", "lumiere mcp -o ~/stickers", "lumiere mcp --url http://127.0.0.1:8000"],
    )
    mcp.add_argument(
        "-o", "--output", type=Path, default=Path("~/lumiere"), metavar="FOLDER",
        help="where the files go, default: ~/lumiere",
    )  # fmt: skip
    mcp.add_argument("--url", help="address of a running lumiere serve that makes the clips")
    mcp.add_argument("--model", help=f"bundled name, local folder or hub id, default: {DEFAULT_MODEL}, or the server's")
    mcp.add_argument("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto", help="without --url")
    mcp.add_argument(
        "--dtype", choices=["auto", "float32", "bfloat16", "float16"], default="auto", help="without --url"
    )


def run_mcp(args: argparse.Namespace) -> None:
    extras.require("mcp")
    import logging
    import warnings

    from openlumiere.app.makers import LocalMaker, Maker
    from openlumiere.app.mcp import serve

    logging.basicConfig(level=logging.WARNING, format="lumiere: %(name)s: %(message)s")  # to stderr
    if not args.debug:
        warnings.simplefilter("ignore")  # of libraries, about themselves
    folder = args.output.expanduser()
    maker: Maker
    if args.url is None:
        maker = LocalMaker(folder, model=args.model or DEFAULT_MODEL, device=args.device, dtype=args.dtype)
    else:
        from openlumiere.app.server_maker import ServerMaker

        maker = ServerMaker(args.url, folder, key=os.environ.get(KEY_VARIABLE, ""), model=args.model or "")
    serve(maker)
