"""The tables of jobs, workers, keys and webhooks, in SQLite or PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError

from openlumiere.errors import LumiereError
from openlumiere.files import one_line

_VERSION = 1  # of the tables
_LOCK = 0x6C756D69  # PostgreSQL's advisory lock of what must not happen twice at once
_BUSY_SECONDS = 30  # for so long one process waits for another's transaction

metadata = sa.MetaData()
_number = sa.BigInteger().with_variant(sa.Integer, "sqlite")  # SQLite counts up INTEGER alone

jobs = sa.Table(
    "jobs", metadata,
    sa.Column("number", _number, primary_key=True, autoincrement=True),  # the order of the queue
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False, index=True),
    sa.Column("request", sa.JSON, nullable=False),
    sa.Column("searched", sa.Text, nullable=False),  # the prompt, folded to one case
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("started_at", sa.Double),
    sa.Column("completed_at", sa.Double),
    sa.Column("expires_at", sa.Double),
    sa.Column("stage", sa.Text, nullable=False, default=""),
    sa.Column("step", sa.Integer, nullable=False, default=0),
    sa.Column("total_steps", sa.Integer, nullable=False, default=0),
    sa.Column("progress", sa.Integer, nullable=False, default=0),
    sa.Column("seconds_left", sa.Double),
    sa.Column("preview", sa.Integer, nullable=False, default=0),
    sa.Column("recipe", sa.JSON(none_as_null=True)),
    sa.Column("width", sa.Integer),
    sa.Column("height", sa.Integer),
    sa.Column("num_frames", sa.Integer),
    sa.Column("fps", sa.Double),
    sa.Column("transparent", sa.Boolean),
    sa.Column("files", sa.JSON, nullable=False),
    sa.Column("error_code", sa.Text),
    sa.Column("error_message", sa.Text),
    sa.Column("remixed_from", sa.Text),
    sa.Column("favourite", sa.Boolean, nullable=False, default=False),
    sa.Column("deleted_at", sa.Double),
    sa.Column("callback_url", sa.Text),
    sa.Column("cancel_requested", sa.Boolean, nullable=False, default=False),
    sa.Column("worker", sa.Text),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("version", sa.Integer, nullable=False, default=1),
    sa.Column("removal", sa.Text, nullable=False, default=""),  # of its files: "due", "done"
    sa.Index("jobs_of_owner", "owner", "number"),
)  # fmt: skip

# A table of its own: databases of older versions lack it, and get it when they are opened.
idempotency = sa.Table(
    "idempotency", metadata,
    sa.Column("owner", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("job", sa.Text, nullable=False, index=True),
)  # fmt: skip

workers = sa.Table(
    "workers", metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("model", sa.Text),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("seen_at", sa.Double, nullable=False),  # by the database's clock
    sa.Column("place", sa.Text, nullable=False, default=""),  # the device that it shares with others
    sa.Column("memory", sa.BigInteger, nullable=False, default=0),  # bytes of the device that it may take
)  # fmt: skip

# A table of its own, as `idempotency`.
unusable = sa.Table(
    "unusable_models", metadata,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("reason", sa.Text, nullable=False),
)  # fmt: skip

keys = sa.Table(
    "keys", metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("hash", sa.Text, nullable=False, unique=True),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("used_at", sa.Double),
    sa.Column("revoked_at", sa.Double),
)  # fmt: skip

deliveries = sa.Table(
    "deliveries", metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("job", sa.Text, nullable=False),
    sa.Column("event", sa.Text, nullable=False),
    sa.Column("address", sa.Text, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("tries", sa.Integer, nullable=False, default=0),
    sa.Column("next_at", sa.Double, nullable=False, index=True),
)  # fmt: skip

_schema = sa.Table("lumiere_schema", metadata, sa.Column("version", sa.Integer, primary_key=True))


def driver_url(url: str) -> sa.URL:
    """Return a database's address with the driver that we use.

    Raises:
        LumiereError: it is no such address.
    """
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError as error:
        raise LumiereError("--database-url: give postgresql://USER:PASSWORD@HOST/NAME") from error
    if parsed.get_backend_name() in ("postgres", "postgresql"):
        return parsed.set(drivername="postgresql+psycopg")
    return parsed.set(drivername="sqlite+pysqlite")


@cache
def open_database(url: str) -> sa.Engine:
    """Return the engine of a database, whose tables are made if they are missing; one for each process.

    Raises:
        LumiereError: it cannot be reached, is damaged, or holds the tables of another version.
    """
    parsed = driver_url(url)
    sqlite = parsed.get_backend_name() == "sqlite"
    if sqlite and parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    # A server whose machine is gone is noticed within half a minute, not when TCP gives up.
    alive = {"connect_timeout": 10, "keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3}
    arguments = {"timeout": _BUSY_SECONDS} if sqlite else alive
    engine = sa.create_engine(parsed, connect_args=arguments, pool_pre_ping=not sqlite)
    if sqlite:
        sa.event.listen(engine, "connect", _prepare)
        sa.event.listen(engine, "begin", _begin)
    shown = parsed.render_as_string(hide_password=True)
    try:
        with writing(engine, alone=True) as connection:
            metadata.create_all(connection)
            found = connection.scalar(sa.select(_schema.c.version))
            if found is None:
                connection.execute(_schema.insert().values(version=_VERSION))
    except DatabaseError as error:
        raise LumiereError(f"cannot use the database {shown}: {one_line(error.orig or error)}") from error
    if found not in (None, _VERSION):
        raise LumiereError(
            f"the database {shown} is of another version of openlumiere; use that one, or another database"
        )
    return engine


@contextmanager
def writing(engine: sa.Engine, *, alone: bool = False) -> Iterator[sa.Connection]:
    """One short transaction that writes, all of it or nothing.

    Args:
        alone: no other such transaction runs at the same time; in SQLite none does anyway.
    """
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        if alone and engine.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        yield connection


def clock(engine: sa.Engine) -> sa.ColumnElement[float]:
    """Return the database's own time, UTC epoch seconds: clocks of several machines may differ."""
    if engine.dialect.name == "postgresql":
        return sa.cast(sa.extract("epoch", sa.func.clock_timestamp()), sa.Double)
    return sa.cast(sa.literal_column("(julianday('now') - 2440587.5) * 86400.0"), sa.Double)


def _prepare(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # we say when a transaction begins, see `_begin`
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: sa.Connection) -> None:
    # A transaction that reads first and writes later fails if another wrote in between: those that write say so first.
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
