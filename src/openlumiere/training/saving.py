"""Checkpoints written in the background, by one process or by several that share a file system."""

from __future__ import annotations

import math
import os
import threading
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from openlumiere.errors import LumiereError
from openlumiere.files import PARTIAL, one_line, replacing, write_json

from . import state

_LOOK_EVERY = 0.05  # seconds, for other processes' files


class Saver:
    """Writes a run's checkpoints while training goes on: only copying tensors to memory keeps it waiting.

    All processes write their files into one folder, ``.checkpoint-STEP.partial``. The first one waits for the others'
    and then gives the folder its name.

    Args:
        folder: the run's output; every process that writes must see it.
        keep: so many checkpoints stay.
        rank, processes: this process's number, of how many.
    """

    def __init__(self, folder: Path, *, keep: int, rank: int = 0, processes: int = 1) -> None:
        self.folder, self.keep, self.rank, self.processes = folder, keep, rank, processes
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._give_up = math.inf  # time at which the others are not waited for any more

    def save(
        self, step: int, module: nn.Module, optimizer: torch.optim.Optimizer, ema: state.EMA, *, config: dict
    ) -> None:
        """Begin to write ``checkpoint-STEP``, when the one before is written; remove all but the last `keep` then.

        Raises:
            LumiereError: see `wait`.
        """
        self.wait()
        taken = state.snapshot(step, module, optimizer, ema, config=config, rank=self.rank, processes=self.processes)
        self._thread = threading.Thread(target=self._try_to_write, args=(taken,), name=f"checkpoint {step}")
        self._thread.start()

    def wait(self) -> None:
        """Return when what was begun is written.

        Raises:
            LumiereError: it could not be, e.g. for want of space.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def check(self) -> None:
        """Raise what went wrong in the background, if anything did; see `wait`."""
        error, self._error = self._error, None
        if error is not None:
            raise LumiereError(
                f"a checkpoint could not be written to {self.folder} ({one_line(error)}); the same command goes on "
                "from the one before"
            ) from error

    def close(self, grace: float = 10.0) -> None:
        """Finish what was begun; for the end of a run, whatever its reason.

        Args:
            grace: seconds that other processes, which may be gone, are waited for.
        """
        self._give_up = time.monotonic() + grace
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _try_to_write(self, taken: state.Snapshot) -> None:
        try:
            self._write(taken)
        except BaseException as error:
            self._error = error

    def _write(self, taken: state.Snapshot) -> None:
        target = state.folder_of(self.folder, taken.step)
        shared = target.with_name(f".{target.name}{PARTIAL}")
        shared.mkdir(parents=True, exist_ok=True)
        for name, tensors in taken.own.items():
            with replacing(shared / name) as partial:
                save_file(tensors, partial)
        if self.rank:
            return
        while missing := [name for name in taken.files if not (shared / name).exists()]:
            time.sleep(_LOOK_EVERY)
            if time.monotonic() > self._give_up:
                raise FileNotFoundError(f"{missing[0]} never came: do all processes see {self.folder}?")
        write_json(shared / state.STATE, taken.told)
        if target.exists():  # left by an abandoned run
            state.remove_checkpoint(target)
        with replacing(target) as whole:
            os.replace(shared, whole)
        state.prune(self.folder, target, keep=self.keep)


def save(
    folder: Path, step: int, module: nn.Module, optimizer: torch.optim.Optimizer, ema: state.EMA, *, keep: int,
    config: dict,
) -> Path:  # fmt: skip
    """Write ``folder/checkpoint-STEP`` and return when it is there; for one process that has all of the tensors."""
    saver = Saver(folder, keep=keep)
    saver.save(step, module, optimizer, ema, config=config)
    saver.wait()
    return state.folder_of(folder, step)
