"""Training: real runs, in processes of their own, on a few hand-drawn loops."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from diffusers import DDIMScheduler, UNet2DConditionModel
from hypothesis import settings
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import default_collate

import tiny
from openlumiere import LumierePipeline
from openlumiere.cli import main
from openlumiere.errors import LumiereError
from openlumiere.pipelines.load import load_pipeline, load_super_resolution
from openlumiere.pipelines.super_resolution import LumiereSuperResolutionPipeline
from openlumiere.training import state
from openlumiere.training.config_files import load
from openlumiere.training.export import export
from openlumiere.training.loop import learning_rate
from openlumiere.training.masks import MIXTURE
from openlumiere.training.stages import make_stage
from openlumiere.training.stages.base import Stage
from openlumiere.video import read_clip

pytestmark = pytest.mark.slow  # whole runs

ROOT = Path(__file__).parents[2]
SOME = settings(max_examples=30, deadline=None)


def wait_for(condition: Callable[[], bool], process: multiprocessing.process.BaseProcess) -> None:
    """Poll closely; fails when the process ends first."""
    while not condition():
        assert process.is_alive(), f"ended early, with exit code {process.exitcode}"
        time.sleep(0.0005)


def _command(arguments: list[str], log: Path) -> None:
    """The command line, in a process of its own that writes to `log`."""
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.exit(main(arguments))


class Runs:
    """Starts `lumiere train` in real processes, forked off a server that has imported everything."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder, self.data = folder, data
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(
            ["pytest", "hypothesis", "openlumiere.cli", "openlumiere.training.loop", "openlumiere.training.stages.t2i",
             "openlumiere.training.stages.t2v", "transformers.models.bert.modeling_bert"]
        )  # fmt: skip
        (folder / "config.yaml").write_text(yaml.safe_dump(tiny.TRAINING | {"output": "-"}), encoding="utf-8")

    def arguments(self, output: Path, *overrides: str, stage: str = "t2i") -> list[str]:
        return [
            "train", str(self.folder / "config.yaml"), "-o", str(output), f"stage={stage}", f"data.folder={self.data}",
            *(["model.unet={}"] if stage in ("t2v", "conditional", "ssr") else []), *overrides,
        ]  # fmt: skip

    def start(self, output: Path, *overrides: str, stage: str = "t2i") -> multiprocessing.process.BaseProcess:
        output.mkdir(parents=True, exist_ok=True)
        arguments = self.arguments(output, *overrides, stage=stage)
        process = self.context.Process(target=_command, args=(arguments, output / "log"))
        process.start()
        return process

    def run(self, output: Path, *overrides: str, stage: str = "t2i") -> tuple[int, str]:
        """Exit code, and all that was printed into this output's log."""
        process = self.start(output, *overrides, stage=stage)
        process.join()
        assert process.exitcode is not None
        return process.exitcode, log_of(output)

    def killed(self, output: Path, after: int, *overrides: str, stage: str = "t2i") -> None:
        """Start, and SIGKILL at an arbitrary moment after the checkpoint of step `after`."""
        process = self.start(output, *overrides, stage=stage)
        wait_for(lambda: (output / f"checkpoint-{after:07d}").exists(), process)
        time.sleep(random.uniform(0, 0.1))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, "the run was over before it could be killed"


def log_of(output: Path) -> str:
    return (output / "log").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def runs(loops: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """An environment of one CPU thread for every process."""
    folder = tmp_path_factory.mktemp("training")
    with pytest.MonkeyPatch.context() as patch:
        for key, value in {
            "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true", "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")])),
        }.items():  # fmt: skip
            patch.setenv(key, value)
        yield Runs(folder, loops)


@pytest.fixture(scope="module")
def t2i(runs: Runs) -> Path:
    """The folder of a whole, undisturbed t2i run."""
    output = runs.folder / "t2i"
    code, log = runs.run(output)
    assert code == 0, log
    return output


