"""Training temporal layers on a user's own clips, on top of each family of text-to-image models."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import tiny
from openlumiere.errors import LumiereError
from openlumiere.pipelines.inflate import inflate
from openlumiere.pipelines.load import load_pipeline
from openlumiere.training import config_files as configuration
from openlumiere.training.export import export
from openlumiere.training.loop import train
from openlumiere.training.stages.conditional import Conditional
from openlumiere.training.stages.t2v import build_pipeline
from openlumiere.video import write_clip

pytestmark = pytest.mark.slow  # whole runs
CONFIG = Path(__file__).parents[2] / "configs/emoji/conditional.yaml"


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three captioned clips of a square that moves."""
    folder = tmp_path_factory.mktemp("clips")
    for n, color in enumerate(([255, 0, 0], [0, 255, 0], [0, 0, 255])):
        frames = np.full((12, 24, 24, 3), 200, np.uint8)
        for i, frame in enumerate(frames):
            frame[8:16, i : i + 8] = color
        write_clip(frames, folder / f"{n}.mp4", fps=8)
        (folder / f"{n}.txt").write_text(f"a square of colour {n} moving right", encoding="utf-8")
    return folder


def settings(tmp_path: Path, t2i: Path, clips: Path, size: int, **model: object) -> Path:
    tree = {
        "stage": "t2v",
        "output": str(tmp_path / "run"),
        "sample_every": 2,
        "sample_steps": 2,
        "sample_prompts": ["a square"],
        "model": {"size": size, "pixel_unshuffle": 1, "t2i": str(t2i), **model},
        "data": {"kind": "folder", "folder": str(clips), "num_frames": 8, "fps": 8},
        "optim": {"max_steps": 2, "batch_size": 2, "warmup_steps": 1, "lr": 0.01},
    }
    path = tmp_path / "t2v.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("family", "size"), [("stable-diffusion", 16), ("stable-diffusion-xl", 16), ("deepfloyd-if", 8)]
)
@pytest.mark.parametrize("inflated", [False, True])
def test_train_on_own_clips(family: str, size: int, inflated: bool, tmp_path: Path, clips: Path) -> None:
    t2i = tmp_path / "t2i"
    tiny.t2i_pipeline(family, tmp_path).save_pretrained(t2i)
    if inflated:
        inflate(str(t2i), tmp_path / "inflated", num_frames=8)
    source = tmp_path / "inflated" if inflated else t2i
    exported = train(configuration.load(settings(tmp_path, source, clips, size)))
    assert list((tmp_path / "run" / "samples").glob("*.webp"))

    trained, start = load_pipeline(str(exported / "pipeline")), tiny.t2i_pipeline(family, tmp_path).unet
    spatial = trained.unet.spatial.state_dict()
    assert all(torch.equal(value, spatial[name]) for name, value in start.state_dict().items())
    projections = [p for name, p in trained.unet.temporal.named_parameters() if "projection" in name]
    assert all(p.abs().sum() > 0 for p in projections)  # they start at zero
    trained.set_progress_bar_config(disable=True)
    assert math.isfinite(trained("a square", num_frames=8, num_inference_steps=2).frames.mean())

    half = load_pipeline(str(export(tmp_path / "run", tmp_path / "half", guidance_scale=3.0)))
    assert half.config.guidance_scale == 3.0
    for name, value in trained.unet.temporal.state_dict().items():
        torch.testing.assert_close(half.unet.temporal.state_dict()[name], value, atol=1e-3, rtol=1e-3)


def test_inflated_twice_is_refused(tmp_path: Path, clips: Path) -> None:
    tiny.t2i_pipeline("stable-diffusion", tmp_path).save_pretrained(tmp_path / "t2i")
    inflate(str(tmp_path / "t2i"), tmp_path / "inflated", num_frames=8)
    path = settings(tmp_path, tmp_path / "inflated", clips, 16, temporal={"attention_layers": 3})
    with pytest.raises(LumiereError, match="inflated already"):
        train(configuration.load(path))


def test_bundled_models_are_known_by_name() -> None:
    config = configuration.load(CONFIG)
    assert build_pipeline(config, "emoji").unet.config.condition_channels
    with pytest.raises(LumiereError, match="with other temporal_width: leave"):
        build_pipeline(config, "emoji", temporal={"attention_layers": 1, "temporal_width": 1.0})


def test_its_own_recipe_goes_on_from_the_bundled_model() -> None:
    config = configuration.load(CONFIG, ["model.t2i=emoji"])
    pipe = Conditional.build(config)
    assert pipe.config.follow_layout
    assert pipe.config.canonical
    assert pipe.unet.config["temporal_harmonics"] == config.model.temporal["temporal_harmonics"]


def test_export_needs_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(LumiereError, match="neither a checkpoint nor a model"):
        export(tmp_path, tmp_path / "out")
