"""What models take, told before anything is loaded: by folders of configurations alone, and by the command."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

import tiny
from openlumiere.cli import main
from openlumiere.counting import Work
from openlumiere.errors import LumiereError
from openlumiere.estimates import hardware, target
from openlumiere.estimates.estimate import Asked, estimate, steps_taken
from openlumiere.estimates.text import describe, duration, flops
from openlumiere.estimates.training_step import Trained, Way, climb, ladder
from openlumiere.stunet import STUNet
from openlumiere.stunet.summary import example_inputs
from openlumiere.training.loop import make_optimizer
from openlumiere.training.state import EMA

DEVICE = replace(hardware.TABLE["h100"], name="device", memory=1e9)


@pytest.fixture(scope="module")
def t2i(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text-to-image pipeline as the hub shows it: configurations, no weights."""
    folder = tmp_path_factory.mktemp("estimates") / "t2i"
    tiny.PIPELINES["stable-diffusion"](folder.parent / "parts").save_pretrained(folder)
    for weights in folder.rglob("*.safetensors"):
        weights.unlink()
    return folder


@pytest.mark.slow
def test_a_text_to_image_model_is_inflated_without_its_weights(t2i: Path):
    found = estimate(target.find(str(t2i)), Asked(hardware=DEVICE, num_frames=16, price=2.0, train_steps=100))
    net = STUNet.from_unet(tiny.unet("stable-diffusion"))
    assert found.parameters["t2i"] == sum(p.numel() for p in net.spatial.parameters())
    assert found.parameters["temporal"] == found.trained == sum(p.numel() for p in net.temporal.parameters())
    assert sum(row.flops for row in found.levels) == found.forward_flops > 0
    assert found.making is not None
    assert found.training is not None
    assert found.making.step_flops == 2 * found.forward_flops
    assert found.making.decode_flops > 0
    assert found.making.fits == "as it is"
    assert found.making.clip_seconds > found.making.steps * found.making.step_seconds
    assert found.training.seconds == pytest.approx(100 * found.training.step_seconds)
    assert found.training.cost == pytest.approx(2.0 * found.training.seconds / 3600)
    assert found.training.way == "and bf16"
    printed = describe(found, with_levels=True)
    assert "a training of 100 steps" in printed
    assert len([line for line in printed.splitlines() if line[:1].isdigit()]) == len(found.levels)


@pytest.mark.slow
def test_a_clip_that_starts_from_a_picture_takes_the_steps_that_are_left():
    found = estimate(target.find("emoji"), Asked(hardware=DEVICE))
    assert found.making is not None
    assert (found.making.steps, found.making.steps_taken) == (8, 5)  # as its pipeline: 0.6 of them
    assert "8 steps, of which 5 are left after a picture of the prompt" in describe(found)


def test_only_a_clip_whose_path_is_planned_starts_from_a_picture():
    index = {"canonical": True, "picture_strength": 0.6, "planner": [None, None]}
    assert [steps_taken(steps, index, planned=True) for steps in (8, 1)] == [5, 1]
    assert steps_taken(8, index, planned=False) == 8
    assert steps_taken(8, index | {"canonical": False}, planned=True) == 8


@pytest.mark.slow
def test_options_of_inflation_change_what_is_added(t2i: Path):
    plain = target.find(str(t2i)).net
    more = target.find(str(t2i), ["attention_layers=4", "resampled_levels=[]"]).net
    assert isinstance(plain, STUNet)
    assert isinstance(more, STUNet)
    assert more.config["attention_layers"] == 4
    assert more.frame_multiple == 1
    with pytest.raises(LumiereError, match="attention_layer"):
        target.find(str(t2i), ["attention_layer=4"])


