"""Samples drawn in training: of the length and at the rate that the network sees."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import tiny
from openlumiere.training.config_files import parse
from openlumiere.training.stages import make_stage
from openlumiere.video import read_clip
from tiny_data import make_data

pytestmark = pytest.mark.slow  # whole runs


@pytest.mark.parametrize("stage", ["t2v", "conditional"])
def test_every_second_frame_plays_at_half_the_rate(stage: str, tmp_path: Path) -> None:
    make_data(tmp_path / "data")
    tiny.conditioned().save_pretrained(tmp_path / "model")
    tree = {
        "stage": stage, "output": str(tmp_path / "run"), "sample_steps": 1, "sample_prompts": ["a tiger"],
        "model": {"size": 16, "t2i": str(tmp_path / "model")},
        "data": {"folder": str(tmp_path / "data"), "subjects": ["tiger", "heart"], "num_frames": 16, "every": 2},
    }  # fmt: skip
    if stage == "conditional":
        tree["model"]["masks"] = ["first frame"]  # type: ignore[index]
    make_stage(parse(tree), torch.device("cpu")).sample(tmp_path / "samples", 0)
    (path,) = (tmp_path / "samples").glob("*.webp")
    clip = read_clip(path)
    assert (len(clip.frames), clip.fps) == (8, pytest.approx(8, rel=0.01))
