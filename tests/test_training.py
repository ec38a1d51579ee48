"""Training: configurations, objective and state by themselves, then real runs on a few hand-drawn loops."""

from __future__ import annotations

import io
import json
import math
import multiprocessing
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from diffusers import DDIMScheduler, UNet2DConditionModel
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from openlumiere import LumierePipeline
from openlumiere.cli import main
from openlumiere.data import emoji as builder
from openlumiere.data.emoji import build
from openlumiere.data.scenes import vocabulary
from openlumiere.diffusion.timesteps import sampling_timesteps
from openlumiere.errors import LumiereError
from openlumiere.training import state
from openlumiere.training.config import OptimizerConfig, as_dict, load
from openlumiere.training.loop import _IndexBatches, learning_rate
from openlumiere.training.objective import diffusion_loss, loss_weights, stratified_timesteps, target_of
from openlumiere.video import read_clip

ROOT = Path(__file__).parent.parent
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
SOME = settings(max_examples=30, deadline=None)

TINY = {
    "stage": "t2i",
    "seed": 3,
    "model": {
        "size": 16,
        "unet": {
            "block_out_channels": [8, 16],
            "layers_per_block": 1,
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
            "norm_num_groups": 4,
            "attention_head_dim": 4,
            "cross_attention_dim": 16,
            "encoder_hid_dim": 384,
            "encoder_hid_dim_type": "text_proj",
        },
    },
    "scheduler": {
        "beta_schedule": "squaredcos_cap_v2",
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True,
        "timestep_spacing": "trailing",
    },
    "data": {"subjects": ["tiger", "heart"], "pool": 12, "num_frames": 8},
    "optim": {"lr": 2e-3, "warmup_steps": 4, "max_steps": 40, "batch_size": 4, "ema_decay": 0.9, "snr_gamma": 0.0},
    "checkpoint_every": 8,
    "sample_every": 20,
    "sample_steps": 2,
    "sample_prompts": ["a tiger on a green background", "a red heart on a blue background"],
    "log_every": 2,
}


# Configurations


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(TINY | {"output": str(tmp_path / "run")}), encoding="utf-8")
    return path


def test_there_are_recipes() -> None:
    assert CONFIGS


@pytest.mark.parametrize("path", CONFIGS, ids=[str(path.relative_to(ROOT)) for path in CONFIGS])
def test_every_recipe_loads_and_ends_in_zero_snr(path: Path) -> None:
    config = load(path)
    assert config.stage in ("t2i", "t2v")
    assert load(path, ["seed=11"]).seed == 11
    known = set(vocabulary()["subjects"])
    assert set(config.data.subjects or ()) <= known
    if config.scheduler:  # otherwise the T2I's own
        alpha_bar = DDIMScheduler(**config.scheduler).alphas_cumprod
        assert float(alpha_bar[-1]) == pytest.approx(0, abs=1e-6)  # plain backgrounds are decided there
        assert (alpha_bar.diff() < 0).all()
    outputs = {load(other).output for other in CONFIGS}
    for needed in (config.initial, config.model.t2i):
        if needed and needed.startswith("runs/"):  # made by another recipe
            assert needed.removesuffix("/export") in outputs - {config.output}


def test_overrides_change_what_they_name(config_file: Path) -> None:
    config = load(config_file, ["optim.lr=1e-4", "optim.betas=[0.8, 0.95]", "data.subjects=[cat]", "seed=7",
                                "model.temporal.attention_layers=3", "data.subjects=null", "stage=t2v"])  # fmt: skip
    assert config.optim.lr == 1e-4
    assert config.optim.betas == (0.8, 0.95)
    assert config.data.subjects is None
    assert config.model.temporal == {"attention_layers": 3}
    assert (config.seed, config.stage) == (7, "t2v")
    plain = load(config_file)
    assert replace(config, optim=plain.optim, data=plain.data, model=plain.model, seed=3, stage="t2i") == plain


