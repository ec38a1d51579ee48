"""What a command shows of its progress: bars while it runs, seconds of each stage at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tqdm import tqdm

if TYPE_CHECKING:
    from openlumiere.generation.progress import Progress

_BARS = {"denoise": ("denoising", "step"), "sharpen": ("sharpening", "step"), "write": ("writing", "frame")}


def bar(stage: str, total: int, unit: str) -> tqdm:
    """Return a progress bar with time left on stderr; where that is a file, a line every few seconds."""
    return tqdm(total=total, desc=f"{stage:<9}", unit=unit, mininterval=0.1 if sys.stderr.isatty() else 5.0)


def attempts_bar() -> tqdm:
    """Return a counter of the attempts to fit a sticker."""
    return tqdm(desc="fitting  ", unit=" attempts", bar_format="{desc}: {n_fmt}{unit}{postfix}")


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
        """Return one line, such as ``load 2.1 s, denoise 20.0 s, total 22.2 s``."""
        total = time.perf_counter() - self._started
        return ", ".join(f"{name} {seconds:.1f} s" for name, seconds in [*self._seconds.items(), ("total", total)])


class ProgressBars:
    """A bar for each stage of a clip, as `generation.make` tells of them, and its seconds."""

    def __init__(self, watch: Stopwatch) -> None:
        self._watch = watch
        self._stage, self._since = "", 0.0
        self._bar: tqdm | None = None

    def __call__(self, now: Progress) -> None:
        """Show one step."""
        if now.stage != self._stage:
            self.close()
            self._stage, self._since = now.stage, time.perf_counter()
            if now.stage in _BARS:
                name, unit = _BARS[now.stage]
                self._bar = bar(name, now.total, unit)
            elif now.stage == "sticker":
                self._bar = attempts_bar()
        if self._bar is not None:
            if now.note:
                self._bar.set_postfix_str(now.note, refresh=False)
            self._bar.update(now.step - self._bar.n)

    def close(self) -> None:
        """End the stage that runs."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        if self._stage:
            self._watch.add(self._stage, time.perf_counter() - self._since)
            self._stage = ""
