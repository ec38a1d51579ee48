"""`lumiere mcp`: clips for assistants."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from openlumiere import extras
from openlumiere.bundled import DEFAULT_MODEL
from openlumiere.errors import LumiereError

from . import marking, server_options
from .parsing import Commands, add_command

KEY_VARIABLE = "LUMIERE_API_KEY"  # opens the server that `lumiere mcp --url` asks


def register(commands: Commands) -> None:
    mcp = add_command(
        commands,
        "mcp",
        run_mcp,
        help="let assistants make clips and stickers, as a server of the Model Context Protocol",
        more="It speaks over the standard input and output: an assistant's program starts it. It works by itself, or "
        f"with --url hands all work to a running lumiere serve, whose key it takes from {KEY_VARIABLE}.",
        example=[
            "lumiere mcp",
            "lumiere mcp -o ~/stickers --block-list words.txt",
            "lumiere mcp --url http://127.0.0.1:8000",
        ],
    )
    mcp.add_argument(
        "-o", "--output", type=Path, default=Path("~/lumiere"), metavar="FOLDER",
        help="where the files go, default: ~/lumiere",
    )  # fmt: skip
    mcp.add_argument("--url", help="address of a running lumiere serve that makes the clips")
    mcp.add_argument("--model", help=f"bundled name, local folder or hub id, default: {DEFAULT_MODEL}, or the server's")
    server_options.add_device(mcp)
    server_options.add_moderation(mcp)
    marking.add_no_mark(mcp)


def run_mcp(args: argparse.Namespace) -> None:
    extras.require("mcp", "httpx")
    if args.url is not None and (args.block_list or args.classifier):
        raise LumiereError("with --url that server decides what is allowed: give --block-list, --classifier to it")
    server_options.log("WARNING", quiet=not args.debug)
    folder = args.output.expanduser()
    marker = marking.marker(args)
    maker: Any
    if args.url is None:
        from openlumiere.app.mcp.local_maker import LocalMaker
        from openlumiere.app.moderation.moderator import Moderator

        maker = LocalMaker(
            folder, model=args.model or DEFAULT_MODEL, device=args.device, dtype=args.dtype, marker=marker,
            moderator=Moderator(server_options.moderation(args)),
        )  # fmt: skip
    else:
        from openlumiere.app.mcp.server_maker import ServerMaker

        key = os.environ.get(KEY_VARIABLE, "")
        maker = ServerMaker(args.url, folder, key=key, model=args.model or "", marker=marker)
    from openlumiere.app.mcp.server import serve

    serve(maker)
