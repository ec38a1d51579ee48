"""Trainings one after the other, stopped, packed, carried to a fresh folder and gone on with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

import processes
import tiny
from openlumiere.autoencoder import RGBAAutoencoder
from openlumiere.cli import main
from openlumiere.data.packed import pack_loops
from openlumiere.errors import LumiereError
from openlumiere.pipelines.load import load_pipeline
from openlumiere.training import carried, plan, state
from openlumiere.training.config_files import load, parse
from openlumiere.training.export import export
from openlumiere.training.saving import Saver

pytestmark = pytest.mark.slow  # whole runs

ROOT = Path(__file__).parents[2]
UNET = tiny.TRAINING["model"]["unet"] | {
    "class_embed_type": "simple_projection", "projection_class_embeddings_input_dim": 6,
}  # fmt: skip
PARTS = 40_000  # bytes, of which these networks take several


def recipe(stage: str, **model: Any) -> dict[str, Any]:
    return {
        "stage": stage, "output": f"runs/{stage}", "checkpoint_every": 2, "sample_every": 0, "sample_steps": 2,
        "model": {"size": 32, **model}, "scheduler": tiny.TRAINING["scheduler"],
        "data": {"kind": "emoji", "folder": "nowhere", "subjects": ["tiger", "heart"], "num_frames": 16,
                 "cache": "nowhere", "cached": 8},
        "optim": {"max_steps": 6, "batch_size": 2, "warmup_steps": 2, "snr_gamma": 0.0},
    }  # fmt: skip


@pytest.fixture(scope="module")
def place(loops: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is carried besides the state: packed loops, an autoencoder, and the plan with its recipes."""
    folder = tmp_path_factory.mktemp("carried")
    pack_loops(loops, folder / "packed", subjects=["tiger", "heart"])
    torch.manual_seed(0)
    vae = RGBAAutoencoder(latent_channels=4, block_out_channels=(8, 8, 8), layers_per_block=(1, 1), sample_size=32)
    vae.save_pretrained(folder / "vae")
    recipes = {
        "t2i": recipe("t2i", vae=str(folder / "vae"), unet=UNET),
        "conditional": recipe(
            "conditional", t2i="runs/t2i/export", temporal={"attention_layers": 1}, condition_blocks=True,
            condition_gate=True, spread_condition=True,
        ),
    }  # fmt: skip
    for name, tree in recipes.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    tree = {
        "overrides": [f"data.folder={folder / 'packed'}", "data.cache=null", "data.on_device=true", "data.pool=50"],
        "stages": [
            {"config": "t2i.yaml"},
            {"config": "conditional.yaml", "overrides": ["mixed_precision=bf16", "optim.max_steps=4"]},
        ],
    }
    (folder / "plan.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    return folder


def go_to(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    return folder


class TakenAwayError(Exception):
    """As a machine that is taken away."""


def stop_at(step: int, stages: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a plan until a checkpoint of this step was written."""

    whole = Saver.save

    def save(saver: Saver, at: int, *arguments: Any, **options: Any) -> None:
        whole(saver, at, *arguments, **options)
        if at == step:
            saver.wait()
            raise TakenAwayError

    with monkeypatch.context() as patch:
        patch.setattr(Saver, "save", save)
        with pytest.raises(TakenAwayError):
            plan.run(stages)


def average(stage: str) -> dict[str, torch.Tensor]:
    return load_file(state.checkpoints(Path("runs") / stage)[-1] / "ema.safetensors")


# --- In one process ---------------------------------------------------------------------------------------------------


def test_a_plan_goes_on_elsewhere_as_if_it_had_never_stopped(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stages = plan.load_plan(place / "plan.yaml")
    go_to(tmp_path / "whole", monkeypatch)
    assert plan.run(stages, folder=tmp_path / "all")
    whole = {stage: average(stage) for stage in ("t2i", "conditional")}

    go_to(tmp_path / "here", monkeypatch)
    stop_at(2, {"t2i": stages["t2i"]}, monkeypatch)
    carried.pack(stages, tmp_path / "state", part_bytes=PARTS)
    parts = list((tmp_path / "state").glob("*.part"))
    assert len(parts) > 2
    assert all(path.stat().st_size <= PARTS for path in parts)

    go_to(tmp_path / "there", monkeypatch)
    assert plan.run(stages, folder=tmp_path / "state")
    assert "going on from checkpoint 2" in capsys.readouterr().out
    for stage, expected in whole.items():
        found = average(stage)
        assert all(torch.equal(found[name], value) for name, value in expected.items()), stage

    # What comes back is a run that `lumiere export` takes; a clip model's T2I was carried once.
    go_to(tmp_path / "back", monkeypatch)
    assert plan.run(stages, folder=tmp_path / "state")
    assert "going on from" not in capsys.readouterr().out  # nothing was left to do
    listed = json.loads((tmp_path / "state" / "state.json").read_text())["told"]["files"]
    keys = [key for file in listed.values() for key in file.get("tensors", {}).values()]
    assert len(set(keys)) < 0.6 * len(keys)
    pipe = load_pipeline(str(export(Path("runs/conditional"), Path("model"))), device="cpu")
    pipe.set_progress_bar_config(disable=True)
    assert pipe("a tiger", num_frames=16, num_inference_steps=2, transparent=True)[0].shape == (1, 16, 32, 32, 4)


@pytest.mark.parametrize("widths", [(16, 16, 8, 8), (8, 8, 0, 0)])
def test_fewer_bits_resume_near_to_where_it_stopped(
    widths: tuple[int, ...], place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = {"t2i": plan.load_plan(place / "plan.yaml", ["optim.lr=1e-4"])["t2i"]}
    go_to(tmp_path / "here", monkeypatch)
    stop_at(4, stages, monkeypatch)
    before = state.checkpoints(Path("runs/t2i"))[-1]
    exact = sum(path.stat().st_size for path in before.iterdir())
    roles = ("finished", "average", "weights", "moments")
    monkeypatch.setattr(carried, "_WIDTHS", (dict(zip(roles, widths, strict=True)),))
    carried.pack(stages, tmp_path / "state")
    assert sum(path.stat().st_size for path in (tmp_path / "state").iterdir()) < exact

    go_to(tmp_path / "there", monkeypatch)
    carried.unpack(stages, tmp_path / "state")
    after = state.checkpoints(Path("runs/t2i"))[-1]
    for name in ("ema", "weights"):
        old, new = (load_file(tmp_path / where / "runs/t2i" / before.name / f"{name}.safetensors")
                    for where in ("here", "there"))  # fmt: skip
        assert all((old[key] - new[key]).norm() <= 0.02 * old[key].norm() + 1e-3 for key in old), name
    assert json.loads((after / "state.json").read_text())["moments"] == bool(widths[3])
    assert plan.run(stages, folder=tmp_path / "state")
    assert all(value.isfinite().all() for value in average("t2i").values())


def test_a_budget_that_nothing_fits_is_told(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = {"t2i": plan.load_plan(place / "plan.yaml")["t2i"]}
    go_to(tmp_path / "here", monkeypatch)
    stop_at(2, stages, monkeypatch)
    with pytest.raises(LumiereError, match="in 8 bits, more than the"):
        carried.pack(stages, tmp_path / "state", budget=1000)
    carried.pack(stages, tmp_path / "state")
    with pytest.raises(LumiereError, match="state of another plan, with a stage t2i"):
        carried.unpack({"other": stages["t2i"]}, tmp_path / "state")


def test_too_little_time_is_told(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = {"t2i": plan.load_plan(place / "plan.yaml")["t2i"]}
    go_to(tmp_path / "here", monkeypatch)
    with pytest.raises(LumiereError, match="too few to make a step"):
        plan.run(stages, minutes=1e-4, clock=lambda: 0.0)


def test_plans_are_checked_before_anything_runs(place: Path, tmp_path: Path) -> None:
    for tree, said in (
        ({"stages": []}, "has no stages"),
        ({"stages": [{"config": "t2i.yaml"}] * 2}, "names t2i twice"),
        ({"stages": [{"config": "t2i.yaml", "minutes": 3}]}, "unknown key 'minutes'"),
        ({"stages": [{"config": "none.yaml"}]}, "cannot read the configuration"),
    ):
        (place / "other.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
        with pytest.raises(LumiereError, match=said):
            plan.load_plan(place / "other.yaml")
    with pytest.raises(LumiereError, match="cannot read the configuration"):
        plan.load_plan(tmp_path / "none.yaml")
    with pytest.raises(LumiereError, match=r"leave data\.workers and data\.cache out"):
        parse({"stage": "t2i", "output": "runs", "data": {"on_device": True, "workers": 2}})


def test_the_projects_own_plan_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(plan.PACKED_ENCODER, "")  # so that what the plan sets is taken back
    stages = plan.load_plan(ROOT / "configs/emoji/plan.yaml")
    assert list(stages) == ["autoencoder", "t2i", "conditional"]
    assert os.environ[plan.PACKED_ENCODER] == "data/packed/text"
    for name, config in stages.items():
        assert config.output == load(ROOT / f"configs/emoji/{name}.yaml").output
        assert getattr(config.data, "cache", None) is None
        assert config.mixed_precision == "bf16"
    made = {f"{config.output}/export" for config in stages.values()}
    assert stages["t2i"].model.vae == f"{stages['autoencoder'].output}/export/vae"
    assert stages["conditional"].model.t2i in made


# --- The command, killed ----------------------------------------------------------------------------------------------


def test_a_killed_command_goes_on_from_its_small_files_alone(place: Path, tmp_path: Path) -> None:
    small, first, second, lacking = (tmp_path / name for name in ("small", "first", "second", "lacking"))
    for folder in (first, second, lacking):
        folder.mkdir()
    words = ["train", str(place / "plan.yaml"), "--minutes", "9", "--state", str(small)]
    # The first stage never ends: kill it once it has left a checkpoint.
    endless = processes.start(main, [*words, "optim.max_steps=100000"], log=tmp_path / "log", folder=first)
    processes.wait_for(lambda: bool(state.checkpoints(first / "runs" / "t2i")), endless)
    endless.kill()
    endless.join()
    # None of what a bare machine lacks is needed there.
    for name in ("tensorboard", "av", "emoji", "matplotlib", "markdown"):
        (lacking / f"{name}.py").write_text(f"raise ImportError('no {name} here')\n", encoding="utf-8")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(lacking), str(ROOT / "src")]), "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    whole = subprocess.run(
        [sys.executable, "-m", "openlumiere.cli", *words], cwd=first, env=environment, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert whole.returncode == 0, whole.stdout
    assert "going on from checkpoint" in whole.stdout
    assert "all 2 stages are finished" in whole.stdout
    assert all(path.stat().st_size < 2**24 for path in small.iterdir())
    code, again = processes.lumiere(*words, log=tmp_path / "again", folder=second)
    assert code == 0, again
    assert "conditional: finished" in again
    assert (second / "runs/conditional/export/pipeline/vae/config.json").exists()
