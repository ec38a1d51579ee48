"""The one model that a worker holds, and whether a clip fits beside it into the device's memory."""

from __future__ import annotations

import gc
import logging
import platform
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch
from diffusers.utils.logging import disable_progress_bar

from openlumiere.app.jobs.store import Store
from openlumiere.bundled import bundled_models
from openlumiere.errors import LumiereError
from openlumiere.files import one_line
from openlumiere.generation.backends.base import Backend, Loading
from openlumiere.generation.backends.find import load_backend
from openlumiere.pipelines.load import resolve_device

_LOG = logging.getLogger(__name__)
_POLL_SECONDS = 0.5  # between two looks whether there is room
_COPIES = 4  # float32 copies of a clip at its full size: given, sampled, sharpened, pasted
_GIB = 2**30


class ModelUnusable(LumiereError):  # noqa: N818 - what the API calls it
    """A model cannot be loaded; the next job that asks for it tries again."""


class Resident:
    """A worker's model: loaded once, and another in its place when a job asks for it.

    Args:
        worker: id, under which memory is set aside.
        device, dtype: as `load_pipeline`'s.
        capacity: bytes of the device that may be used; None = all it has.
    """

    def __init__(self, store: Store, worker: str, *, device: str, dtype: str, capacity: int | None) -> None:
        self._store, self._worker = store, worker
        self._device = resolve_device(device)
        self._origin = Path.cwd()  # models' folders may be relative to it; jobs are made elsewhere
        self._place = f"{platform.node()}/{self._device}"
        self._capacity = capacity or self._memory()
        # On the CPU what is too much is swapped out, not refused: how a model is loaded hangs on memory if told so.
        chosen = capacity if self._device.type == "cpu" else self._capacity
        self._loading = Loading(device=str(self._device), dtype=dtype, memory=chosen)
        self._model: Backend | None = None
        self._network: dict[str, int] = {}  # bytes that a window takes within a network, measured, by model
        self.name: str | None = None  # of the model that is loaded, as it was asked for

    def load(self, name: str) -> Backend:
        """Return a model that makes clips, loaded unless it is the one that is.

        Raises:
            ModelUnusable: it cannot be loaded, or is larger than the memory; that is logged and noted in the store.
        """
        if self._model is not None and self.name == name:
            return self._model
        self._unload()
        source = self._anywhere(name)
        began = time.monotonic()
        disable_progress_bar()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of libraries, about themselves
                model = load_backend(source, self._loading)
        except (MemoryError, torch.OutOfMemoryError) as error:
            reason = f"it is larger than the memory of {self._place}; choose another model"
            raise self._unusable(name, reason) from error
        except Exception as error:
            if not isinstance(error, LumiereError):
                _LOG.debug("%s failed to load", name, exc_info=True)
            raise self._unusable(name, one_line(error, 400).replace(source, name)) from error
        self._store.note_model(name, None)
        _LOG.info("%s loaded in %.1f s%s", name, time.monotonic() - began, "".join(f"; {note}" for note in model.notes))
        self._model, self.name = model, name
        return model

    def _unusable(self, name: str, reason: str) -> ModelUnusable:
        _LOG.error("%s cannot be loaded: %s", name, reason)
        self._store.note_model(name, reason)
        return ModelUnusable(f"{name} cannot be loaded: {reason}")

    def _anywhere(self, name: str) -> str:
        """The model's name as any working folder finds it."""
        folder = self._origin / name
        return str(folder.resolve()) if name not in bundled_models() and folder.is_dir() else name

    def _unload(self) -> None:
        self._model = self.name = None
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    @contextmanager
    def room(self, values: int, wait: Callable[[], None]) -> Iterator[None]:
        """Hold memory for a clip with the model that is loaded, after waiting for other workers of the device.

        Args:
            values: of the finished clip: frames x height x width x channels.
            wait: called between two tries; raises to give up.

        Raises:
            LumiereError: the clip would not fit alone.
        """
        assert self._model is not None
        if not self._model.device:  # another server's memory, which it minds itself
            yield
            return
        model, clip = self._model.name, 4 * _COPIES * values
        needed = self._model.weight_bytes + self._network.get(model, 0) + clip
        if needed > self._capacity:
            raise LumiereError(
                f"the clip needs about {needed / _GIB:.1f} GiB of memory, and there are {self._capacity / _GIB:.1f}; "
                "ask for fewer frames, or a smaller one"
            )
        while not self._store.take_memory(self._worker, self._place, needed, self._capacity):
            wait()
            time.sleep(_POLL_SECONDS)
        # A process's peak on the CPU cannot be reset portably: there the arithmetic alone counts.
        measured = self._device.type == "cuda"
        if measured:
            torch.cuda.reset_peak_memory_stats(self._device)
            before = torch.cuda.memory_allocated(self._device)
        try:
            yield
        finally:
            if measured:
                peak = int(torch.cuda.max_memory_allocated(self._device)) - before
                self._network[model] = max(self._network.get(model, 0), peak - clip)

    def _memory(self) -> int:
        if self._device.type == "cuda":
            return int(torch.cuda.mem_get_info(self._device)[1])
        return int(psutil.virtual_memory().total)
