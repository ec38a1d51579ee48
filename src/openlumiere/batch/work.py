"""A batch, whoever makes it: a stream of items, how each is made, what came of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from openlumiere.files import is_disk_full, one_line

from .cluster import Cluster

T = TypeVar("T")  # an item
V = TypeVar("V")  # what is told of a made one


@dataclass(frozen=True)
class Outcome(Generic[V]):
    """What came of an item.

    Attributes:
        index: of the item in the stream, from 0 on.
        name: of the item.
        value: what making it returned; None where it failed, and where a process made it and died before it told.
        error: why it failed, in one line; "" = it is made.
    """

    index: int
    name: str
    value: V | None = None
    error: str = ""


class Work(ABC, Generic[T, V]):
    """How items are made.

    Work and items are pickled to every process that makes some: they hold what loads a model, never a model.
    """

    @abstractmethod
    def name(self, item: T) -> str:
        """Return what an item is called: always the same, and each its own."""

    @abstractmethod
    def load(self) -> Callable[[T], V]:
        """Load what makes items; return a function that makes one, its output whole or not at all.

        What that returns travels to whoever started the batch: keep it small.
        """

    def folder(self) -> Path | None:
        """Return the folder of the outputs, which all machines of a cluster must see; None = they lie elsewhere."""
        return None

    def is_done(self, item: T) -> bool:
        """Return whether an item's output is there; such items are skipped."""
        return False

    def finder(self) -> Callable[[T], bool]:
        """Return `is_done` as it is asked of a whole stream, where asking for each alone would be slow."""
        return self.is_done


def run(
    items: Iterable[T],
    work: Work[T, V],
    cluster: Cluster | None = None,
    *,
    left: int | None = None,
    keep_going: bool = True,
    starting: Callable[[T], None] | None = None,
    report: Callable[[str], None] | None = None,
) -> Iterator[Outcome[V]]:
    """Make the items that are not done yet, and yield what came of each.

    Args:
        items: read as they are wanted, so that a long stream takes no memory. A cluster reads them in another process,
            and more than once, in the same order: give a sequence, or an object that can be pickled and iterated anew.
        cluster: makes them, in any order; None = this process, one after the other.
        left: how many are not done; None = they are counted, where that is needed.
        keep_going: yield what fails, and go on; else the first failure is raised, on a cluster after all the others are
            made.
        starting: told of each item before it is made, in this process.
        report: told in lines what happens on a cluster.

    Raises:
        Exception: what `work.load` raises, and a full disk, whatever `keep_going` says.
    """
    if cluster is None:
        yield from _run_here(items, work, keep_going, starting)
        return
    from .on_ray import run_on_ray

    yield from run_on_ray(items, work, cluster, left=left, keep_going=keep_going, report=report)


def _run_here(
    items: Iterable[T], work: Work[T, V], keep_going: bool, starting: Callable[[T], None] | None
) -> Iterator[Outcome[V]]:
    is_done = work.finder()
    make: Callable[[T], V] | None = None
    for index, item in enumerate(items):
        if is_done(item):
            continue
        make = make or work.load()
        if starting is not None:
            starting(item)
        try:
            outcome = Outcome(index, work.name(item), make(item))
        except Exception as error:
            if not keep_going or is_disk_full(error):
                raise
            outcome = Outcome(index, work.name(item), error=one_line(error))
        yield outcome
