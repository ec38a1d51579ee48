"""Files of jobs, in a folder or at any fsspec address: written whole or not at all, found by name."""

from __future__ import annotations

import re
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from openlumiere.errors import LumiereError
from openlumiere.files import PARTIAL, one_line, remove, remove_leftovers, replacing
from openlumiere.storage import put_whole

_JOB = re.compile(r"video_[A-Za-z0-9_-]{22}")
_NAME = re.compile(r"[a-z0-9][a-zA-Z0-9_-]*(\.[a-zA-Z0-9_-]+)*")
_LOCAL = ("file://", "local://")


class Results:
    """One folder of files for each job.

    Args:
        address: a folder, or what fsspec reads and writes: ``s3://bucket/clips``, ``memory://clips``.

    Raises:
        LumiereError: an address that nothing here can open.
    """

    def __init__(self, address: str) -> None:
        self._copies: tempfile.TemporaryDirectory[str] | None = None
        for prefix in _LOCAL:
            address = address.removeprefix(prefix)
        self.address = address
        self._folder = Path(address).resolve() if "://" not in address else None
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            return
        import fsspec

        try:
            self._remote, self._root = fsspec.core.url_to_fs(address)
        except (ImportError, ValueError) as error:
            raise LumiereError(f"results at {address}: {one_line(error)}") from error

    @property
    def is_local(self) -> bool:
        """Return whether the files lie in a folder of this machine."""
        return self._folder is not None

    def put(self, job_id: str, name: str, local_path: str | Path) -> None:
        """Copy a file into a job's folder, whole or not at all; one of that name is replaced."""
        if self._folder is not None:
            with replacing(self._path(job_id, name)) as partial:
                shutil.copyfile(local_path, partial)
            return
        put_whole(self._remote, local_path, self._key(job_id, name))

    def fetch(self, job_id: str, name: str, folder: Path | None = None) -> Path:
        """Return a file's path: its own where it is local.

        Args:
            folder: of the copy of one that isn't; None = a temporary one that goes with this object.

        Raises:
            FileNotFoundError: there is none.
        """
        if self._folder is not None:
            path = self._path(job_id, name)
            if not path.is_file():
                raise FileNotFoundError(f"{job_id} has no {name}")
            return path
        if folder is None:
            self._copies = self._copies or tempfile.TemporaryDirectory(prefix="lumiere-")
            folder = Path(self._copies.name) / job_id
        with replacing(folder / name) as partial:
            self._remote.get_file(self._key(job_id, name), str(partial))
        return folder / name

    def open(self, job_id: str, name: str) -> IO[bytes]:
        """Open a file to be read, from anywhere in it.

        Raises:
            FileNotFoundError: there is none.
        """
        if self._folder is not None:
            return open(self._path(job_id, name), "rb")
        opened: IO[bytes] = self._remote.open(self._key(job_id, name), "rb")
        return opened

    def size(self, job_id: str, name: str) -> int:
        """Return a file's bytes.

        Raises:
            FileNotFoundError: there is none.
        """
        if self._folder is not None:
            return self._path(job_id, name).stat().st_size
        return int(self._remote.size(self._key(job_id, name)))

    def exists(self, job_id: str, name: str) -> bool:
        """Return whether a job has a file of that name."""
        if self._folder is not None:
            return self._path(job_id, name).is_file()
        return bool(self._remote.isfile(self._key(job_id, name)))

    def names(self, job_id: str) -> list[str]:
        """Return the names of a job's finished files, in alphabetical order."""
        if self._folder is not None:
            folder = self._path(job_id)
            found: list[Any] = list(folder.iterdir()) if folder.is_dir() else []
            return sorted(path.name for path in found if not path.name.startswith("."))
        with suppress(FileNotFoundError):
            listed = self._remote.ls(self._key(job_id), detail=False, refresh=True)
            found = [path.rstrip("/").rpartition("/")[2] for path in listed]
            return sorted(name for name in found if not name.startswith("."))
        return []

    def remove(self, job_id: str, name: str | None = None) -> None:
        """Remove a file of a job, or all of them, if they are there."""
        if self._folder is not None:
            remove(self._path(job_id, name))
            return
        with suppress(FileNotFoundError):
            self._remote.rm(self._key(job_id, name), recursive=name is None)
        self._remote.invalidate_cache()

    def remove_leftovers(self, job_id: str) -> None:
        """Remove what killed processes left unfinished in a job's folder; at an address, whoever's it is."""
        if self._folder is not None:
            remove_leftovers(self._path(job_id))
            return
        with suppress(FileNotFoundError):
            for path in self._remote.ls(self._key(job_id), detail=False, refresh=True):
                if path.endswith(PARTIAL):
                    self._remote.rm_file(path)

    def _path(self, job_id: str, name: str | None = None) -> Path:
        assert self._folder is not None
        _check(job_id, name)
        return self._folder / job_id / name if name else self._folder / job_id

    def _key(self, job_id: str, name: str | None = None) -> str:
        _check(job_id, name)
        return "/".join(filter(None, (self._root.rstrip("/"), job_id, name)))


def _check(job_id: str, name: str | None) -> None:
    """Refuse what would lead out of a job's folder."""
    if not _JOB.fullmatch(job_id) or (name is not None and not (_NAME.fullmatch(name) and len(name) <= 100)):
        raise LumiereError(f"{job_id[:40]!r}, {(name or '')[:40]!r}: no job's id, or no name of a file")