@pytest.fixture(scope="module")
def t2v_overrides(t2i: Path) -> list[str]:
    return [
        f"model.t2i={t2i / 'export'}", "model.unet={}", "model.temporal={temporal_conditioning: true}",
        "optim.max_steps=12", "checkpoint_every=3", "sample_every=12", "optim.batch_size=2",
        "optim.timestep_shift_start=40", "optim.timestep_shift_steps=10", "optim.uniform_timesteps=0.3",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def t2v(runs: Runs, t2v_overrides: list[str]) -> Path:
    """The folder of a whole, undisturbed t2v run on top of it."""
    output = runs.folder / "t2v"
    code, log = runs.run(output, *t2v_overrides, stage="t2v")
    assert code == 0, log
    return output


@pytest.fixture(scope="module")
def ssr_overrides() -> list[str]:
    return [
        "model.size=32", "model.scale=2", "model.pixel_unshuffle=2", "model.max_noise_level=100",
        "model.residual_scale=4", "optim.max_steps=12", "checkpoint_every=6", "sample_every=12",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def ssr_image(runs: Runs, ssr_overrides: list[str]) -> Path:
    output = runs.folder / "ssr-image"
    code, log = runs.run(output, *ssr_overrides, stage="ssr-image")
    assert code == 0, log
    return output


@pytest.fixture(scope="module")
def ssr(runs: Runs, ssr_image: Path, ssr_overrides: list[str]) -> Path:
    """The folder of a whole run on windows of 4 frames out of 8."""
    output = runs.folder / "ssr"
    more = [f"model.t2i={ssr_image / 'export'}", "model.unet={}", "data.window=4", "optim.batch_size=2"]
    code, log = runs.run(output, *ssr_overrides, *more, stage="ssr")
    assert code == 0, log
    return output


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


def mean_loss(stage: Stage) -> float:
    batch = default_collate([stage.dataset[index] for index in range(1000, 1032)])
    with torch.no_grad():
        return float(stage.loss(stage.module, batch, torch.Generator().manual_seed(0)))


def test_t2i_learns_and_writes_what_it_promises(t2i: Path) -> None:
    loss = scalars(t2i, "loss")
    assert list(loss) == list(range(2, 41, 2))
    assert all(math.isfinite(value) for value in loss.values())
    # On the same items under the same noise, which the curve's points are not.
    stage = make_stage(load(t2i / "config.yaml"), torch.device("cpu"))
    untrained = mean_loss(stage)
    stage.module.load_state_dict(UNet2DConditionModel.from_pretrained(t2i / "export", subfolder="unet").state_dict())
    assert mean_loss(stage) < 0.85 * untrained
    rates, optim = scalars(t2i, "learning_rate"), load(t2i / "config.yaml").optim
    assert all(rates[step] == pytest.approx(learning_rate(optim, step - 1), rel=1e-5) for step in rates)
    assert min(scalars(t2i, "gradient_norm").values()) > 0
    assert [path.name for path in state.checkpoints(t2i)] == ["checkpoint-0000032", "checkpoint-0000040"]
    assert [path.name for path in sorted((t2i / "samples").iterdir())] == ["0000020.png", "0000040.png"]
    with Image.open(t2i / "samples" / "0000040.png") as sheet:
        assert sheet.size == (2 * 16 * 3, 16 * 3)
    assert not list(t2i.rglob("*.partial"))
    # What is exported is the average.
    exported = UNet2DConditionModel.from_pretrained(t2i / "export", subfolder="unet").state_dict()
    average = load_file(state.checkpoints(t2i)[-1] / "ema.safetensors")
    assert all(torch.equal(exported[name], value) for name, value in average.items())
    assert DDIMScheduler.from_pretrained(t2i / "export", subfolder="scheduler").config.rescale_betas_zero_snr


def test_a_run_says_what_it_does_and_how_long_it_takes(t2i: Path) -> None:
    log = log_of(t2i)
    assert re.search(
        r"t2i on cpu: 0\.\d\d M parameters to train, 0\.00 M frozen; starting anew, 40 steps of 4 samples; "
        rf"checkpoints in {t2i}",
        log,
    )
    assert re.search(r"t2i: +\d+%.*\| \d+/40 \[\d\d:\d\d<\d\d:\d\d", log)  # done, and left
    assert re.search(r"loss=0\.\d{4}", log)
    assert log.rstrip().endswith(f"wrote {t2i / 'export'}")


def test_t2v_trains_the_temporal_layers_alone(t2i: Path, t2v: Path) -> None:
    assert all(math.isfinite(value) for value in scalars(t2v, "loss").values())
    assert re.search(r"t2v on cpu: 0\.\d\d M parameters to train, 0\.[0-9]*[1-9][0-9]* M frozen", log_of(t2v))
    names = list(load_file(state.checkpoints(t2v)[-1] / "weights.safetensors"))
    assert names
    assert all(name.startswith("temporal.") for name in names)
    suffixes = sorted(path.name for path in (t2v / "samples").iterdir())
    assert suffixes == [f"0000012-0{i}{suffix}" for i in (0, 1) for suffix in (".png", ".webp")]
    clip = read_clip(t2v / "samples" / "0000012-00.webp")
    assert len(clip.frames) == 8
    assert clip.fps == pytest.approx(16, rel=0.02)
    assert {path.name for path in (t2v / "export" / "temporal").iterdir()} == {"temporal.safetensors", "temporal.json"}
    pipe = LumierePipeline.from_pretrained(t2v / "export" / "pipeline", text_encoder=None, tokenizer=None)
    frozen = UNet2DConditionModel.from_pretrained(t2i / "export", subfolder="unet").state_dict()
    spatial = pipe.unet.spatial.state_dict()
    assert all(torch.equal(spatial[name], value) for name, value in frozen.items())


def test_ssr_trains_the_temporal_layers_alone_and_shows_what_it_does(ssr_image: Path, ssr: Path) -> None:
    for run in (ssr_image, ssr):
        assert all(math.isfinite(value) for value in scalars(run, "loss").values())
        with Image.open(run / "samples" / "0000012.png") as picture:
            assert picture.size == (6 * 32, 3 * 32)  # enlarged, sharpened, real
    before = load_file(ssr_image / "export" / "unet" / "diffusion_pytorch_model.safetensors")
    after = load_file(ssr / "export" / "pipeline" / "unet" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(after[f"spatial.{name}"], value) for name, value in before.items())
    assert any(after[name].any() for name in after if name.endswith("projection.weight") and "temporal" in name)
    pipe = load_super_resolution(str(ssr / "export" / "pipeline"))
    assert (pipe.config.window_frames, pipe.config.scale, pipe.config.noise_level) == (4, 2, 25)


def test_both_stages_are_exported_as_one_model_and_make_one_clip(t2v: Path, ssr: Path, tmp_path: Path) -> None:
    model, clip = tmp_path / "model", tmp_path / "clip.webp"
    arguments = ["export", str(t2v), "--super-resolution", str(ssr), "-o", str(model), "--upscale-steps", "1"]
    assert main(arguments) == 0
    pipe = LumierePipeline.from_pretrained(model)
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(4)
    options = {"num_frames": 8, "num_inference_steps": 2}
    frames = pipe("a tiger", generator=generator, **options).frames
    assert frames.shape == (1, 8, 32, 32, 3)
    # Each stage alone, one after the other, gives the same.
    generator = torch.Generator().manual_seed(4)
    base = pipe("a tiger", generator=generator, upscale=False, **options).frames
    assert base.shape == (1, 8, 16, 16, 3)
    assert pipe.super_resolution is not None
    generator = torch.Generator().manual_seed(4)
    sharp = pipe.super_resolution(base, "a tiger", generator=generator, num_inference_steps=1).frames
    np.testing.assert_allclose(sharp, frames, atol=1e-5)

    command = ["generate", "a tiger", "--model", str(model), "--frames", "8", "--steps", "2", "--seed", "4"]
    assert main([*command, "-o", str(clip)]) == 0
    assert read_clip(clip).frames.shape[:3] == (8, 128, 128)  # enlarged to be looked at
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.webp", "model"]  # the base clip is gone


def test_a_clip_whose_sharpening_fails_is_kept_and_picked_up(
    t2v: Path, ssr: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    assert main(["export", str(t2v), "--super-resolution", str(ssr), "-o", str(model), "--upscale-steps", "1"]) == 0

    def broken(*_: object, **__: object) -> None:
        raise MemoryError

    command = ["generate", "a tiger", "--model", str(model), "--frames", "8", "--steps", "2", "--seed", "4"]
    with monkeypatch.context() as patch:
        patch.setattr(LumiereSuperResolutionPipeline, "__call__", broken)
        assert main([*command, "-o", str(tmp_path / "clip.webp")]) == 2
    told = capsys.readouterr().err
    assert "out of memory" in told
    again = told.partition("sharpen it with: ")[2].splitlines()[0]
    assert main([*shlex.split(again)[1:], "--seed", "4"]) == 0
    assert read_clip(tmp_path / "clip.webp").frames.shape[0] == 8
    capsys.readouterr()
    assert main(["info", str(tmp_path / "clip.webp")]) == 0
    told = capsys.readouterr().out
    assert "a tiger" in told  # read off the base clip
    assert "lumiere upscale" in told
    assert main(shlex.split(told.strip().splitlines()[-1])[1:]) == 0

    # What the run itself exported is a second stage without a base.
    alone, base = str(ssr / "export" / "pipeline"), str(tmp_path / "clip.base.webp")
    assert main(["upscale", base, "--model", alone, "--seed", "4", "-o", str(tmp_path / "alone.webp")]) == 0
    assert read_clip(tmp_path / "alone.webp").frames.shape == read_clip(tmp_path / "clip.webp").frames.shape
    assert main(["generate", "a tiger", "--model", alone]) == 2
    assert "lumiere upscale CLIP" in capsys.readouterr().err

    without = tmp_path / "without"
    assert main(["export", str(t2v), "-o", str(without)]) == 0
    assert main(["upscale", str(tmp_path / "clip.base.webp"), "--model", str(without)]) == 2
    assert "no super-resolution stage" in capsys.readouterr().err


def test_conditional_goes_on_from_a_clip_model_and_learns_to_be_given(
    runs: Runs, t2v: Path, t2v_overrides: list[str], tmp_path: Path
) -> None:
    output = tmp_path / "conditional"
    clip_model = f"model.t2i={t2v / 'export' / 'pipeline'}"
    ways = [f"model.{way}=true" for way in ("condition_blocks", "condition_gate", "spread_condition")]
    code, log = runs.run(output, *t2v_overrides[1:], clip_model, "model.temporal={}", *ways, stage="conditional")
    assert code == 0, log
    assert all(math.isfinite(value) for value in scalars(output, "loss").values())
    samples = {path.name for path in (output / "samples").iterdir()}
    assert samples == {f"0000012-{kind.replace(' ', '-')}.webp" for kind in MIXTURE}
    before = load_file(t2v / "export" / "pipeline" / "unet" / "diffusion_pytorch_model.safetensors")
    pipe = load_pipeline(str(export(output, tmp_path / "model", dtype=torch.float32)))
    after = pipe.unet.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items() if name.startswith("spatial."))
    assert after["temporal.condition_in.weight"].abs().max() > 0
    assert pipe.unet.config["condition_channels"] == pipe.condition_channels
    assert pipe.config.spread_condition
    assert after["temporal.gate.conv.bias"].ne(-4).any()
    assert after["temporal.down.0.0.given_conv.weight"].abs().max() > 0
    given = np.random.default_rng(0).random((8, 16, 16, 3), dtype=np.float32)
    change = np.ones((8, 1, 1))
    change[0] = 0
    made = pipe("a tiger", num_frames=8, video=given, mask=change, num_inference_steps=1)[0]
    np.testing.assert_allclose(made[0, 0], given[0], atol=1e-6)


def test_a_model_gets_its_second_stage_later(t2v: Path, ssr: Path, tmp_path: Path) -> None:
    at_once, later = tmp_path / "at-once", tmp_path / "later"
    export(t2v, at_once, super_resolution=ssr, upscale_steps=1)
    export(t2v, later)
    (later / "README.md").write_text("a card")
    (later / "styles" / "mine").mkdir(parents=True)
    export(later, later, super_resolution=ssr, upscale_steps=1)
    assert (later / "README.md").read_text() == "a card"
    assert (later / "styles" / "mine").is_dir()
    for part in ("unet", "super_resolution/unet"):
        one, other = (load_file(f / part / "diffusion_pytorch_model.safetensors") for f in (at_once, later))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
    one, other = (json.loads((folder / "model_index.json").read_text()) for folder in (at_once, later))
    assert one == other
    assert not any(str(tmp_path) in file.read_text() for file in later.rglob("*.json"))  # where it was loaded from


def test_stages_that_read_prompts_differently_are_no_one_model(t2v: Path, ssr: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(ssr, other)
    config = yaml.safe_load((other / "config.yaml").read_text())
    config["text"]["encoder"] = "sentence-transformers/another"
    (other / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(LumiereError, match="another text encoder"):
        export(t2v, tmp_path / "model", super_resolution=other)
    assert not (tmp_path / "model").exists()


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


def test_starting_anew_leaves_nothing_to_be_taken_for_the_new_run(runs: Runs, t2i: Path, tmp_path: Path) -> None:
    output = tmp_path / "anew"
    shutil.copytree(t2i, output, ignore=shutil.ignore_patterns("log", "export"))
    code, log = runs.run(output, "--no-resume", "optim.max_steps=4", "sample_every=0")
    assert code == 0, log
    assert "starting anew, 4 steps" in log
    assert [path.name for path in state.checkpoints(output)] == ["checkpoint-0000004"]
    assert max(scalars(output, "loss")) == 4


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.folder=nowhere"], "no shards in nowhere; make them with: lumiere data emoji"),
        (["data.kind=films"], "data.kind 'films': use emoji, folder, pictures or artwork"),
        (["scheduler.betas=3"], "scheduler is not a DDIMScheduler's configuration"),
        (["model.unet.depth=3"], "model.unet is not a UNet2DConditionModel"),
        (["model.size=15"], "model.size, 15, must be a multiple of model.pixel_unshuffle, 2"),
    ],
)
def test_bad_settings_are_told_in_one_line(
    runs: Runs, tmp_path: Path, overrides: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(runs.arguments(tmp_path / "out", *overrides)) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("lumiere: error: ")
    assert message in line


def test_training_leaves_the_callers_arithmetic_as_it_was(runs: Runs, tmp_path: Path) -> None:
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor always keeps denormals")
    for flushing in (True, False):
        torch.set_flush_denormal(flushing)
        assert main(runs.arguments(tmp_path / "out", "data.kind=films")) == 2
        assert ((torch.tensor(1e-38) * 1e-3).item() == 0) == flushing


def test_t2v_needs_a_t2i(runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(runs.arguments(tmp_path / "out", stage="t2v")) == 2
    assert "stage t2v needs model.t2i" in capsys.readouterr().err
    assert main(runs.arguments(tmp_path / "out", f"model.t2i={tmp_path}", stage="t2v")) == 2
    assert f"cannot read a U-Net from model.t2i = {tmp_path}; train it first" in capsys.readouterr().err


# Several processes

PROBE = '''
import hashlib, json, sys
from pathlib import Path
from openlumiere.cli import main
from openlumiere.training import loop

made = []
make_stage = loop.make_stage


class Recorder:
    """The real data set, noting what is asked of it."""

    def __init__(self, dataset):
        self.dataset, self.asked = dataset, []

    def __getitem__(self, index):
        self.asked.append(index)
        return self.dataset[index]


def recording(config, device):
    stage = make_stage(config, device)
    stage.dataset = Recorder(stage.dataset)
    made.append(stage)
    return stage


loop.make_stage = recording
code = main(sys.argv[2:])
import os
weights = b"".join(p.detach().numpy().tobytes() for p in made[0].module.parameters())
report = {"asked": made[0].dataset.asked, "weights": hashlib.sha256(weights).hexdigest()}
Path(sys.argv[1], f"rank-{os.environ['RANK']}.json").write_text(json.dumps(report))
sys.exit(code)
'''


# A loss that is no number, on one process alone; what both return is written down.
DIVERGING = """
import os, sys
from pathlib import Path
from openlumiere.cli import main
from openlumiere.training import loop

make_stage = loop.make_stage


def diverging(config, device):
    stage = make_stage(config, device)
    loss = stage.loss

    def loss_of(module, batch, generator):
        value = loss(module, batch, generator)
        return value * float("nan") if os.environ["RANK"] == "1" and stage.step == 2 else value

    stage.loss = loss_of
    return stage


loop.make_stage = diverging
code = main(sys.argv[2:])
Path(sys.argv[1], f"code-{os.environ['RANK']}").write_text(str(code))
sys.exit(code)
"""


def launch(*arguments: str, code: int = 0) -> str:
    """`accelerate launch` on two processes, which ends with an exit code; returns what they printed.

    ACCELERATE_USE_CPU, which `runs` sets, puts them on the CPU with gloo: with --cpu Accelerate starts a single one.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("accelerate")), "launch", "--multi_gpu", "--num_processes", "2",
            "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
            "--main_process_port", str(port), *arguments,
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_two_processes_keep_the_same_weights_and_share_the_data(runs: Runs, tmp_path: Path) -> None:
    script = tmp_path / "probe.py"
    script.write_text(PROBE, encoding="utf-8")
    train = runs.arguments(tmp_path / "run", "optim.max_steps=4", "optim.batch_size=2", "sample_every=0")
    log = launch(str(script), str(tmp_path), *train)
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
    script = tmp_path / "diverging.py"
    script.write_text(DIVERGING, encoding="utf-8")
    train = runs.arguments(tmp_path / "run", "optim.max_steps=9", "optim.batch_size=2", "sample_every=0")
    log = launch(str(script), str(tmp_path), *train, code=1)
    assert log.count("lumiere: error: the loss became nan at step 2; start again from the last checkpoint") == 1
    assert [(tmp_path / f"code-{rank}").read_text() for rank in (0, 1)] == ["2", "2"]


def test_the_command_runs_under_accelerate_launch(runs: Runs, t2v_overrides: list[str], tmp_path: Path) -> None:
    few = ["optim.max_steps=3", "sample_every=3", "time_budget=10"]
    train = runs.arguments(tmp_path, *t2v_overrides, *few, stage="t2v")
    log = launch("-m", "openlumiere.cli", *train)
    assert [path.name for path in state.checkpoints(tmp_path)] == ["checkpoint-0000003"]
    assert (tmp_path / "export" / "temporal" / "temporal.safetensors").exists()
    assert log.count("t2v on cpu x 2") == 1


def _save_for_ever(folder: Path) -> None:
    parts = tiny.trained_once(700)
    for step in range(1, 100_000):
        state.save(folder, step, *parts, keep=2, config={})


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(tmp_path: Path, runs: Runs) -> None:
    process = runs.context.Process(target=_save_for_ever, args=(tmp_path,))
    process.start()
    wait_for(lambda: len(state.checkpoints(tmp_path)) == 2, process)
    wait_for(lambda: any(tmp_path.glob("*.partial/ema*")), process)
    process.kill()
    process.join()
    module, optimizer, ema = tiny.trained_once(700)
    found = state.checkpoints(tmp_path)
    assert found
    assert state.restore(found[-1], module, optimizer, ema) == int(found[-1].name[-7:])
