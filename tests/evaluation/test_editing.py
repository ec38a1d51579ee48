"""Figures of editing: each measure on clips whose answer is known, and the whole protocol on a small model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tiny
from openlumiere.data.emoji.drawing import Atlas
from openlumiere.errors import LumiereError
from openlumiere.evaluation.judges import load_judges
from openlumiere.evaluation.judges.classifier import ClassifierConfig
from openlumiere.evaluation.judges.motion import MotionConfig
from openlumiere.evaluation.metrics.fidelity import edge_correlation, psnr, seam_energy
from openlumiere.evaluation.protocols.editing import evaluate_editing, markdown
from openlumiere.evaluation.protocols.editing_tasks import METRICS, STRENGTHS

pytestmark = pytest.mark.slow  # whole protocols


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def test_psnr_is_of_the_pixels_asked_for() -> None:
    clip = np.zeros((2, 4, 4, 3))
    other = clip + 0.1
    where = np.zeros((2, 4, 4), bool)
    where[0] = True
    other[1] = 1
    assert psnr(other, clip, where) == pytest.approx(20)
    assert psnr(other, clip) < 10
    assert psnr(clip, clip) == psnr(other, clip, where & False) == 100


def test_a_seam_has_energy_at_the_border_and_nowhere_else() -> None:
    mask = np.zeros((3, 8, 8), bool)
    mask[:, :, 4:] = True
    smooth = np.full((3, 8, 8, 3), 0.5)
    assert seam_energy(smooth, mask) == 0
    step = smooth + 0.2 * mask[..., None]
    assert seam_energy(step, mask) == pytest.approx(0.04)
    elsewhere = smooth.copy()
    elsewhere[:, :, 1] = 1
    assert seam_energy(elsewhere, mask) == 0
    assert seam_energy(smooth, mask & False) == 0


def test_edges_are_compared_not_colours() -> None:
    clip = noise(3, 16, 16, 3)
    assert edge_correlation(clip, clip) == pytest.approx(1)
    assert edge_correlation(1 - clip, clip) == pytest.approx(1)
    assert abs(edge_correlation(noise(3, 16, 16, 3, seed=1), clip)) < 0.2
    assert edge_correlation(np.zeros_like(clip), clip) == 0


def test_the_protocol_writes_what_it_promises(tmp_path: Path) -> None:
    """On subjects that fill half their square, so that boxes around them leave something to keep."""
    frames = torch.zeros(6, 4, 32, 32, dtype=torch.uint8)
    frames[:, :, 8:24, 8:24] = torch.randint(100, 255, (6, 4, 16, 16), generator=torch.Generator().manual_seed(0))
    frames[:, 3, 8:24, 8:24] = 255
    atlases = {key: Atlas(key, [key], frames) for key in ("tiger", "heart")}
    judges = load_judges(
        atlases, tmp_path / "judges", progress=False,
        subject=ClassifierConfig(width=4, steps=3, batch_size=4, held_out_clips=2),
        motion=MotionConfig(clips=20, steps=5, batch_size=4, num_frames=16, held_out_clips=2),
    )  # fmt: skip
    pipe = tiny.conditioned()
    pipe.register_to_config(subjects=list(atlases))
    strangers = {key: Atlas(key, [key], frames.flip(1)) for key in ("pig", "cow")}  # of the test split's artwork

    def run(**options: object) -> dict:
        given = {"clips": 2, "num_frames": 16, "judges": judges, "progress": False} | options
        return evaluate_editing(pipe, atlases | strangers, tmp_path / "report", **given)

    report = run()
    assert json.loads((tmp_path / "report" / "editing.json").read_text()) == report
    figures = report["figures"]
    assert {task: set(found) for task, found in figures.items()} == {task: set(METRICS[task]) for task in METRICS}
    assert figures["cinemagraph"]["outside"] == 0
    assert figures["unknown-pictures"]["psnr"] < figures["unknown-pictures"]["psnr_repeated"]
    # The network is not trained: what is given is held by the sampler, and a strength of 0.2 keeps more than one of 1.
    assert figures["image-to-video"]["psnr"] > 40
    first, last = (figures["restyling"][f"structure_{s}"] for s in (STRENGTHS[0], STRENGTHS[-1]))
    assert first > last
    # Real clips are best continued by themselves: the ways compared with are measured on the same frames.
    assert 5 < figures["extension"]["psnr_repeated"] < 100
    assert f"{figures['extension']['psnr_repeated']:.2f}" in markdown(report)
    for task in ("image-to-video", "inpainting", "restyling-0.6"):
        with Image.open(tmp_path / "report" / f"{task}.png") as picture:
            assert picture.size == (8 * 96, 4 * 96)  # two clips, what is given above what is made

    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "report" / "clips").iterdir()}
    assert run() == report
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "report" / "clips").iterdir()} == kept
    assert set(run(tasks=["interpolation"], clips=1)["figures"]) == {"interpolation"}
    pipe.register_to_config(subjects=[*atlases, *strangers])
    assert set(run(clips=1)["figures"]) == set(METRICS) - {"unknown-pictures"}
    with pytest.raises(LumiereError, match="another seed"):
        run(seed=1)
    with pytest.raises(LumiereError, match="choose tasks from"):
        run(tasks=["colouring"])
