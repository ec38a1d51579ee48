"""Users' files: known by their first bytes, decoded and written anew by a limited process."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from fastapi.concurrency import run_in_threadpool

from openlumiere.app.settings import UploadLimits
from openlumiere.errors import LumiereError
from openlumiere.files import partial_path, remove, remove_leftovers
from openlumiere.provenance.identity import Identity, anchors_folder

from .limited import LimitedProcesses, ProcessLimits

_PROCESSES = 2  # at once; the rest wait
_MOST_WAITING = 32


@dataclass(frozen=True, kw_only=True)
class Taken:
    """A user's file, written anew.

    Attributes:
        path: of the new file.
        frames: 1 of a picture.
        fps: of a clip, frames per second.
    """

    path: Path
    width: int
    height: int
    frames: int
    fps: float | None = None
    alpha: bool = False


class Busy(LumiereError):  # noqa: N818 - what the server is
    """Too many files are being read already."""


class Uploads:
    """Reads users' files in a folder of its own, where nothing stays.

    Args:
        folder: on the same disk as the results; what killed servers left there is removed.
    """

    def __init__(self, folder: Path, limits: UploadLimits, process: ProcessLimits) -> None:
        self.limits, self._folder, self._process = limits, folder, process
        self._processes, self._waiting = LimitedProcesses(_PROCESSES), 0
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """Give a folder that is removed afterwards, with all that it holds."""
        folder = partial_path(self._folder / "upload")
        folder.mkdir()
        try:
            yield folder
        finally:
            remove(folder)

    async def take(self, file: BinaryIO, param: str, to: str, folder: Path) -> Taken:
        """Read a picture or a clip, and write it anew.

        Args:
            param: what the request calls it.
            to: name of the new file, without suffix.
            folder: a `workspace`.

        Raises:
            LumiereError: not of a known kind, corrupt, or too large.
            Busy: too many files are being read already.
        """
        name = await self._store(file, param, folder)
        most = self.limits
        found = await self.run(
            "take", name, folder, to="taken", pixels=most.pixels, clip_pixels=most.clip_pixels, frames=most.frames,
            seconds=most.seconds,
        )  # fmt: skip
        (folder / name).unlink()
        path = folder / found.pop("name")
        return Taken(path=path.rename(folder / f"{to}{path.suffix}"), **found)

    async def stills(self, path: Path, folder: Path) -> list[Path]:
        """Write some frames of a picture or clip into a `workspace`, as small JPEG files; errors as `take`'s."""
        if path.parent != folder:
            await run_in_threadpool(shutil.copyfile, path, folder / path.name)
        found = await self.run("stills", path.name, folder, to=f"{path.stem}-still")
        return [folder / still for still in found["names"]]

    async def inspect(self, file: BinaryIO, param: str, folder: Path) -> dict[str, Any]:
        """Return the metadata of a clip of ours; args and errors as `take`'s."""
        found = await self.run("inspect", await self._store(file, param, folder), folder)
        metadata: dict[str, Any] = found["metadata"]
        return metadata

    async def detect(self, file: BinaryIO, param: str, folder: Path, identity: Identity) -> dict[str, Any]:
        """Return what `decoding.detect` finds under the keys of an installation; other args and errors as `take`'s."""
        most = self.limits
        return await self.run(
            "detect", await self._store(file, param, folder), folder, key=identity.watermark_key.hex(),
            root=str(identity.root), anchors=str(anchors_folder()), pixels=most.pixels, frames=most.frames,
            seconds=most.seconds,
        )  # fmt: skip

    async def run(
        self, task: str, name: str, folder: Path, limits: ProcessLimits | None = None, **arguments: Any
    ) -> dict[str, Any]:
        """Run a limited process when it is its turn; see `LimitedProcesses.run`."""
        if self._waiting >= _MOST_WAITING:
            raise Busy("too many files are being read; try again in a few seconds")
        self._waiting += 1
        try:
            return await self._processes.run(task, name, folder, limits or self._process, **arguments)
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        """End what reads files."""
        await self._processes.close()

    async def _store(self, file: BinaryIO, param: str, folder: Path) -> str:
        """Copy a file to a name that says what it is; its own name is never used."""
        suffix = kind_of_bytes(file.read(64))
        if suffix is None:
            raise LumiereError(
                f"{param} is no picture or clip of a known kind; give PNG, JPEG, GIF, WebP, BMP, TIFF, MP4, MOV, WebM "
                "or MKV"
            )
        file.seek(0)
        with open(folder / f"{param}{suffix}", "wb") as copy:
            await run_in_threadpool(shutil.copyfileobj, file, copy)
        return f"{param}{suffix}"


def kind_of_bytes(start: bytes) -> str | None:
    """Return the suffix of a file's format, by its first bytes; None = not one that is taken."""
    if start[:8] == b"\x89PNG\r\n\x1a\n":
        return ".png"
    if start[:3] == b"\xff\xd8\xff":
        return ".jpg"
    if start[:6] in (b"GIF87a", b"GIF89a"):
        return ".gif"
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return ".webp"
    if start[:4] in (b"II*\0", b"MM\0*"):
        return ".tiff"
    if start[:2] == b"BM":
        return ".bmp"
    if start[4:8] == b"ftyp":
        return ".mov" if start[8:12] == b"qt  " else ".mp4"
    if start[:4] == b"\x1aE\xdf\xa3":
        return ".webm" if b"webm" in start else ".mkv"
    return None
