"""Batches on Ray: Ray Data streams the items through a pool of actors, one model each.

Whether an item is made is told by its output, not by Ray: whoever finds it done skips it, so that nothing is made twice
when an actor dies and its task runs again. What failed, or was lost with its process, is tried once more in a second
pool of processes.
"""

from __future__ import annotations

import errno
import math
import os
import platform
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import ray
import ray.data
from ray import cloudpickle
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

import openlumiere
from openlumiere.errors import LumiereError
from openlumiere.files import is_disk_full, one_line, partial_path

from .cluster import Cluster, in_folder, last_line
from .work import Outcome, Work

T = TypeVar("T")
V = TypeVar("V")

ATTEMPTS = 2
# Ray Data remembers some kilobytes of each of its tasks, so a long batch is cut into so many groups of items at most.
_MAX_TASKS = 20_000
_LOST = "the process that made it died, twice; look into Ray's logs, it may be out of memory"
_GROUP, _OUTCOMES = "group", "outcomes"  # columns
_UNKNOWN = BlockMetadata(num_rows=None, size_bytes=None, exec_stats=None)


def run_on_ray(
    items: Iterable[T],
    work: Work[T, V],
    cluster: Cluster,
    *,
    left: int | None = None,
    keep_going: bool = True,
    report: Callable[[str], None] | None = None,
) -> Iterator[Outcome[V]]:
    """Make items on the cluster that this process is connected to; see `work.run`.

    What is made is yielded as it comes, what failed at the end.
    """
    made = bytearray()  # a byte for each item that was told to be made
    reasons: dict[int, str] = {}
    for attempt in range(ATTEMPTS):
        if left is None or attempt:
            left = sum(1 for _ in _missing(items, work, made))
        if not left:
            return
        if attempt and report is not None:
            report(f"{left} that failed, or whose process died, are tried again by other processes")
        # In the last attempt nothing waits for an item that kills its process, to be lost with it.
        ahead = 2 if attempt < ATTEMPTS - 1 else 1
        count = 0
        for outcome in _attempt(items, work, cluster, made, left, ahead):
            if outcome.error:
                reasons[outcome.index] = outcome.error
                continue
            if outcome.index >= len(made):
                made.extend(bytes(outcome.index + 1 - len(made)))
            if not made[outcome.index]:
                made[outcome.index] = 1
                count += 1
                yield outcome
        if count == left:
            return
    failed = (
        Outcome[V](index, work.name(item), error=reasons.get(index, _LOST))
        for index, item in _missing(items, work, made)
    )
    if keep_going:
        yield from failed
        return
    listed = list(failed)
    if listed:
        raise LumiereError(f"{len(listed)} could not be made, such as {listed[0].name}: {listed[0].error}")


def _missing(items: Iterable[T], work: Work[T, V], made: bytes | bytearray) -> Iterator[tuple[int, T]]:
    """The items, with their indices, that were not told to be made and are not done."""
    is_done = work.finder()
    for index, item in enumerate(items):
        if not (index < len(made) and made[index]) and not is_done(item):
            yield index, item


def _attempt(
    items: Iterable[T], work: Work[T, V], cluster: Cluster, made: bytearray, left: int, ahead: int
) -> Iterator[Outcome[V]]:
    """Have each missing item made once; those of a process that dies are lost.

    Args:
        left: how many are missing.
        ahead: groups that a process is given at a time.
    """
    with _marked(work.folder()) as mark:
        outcomes = _dataset(items, work, cluster, made, left, ahead, mark)
        try:
            for batch in outcomes.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                for packed in batch[_OUTCOMES].to_pylist():
                    found, full = cloudpickle.loads(packed)
                    yield from found
                    if full:
                        raise LumiereError(full) from OSError(errno.ENOSPC, full)
        except ray.exceptions.RayError as error:
            raise LumiereError(f"on the cluster: {last_line(error)}") from error


