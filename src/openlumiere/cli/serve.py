"""`lumiere serve`, `lumiere worker`, `lumiere keys` and `lumiere mcp`: clips for browsers, programs and assistants."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openlumiere import extras
from openlumiere.errors import LumiereError
from openlumiere.generation.backends.find import read_abilities
from openlumiere.generation.models import DEFAULT_MODEL

from . import marking, parsing
from .parsing import Commands, Parser, add_command

if TYPE_CHECKING:
    from openlumiere.app.settings import ModerationSettings, Settings

KEY_VARIABLE = "LUMIERE_API_KEY"  # opens the server that `lumiere mcp --url` asks
DATABASE_VARIABLE = "LUMIERE_DATABASE_URL"  # holds a password, which other users see in a command line
SECRET_VARIABLE = "LUMIERE_WEBHOOK_SECRET"
CLASSIFIER_VARIABLE = "LUMIERE_CLASSIFIER_KEY"
_DAY, _GIB, _MB = 86400.0, 2**30, 10**6
_QUEUE = ("dbos", "fsspec", "httpx", "sqlalchemy", "standardwebhooks")
_SERVER = (*_QUEUE, "fastapi", "prometheus_client", "python_multipart", "uvicorn")


def register(commands: Commands) -> None:
    _register_serve(commands)
    _register_worker(commands)
    _register_keys(commands)
    _register_mcp(commands)


# ------------------------------------------------------------------------------------------------ arguments


def _register_serve(commands: Commands) -> None:
    serve = add_command(
        commands,
        "serve",
        run_serve,
        help="open a page where clips are made by mouse, and an API for programs",
        more="The API is that of OpenAI's video client. Only this machine reaches it unless --host says otherwise, and "
        "then a key is needed: lumiere keys add.",
        example=[
            "lumiere serve --open",
            "lumiere serve --port 8080 --data ~/clips --expire-days 30",
            "lumiere serve --host 0.0.0.0 --host-name clips.example.org --quota 100",
            "lumiere serve --block-list words.txt --classifier http://127.0.0.1:9000/v1/moderations",
            "lumiere serve --workers 0 --database-url postgresql://lumiere@db/lumiere --results s3://bucket/clips",
        ],
    )
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on, default: 127.0.0.1, this machine")
    serve.add_argument("--port", type=parsing.port, default=8000, help="default: 8000; 0 takes any free one")
    serve.add_argument("--open", action="store_true", help="open the page in a browser")
    serve.add_argument(
        "--workers", type=parsing.whole, default=1, metavar="N",
        help="processes that make clips, each with a model of its own; default: 1; 0: lumiere worker does it elsewhere",
    )  # fmt: skip
    _add_shared(serve)
    access = serve.add_argument_group("who may ask, and how much")
    access.add_argument(
        "--keys", action=argparse.BooleanOptionalAction,
        help="whether a key is needed; default: on all addresses but this machine's own. A proxy that hands on others' "
        "requests reaches the server from this machine: give --keys behind one",
    )  # fmt: skip
    access.add_argument(
        "--host-name", action="append", default=[], metavar="NAME",
        help="a name that browsers know the server by, as behind a proxy; may be given several times",
    )  # fmt: skip
    access.add_argument(
        "--queue-limit",
        type=parsing.positive_int,
        metavar="N",
        help="clips that may wait, default: 200",
    )
    access.add_argument(
        "--queue-limit-per-key", type=parsing.positive_int, metavar="N",
        help="clips of one key that may wait or be made; default: 50",
    )  # fmt: skip
    access.add_argument(
        "--quota", type=parsing.positive_int, metavar="N", help="clips a key and day, default: any number"
    )
    access.add_argument(
        "--rate", type=parsing.positive_int, metavar="N", help="requests a key, or address, and minute; default: 6000"
    )
    access.add_argument("--max-frames", type=parsing.positive_int, metavar="N", help="of a clip, default: 480")
    access.add_argument("--max-steps", type=parsing.positive_int, metavar="N", help="of each stage, default: 250")
    access.add_argument(
        "--max-upload", type=parsing.positive_int, metavar="MB", help="of all files together, default: 67"
    )
    _add_moderation(serve)


def _register_worker(commands: Commands) -> None:
    worker = add_command(
        commands,
        "worker",
        run_worker,
        help="make the clips that a server's queue holds",
        more="As many as there is room for, on this machine and others. Give it the server's --data, on the same "
        "machine, or its --database-url and --results, and the same --model, --expire-days and --webhook.",
        example=[
            "lumiere worker --data ~/clips",
            "lumiere worker --database-url postgresql://lumiere@db/lumiere --results s3://bucket/clips --device cuda",
        ],
    )
    _add_shared(worker)


def _register_keys(commands: Commands) -> None:
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
        _add_data(parser)


def _register_mcp(commands: Commands) -> None:
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
    _add_device(mcp)
    _add_moderation(mcp)
    marking.add_no_mark(mcp)


def _add_data(parser: Parser) -> None:
    parser.add_argument(
        "--data", type=Path, default=_data_folder(), metavar="DIR",
        help="folder of all that is kept, default: $XDG_DATA_HOME/lumiere, or ~/.local/share/lumiere",
    )  # fmt: skip
    parser.add_argument(
        "--database-url", metavar="URL", default=os.environ.get(DATABASE_VARIABLE, ""),
        help="postgresql://USER:PASSWORD@HOST/NAME, for workers on several machines; default: what "
        f"{DATABASE_VARIABLE} says, else SQLite in --data",
    )  # fmt: skip


def _add_device(parser: Parser) -> None:
    parser.add_argument("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto")
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16", "float16"], default="auto")


def _add_moderation(parser: Parser) -> None:
    moderation = parser.add_argument_group("what may not be asked for")
    moderation.add_argument(
        "--block-list", type=Path, metavar="FILE",
        help="refuse prompts that hold one of these words, one or several in a line, such as knife or bloody knife; "
        "knif* is every word that begins so, # begins a comment. Read again when it changes; default: none",
    )  # fmt: skip
    moderation.add_argument(
        "--classifier", default="", metavar="URL",
        help="ask this address about each prompt and picture, as OpenAI's moderation endpoint is asked, and refuse "
        f"what it flags, or does not answer; its key is taken from {CLASSIFIER_VARIABLE}; default: none",
    )  # fmt: skip
    moderation.add_argument(
        "--classifier-seconds", type=parsing.positive_float, default=10.0, metavar="N",
        help="to wait for its answer, default: 10",
    )  # fmt: skip


def _add_shared(parser: Parser) -> None:
    """Add what server and workers must agree on, and what is said of workers."""
    _add_data(parser)
    parser.add_argument(
        "--results", default="", metavar="ADDRESS",
        help="folder, or fsspec address such as s3://bucket/clips, of finished clips; default: in --data",
    )  # fmt: skip
    parser.add_argument(
        "--model", action="append", default=[], metavar="NAME",
        help="bundled name, local folder, hub id, or http://HOST:PORT#NAME of another server; may be given several "
        f"times, the first is that of requests that name none; default: {DEFAULT_MODEL}",
    )  # fmt: skip
    _add_device(parser)
    parser.add_argument(
        "--memory", type=parsing.positive_float, metavar="GIB", help="of the device that clips may take, default: all"
    )
    parser.add_argument(
        "--expire-days", type=parsing.positive_float, metavar="N",
        help="remove clips after so many days, favourites excepted; default: never",
    )  # fmt: skip
    parser.add_argument(
        "--webhook", action="append", default=[], metavar="URL",
        help="call this address when a clip is finished or has failed, signed with the secret that "
        f"{SECRET_VARIABLE} holds; may be given several times",
    )  # fmt: skip
    marking.add_no_mark(parser)
    parser.add_argument("--log-level", choices=["debug", "info", "warning", "error"], default="warning")
    parser.add_argument("--log-prompts", action="store_true", help="write prompts into the log")


def _data_folder() -> Path:
    return Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share") / "lumiere"


# ------------------------------------------------------------------------------------------------ commands


def run_serve(args: argparse.Namespace) -> None:
    settings = _settings(args, *_SERVER)
    from openlumiere.app.server import serve

    with _ended_by_sigterm():
        serve(
            settings, workers=args.workers, device=args.device, dtype=args.dtype, log_level=args.log_level.upper(),
            open_browser=args.open,
        )  # fmt: skip


def run_worker(args: argparse.Namespace) -> None:
    settings = _settings(args, *_QUEUE)
    from openlumiere.app.workers.worker import run

    print("makes what the queue holds  (Ctrl-C ends)", flush=True)
    run(settings, device=args.device, dtype=args.dtype)


def run_keys_add(args: argparse.Namespace) -> None:
    key, secret = _keys(args).add(args.name)
    print(secret, flush=True)
    print(f"this is {key.name}'s key, {key.id}; it is shown this once", file=sys.stderr)


def run_keys_list(args: argparse.Namespace) -> None:
    found = _keys(args).list()
    if not found:
        print("there are no keys; make one with: lumiere keys add NAME")
    for key in found:
        used = "never used" if key.used_at is None else f"used {_date(key.used_at)}"
        state = used if key.revoked_at is None else f"revoked {_date(key.revoked_at)}"
        print(f"{key.id}  {key.name:<20}  made {_date(key.created_at)}  {state}")


def run_keys_revoke(args: argparse.Namespace) -> None:
    key = _keys(args).revoke(args.name)
    print(f"revoked {key.name}'s key, {key.id}")


def run_mcp(args: argparse.Namespace) -> None:
    extras.require("mcp", "httpx")
    if args.url is not None and (args.block_list or args.classifier):
        raise LumiereError("with --url that server decides what is allowed: give --block-list, --classifier to it")
    _log("WARNING", quiet=not args.debug)
    folder = args.output.expanduser()
    marker = marking.marker(args)
    maker: Any
    if args.url is None:
        from openlumiere.app.mcp.makers import LocalMaker
        from openlumiere.app.moderation.moderator import Moderator

        maker = LocalMaker(
            folder, model=args.model or DEFAULT_MODEL, device=args.device, dtype=args.dtype, marker=marker,
            moderator=Moderator(_moderation(args)),
        )  # fmt: skip
    else:
        from openlumiere.app.mcp.server_maker import ServerMaker

        key = os.environ.get(KEY_VARIABLE, "")
        maker = ServerMaker(args.url, folder, key=key, model=args.model or "", marker=marker)
    from openlumiere.app.mcp.server import serve

    serve(maker)


# ------------------------------------------------------------------------------------------------ shared


def _settings(args: argparse.Namespace, *modules: str) -> Settings:
    """The settings that the options ask for, after a look at what they need."""
    extras.require(*modules, *(["psycopg"] if args.database_url else []))
    models = tuple(dict.fromkeys(args.model or [DEFAULT_MODEL]))
    for model in models:
        read_abilities(model, may_download=True)  # refuses what is no model
    from openlumiere.app.settings import Limits, RequestLimits, Settings, UploadLimits

    _log(args.log_level.upper(), quiet=not args.debug)
    own = vars(args)
    return Settings(
        data=str(args.data.expanduser()),
        database_url=args.database_url,
        results=args.results,
        models=models,
        memory_bytes=None if args.memory is None else int(args.memory * _GIB),
        expiry_seconds=None if args.expire_days is None else args.expire_days * _DAY,
        webhooks=tuple(args.webhook),
        webhook_secret=os.environ.get(SECRET_VARIABLE, ""),
        log_prompts=args.log_prompts,
        mark=args.mark,
        host=own.get("host", "127.0.0.1"),
        port=own.get("port", 0),
        hosts=tuple(own.get("host_name", ())),
        keys=own.get("keys"),
        limits=Limits(
            **_given(
                max_queued=own.get("queue_limit"),
                max_queued_per_owner=own.get("queue_limit_per_key"),
                max_jobs_per_day=own.get("quota"),
            )
        ),
        uploads=UploadLimits(**_given(bytes=own.get("max_upload") and own["max_upload"] * _MB)),
        requests=RequestLimits(
            **_given(
                per_minute=own.get("rate"), num_frames=own.get("max_frames"), num_inference_steps=own.get("max_steps")
            )
        ),
        moderation=_moderation(args),
    )


def _moderation(args: argparse.Namespace) -> ModerationSettings:
    from openlumiere.app.settings import ModerationSettings

    own = vars(args)
    return ModerationSettings(
        block_list=str(args.block_list.expanduser()) if own.get("block_list") else "",
        classifier=own.get("classifier", ""),
        classifier_key=os.environ.get(CLASSIFIER_VARIABLE, ""),
        classifier_seconds=own.get("classifier_seconds", 10.0),
    )


def _given(**options: int | None) -> dict[str, int]:
    """Options that were given; for the others the settings' own defaults hold."""
    return {name: value for name, value in options.items() if value is not None}


def _keys(args: argparse.Namespace) -> Any:
    extras.require("sqlalchemy", *(["psycopg"] if args.database_url else []))
    from openlumiere.app.jobs.keys import Keys
    from openlumiere.app.settings import Settings

    return Keys(Settings(data=str(args.data.expanduser()), database_url=args.database_url).store_url)


def _log(level: str, *, quiet: bool) -> None:
    """Log to stderr."""
    import logging
    import warnings

    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if quiet:
        warnings.simplefilter("ignore")  # of libraries, about themselves


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Have SIGTERM, as systemd and containers send it, end the server as Ctrl-C does, workers and all."""
    import signal

    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))
