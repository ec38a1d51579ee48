"""How far a clip is, and how long it will take yet, by measured times of steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

_START, _END = 2, 96  # percent between which the steps lie: before them text is read, after them files are written


class Pace:
    """One clip's way through the steps of its stages.

    Args:
        steps: of each stage that samples, in their order; what is told of them later counts more.
        key: what a step's time hangs on, beside its stage: the model, and the clip's size.
        known: seconds of a step, by (key, stage), measured before; it learns from this clip.
        clock: seconds from any start.
    """

    def __init__(
        self,
        steps: Mapping[str, int],
        key: str,
        known: dict[tuple[str, str], float],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total, self._done = dict(steps), dict.fromkeys(steps, 0)
        self._key, self._known, self._clock = key, known, clock
        self._began = clock()

    def tell(self, stage: str, step: int, total: int) -> None:
        """Note a step, as `generation.progress.Progress` tells it."""
        if stage not in self._total:
            return
        self._total[stage], self._done[stage] = total, step
        if step == 0:
            self._began = self._clock()
        else:
            self._known[self._key, stage] = (self._clock() - self._began) / step

    @property
    def progress(self) -> int:
        """Percent of the whole that is done; 100 is for who has written the files."""
        measured = [self._known[self._key, stage] for stage in self._total if (self._key, stage) in self._known]
        usual = sum(measured) / len(measured) if measured else 1.0
        seconds = {stage: self._known.get((self._key, stage), usual) for stage in self._total}
        done = sum(seconds[stage] * steps for stage, steps in self._done.items())
        total = sum(seconds[stage] * steps for stage, steps in self._total.items())
        return _START + int((_END - _START) * done / total) if total else _START

    @property
    def seconds_left(self) -> float | None:
        """Seconds of the steps that are left; None as long as one of their stages was never measured."""
        left = {stage: total - self._done[stage] for stage, total in self._total.items() if total > self._done[stage]}
        if any((self._key, stage) not in self._known for stage in left):
            return None
        return sum(self._known[self._key, stage] * steps for stage, steps in left.items())