def _dataset(
    items: Iterable[T], work: Work[T, V], cluster: Cluster, made: bytearray, left: int, ahead: int, mark: Path | None
) -> Any:
    """The outcomes, as a data set that is computed when it is iterated."""
    workers = min(cluster.workers, left)
    size = math.ceil(left / _MAX_TASKS)
    context = ray.data.DataContext.get_current().copy()
    context.target_max_block_size = 1  # one row, a group of items, is a block, and so a task
    context.max_errored_blocks = -1  # tasks that are lost with their process
    context.max_consecutive_actor_init_deaths = min(workers, 3)
    context.enable_progress_bars = context.enable_operator_progress_bars = False
    context.print_on_execution_start = False
    with ray.data.DataContext.current(context), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that options of actors will be given otherwise from Ray 2.64 on
        groups = ray.data.read_datasource(_Groups(items, work, bytes(made), size), num_cpus=0, override_num_blocks=1)
        return groups.map_batches(
            _Maker,
            fn_constructor_args=(work, os.getcwd(), openlumiere.__version__, mark),
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=ahead),
            num_cpus=cluster.cpus,
            num_gpus=cluster.gpus,
            # A process that dies is started anew where there is room for it. Its tasks are not: they would wait for
            # room that may never come, and one that kills every process would do so for ever.
            max_restarts=-1,
            max_task_retries=0,
        )


@contextmanager
def _marked(folder: Path | None) -> Iterator[Path | None]:
    """Put a file into a folder, by whose absence another machine knows that its folder of that name is another."""
    if folder is None:
        yield None
        return
    folder.mkdir(parents=True, exist_ok=True)
    mark = partial_path(folder.resolve() / "batch")
    mark.touch()
    try:
        yield mark
    finally:
        mark.unlink(missing_ok=True)


class _Groups(Datasource):
    """Groups of items that are missing, read on this machine, by one process, as the actors want them."""

    def __init__(self, items: Iterable[Any], work: Work[Any, Any], made: bytes, size: int) -> None:
        super().__init__()
        self._read = partial(_read_groups, items, work, made, size)

    def get_name(self) -> str:
        return "Items"

    @property
    def supports_distributed_reads(self) -> bool:
        return False

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        return [ReadTask(partial(in_folder, os.getcwd(), self._read), _UNKNOWN)]


def _read_groups(items: Iterable[Any], work: Work[Any, Any], made: bytes, size: int) -> Iterator[pa.Table]:
    group: list[tuple[int, Any]] = []
    for each in _missing(items, work, made):
        group.append(each)
        if len(group) == size:
            yield _packed(_GROUP, group)
            group = []
    if group:
        yield _packed(_GROUP, group)


def _packed(column: str, value: Any) -> pa.Table:
    return pa.table({column: pa.array([cloudpickle.dumps(value)], pa.binary())})


class _Maker:
    """An actor: what makes items is loaded once, and makes group after group."""

    def __init__(self, work: Work[Any, Any], folder: str, version: str, mark: Path | None) -> None:
        if version != openlumiere.__version__:
            raise LumiereError(
                f"a machine of the cluster has openlumiere {openlumiere.__version__}, the one that started the batch "
                f"{version}; install the same on all"
            )
        if mark is not None and not mark.exists():
            raise LumiereError(
                f"{platform.node()}, a machine of the cluster, does not see {mark.parent}; let outputs lie where all "
                "machines see them"
            )
        self._work = work
        self._make: Callable[[Any], Any] = in_folder(folder, work.load)

    def __call__(self, batch: pa.Table) -> pa.Table:
        found: list[Outcome[Any]] = []
        full = ""
        for packed in batch[_GROUP].to_pylist():
            for index, item in cloudpickle.loads(packed):
                name = self._work.name(item)
                try:
                    # A process may have made it and died, or another batch may have.
                    value = None if self._work.is_done(item) else self._make(item)
                except Exception as error:
                    full = one_line(error) if is_disk_full(error) else full
                    found.append(Outcome(index, name, error=one_line(error)))
                    if full:  # no other item can be written either
                        return _packed(_OUTCOMES, (found, full))
                else:
                    found.append(Outcome(index, name, value))
        return _packed(_OUTCOMES, (found, full))