@pytest.mark.slow
def test_windows_take_less_than_one_pass(tmp_path: Path):
    folder = tiny.saved(tiny.conditioned(upscale=True), tmp_path / "model")
    found = estimate(target.find(str(folder)), Asked(hardware=DEVICE, num_frames=32, guidance=1.0))
    assert found.making is not None
    assert found.making.memory["as it is"] < found.making.memory["as it is, in one pass"]
    assert found.making.second_stage_flops > 0
    assert found.making.guidance == 1.0
    guided = estimate(target.find(str(folder)), Asked(hardware=DEVICE, num_frames=32, guidance=2.0)).making
    assert guided is not None
    assert guided.step_flops == pytest.approx(2 * found.making.step_flops, abs=1)


@pytest.mark.slow
def test_configurations_are_estimated_before_their_t2i_is_trained(tmp_path: Path):
    trees = {
        "t2i": tiny.TRAINING | {"output": str(tmp_path / "runs" / "t2i")},
        "t2v": {
            "stage": "t2v", "output": "-", "data": {"num_frames": 8}, "sample_steps": 3,
            "model": {"t2i": str(tmp_path / "runs" / "t2i" / "export"), "size": tiny.TRAINING["model"]["size"]},
            "optim": {"batch_size": 4, "gradient_accumulation": 2, "max_steps": 7},
        },
    }  # fmt: skip
    for name, tree in trees.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    pictures = estimate(target.find(str(tmp_path / "t2i.yaml")), Asked(hardware=DEVICE))
    assert pictures.making is None
    assert pictures.training is not None
    assert pictures.trained == pictures.parameters["unet"]
    clips = estimate(target.find(str(tmp_path / "t2v.yaml")), Asked(hardware=DEVICE))
    assert clips.training is not None
    assert clips.making is not None
    assert (clips.num_frames, clips.training.steps, clips.making.steps) == (8, 7, 3)
    assert (clips.training.batch, clips.training.accumulation) == (4, 2)
    assert clips.parameters["t2i"] == pictures.parameters["unet"]
    assert target.find(str(tmp_path / "t2v.yaml"), ["optim.max_steps=9"]).config.optim.max_steps == 9
    (tmp_path / "t2i.yaml").unlink()
    with pytest.raises(LumiereError, match="no configuration beside it writes it"):
        target.find(str(tmp_path / "t2v.yaml"))


