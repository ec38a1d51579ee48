"""Training in two processes that share the data and keep the same weights."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from openlumiere.cli import main
from openlumiere.training import loop, state
from openlumiere.training.config import TrainConfig
from openlumiere.training.stages.base import Stage
from runs import ENVIRONMENT, Runs, free_port, together

pytestmark = pytest.mark.slow  # whole runs


def _recording(folder: Path, arguments: list[str]) -> int:
    """Train, and write down what was asked of the real data set and what the weights became."""
    make_stage = loop.make_stage
    asked: list[int] = []
    made: list[Stage] = []

    class Recorder:
        def __init__(self, dataset: Any) -> None:
            self.dataset = dataset

        def __getitem__(self, index: int) -> Any:
            asked.append(index)
            return self.dataset[index]

    def recording(config: TrainConfig, device: torch.device) -> Stage:
        stage = make_stage(config, device)
        stage.dataset = Recorder(stage.dataset)
        made.append(stage)
        return stage

    loop.make_stage = recording
    code = main(arguments)
    weights = b"".join(p.detach().numpy().tobytes() for p in made[0].module.parameters())
    report = {"asked": asked, "weights": hashlib.sha256(weights).hexdigest()}
    (folder / f"rank-{os.environ['RANK']}.json").write_text(json.dumps(report))
    return code


def _diverging(arguments: list[str]) -> int:
    """Train with a loss that is no number, on one process alone."""
    make_stage = loop.make_stage

    def diverging(config: TrainConfig, device: torch.device) -> Stage:
        stage = make_stage(config, device)
        loss = stage.loss

        def loss_of(*args: Any) -> torch.Tensor:
            return loss(*args) * (float("nan") if os.environ["RANK"] == "1" and stage.step == 2 else 1)

        stage.loss = loss_of
        return stage

    loop.make_stage = diverging
    return main(arguments)


def launch(*arguments: str) -> str:
    """`accelerate launch` on two processes; returns what they printed.

    ACCELERATE_USE_CPU puts them on the CPU with gloo: with --cpu Accelerate starts a single one.
    """
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("accelerate")), "launch", "--multi_gpu", "--num_processes", "2",
            "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
            "--main_process_port", free_port(), *arguments,
        ],
        env=os.environ | ENVIRONMENT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_two_processes_keep_the_same_weights_and_share_the_data(runs: Runs, tmp_path: Path) -> None:
    train = runs.arguments(tmp_path / "run", "optim.max_steps=4", "optim.batch_size=4", "sample_every=0")
    codes, log = together(2, _recording, tmp_path, train, folder=tmp_path)
    assert codes == [0, 0], log
    assert "t2i on cpu x 2" in log
    assert "4 steps of 4 samples" in log
    first, second = (json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in (0, 1))
    assert first["weights"] == second["weights"]
    assert len(first["asked"]) == len(second["asked"]) == 4 * 2
    assert sorted(first["asked"] + second["asked"]) == list(range(16))
    assert [path.name for path in state.checkpoints(tmp_path / "run")] == ["checkpoint-0000004"]
    moments = load_file(state.checkpoints(tmp_path / "run")[-1] / "optimizer.safetensors")
    assert {float(value) for name, value in moments.items() if name.endswith("/step")} == {4.0}


def test_all_processes_stop_when_the_loss_of_one_is_no_number(runs: Runs, tmp_path: Path) -> None:
    train = runs.arguments(tmp_path / "run", "optim.max_steps=9", "optim.batch_size=2", "sample_every=0")
    codes, log = together(2, _diverging, train, folder=tmp_path)
    assert codes == [2, 2], log
    assert log.count("lumiere: error: the loss became nan at step 2; start again from the last checkpoint") == 1


def test_the_command_runs_under_accelerate_launch(runs: Runs, t2v_overrides: list[str], tmp_path: Path) -> None:
    few = ["optim.max_steps=3", "sample_every=3", "time_budget=10"]
    train = runs.arguments(tmp_path, *t2v_overrides, *few, stage="t2v")
    log = launch("-m", "openlumiere.cli", *train)
    assert [path.name for path in state.checkpoints(tmp_path)] == ["checkpoint-0000003"]
    assert (tmp_path / "export" / "temporal" / "temporal.safetensors").exists()
    assert log.count("t2v on cpu x 2") == 1
