"""Keys that open the server: shown once, kept as hashes."""

from __future__ import annotations

import hashlib
import secrets
import time
from dataclasses import dataclass

import sqlalchemy as sa

from openlumiere.errors import LumiereError

from .database import keys, open_database, writing

PREFIX = "lumiere_"  # so that scanners for leaked secrets find them
_SEEN_EVERY = 60.0  # seconds; how exactly it is known when a key was last used


@dataclass(frozen=True, kw_only=True)
class Key:
    """What is known of a key. Times are UTC epoch seconds.

    Attributes:
        id: owner of the jobs that are started with the key.
        name: what the operator calls it.
        used_at: about when it was last used.
    """

    id: str
    name: str
    created_at: float
    used_at: float | None
    revoked_at: float | None


class Keys:
    """The keys in a database.

    Args:
        url: `Settings.store_url`.
    """

    def __init__(self, url: str) -> None:
        self._engine = open_database(url)

    def add(self, name: str) -> tuple[Key, str]:
        """Make a key; return what is kept of it, and the key itself, which is not kept.

        Raises:
            LumiereError: an empty name, or that of another key in use.
        """
        name = name.strip()
        if not name or len(name) > 100 or not name.isprintable():
            raise LumiereError("a key needs a name of at most 100 characters, such as that of who uses it")
        if any(key.name == name and key.revoked_at is None for key in self.list()):
            raise LumiereError(f"there is a key named {name!r}; choose another name, or revoke that one first")
        secret = PREFIX + secrets.token_urlsafe(32)
        key = Key(id=f"key_{secrets.token_hex(6)}", name=name, created_at=time.time(), used_at=None, revoked_at=None)
        with writing(self._engine) as connection:
            connection.execute(keys.insert().values(hash=_digest(secret), **vars(key)))
        return key, secret

    def list(self) -> list[Key]:
        """Return all keys, revoked ones too, the oldest first."""
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(keys).order_by(keys.c.created_at))
            return [_key(row) for row in rows]

    def revoke(self, id: str) -> Key:
        """End a key, named by its id or its name. Its jobs stay.

        Raises:
            LumiereError: there is none in use.
        """
        found = next((key for key in self.list() if id in (key.id, key.name) and key.revoked_at is None), None)
        if found is None:
            raise LumiereError(f"no key in use is called {id!r}; list them with: lumiere keys list")
        revoked = sa.update(keys).where(keys.c.id == found.id).values(revoked_at=time.time())
        with writing(self._engine) as connection:
            connection.execute(revoked)
        return next(key for key in self.list() if key.id == found.id)

    def check(self, secret: str) -> Key | None:
        """Return whose key this is; None if nobody's, or revoked."""
        # Keys are 256 random bits: one round of SHA-256 keeps them, and a look-up by hash tells no one how close a
        # guess was.
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(keys).where(keys.c.hash == _digest(secret))).first()
        if row is None or row.revoked_at is not None:
            return None
        now = time.time()
        if row.used_at is None or row.used_at < now - _SEEN_EVERY:
            with writing(self._engine) as connection:
                connection.execute(sa.update(keys).where(keys.c.id == row.id).values(used_at=now))
        return _key(row)


def _key(row: sa.Row) -> Key:
    return Key(id=row.id, name=row.name, created_at=row.created_at, used_at=row.used_at, revoked_at=row.revoked_at)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
