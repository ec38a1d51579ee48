"""What is measured of a clip: known motions give known values; intervals, counts, tables."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clips import moving_square
from openlumiere.comparison.measures import MEASURES, measure, summarize, summary, write_tables
from openlumiere.comparison.prompts import Shot
from openlumiere.evaluation.metrics.displacement import displacement
from openlumiere.video import write_clip


def panning(step: int, *, frames: int = 6, side: int = 64) -> np.ndarray:
    """A window that moves over noise, smooth within four pixels."""
    rng = np.random.default_rng(0)
    ground = rng.random((side // 4, 2 * side // 4, 3)).repeat(4, 0).repeat(4, 1)
    return np.stack([ground[:, i * step : i * step + side] for i in range(frames)]).astype(np.float32)


@pytest.mark.parametrize("step", [0, 1, 2, 5])
def test_the_displacement_of_a_pan_is_its_step(step: int) -> None:
    assert displacement(panning(step)) == pytest.approx(step / 64, rel=0.05)


def test_neither_grain_nor_light_nor_a_single_frame_moves() -> None:
    rng = np.random.default_rng(1)
    still = panning(0)
    assert displacement((still + rng.normal(0, 0.004, still.shape)).clip(0, 1)) == 0
    plain = np.broadcast_to(np.linspace(0.2, 1, 8)[:, None, None, None], (8, 64, 64, 3))
    assert displacement(plain) == 0
    assert displacement(still[:1]) == 0


def test_motion_hangs_on_neither_size_nor_rate(tmp_path: Path) -> None:
    def motion(factor: int, stride: int) -> float:
        clip = (panning(1, frames=13)[::stride] * 255).astype(np.uint8).repeat(factor, 1).repeat(factor, 2)
        path = write_clip(clip, tmp_path / f"{factor}-{stride}.webp", fps=16 / stride, lossless=True)
        return float(measure(path, None)["values"]["motion"])

    assert motion(1, 1) == pytest.approx(100 * 16 / 64, rel=0.05)
    assert motion(4, 1) == pytest.approx(motion(1, 1), rel=0.05)
    assert motion(1, 2) == pytest.approx(motion(1, 1), rel=0.05)


def test_a_still_clip_and_noise_are_told_apart(tmp_path: Path) -> None:
    still = np.broadcast_to((panning(0)[:1] * 255).astype(np.uint8), (6, 64, 64, 3))
    noise = np.random.default_rng(2).integers(0, 256, (60, 16, 16, 3), dtype=np.uint8)
    one = measure(write_clip(still, tmp_path / "still.webp", lossless=True), None)["values"]
    two = measure(write_clip(noise, tmp_path / "noise.webp", lossless=True), None)["values"]
    assert (one["motion"], one["moving"], one["flicker"], one["unsteadiness"]) == (0, 0, 0, None)
    assert one["frame_ssim"] == pytest.approx(1)
    assert two["moving"] == 100
    assert two["unsteadiness"] == pytest.approx(1.7, abs=0.1)
    assert two["frame_ssim"] < 0.2
    assert two["loop_seam"] == pytest.approx(1, abs=0.2)


def test_a_jump_at_a_window_s_border_shows_where_windows_are_known(tmp_path: Path) -> None:
    """Windows of 8 that share half: their borders are after frames 4, 8, ..."""
    frames = moving_square(0, frames=16, speed=0.3).copy()
    frames[4:8] = 255 - frames[4:8]
    path = write_clip(frames, tmp_path / "jump.webp", lossless=True)
    assert measure(path, 8)["values"]["window_seam"] > 5
    assert measure(path, None)["values"]["window_seam"] is None
    assert measure(path, 16)["values"]["window_seam"] is None


def test_the_interval_is_over_prompts_whose_clips_are_averaged_first() -> None:
    found = summary({"a": [1.0, 3.0], "b": [6.0]})
    assert found is not None
    assert (found["value"], found["clips"], found["prompts"]) == (4.0, 3, 2)
    assert found["interval_95"] == [2.0, 6.0]
    one = summary({"a": [1.0, 3.0]})
    assert one is not None
    assert one["interval_95"] is None
    assert summary({}) is None


def test_the_interval_holds_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    hits = 0
    for trial in range(200):
        values = {str(n): [value] for n, value in enumerate(rng.normal(5, 2, 30))}
        found = summary(values, seed=trial)
        assert found is not None
        hits += found["interval_95"][0] <= 5 <= found["interval_95"][1]
    assert 178 <= hits <= 198  # 95 %, less what bootstraps of 30 lack


def test_tables_say_of_how_many_clips_each_number_is(tmp_path: Path) -> None:
    values: dict[str, Any] = dict.fromkeys(MEASURES, 1.5) | {"window_seam": None}
    shape = {"num_frames": 8, "fps": 8.0, "width": 16, "height": 16}
    own = [(Shot("a", seed), {"values": values, "shape": shape}) for seed in (0, 1)]
    report = {
        "entries": [{"name": "A", "measures": summarize(own)}],
        "measures": {name: {"unit": each.unit} for name, each in MEASURES.items()},
        "clips": [{"name": "A", "prompt": "a", "seed": shot.seed, "file": "a.mp4", **one} for shot, one in own],
    }
    write_tables(report, tmp_path)
    assert json.loads((tmp_path / "comparison.json").read_text())["entries"] == report["entries"]
    rows = list(csv.DictReader((tmp_path / "measures.csv").open()))
    assert {row["measure"] for row in rows} == set(MEASURES) - {"window_seam"}
    assert {(row["clips"], row["prompts"], row["low_95"]) for row in rows} == {("2", "1", "")}
    clips = list(csv.DictReader((tmp_path / "clips.csv").open()))
    assert [clip["seed"] for clip in clips] == ["0", "1"]
    assert clips[0]["window_seam"] == ""
