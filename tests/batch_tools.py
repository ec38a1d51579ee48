"""Batches that cost nothing, to be made by any process that can import this."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from fsspec import register_implementation
from fsspec.implementations.local import LocalFileSystem

from openlumiere.batch.work import Work
from openlumiere.files import write_text


class Shelf(LocalFileSystem):
    """Files of this machine at an address, ``shelf:///folder``, which several processes see."""

    protocol = "shelf"
    local_file = False

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        # Older versions of fsspec know no other protocol of local files than their own.
        found: str = super()._strip_protocol(str(path).removeprefix("shelf://"))
        return found


register_implementation("shelf", Shelf, clobber=True)


@dataclass(frozen=True)
class Notes(Work[int, int]):
    """Writes a note for each number, and in ``log`` which process made it.

    Attributes:
        seconds: that each takes.
        broken: numbers that cannot be made.
        broken_once: those that the first process cannot make.
        deadly: those that kill the process.
        full: those for which the disk has no space.
    """

    notes: Path
    seconds: float = 0
    broken: tuple[int, ...] = ()
    broken_once: tuple[int, ...] = ()
    deadly: tuple[int, ...] = ()
    full: tuple[int, ...] = ()

    def name(self, item: int) -> str:
        return f"{item:05d}"

    def path(self, item: int) -> Path:
        return self.notes / self.name(item)

    def folder(self) -> Path:
        return self.notes

    def is_done(self, item: int) -> bool:
        return self.path(item).exists()

    def load(self) -> Callable[[int], int]:
        return self._make

    def _make(self, item: int) -> int:
        time.sleep(self.seconds)
        with (self.notes / "log").open("a") as log:
            log.write(f"{item} {os.getpid()}\n")
        if item in self.deadly:
            os._exit(1)
        if item in self.full:
            raise OSError(28, "no space")
        if item in self.broken or (item in self.broken_once and self.processes(item)[0] == os.getpid()):
            raise ValueError(f"{item} is broken")
        write_text(self.path(item), str(item * item))
        return os.getpid()

    def made(self) -> dict[int, str]:
        """The notes that are there."""
        return {int(path.name): path.read_text() for path in self.notes.glob("[0-9]*")}

    def processes(self, item: int) -> list[int]:
        """Those that tried to make an item, in order."""
        lines = (self.notes / "log").read_text().splitlines()
        return [int(line.split()[1]) for line in lines if line.split()[0] == str(item)]


@dataclass(frozen=True)
class Unloadable(Notes):
    """What its processes cannot load."""

    def load(self) -> Callable[[int], int]:
        from openlumiere.errors import LumiereError

        raise LumiereError("no such model: emoji-giant; choose another")


def load_squares() -> Callable[[Sequence[str], Sequence[int]], np.ndarray]:
    """Load what makes clips of squares."""
    from clips import moving_square

    return lambda prompts, seeds: np.stack([moving_square(seed) for seed in seeds])