@pytest.mark.slow
def test_each_saving_takes_less_than_the_one_before():
    with torch.device("meta"):
        net = STUNet.from_config(dict(tiny.inflated("stable-diffusion")[0].config))
    trained = Trained(net=net, clip=(8, 32, 32))
    rows = climb(trained, ladder(Way(mixed=True, shards=8), can_freeze=True), DEVICE)
    assert [row.name for row in rows] == [
        "float32, all trained", "T2I frozen", "and bf16", "and activation checkpointing", "and FSDP over 8",
        "and 8-bit moments *",
    ]  # fmt: skip
    totals = [row.total for row in rows]
    assert totals == sorted(totals, reverse=True)
    everything, frozen, *_, sharded, last = rows
    temporal = sum(p.numel() for p in net.temporal.parameters())
    assert frozen.gradients == 4 * temporal
    assert everything.gradients == everything.weights
    assert sharded.weights == -(-frozen.weights // 8)
    assert last.state < sharded.state
    assert trained.sent_bytes(Way(), 1) == 0
    assert trained.sent_bytes(Way(), 8) == pytest.approx(2 * 7 / 8 * 4 * temporal)
    assert trained.sent_bytes(Way(shards=8), 8) > trained.sent_bytes(Way(), 8)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_what_is_kept_between_steps_is_what_a_training_keeps(optimizer: str):
    from openlumiere.training.config import OptimizerConfig

    net = tiny.inflated("bundled")[0]
    step = Trained(net=net, clip=(8, 8, 8), optimizer=optimizer).memory("", Way(), _work(), hardware.TABLE["laptop"])
    named = {name: p for name, p in net.named_parameters() if p.requires_grad}
    trained = list(named.values())
    moments = make_optimizer(OptimizerConfig(optimizer=optimizer), named)
    net(**example_inputs(net, 8)).sample.square().mean().backward()
    moments.step()
    kept = sum(v.numel() * 4 for state in moments.state.values() for v in state.values() if v.ndim)
    average = sum(v.numel() * 4 for v in EMA(net, 0.9).average.values())
    used = sum(p.numel() for p in trained if p.grad is not None) / sum(p.numel() for p in trained)
    assert step.state == pytest.approx(kept / used + average, rel=0.02)
    assert step.weights == sum(p.numel() * 4 for p in net.parameters())


def _work(flops: int = 0, size: int = 0, often: int = 1) -> Work:
    return Work(flops * often, 0, 0, {(flops, size): often}, {})


def test_an_operation_takes_what_takes_longest():
    device = replace(DEVICE, peak={"float32": 1e12}, utilisation=0.5, bandwidth=1e9, launch=1e-6, measured=True)
    assert device.seconds(_work(flops=10**12), "float32") == pytest.approx(2)
    assert device.seconds(_work(flops=1, size=3 * 10**9), "float32") == pytest.approx(3)
    assert device.seconds(_work(often=5), "float32") == pytest.approx(5e-6)
    own = device.with_own(peak_flops=2e12, memory=None, utilisation=0.25)
    assert own.rate("bfloat16") == 0.5e12
    assert own.memory == device.memory
    assert device.with_own(memory=None) is device


@pytest.mark.slow
def test_this_machine_is_measured():
    here = hardware.measure()
    assert here.measured
    assert here.peak["float32"] > 1e8
    assert 0 < here.utilisation <= 1
    assert here.bandwidth > 1e7
    assert here.memory > 1e8


@pytest.mark.slow
def test_mistakes_are_one_line(t2i: Path, tmp_path: Path):
    with pytest.raises(LumiereError, match="known are here, laptop, rtx4090"):
        hardware.find("h300")
    with pytest.raises(LumiereError, match="multiples of 4"):
        estimate(target.find(str(t2i)), Asked(hardware=DEVICE, num_frames=9))
    with pytest.raises(LumiereError, match="another machine"):
        target.find("http://127.0.0.1:8000#emoji")
    (tmp_path / "style.yaml").write_text("stage: style\noutput: x\n", encoding="utf-8")
    with pytest.raises(LumiereError, match="stage style is not estimated"):
        target.find(str(tmp_path / "style.yaml"))


@pytest.mark.slow
def test_a_folder_without_a_u_net_is_refused(t2i: Path, tmp_path: Path):
    shutil.copytree(t2i, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "unet")
    with pytest.raises(LumiereError, match="no U-Net that could be inflated"):
        target.find(str(tmp_path / "copy"))


@pytest.mark.slow
def test_the_command_prints_tables_and_json(t2i: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["plan"]) == 0
    assert "h200" in capsys.readouterr().out
    line = ["plan", str(t2i), "temporal_width=0.5", "--hardware", "rtx4090", "--frames", "8", "--price", "0.4"]
    assert main([*line, "--levels"]) == 0
    printed = capsys.readouterr().out
    for word in ("temporal", "making a clip", "training, each process", "a clip", "level"):
        assert word in printed
    assert main([*line, "--json", "--devices", "16", "--train-steps", "1000"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["hardware"]["name"] == "rtx4090"
    assert found["training"]["devices"] == 16
    assert found["training"]["cost"] == pytest.approx(0.4 * 16 * found["training"]["seconds"] / 3600)
    assert main([*line, "--utilisation", "0"]) == 2
    assert "--utilisation 0" in capsys.readouterr().err


def test_figures_are_told_in_the_unit_that_suits_them():
    assert [flops(count) for count in (2.5e15, 2.5e12, 2.5e9, 2.5e6)] == [
        "2.5 PFLOP", "2.5 TFLOP", "2.5 GFLOP", "2.5 MFLOP"
    ]  # fmt: skip
    assert [duration(seconds) for seconds in (0.0025, 25, 250, 25000, 250000)] == [
        "2.5 ms", "25 s", "4.17 min", "6.94 h", "2.89 days"
    ]  # fmt: skip
