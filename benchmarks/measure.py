"""FLOPs, seconds and bytes of one step.

FLOPs are counted on the meta device (matrix products, convolutions and attention; a multiply-add is two): exact, and
the same on every machine. Memory on the CPU is the highest sum of PyTorch's own allocator events, which its profiler
records: every tensor and kernel workspace, not Python, not the libraries' code, and not pages kept from earlier runs,
so contestants in one process don't disturb each other as they would in the resident set size. On CUDA it is
`torch.cuda.max_memory_allocated`. To both, the weights' own bytes are added.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Literal

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from contestants import Contestant

Mode = Literal["forward", "training"]
_LAYOUTS = {"channels-first": torch.contiguous_format, "channels-last": torch.channels_last}


@dataclass(frozen=True)
class Flops:
    """`temporal`: of the layers that STUNet adds, None for other networks."""

    total: int
    temporal: int | None

    @property
    def spatial(self) -> int | None:
        """Of the T2I's layers."""
        return None if self.temporal is None else self.total - self.temporal


@dataclass
class Bench:
    """One contestant, ready to step on clips of one length.

    Attributes:
        layout: of its convolutions' weights, a key of `_LAYOUTS`.
    """

    contestant: Contestant
    step: Callable[[], None]
    layout: str = "channels-first"

    def use(self, layout: str) -> None:
        """Put the weights in a layout."""
        self.layout = layout
        self.contestant.net.to(memory_format=_LAYOUTS[layout])


def stepper(contestant: Contestant, shape: tuple[int, ...], text_length: int, mode: Mode) -> Callable[[], None]:
    """One step: the forward pass, or with the gradients of the temporal layers, the T2I frozen.

    Args:
        shape: of the clip, (B, C, F, H, W).
    """
    weight = next(p for _, p in contestant.net.named_parameters())
    like = {"device": weight.device, "dtype": weight.dtype}
    sample = torch.randn(shape, **like)
    timestep = torch.full(shape[:1], 500.0, device=weight.device)
    text = torch.randn(shape[0], text_length, contestant.text_dim, **like)
    trainable = contestant.trainable()

    def forward() -> None:
        with torch.no_grad():
            contestant.predict(sample, timestep, text)

    def training() -> None:
        for parameter in trainable:
            parameter.grad = None
        contestant.predict(sample, timestep, text).square().mean().backward()

    return forward if mode == "forward" else training


def count_flops(contestant: Contestant, shape: tuple[int, ...], text_length: int, mode: Mode) -> Flops:
    """Count a step of a contestant that was built on the meta device."""
    step = stepper(contestant, shape, text_length, mode)
    with FlopCounterMode(display=False) as counter:
        step()
    counts = {name: sum(ops.values()) for name, ops in counter.get_flop_counts().items()}
    root = type(contestant.net).__name__
    temporal = [name for name in counts if name.startswith(f"{root}.temporal.")]
    # A module's count holds its children's: sum those that have no counted parent.
    tops = [name for name in temporal if not any(name.startswith(f"{other}.") for other in temporal)]
    ours = hasattr(contestant.net, "temporal")
    return Flops(counter.get_total_flops(), sum(counts[name] for name in tops) if ours else None)


def seconds(step: Callable[[], None], device: torch.device) -> float:
    """Wall clock of one step."""
    _synchronise(device)
    started = time.perf_counter()
    step()
    _synchronise(device)
    return time.perf_counter() - started


def faster_layout(bench: Bench, device: torch.device) -> str:
    """The layout of convolutions in which this contestant is faster here; it is warm afterwards."""
    taken = {}
    for layout in _LAYOUTS:
        bench.use(layout)
        bench.step()
        taken[layout] = min(seconds(bench.step, device) for _ in range(2))
    return min(taken, key=taken.__getitem__)


def peak_bytes(step: Callable[[], None], device: torch.device) -> int:
    """Most bytes alive at once in a step, beyond what was alive before it; see the module's docstring."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    alive = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        alive += event.nbytes()
        peak = max(peak, alive)
    return peak


def forget_gradients(contestant: Contestant) -> None:
    """So that the last step's gradients are not taken for memory that was there before."""
    for parameter in contestant.trainable():
        parameter.grad = None


def weight_bytes(contestant: Contestant) -> int:
    """Of all parameters, frozen and added."""
    return sum(p.numel() * p.element_size() for _, p in contestant.net.named_parameters())


def summary(values: list[float]) -> tuple[float, float]:
    """Minimum and median."""
    return min(values), median(values)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
