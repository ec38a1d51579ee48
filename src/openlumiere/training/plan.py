"""Plans for `lumiere train`: stage after stage, in pieces of minutes, on a machine that is lent without a network.

Each call goes on where the last one stopped: from the checkpoints that lie there, or, on a fresh machine, from the
small files that `carried` packs at the end of every piece.
"""

from __future__ import annotations

import dataclasses
import gc
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate.state import AcceleratorState

from openlumiere.errors import LumiereError
from openlumiere.pipelines.text import PACKED_ENCODER

from . import carried, state
from .config import TrainConfig
from .config_files import load
from .loop import train
from .settings import read_yaml, typed

# Of a piece: kept for exporting and packing; and the least that is worth starting a stage for.
_RESERVED = 0.05
_LEAST = 0.05


@dataclass(frozen=True, kw_only=True)
class PlanStage:
    """One stage: its own configuration, beside the plan's file, and what is set otherwise there."""

    config: str
    overrides: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """Stages in their order; `overrides` hold for each, before its own."""

    stages: list[PlanStage]
    overrides: list[str] = field(default_factory=list)
    text_encoder: str | None = None  # folder of the one that `lumiere data pack` wrote


def load_plan(path: Path, overrides: list[str] | None = None) -> dict[str, TrainConfig]:
    """Return the configurations of a plan's stages, by name, in their order.

    From then on this process reads the packed text encoder, if the plan names one.

    Args:
        overrides: for every stage, after all others.

    Raises:
        LumiereError: a file that cannot be read, unknown keys, two stages of one name.
    """
    plan: PlanConfig = typed(PlanConfig, read_yaml(path), str(path))
    if plan.text_encoder is not None:
        os.environ[PACKED_ENCODER] = plan.text_encoder
    stages: dict[str, TrainConfig] = {}
    for stage in plan.stages:
        file = path.parent / stage.config
        if file.stem in stages:
            raise LumiereError(f"{path} names {file.stem} twice; a stage's file gives it its name")
        stages[file.stem] = load(file, [*plan.overrides, *stage.overrides, *(overrides or [])])
    if not stages:
        raise LumiereError(f"{path} has no stages")
    return stages


def run(
    stages: dict[str, TrainConfig], *, minutes: float | None = None, folder: Path | None = None,
    budget: int = carried.BUDGET, clock: Callable[[], float] = time.monotonic,
) -> bool:  # fmt: skip
    """Train the unfinished stages of a plan for some minutes, and return whether all are finished.

    Args:
        minutes: of wall clock, everything included but Python's own start; None = to the end.
        folder: what is needed to go on is read from there and packed there; None = neither.
        budget: bytes that it may take.

    Raises:
        LumiereError: too few minutes to make a single step.
    """
    started = clock()
    if folder is not None:
        carried.unpack(stages, folder)
    for name, config in stages.items():
        if finished(config):
            print(f"{name}: finished")
            continue
        given = 0.0
        if minutes is not None:
            left = minutes * (1 - _RESERVED) - (clock() - started) / 60
            if left < minutes * _LEAST:
                print(f"{name}: no time is left to start it; the same command goes on there")
                return False
            given = left
        before = steps_made(config)
        train(dataclasses.replace(config, time_budget=given))
        _free_memory(compiled=config.optim.compile)
        if steps_made(config) == before and not finished(config):
            raise LumiereError(f"{name}: {minutes:g} minutes are too few to make a step; give it more --minutes")
        if folder is not None:
            print(carried.pack(stages, folder, budget=budget))
        if not finished(config):
            return False
    return True


def steps_made(config: TrainConfig) -> int:
    """Return the step of a run's newest checkpoint, 0 where there is none."""
    found = state.checkpoints(Path(config.output))
    return state.step_of(found[-1]) if found else 0


def finished(config: TrainConfig) -> bool:
    """Return whether a run has made all its steps and written its export."""
    return steps_made(config) >= config.optim.max_steps and (Path(config.output) / "export").is_dir()


def _free_memory(*, compiled: bool) -> None:
    """Free a stage's network, and reset what the next stage may set otherwise."""
    AcceleratorState._reset_state()  # mixed precision is one for a process
    if compiled:
        torch.compiler.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
