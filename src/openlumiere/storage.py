"""Outputs in a folder, or at any fsspec address: written whole or not at all, found by name."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from .errors import LumiereError
from .files import PARTIAL, one_line, replacing

_LOCAL = ("file://", "local://")


@dataclass(frozen=True)
class Storage:
    """Where outputs go; it can be pickled.

    Attributes:
        address: a folder, or what fsspec reads and writes: ``s3://bucket/clips``, ``gs://bucket/clips``.
    """

    address: str

    @cached_property
    def folder(self) -> Path | None:
        """The folder that it is; None for an address elsewhere."""
        plain = self.address
        for prefix in _LOCAL:
            plain = plain.removeprefix(prefix)
        return None if "://" in plain else Path(plain)

    @cached_property
    def _remote(self) -> tuple[Any, str]:
        """The file system of an address, and the path within it."""
        try:
            import fsspec

            system, root = fsspec.core.url_to_fs(self.address)
        except (ImportError, ValueError) as error:
            raise LumiereError(f"{self.address} cannot be opened: {one_line(error)}") from error
        return system, root.rstrip("/")

    def __str__(self) -> str:
        return self.address.rstrip("/")

    def check(self) -> None:
        """Refuse an address that cannot be opened, before anything slow is done.

        Raises:
            LumiereError: no such kind of address, or nothing answers there.
        """
        if self.folder is not None:
            return
        system, root = self._remote
        try:
            system.exists(root)
        except Exception as error:  # each kind of address has its own
            raise LumiereError(f"{self.address} cannot be opened: {one_line(error)}") from error

    def exists(self, name: str) -> bool:
        """Return whether there is an output of that name."""
        if self.folder is not None:
            return (self.folder / name).exists()
        system, root = self._remote
        system.invalidate_cache()
        return bool(system.exists(f"{root}/{name}"))

    def finder(self) -> Callable[[str], bool]:
        """Return `exists` for many names in the order in which they lie in folders: an address lists each once.

        What is put after a folder was listed is not seen.
        """
        if self.folder is not None:
            return self.exists
        listed: tuple[str, set[str]] | None = None

        def exists(name: str) -> bool:
            nonlocal listed
            folder = name.rpartition("/")[0]
            if listed is None or listed[0] != folder:
                listed = folder, self._names(folder)
            return name.rpartition("/")[2] in listed[1]

        return exists

    def _names(self, folder: str) -> set[str]:
        system, root = self._remote
        try:
            found = system.ls(f"{root}/{folder}".rstrip("/"), detail=False, refresh=True)
        except FileNotFoundError:
            return set()
        finally:
            system.invalidate_cache()  # or a million names stay in memory twice
        return {path.rstrip("/").rpartition("/")[2] for path in found}

    @contextmanager
    def writing(self, name: str) -> Iterator[str]:
        """Yield a path to write an output to, with its own name; the output is found when all is written.

        It is in a hidden folder beside the output, which is renamed; at an address in a temporary folder, and is put
        under a hidden name, which is renamed.

        Raises:
            LumiereError: it cannot be put there.
        """
        if self.folder is not None:
            with replacing(self.folder / name, named=True) as unfinished:
                yield f"{unfinished}/" if name.endswith("/") else str(unfinished)
            return
        system, root = self._remote
        with tempfile.TemporaryDirectory(prefix="lumiere-") as folder:
            path = Path(folder) / Path(name).name
            yield str(path)
            try:
                put_whole(system, path, f"{root}/{name}")
            except Exception as error:  # each kind of address has its own
                raise LumiereError(f"cannot write {self}/{name}: {one_line(error)}") from error


def put_whole(system: Any, path: str | Path, target: str) -> None:
    """Copy a local file to a path of a file system of fsspec: under a hidden name, which is then renamed."""
    folder, _, name = target.rpartition("/")
    unfinished = f"{folder}/.{name}.{secrets.token_hex(4)}{PARTIAL}"
    system.makedirs(folder, exist_ok=True)
    try:
        system.put_file(str(path), unfinished)
        system.mv(unfinished, target)
    finally:
        with suppress(OSError):
            if system.exists(unfinished):
                system.rm_file(unfinished)
    system.invalidate_cache()
