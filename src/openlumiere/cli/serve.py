"""`lumiere serve` and `lumiere worker`: clips for browsers and programs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from openlumiere import extras
from openlumiere.bundled import DEFAULT_MODEL
from openlumiere.generation.backends.find import read_abilities

from . import marking, parsing, server_options
from .parsing import Commands, Parser, add_command

if TYPE_CHECKING:
    from openlumiere.app.settings import Settings

SECRET_VARIABLE = "LUMIERE_WEBHOOK_SECRET"
_DAY, _GIB, _MB = 86400.0, 2**30, 10**6
_QUEUE = ("dbos", "fsspec", "httpx", "sqlalchemy", "standardwebhooks")
_SERVER = (*_QUEUE, "fastapi", "prometheus_client", "python_multipart", "uvicorn")


def register(commands: Commands) -> None:
    _register_serve(commands)
    _register_worker(commands)


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
    server_options.add_moderation(serve)


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


def _add_shared(parser: Parser) -> None:
    """Add what server and workers must agree on, and what is said of workers."""
    server_options.add_data(parser)
    parser.add_argument(
        "--results", default="", metavar="ADDRESS",
        help="folder, or fsspec address such as s3://bucket/clips, of finished clips; default: in --data",
    )  # fmt: skip
    parser.add_argument(
        "--model", action="append", default=[], metavar="NAME",
        help="bundled name, local folder, hub id, or http://HOST:PORT#NAME of another server; may be given several "
        f"times, the first is that of requests that name none; default: {DEFAULT_MODEL}",
    )  # fmt: skip
    server_options.add_device(parser)
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


# ------------------------------------------------------------------------------------------------ shared


def _settings(args: argparse.Namespace, *modules: str) -> Settings:
    """The settings that the options ask for, after a look at what they need."""
    extras.require(*modules, *(["psycopg"] if args.database_url else []))
    models = tuple(dict.fromkeys(args.model or [DEFAULT_MODEL]))
    for model in models:
        read_abilities(model, may_download=True)  # refuses what is no model
    from openlumiere.app.settings import Limits, RequestLimits, Settings, UploadLimits

    server_options.log(args.log_level.upper(), quiet=not args.debug)
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
        moderation=server_options.moderation(args),
    )


def _given(**options: int | None) -> dict[str, int]:
    """Options that were given; for the others the settings' own defaults hold."""
    return {name: value for name, value in options.items() if value is not None}


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Have SIGTERM, as systemd and containers send it, end the server as Ctrl-C does, workers and all."""
    import signal

    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
