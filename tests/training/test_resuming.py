"""Runs that are killed, stopped or damaged, and go on."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file

import processes
import tiny
from openlumiere import STUNet
from openlumiere.errors import LumiereError
from openlumiere.training import saving, state
from runs import Runs, assert_same_state, scalars

pytestmark = pytest.mark.slow  # whole runs


def test_a_killed_and_resumed_run_equals_an_undisturbed_one(runs: Runs, t2i: Path, tmp_path: Path) -> None:
    output = tmp_path / "killed"
    runs.killed(output, 8)
    runs.killed(output, 24)
    code, log = runs.run(output)
    assert code == 0, log
    resumed = [int(step) for step in re.findall(r"going on from checkpoint (\d+)", log)]
    assert len(resumed) == 2
    assert resumed[0] >= 8
    assert resumed[1] >= 24
    assert_same_state(t2i, output)
    assert scalars(output, "loss") == scalars(t2i, "loss")
    exported = [folder / "export" / "unet" / "diffusion_pytorch_model.safetensors" for folder in (t2i, output)]
    assert exported[0].read_bytes() == exported[1].read_bytes()


def test_so_does_a_killed_t2v_run(runs: Runs, t2v: Path, t2v_overrides: list[str], tmp_path: Path) -> None:
    output = tmp_path / "killed"
    runs.killed(output, 6, *t2v_overrides, stage="t2v")
    code, log = runs.run(output, *t2v_overrides, stage="t2v")
    assert code == 0, log
    assert_same_state(t2v, output)


def test_a_run_stops_at_its_time_budget_and_goes_on_later(runs: Runs, tmp_path: Path) -> None:
    quiet = ["sample_every=0", "checkpoint_every=100000"]
    for minutes in (0.1, 1.0, 5.0):  # a slow machine spends the first budget on starting
        began = time.monotonic()
        code, log = runs.run(tmp_path, "optim.max_steps=100000", f"time_budget={minutes}", *quiet)
        assert code == 0, log
        assert time.monotonic() - began > minutes * 60
        stopped = re.findall(r"time is up at step (\d+) of 100000; the same command goes on from there", log)
        step = int(stopped[-1])
        if step:
            break
    assert step > 0
    assert [path.name for path in state.checkpoints(tmp_path)] == [f"checkpoint-{step:07d}"]
    assert (tmp_path / "export" / "unet" / "config.json").exists()
    code, log = runs.run(tmp_path, f"optim.max_steps={step + 2}", *quiet)
    assert code == 0, log
    assert f"going on from checkpoint {step}" in log
    assert state.checkpoints(tmp_path)[-1].name == f"checkpoint-{step + 2:07d}"


def test_accumulated_parts_are_one_step(runs: Runs, tmp_path: Path) -> None:
    code, log = runs.run(
        tmp_path, "optim.gradient_accumulation=2", "optim.gradient_checkpointing=true", "optim.max_steps=5",
        "sample_every=0", "log_every=1",
    )  # fmt: skip
    assert code == 0, log
    last = state.checkpoints(tmp_path)[-1]
    assert last.name == "checkpoint-0000005"
    moments = load_file(last / "optimizer.safetensors")
    assert {float(value) for name, value in moments.items() if name.endswith("/step")} == {5.0}
    assert list(scalars(tmp_path, "loss")) == [1, 2, 3, 4, 5]


def test_a_damaged_checkpoint_is_told_in_one_line(runs: Runs, t2i: Path, tmp_path: Path) -> None:
    output = tmp_path / "damaged"
    shutil.copytree(t2i, output, ignore=shutil.ignore_patterns("log", "export"))
    newest = state.checkpoints(output)[-1] / "ema.safetensors"
    newest.write_bytes(newest.read_bytes()[:-100])
    code, log = runs.run(output)
    assert code == 2
    last = log.strip().splitlines()[-1]
    assert re.fullmatch(
        r"lumiere: error: .*checkpoint-0000040 is damaged .*delete it to go on from the one before", last
    )
    assert "Traceback" not in log
    shutil.rmtree(newest.parent)
    code, log = runs.run(output)
    assert code == 0, log
    assert_same_state(t2i, output)


def test_a_run_may_start_from_anothers_average(runs: Runs, t2i: Path, tmp_path: Path) -> None:
    output = tmp_path / "second"
    code, log = runs.run(
        output, f"initial={t2i}", "optim.max_steps=2", "optim.lr=1e-12", "sample_every=0", "log_every=1"
    )
    assert code == 0, log
    assert f"starting from {t2i}, 2 steps" in log
    average = load_file(state.checkpoints(t2i)[-1] / "ema.safetensors")
    weights = load_file(state.checkpoints(output)[-1] / "weights.safetensors")
    assert all(torch.allclose(weights[name], value, atol=1e-6) for name, value in average.items())
    for folder, message in {"nowhere": "holds no checkpoint to start from", str(output / "bad"): "is damaged"}.items():
        if folder != "nowhere":
            shutil.copytree(state.checkpoints(t2i)[-1], Path(folder) / "checkpoint-0000001")
            (Path(folder) / "checkpoint-0000001" / "ema.safetensors").write_bytes(b"no tensors")
        with pytest.raises(LumiereError, match=message):
            state.start_from(Path(folder), *tiny.trained_once()[::2])


def test_a_run_may_start_from_a_models_text_to_image_half(runs: Runs, t2i: Path, tmp_path: Path) -> None:
    unet = UNet2DConditionModel.from_pretrained(t2i / "export" / "unet")
    STUNet.from_unet(unet).save_pretrained(tmp_path / "model" / "unet")
    for model in (tmp_path / "model", t2i / "export"):
        output = tmp_path / "onwards" / model.name
        code, log = runs.run(output, f"initial={model}", "optim.max_steps=1", "optim.lr=1e-12", "sample_every=0")
        assert code == 0, log
        weights = load_file(state.checkpoints(output)[-1] / "weights.safetensors")
        assert all(torch.allclose(weights[name], value, atol=1e-6) for name, value in unet.state_dict().items())
    network, _, ema = tiny.trained_once()
    with pytest.raises(LumiereError, match="is of another network"):
        state.start_from(tmp_path / "model", network, ema)


def test_starting_anew_leaves_nothing_to_be_taken_for_the_new_run(runs: Runs, t2i: Path, tmp_path: Path) -> None:
    output = tmp_path / "anew"
    shutil.copytree(t2i, output, ignore=shutil.ignore_patterns("log", "export"))
    code, log = runs.run(output, "--no-resume", "optim.max_steps=4", "sample_every=0")
    assert code == 0, log
    assert "starting anew, 4 steps" in log
    assert [path.name for path in state.checkpoints(output)] == ["checkpoint-0000004"]
    assert max(scalars(output, "loss")) == 4


def _save_for_ever(folder: Path) -> None:
    parts = tiny.trained_once(700)
    for step in range(1, 100_000):
        saving.save(folder, step, *parts, keep=2, config={})


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(tmp_path: Path, runs: Runs) -> None:
    process = processes.start(_save_for_ever, tmp_path, log=tmp_path / "log")
    processes.wait_for(lambda: len(state.checkpoints(tmp_path)) == 2, process)
    processes.wait_for(lambda: any(tmp_path.glob("*.partial/ema*")), process)
    process.kill()
    process.join()
    module, optimizer, ema = tiny.trained_once(700)
    found = state.checkpoints(tmp_path)
    assert found
    assert state.restore(found[-1], module, optimizer, ema) == int(found[-1].name[-7:])
