"""A step on several processes is the step on one, whoever goes on from whose checkpoint."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from openlumiere.cli import main
from openlumiere.training import loop, parallel, state
from openlumiere.training.config import TrainConfig
from openlumiere.training.stages.base import Stage
from runs import ENVIRONMENT, Runs, log_of, scalars, together

pytestmark = pytest.mark.slow  # whole runs

STEADY = ["optim.warmup_steps=0", "optim.final_lr_ratio=1", "log_every=1", "sample_every=0", "checkpoint_every=3"]
# Sums are made in another order; what that changes grows from step to step.
TOLERANCE = 2e-4


def in_parts(arguments: list[str]) -> int:
    """Train, with checkpoints in many files."""
    state.PART_BYTES = 20_000
    return main(arguments)


def delayed(arguments: list[str]) -> int:
    """Train, with one process that gets its samples late."""
    make_stage = loop.make_stage
    parallel._LOOK_EVERY, parallel._LOOKS = 1, 5  # the first two steps are like no others

    class Late:
        def __init__(self, dataset: Any) -> None:
            self.dataset = dataset

        def __getitem__(self, index: int) -> Any:
            time.sleep(2 if os.environ["RANK"] == "1" else 0)
            return self.dataset[index]

    def late(config: TrainConfig, device: torch.device) -> Stage:
        stage = make_stage(config, device)
        stage.dataset = Late(stage.dataset)
        return stage

    loop.make_stage = late
    return main(arguments)


@pytest.fixture(scope="module")
def alone(runs: Runs) -> Path:
    """The folder of a run of nine steps on one process."""
    code, log = runs.run(runs.folder / "alone", *STEADY, "optim.max_steps=9", "optim.optimizer=muon")
    assert code == 0, log
    return runs.folder / "alone"


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_run_goes_on_with_two_processes_then_four_then_one(
    runs: Runs, alone: Path, tmp_path: Path, strategy: str
) -> None:
    output = tmp_path / "run"
    for count, steps in ((2, 3), (4, 6), (1, 9)):
        train = runs.arguments(
            output, *STEADY, f"optim.max_steps={steps}", "optim.optimizer=muon", f"parallel={strategy}"
        )
        codes, log = together(count, in_parts, train, folder=output)
        assert codes == [0] * count, log
        parts = list((output / f"checkpoint-{steps:07d}").glob("weights*"))
        assert len(parts) == count, parts
        assert log.count(f"t2i on cpu x {count}" if count > 1 else "t2i on cpu:") == 1
        assert ("weights sharded" in log) == (strategy == "fsdp")
        assert "4 samples" in log
    expected, found = scalars(alone, "loss"), scalars(output, "loss")
    assert list(found) == list(range(1, 10))
    assert found == {step: pytest.approx(loss, rel=TOLERANCE) for step, loss in expected.items()}
    norms = scalars(output, "gradient_norm")
    assert norms == {s: pytest.approx(n, rel=100 * TOLERANCE) for s, n in scalars(alone, "gradient_norm").items()}
    one, other = (state.read(state.checkpoints(folder)[-1], "ema") for folder in (alone, output))
    assert one.keys() == other.keys()
    assert max(float((one[name] - other[name]).abs().max()) for name in one) < 1e-3


def test_a_frozen_t2i_is_sharded_too_but_not_kept(runs: Runs, t2v_overrides: list[str], tmp_path: Path) -> None:
    few = ["optim.max_steps=3", "checkpoint_every=3", "sample_every=3", "log_every=1", "parallel=fsdp"]
    few += ["optim.gradient_checkpointing=true", "optim.gradient_accumulation=1", "optim.batch_size=2"]
    for count in (1, 2):
        output = tmp_path / str(count)
        codes, log = together(count, main, runs.arguments(output, *t2v_overrides, *few, stage="t2v"), folder=output)
        assert codes == [0] * count, log
    curves = [scalars(tmp_path / count, "loss") for count in ("1", "2")]
    assert curves[0] == {step: pytest.approx(loss, rel=TOLERANCE) for step, loss in curves[1].items()}
    checkpoint = state.checkpoints(tmp_path / "2")[-1]
    names = {name.rpartition("/")[0] for name in load_file(checkpoint / "optimizer.safetensors")}
    assert names == set(load_file(checkpoint / "weights.safetensors"))
    assert all(name.startswith("temporal.") for name in names)
    whole = [load_file(tmp_path / count / "export/pipeline/unet/diffusion_pytorch_model.safetensors") for count in "12"]
    assert whole[0].keys() == whole[1].keys()
    assert all(torch.allclose(value, whole[1][name], atol=1e-3) for name, value in whole[0].items())
    samples = [sorted(path.name for path in (tmp_path / count / "samples").iterdir()) for count in "12"]
    assert samples[0] == samples[1] != []


def test_an_autoencoder_sees_the_statistics_of_the_whole_batch(drawings: Path, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        "{stage: autoencoder, output: '-', seed: 3, log_every: 1, sample_every: 0,\n"
        "model: {size: 16, equivariance: 0.6,\n"
        "  autoencoder: {latent_channels: 4, block_out_channels: [8, 8, 8], layers_per_block: [1, 1]}},\n"
        "optim: {lr: 1.0e-3, warmup_steps: 0, max_steps: 4, batch_size: 6}}\n",
        encoding="utf-8",
    )
    for count in (1, 2):
        output = tmp_path / str(count)
        train = ["train", str(tmp_path / "config.yaml"), "-o", str(output), f"data.folder={drawings}"]
        codes, log = together(count, main, train, folder=output)
        assert codes == [0] * count, log
    one, other = (scalars(tmp_path / count, "loss") for count in "12")
    assert one == {step: pytest.approx(loss, rel=TOLERANCE) for step, loss in other.items()}
    # What flows back through the statistics too; later steps differ by Adam's, of gradients that are all but zero.
    norms = [scalars(tmp_path / count, "gradient_norm")[1] for count in "12"]
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)
    kept = [load_file(state.checkpoints(tmp_path / count)[-1] / "buffers.safetensors") for count in "12"]
    assert all(torch.allclose(value, kept[1][name], atol=1e-3) for name, value in kept[0].items())


def test_a_slow_process_is_named(runs: Runs, tmp_path: Path) -> None:
    train = runs.arguments(tmp_path, *STEADY, "optim.max_steps=5", "optim.batch_size=2")
    codes, log = together(2, delayed, train, folder=tmp_path)
    assert codes == [0, 0], log
    assert log.count("step 4: all wait for process 1 (") == 1


def test_who_is_slow_is_found_by_what_is_typical() -> None:
    # A single slow step, such as a first one, is nothing.
    assert parallel.slow_processes([[9.0, 1.0, 1.0], [1.0, 1.1, 1.0], [1.0, 1.0, 1.1]]) == ""
    found = parallel.slow_processes([[1.0, 1.0, 3.0, 1.1]] * 4)
    assert found == "process 2 (3.00 s a step, most need 1.00 s)"
    assert parallel.slow_processes([[1.0, 1.6]]).startswith("process 1 ")


def test_a_batch_that_cannot_be_shared_is_refused_in_one_line(runs: Runs, tmp_path: Path) -> None:
    train = runs.arguments(tmp_path, "optim.batch_size=3")
    codes, log = together(2, main, train, folder=tmp_path)
    assert codes == [2, 2], log
    told = "lumiere: error: 2 processes can't share batches of 3 evenly: make optim.batch_size a multiple of 2"
    assert log.count(told) == 1
    assert "Traceback" not in log


def test_torchrun_goes_on_from_the_last_checkpoint_when_a_process_dies(runs: Runs, alone: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    output.mkdir()
    train = runs.arguments(output, *STEADY, "checkpoint_every=1", "optim.max_steps=9", "optim.optimizer=muon")
    with (output / "log").open("wb") as log:
        agent = subprocess.Popen(
            [
                sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "1",
                "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "--local-addr", "127.0.0.1",
                "-m", "openlumiere.cli", *train,
            ],
            env=os.environ | ENVIRONMENT | {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 900
        while not (output / "checkpoint-0000002").exists():
            assert agent.poll() is None, log_of(output)
            assert time.monotonic() < deadline
            time.sleep(0.01)
        workers = [child for child in psutil.Process(agent.pid).children() if "openlumiere.cli" in child.cmdline()]
        assert len(workers) == 2
        workers[1].send_signal(signal.SIGKILL)
        assert agent.wait(timeout=900) == 0, log_of(output)
    finally:
        agent.kill()
        agent.wait()
    text = log_of(output)
    assert text.count("going on from checkpoint") == 1, text
    assert "Traceback" not in text.partition("going on from checkpoint")[2]
    found = scalars(output, "loss")
    assert found == {step: pytest.approx(loss, rel=TOLERANCE) for step, loss in scalars(alone, "loss").items()}


def test_what_never_came_is_told(tmp_path: Path) -> None:
    """A file of another process, that this one can't see."""
    from openlumiere.training.saving import Saver
    from tiny import trained_once

    saver = Saver(tmp_path, keep=1, processes=2)
    state.PART_BYTES, kept = 100, state.PART_BYTES
    try:
        saver.save(1, *trained_once(16), config={})
        saver.close(grace=0)
    finally:
        state.PART_BYTES = kept
    with pytest.raises(ValueError, match=r"ema-00002-of-00002|weights-00002-of-00002.* never came"):
        saver.check()
    assert state.checkpoints(tmp_path) == []