def test_numbers_that_yaml_takes_for_text_are_read(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("stage: t2i\noutput: run\noptim: {lr: 1e-4, weight_decay: 0}\n", encoding="utf-8")
    assert (load(path).optim.lr, load(path).optim.weight_decay) == (1e-4, 0.0)


def test_a_configuration_survives_its_own_yaml(config_file: Path, tmp_path: Path) -> None:
    config = load(config_file)
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(as_dict(config)), encoding="utf-8")
    assert load(again) == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.learning_rate=1", "unknown key 'learning_rate'; known: lr, betas"),
        ("colour=1", "unknown key 'colour'; known: stage"),
        ("optim.lr=fast", "optim: lr: expected float, got 'fast'"),
        ("optim.max_steps=2.5", "max_steps: expected int, got 2.5"),
        ("optim.batch_size=true", "batch_size: expected int, got True"),
        ("optim.betas=[0.9]", r"betas: expected tuple.*, got \[0.9\]"),
        ("data.subjects=cat", "subjects: expected list.*, got 'cat'"),
        ("data=emoji", "data: expected a section with keys, got 'emoji'"),
        ("seed.x=1", "seed is not a section"),
        ("optim.lr", "cannot read the override 'optim.lr'; write KEY=VALUE"),
        ("sample_prompts=[a", r"cannot read the value '\[a'"),
        ("optim.batch_size=0", "optim.batch_size must be 1 or more, not 0"),
        ("optim.gradient_accumulation=3", "batch_size, 4, must be a multiple of optim.gradient_accumulation, 3"),
        ("checkpoint_every=0", "checkpoint_every must be 1 or more"),
        ("mixed_precision=int8", "mixed_precision 'int8': use no, bf16 or fp16"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(config_file: Path, override: str, message: str) -> None:
    with pytest.raises(LumiereError, match=message) as told:
        load(config_file, [override])
    assert "\n" not in str(told.value)


def test_files_that_are_no_configuration_are_refused(tmp_path: Path) -> None:
    broken = {"a: [": "is not valid YAML", "- a\n- b": "holds no configuration", "seed: 1": "missing 2 required"}
    for text, message in broken.items():
        (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
        with pytest.raises(LumiereError, match=message):
            load(tmp_path / "config.yaml")
    (tmp_path / "config.yaml").write_bytes(b"\xff\xfe\x00stage")
    with pytest.raises(LumiereError, match="is not valid YAML"):
        load(tmp_path / "config.yaml")
    with pytest.raises(LumiereError, match=r"cannot read the configuration .*: No such file"):
        load(tmp_path / "nothing.yaml")


# Schedule, data order, average


@SOME
@given(warmup=st.integers(0, 50), rest=st.integers(1, 400), ratio=st.floats(0, 1))
def test_the_learning_rate_warms_up_and_decays(warmup: int, rest: int, ratio: float) -> None:
    optim = OptimizerConfig(lr=2e-3, warmup_steps=warmup, max_steps=warmup + rest, final_lr_ratio=ratio)
    rates = np.array([learning_rate(optim, step) for step in range(optim.max_steps + 1)])
    assert (np.diff(rates[: warmup + 1]) >= -1e-15).all()
    assert (np.diff(rates[warmup:]) <= 1e-15).all()
    assert rates.min() >= 0
    assert rates.max() == pytest.approx(2e-3)
    assert rates[-1] == pytest.approx(2e-3 * ratio, abs=1e-12)


@SOME
@given(size=st.integers(1, 5), world=st.integers(1, 4), start=st.integers(0, 20), length=st.integers(0, 20))
def test_processes_share_the_data_and_a_late_start_goes_on_where_it_was(
    size: int, world: int, start: int, length: int
) -> None:
    def order(first: int) -> list[list[list[int]]]:
        return [list(_IndexBatches(first, 20 + length, size, rank, world)) for rank in range(world)]

    whole, late = order(0), order(start)
    assert sorted(i for batches in whole for batch in batches for i in batch) == list(
        range((20 + length) * size * world)
    )
    assert late == [batches[start:] for batches in whole]


@SOME
@given(values=st.lists(st.floats(-5, 5), min_size=1, max_size=30), decay=st.floats(0, 0.999))
def test_the_average_is_its_closed_form(values: list[float], decay: float) -> None:
    module = nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        module.weight.fill_(1.5)
    ema = state.EMA(module, decay)
    for value in values:
        with torch.no_grad():
            module.weight.fill_(value)
        ema.update(module)
    decays = np.array([min(decay, (1 + n) / (10 + n)) for n in range(len(values))])
    remaining = np.append(np.cumprod(decays[::-1])[::-1][1:], 1.0)  # what later updates leave of each
    expected = 1.5 * decays.prod() + ((1 - decays) * remaining * values).sum()
    assert float(ema.average["weight"]) == pytest.approx(expected, abs=1e-9)
    ema.swap(module)
    assert module.weight.item() == pytest.approx(expected, abs=1e-9)
    ema.swap(module)
    assert module.weight.item() == values[-1]


# Objective


def scheduler(prediction_type: str) -> DDIMScheduler:
    return DDIMScheduler(**(TINY["scheduler"] | {"prediction_type": prediction_type}))  # type: ignore[operator]


@SOME
@given(batch=st.integers(1, 100), seed=st.integers(0, 2**31))
def test_timesteps_cover_the_range_evenly(batch: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    drawn = stratified_timesteps(batch, 1000, generator=generator, device=torch.device("cpu"))
    for k, timestep in enumerate(sorted(drawn.tolist())):
        assert math.floor(k * 1000 / batch) - 1 <= timestep <= math.ceil((k + 1) * 1000 / batch)
    assert drawn.min() >= 0
    assert drawn.max() < 1000


@SOME
@given(batch=st.integers(1, 64), shift=st.floats(1, 20))
def test_shifted_timesteps_lean_towards_noise_and_reach_as_far(batch: int, shift: float) -> None:
    def drawn(shift: float) -> torch.Tensor:
        generator = torch.Generator().manual_seed(batch)
        return stratified_timesteps(batch, 1000, generator=generator, device=torch.device("cpu"), shift=shift)

    plain, leaning = drawn(1.0).double(), drawn(shift).double()
    assert (leaning >= plain - 1).all()
    expected = shift * (plain / 1000) / (1 + (shift - 1) * plain / 1000) * 1000
    assert (leaning - expected).abs().max() <= shift + 1  # a timestep's rounding, magnified
    sampled = sampling_timesteps(batch, 1000, shift)
    assert sampled[0] == 999  # pure noise, where sampling starts
    assert sampled == sorted(set(sampled), reverse=True)
    assert sampled[-1] >= 0
    if shift == 1:
        assert len(sampled) == batch


def test_timesteps_come_in_any_order_and_reach_both_ends() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack(
        [stratified_timesteps(4, 1000, generator=generator, device=torch.device("cpu")) for _ in range(2000)]
    )
    assert drawn.min() < 5
    assert drawn.max() > 994
    assert (drawn.float().mean(0) - 499.5).abs().max() < 30  # each place in the batch sees all of the range


@SOME
@given(seed=st.integers(0, 2**31), timestep=st.integers(0, 999))
def test_targets_give_back_what_was_mixed(seed: int, timestep: int) -> None:
    torch.manual_seed(seed)
    sample, noise, t = torch.rand(2, 3, 1, 4, 4) * 2 - 1, torch.randn(2, 3, 1, 4, 4), torch.tensor([timestep] * 2)
    velocity = scheduler("v_prediction")
    noisy, v = velocity.add_noise(sample, noise, t), target_of(velocity, sample, noise, t)
    a, s = velocity.alphas_cumprod[timestep].sqrt(), (1 - velocity.alphas_cumprod[timestep]).sqrt()
    torch.testing.assert_close(a * noisy - s * v, sample, atol=1e-5, rtol=0)
    torch.testing.assert_close(s * noisy + a * v, noise, atol=1e-5, rtol=0)
    assert target_of(scheduler("epsilon"), sample, noise, t) is noise
    assert target_of(scheduler("sample"), sample, noise, t) is sample


@pytest.mark.parametrize("gamma", [0.0, 2.0, 10.0])
def test_weights_cap_the_loss_at_low_noise(gamma: float) -> None:
    t = torch.arange(20, 999, 7)
    alpha_bar = scheduler("epsilon").alphas_cumprod[t].double()
    snr = alpha_bar / (1 - alpha_bar)
    of_sample = (snr + 1).clamp(max=gamma)
    expected = {"v_prediction": of_sample / (snr + 1), "epsilon": of_sample / snr, "sample": of_sample}
    for kind, weights in expected.items():
        wanted = weights if gamma else torch.ones(len(t), dtype=torch.float64)
        torch.testing.assert_close(loss_weights(scheduler(kind), t, gamma).double(), wanted, atol=1e-4, rtol=1e-3)
    # At zero SNR, where subject and background are decided, nothing is lost.
    assert float(loss_weights(scheduler("v_prediction"), torch.tensor([999]), gamma)) == pytest.approx(1.0, abs=1e-6)
    assert torch.isfinite(loss_weights(scheduler("epsilon"), torch.tensor([0, 999]), gamma)).all()


def test_a_perfect_network_has_no_loss_and_a_silent_one_the_targets_power() -> None:
    sample, plan = torch.rand(64, 3, 1, 4, 4) * 2 - 1, scheduler("v_prediction")

    def knowing(noisy: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        a, s = (x.sqrt().view(-1, 1, 1, 1, 1) for x in (plan.alphas_cumprod[t], 1 - plan.alphas_cumprod[t]))
        noise = (noisy - a * sample) / s.clamp(min=1e-6)
        return a * noise - s * sample

    def loss(denoise: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], seed: int = 0) -> float:
        generator = torch.Generator().manual_seed(seed)
        return float(diffusion_loss(denoise, plan, sample, gamma=0.0, generator=generator))

    assert loss(knowing) < 1e-6
    silent = loss(lambda noisy, _: torch.zeros_like(noisy))
    assert silent == pytest.approx((1 + 1 / 3) / 2, rel=0.1)  # half noise, half uniform pixels
    assert loss(lambda noisy, _: torch.zeros_like(noisy)) == silent
    assert loss(lambda noisy, _: torch.zeros_like(noisy), seed=1) != silent


# Checkpoints


def trained_once(width: int = 4) -> tuple[nn.Module, torch.optim.Optimizer, state.EMA]:
    torch.manual_seed(width)
    module = nn.Sequential(nn.Linear(width, width), nn.Linear(width, 1))
    optimizer = torch.optim.AdamW(module.parameters(), fused=True)
    ema = state.EMA(module, 0.9)
    module(torch.ones(2, width)).sum().backward()
    optimizer.step()
    ema.update(module)
    return module, optimizer, ema


def test_only_the_newest_checkpoints_are_kept_and_abandoned_ones_go(tmp_path: Path) -> None:
    parts = trained_once()
    for step in (10, 20, 30):
        state.save(tmp_path, step, *parts, keep=2, config={})
    assert [path.name for path in state.checkpoints(tmp_path)] == ["checkpoint-0000020", "checkpoint-0000030"]
    # Started anew: what the former run left must not be gone on from.
    state.save(tmp_path, 5, *parts, keep=2, config={})
    assert [path.name for path in state.checkpoints(tmp_path)] == ["checkpoint-0000005"]


def test_a_restored_optimizer_goes_on_to_the_bit(tmp_path: Path) -> None:
    """Convolutions in channels-last too, whose moments lie in memory as the weights do."""

    def step(module: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
        torch.manual_seed(seed)
        module(torch.randn(2, 6, 5, 5)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    def fresh(seed: int) -> tuple[nn.Module, torch.optim.Optimizer, state.EMA]:
        torch.manual_seed(seed)
        module = nn.Conv2d(6, 8, 3).to(memory_format=torch.channels_last)
        return module, torch.optim.AdamW(module.parameters(), lr=1e-2, fused=True), state.EMA(module, 0.9)

    module, optimizer, ema = fresh(0)
    for seed in range(3):
        step(module, optimizer, seed)
    saved = state.save(tmp_path, 3, module, optimizer, ema, keep=1, config={})
    other, other_optimizer, other_ema = fresh(1)
    state.restore(saved, other, other_optimizer, other_ema)
    for seed in range(3, 6):
        step(module, optimizer, seed)
        step(other, other_optimizer, seed)
    assert torch.equal(module.weight, other.weight)


def test_what_is_unfinished_is_no_checkpoint(tmp_path: Path) -> None:
    parts = trained_once()
    whole = state.save(tmp_path, 10, *parts, keep=2, config={})
    shutil.copytree(whole, tmp_path / "checkpoint-0000020.partial")
    shutil.copytree(whole, tmp_path / "checkpoint-0000030")
    (tmp_path / "checkpoint-0000030" / "state.json").unlink()  # as a kill within a removal leaves it
    assert state.checkpoints(tmp_path) == [whole]
    state.save(tmp_path, 20, *parts, keep=2, config={})
    assert not list(tmp_path.glob("*.partial"))


def test_another_networks_checkpoint_is_refused(tmp_path: Path) -> None:
    found = state.save(tmp_path, 10, *trained_once(4), keep=2, config={})
    module, optimizer, ema = trained_once(5)
    before = [p.clone() for p in module.parameters()]
    with pytest.raises(LumiereError, match="is of another network than the configuration's; choose another `output`"):
        state.restore(found, module, optimizer, ema)
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))


def _save_for_ever(folder: Path) -> None:
    parts = trained_once(700)
    for step in range(1, 100_000):
        state.save(folder, step, *parts, keep=2, config={})


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(tmp_path: Path, runs: Runs) -> None:
    process = runs.context.Process(target=_save_for_ever, args=(tmp_path,))
    process.start()
    wait_for(lambda: len(state.checkpoints(tmp_path)) == 2, process)
    wait_for(lambda: any(tmp_path.glob("*.partial/ema*")), process)
    process.kill()
    process.join()
    module, optimizer, ema = trained_once(700)
    found = state.checkpoints(tmp_path)
    assert found
    assert state.restore(found[-1], module, optimizer, ema) == int(found[-1].name[-7:])


# Real runs


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

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(
            ["pytest", "hypothesis", "openlumiere.cli", "openlumiere.training.loop", "openlumiere.training.t2i",
             "openlumiere.training.t2v", "transformers.models.bert.modeling_bert", "webdataset"]
        )  # fmt: skip
        (folder / "config.yaml").write_text(yaml.safe_dump(TINY | {"output": "-"}), encoding="utf-8")

    def arguments(self, output: Path, *overrides: str, stage: str = "t2i") -> list[str]:
        return [
            "train", stage, "--config", str(self.folder / "config.yaml"),
            f"output={output}", f"data.folder={self.folder / 'data'}", f"stage={stage}", *overrides,
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
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """Two loops as data, and an environment of one CPU thread for every process."""
    folder = tmp_path_factory.mktemp("training")
    with pytest.MonkeyPatch.context() as patch:
        for key, value in {
            "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true", "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")])),
        }.items():  # fmt: skip
            patch.setenv(key, value)
        make_data(folder / "data")
        yield Runs(folder)


