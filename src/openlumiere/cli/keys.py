"""`lumiere keys`: what opens a server."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from openlumiere import extras

from . import server_options
from .parsing import Commands, add_command


def register(commands: Commands) -> None:
    keys = add_command(
        commands,
        "keys",
        lambda _args: None,  # a subcommand is required, and has its own
        help="make, list and revoke the keys that open a server",
        example=["lumiere keys add alice", "lumiere keys list", "lumiere keys revoke alice"],
    )
    actions = keys.add_subparsers(title="actions", metavar="ACTION", required=True)
    add = add_command(
        actions,
        "add",
        run_keys_add,
        help="make a key and print it, once",
        more="Only its hash is kept. Whoever has it sees the clips made with it, and no others.",
        example=["lumiere keys add alice", "lumiere keys add alice --data ~/clips > alice.key"],
    )
    add.add_argument("name", help="of who uses it")
    listing = add_command(
        actions, "list", run_keys_list, help="list the keys, without what opens", example=["lumiere keys list"]
    )
    revoke = add_command(
        actions,
        "revoke",
        run_keys_revoke,
        help="end a key",
        more="Its clips stay.",
        example=["lumiere keys revoke alice"],
    )
    revoke.add_argument("name", help="or id of the key")
    for parser in (add, listing, revoke):
        server_options.add_data(parser)


def run_keys_add(args: argparse.Namespace) -> None:
    key, secret = _store(args).add(args.name)
    print(secret, flush=True)
    print(f"this is {key.name}'s key, {key.id}; it is shown this once", file=sys.stderr)


def run_keys_list(args: argparse.Namespace) -> None:
    found = _store(args).list()
    if not found:
        print("there are no keys; make one with: lumiere keys add NAME")
    for key in found:
        used = "never used" if key.used_at is None else f"used {_date(key.used_at)}"
        state = used if key.revoked_at is None else f"revoked {_date(key.revoked_at)}"
        print(f"{key.id}  {key.name:<20}  made {_date(key.created_at)}  {state}")


def run_keys_revoke(args: argparse.Namespace) -> None:
    key = _store(args).revoke(args.name)
    print(f"revoked {key.name}'s key, {key.id}")


def _store(args: argparse.Namespace) -> Any:
    extras.require("sqlalchemy", *(["psycopg"] if args.database_url else []))
    from openlumiere.app.jobs.keys import Keys
    from openlumiere.app.settings import Settings

    return Keys(Settings(data=str(args.data.expanduser()), database_url=args.database_url).store_url)


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))
