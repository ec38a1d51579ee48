"""How long each stage of a command takes: bars while it runs, seconds at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm


def bar(stage: str, total: int, unit: str) -> tqdm:
    """A progress bar with time left on stderr; where that is a file, a line every few seconds."""
    return tqdm(total=total, desc=f"{stage:<9}", unit=unit, mininterval=0.1 if sys.stderr.isatty() else 5.0)


class Stopwatch:
    """Seconds spent in each stage, summed, and in all since it was made."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time within to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - started)

    def add(self, name: str, seconds: float) -> None:
        """Count seconds to a stage."""
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    def report(self) -> str:
        """One line, such as ``load 2.1 s, denoise 20.0 s, total 22.2 s``."""
        total = time.perf_counter() - self._started
        return ", ".join(f"{name} {seconds:.1f} s" for name, seconds in [*self._seconds.items(), ("total", total)])