def make_data(folder: Path) -> None:
    """A tiger and a heart of a few frames, through the real builder."""
    loops = {"1f405": (240, 150, 30), "2764-fe0f": (220, 30, 60)}
    files = {}
    for key, color in loops.items():
        frames = []
        for i in range(6):
            frame = np.zeros((64, 64, 4), dtype=np.uint8)
            frame[10 + i : 50 + i, 8:56] = (*color, 255)
            frames.append(Image.fromarray(frame))
        buffer = io.BytesIO()
        frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:], duration=125, lossless=True)
        files[f"package/assets/{key}.webp"] = buffer.getvalue()
    cache = folder / "packages"
    cache.mkdir(parents=True)
    for n, package in enumerate(builder.PACKAGES):
        name = f"{package.removeprefix('@').replace('/', '-')}-{builder.PACKAGE_VERSION}.tgz"
        with tarfile.open(cache / name, "w:gz") as tar:
            for path, data in files.items() if n == 0 else ():
                info = tarfile.TarInfo(path)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    assert build(folder, size=32, workers=1).written == 2


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
    ]  # fmt: skip


@pytest.fixture(scope="module")
def t2v(runs: Runs, t2v_overrides: list[str]) -> Path:
    """The folder of a whole, undisturbed t2v run on top of it."""
    output = runs.folder / "t2v"
    code, log = runs.run(output, *t2v_overrides, stage="t2v")
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


def test_t2i_learns_and_writes_what_it_promises(t2i: Path) -> None:
    loss = scalars(t2i, "loss")
    assert list(loss) == list(range(2, 41, 2))
    assert all(math.isfinite(value) for value in loss.values())
    values = list(loss.values())
    assert np.mean(values[-7:]) < 0.8 * np.mean(values[:4])
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
            state.start_from(Path(folder), *trained_once()[::2])


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
        (["data.kind=films"], "data.kind 'films': use emoji or folder"),
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


def launch(*arguments: str) -> str:
    """`accelerate launch` on two processes; returns what they printed.

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
    assert done.returncode == 0, done.stdout + done.stderr
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


def test_the_command_runs_under_accelerate_launch(runs: Runs, t2v_overrides: list[str], tmp_path: Path) -> None:
    few = ["optim.max_steps=3", "sample_every=3", "time_budget=10"]
    train = runs.arguments(tmp_path, *t2v_overrides, *few, stage="t2v")
    log = launch("-m", "openlumiere.cli", *train)
    assert [path.name for path in state.checkpoints(tmp_path)] == ["checkpoint-0000003"]
    assert (tmp_path / "export" / "temporal" / "temporal.safetensors").exists()
    assert log.count("t2v on cpu x 2") == 1
