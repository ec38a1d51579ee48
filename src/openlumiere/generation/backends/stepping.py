"""Steps of any pipeline of diffusers, as its scheduler sees them: told, and stopped."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from openlumiere.generation.progress import Watch


class StepClock:
    """Where a pipeline is in its scheduler's timesteps.

    It follows the timesteps rather than counting calls: a pipeline may start in their middle (SDEdit), call the
    scheduler twice a timestep, or have a scheduler that lists a timestep twice (PNDM's warm-up, Heun).

    Attributes:
        done: timesteps that are behind.
        skipped: those of them that the pipeline left out at the start.
    """

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self._timesteps: list[float] = []
        self.done = self.skipped = 0

    def advance(self, timestep: Any) -> None:
        """Note that the scheduler stepped from a timestep."""
        at = _number(timestep)
        if not self._timesteps:
            self._timesteps = [_number(each) for each in self._scheduler.timesteps]
            self.done = self.skipped = self._start(at)
        if at not in self._timesteps:  # a pipeline that gives the network other ones
            self.done = min(self.done + 1, len(self._timesteps))
        elif at in self._timesteps[self.done :]:  # else another call of the same step
            self.done = self._timesteps.index(at, self.done) + 1

    def _start(self, timestep: float) -> int:
        """Where a pipeline starts, which is between whole steps of a scheduler that takes several calls for each."""
        order = getattr(self._scheduler, "order", 1)
        whole = range(0, len(self._timesteps), order)
        return next((index for index in whole if self._timesteps[index] == timestep), 0)

    @property
    def step(self) -> int:
        """Steps that the pipeline made."""
        return self.done - self.skipped

    @property
    def total(self) -> int:
        """Steps that it makes; 0 before the first."""
        return len(self._timesteps) - self.skipped

    @property
    def next_timestep(self) -> Any:
        """The scheduler's own, at which the sample stands now; None = it is finished."""
        return self._scheduler.timesteps[self.done] if self.done < len(self._timesteps) else None


@contextmanager
def stepping(scheduler: Any, watch: Watch, total: int) -> Iterator[None]:
    """Tell a watch of each step that pipelines make with a scheduler, and ask it before each whether to stop.

    Args:
        scheduler: this one is watched, not its class, and until the end only.
        total: steps that are expected, told before the first; the scheduler says how many there are then.
    """
    clock = StepClock(scheduler)

    def begin(set_timesteps: Callable[..., Any], *inputs: Any, **options: Any) -> Any:
        found = set_timesteps(*inputs, **options)
        watch.tell("denoise", 0, total)
        watch.ask()
        return found

    def step(step: Callable[..., Any], *inputs: Any, **options: Any) -> Any:
        found = step(*inputs, **options)
        clock.advance(argument(step, "timestep", inputs, options))
        watch.tell("denoise", clock.step, clock.total)
        if clock.step < clock.total:
            watch.ask()
        return found

    with around(scheduler, "set_timesteps", begin), around(scheduler, "step", step):
        yield


@contextmanager
def around(owner: Any, name: str, replacement: Callable[..., Any]) -> Iterator[None]:
    """Call a function in place of an object's method, with the method before its arguments.

    Pipelines look at the signatures of their scheduler's methods: they stay as they are.
    """
    method, own = getattr(owner, name), vars(owner).get(name)

    @wraps(method)
    def called(*inputs: Any, **options: Any) -> Any:
        return replacement(method, *inputs, **options)

    setattr(owner, name, called)
    try:
        yield
    finally:
        if own is None:
            delattr(owner, name)
        else:
            setattr(owner, name, own)


def argument(method: Callable[..., Any], name: str, inputs: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Return the argument of a call that a method has under a name: schedulers differ in its place."""
    return inspect.signature(method).bind(*inputs, **options).arguments[name]


def _number(timestep: Any) -> float:
    """A timestep, or the first of a batch's, which are all the same."""
    return float(timestep.flatten()[0]) if hasattr(timestep, "flatten") else float(timestep)
