"""`lumiere train` in processes of their own, and what is read of their runs."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import processes
import tiny
from openlumiere.cli import main
from openlumiere.training import state

ROOT = Path(__file__).parents[1]
# Of every process: one CPU thread, no GPU, no network.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true", "HF_HUB_OFFLINE": "1",
    "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")])),
}  # fmt: skip


class Runs:
    """Starts `lumiere train` in real processes."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder, self.data = folder, data
        (folder / "config.yaml").write_text(yaml.safe_dump(tiny.TRAINING | {"output": "-"}), encoding="utf-8")

    def arguments(self, output: Path, *overrides: str, stage: str = "t2i") -> list[str]:
        return [
            "train", str(self.folder / "config.yaml"), "-o", str(output), f"stage={stage}", f"data.folder={self.data}",
            *(["model.unet={}"] if stage in ("t2v", "conditional", "ssr") else []), *overrides,
        ]  # fmt: skip

    def start(self, output: Path, *overrides: str, stage: str = "t2i") -> BaseProcess:
        output.mkdir(parents=True, exist_ok=True)
        words = self.arguments(output, *overrides, stage=stage)
        return processes.start(main, words, log=output / "log", environment=ENVIRONMENT)

    def run(self, output: Path, *overrides: str, stage: str = "t2i") -> tuple[int, str]:
        """Exit code, and all that was printed into this output's log."""
        process = self.start(output, *overrides, stage=stage)
        process.join()
        assert process.exitcode is not None
        return process.exitcode, log_of(output)

    def whole(self, stage: str, *overrides: str) -> Path:
        """Run a stage from its beginning to its end; returns its folder."""
        output = self.folder / stage
        code, log = self.run(output, *overrides, stage=stage)
        assert code == 0, log
        return output

    def killed(self, output: Path, after: int, *overrides: str, stage: str = "t2i") -> None:
        """Start, and SIGKILL at an arbitrary moment after the checkpoint of step `after`."""
        process = self.start(output, *overrides, stage=stage)
        processes.wait_for(lambda: (output / f"checkpoint-{after:07d}").exists(), process)
        time.sleep(random.uniform(0, 0.1))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, "the run was over before it could be killed"


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def together(count: int, function: Callable[..., int], *arguments: Any, folder: Path) -> tuple[list[int | None], str]:
    """Run some processes as `torchrun` would; returns their exit codes, and what they printed."""
    shared = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log"
    started = []
    for rank in map(str, range(count)):
        environment = ENVIRONMENT | shared | {"RANK": rank, "LOCAL_RANK": rank}
        started.append(processes.start(function, *arguments, log=log, environment=environment))
    for process in started:
        process.join()
    return [process.exitcode for process in started], log_of(folder)


def log_of(output: Path) -> str:
    return (output / "log").read_text(encoding="utf-8")


def scalars(output: Path, name: str) -> dict[int, float]:
    events = EventAccumulator(str(output / "tensorboard")).Reload()
    return {event.step: event.value for event in events.Scalars(name)}


def assert_same_state(one: Path, other: Path) -> None:
    """The last checkpoints of two runs are equal to the bit."""
    mine, theirs = state.checkpoints(one)[-1], state.checkpoints(other)[-1]
    assert mine.name == theirs.name
    for name in ("weights", "ema", "optimizer"):
        a, b = load_file(mine / f"{name}.safetensors"), load_file(theirs / f"{name}.safetensors")
        assert a.keys() == b.keys()
        assert [key for key in a if not torch.equal(a[key], b[key])] == [], name
    told = [json.loads((path / "state.json").read_text()) for path in (mine, theirs)]
    assert [(s["step"], s["ema_updates"]) for s in told] == [(told[0]["step"], told[0]["step"])] * 2
