"""The second stage's figures: each measure on clips whose answer is known, and the whole protocol on a tiny stage."""

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
from openlumiere.evaluation.judges.classifier import ClassifierConfig, SubjectClassifier
from openlumiere.evaluation.protocols.upscaling import (
    BICUBIC,
    LANCZOS,
    REAL,
    compare,
    evaluate_upscaling,
    flicker,
    interpolate,
)

pytestmark = pytest.mark.slow  # whole protocols

CONFIG = ClassifierConfig(side=32, width=4, steps=3, batch_size=4, held_out_clips=2)


def classifier() -> SubjectClassifier:
    torch.manual_seed(0)
    return SubjectClassifier(["tiger", "heart"], CONFIG).eval()


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def test_steady_motion_does_not_flicker_and_noise_does() -> None:
    ramp = np.tile(np.linspace(0, 1, 20)[:, None, None, None], (1, 4, 4, 3))
    assert flicker(ramp) == pytest.approx(0, abs=1e-12)
    assert flicker(noise(20, 4, 4, 3)) > 0.1
    blinking = np.zeros((20, 4, 4, 3))
    blinking[::2] = 0.25
    assert flicker(blinking) == pytest.approx(0.5)


def test_interpolation_keeps_flat_frames_and_the_shape() -> None:
    flat = np.full((3, 8, 6, 3), 51, dtype=np.uint8)
    for resampling in (Image.Resampling.BICUBIC, Image.Resampling.LANCZOS):
        large = interpolate(flat, 4, resampling)
        assert large.shape == (3, 32, 24, 3)
        np.testing.assert_allclose(large, 0.2, atol=1e-6)


def test_measures_tell_the_same_clip_from_a_noisy_one_and_that_from_a_noisier_one() -> None:
    real = interpolate((noise(4, 8, 8, 3) * 255).astype(np.uint8), 4, Image.Resampling.BICUBIC)
    less, more = (np.clip(real + amount * (noise(*real.shape, seed=1) - 0.5), 0, 1) for amount in (0.1, 0.4))
    same, near, far = (compare(clip, real, classifier()) for clip in (real, less, more))
    assert same["ssim"] == pytest.approx(1)
    assert same["distance"] == pytest.approx(0, abs=1e-6)
    assert same["psnr"] > near["psnr"] > far["psnr"]
    assert same["ssim"] > near["ssim"] > far["ssim"]
    assert same["distance"] < near["distance"] < far["distance"]
    assert near["psnr"] == pytest.approx(-10 * np.log10(np.square(less - real).mean((1, 2, 3))).mean(), rel=1e-3)


def test_the_protocol_writes_what_it_promises(tmp_path: Path) -> None:
    frames = torch.randint(0, 255, (6, 4, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    atlases = {key: Atlas(key, [key], frames) for key in ("tiger", "heart")}
    pipe = tiny.second_stage()

    def run() -> dict:
        return evaluate_upscaling(
            pipe, atlases, tmp_path, clips=2, num_frames=16, size=32, steps=[1, 2], classifier=CONFIG, progress=False
        )

    report = run()
    assert json.loads((tmp_path / "upscale.json").read_text()) == report
    assert list(report["ways"]) == [BICUBIC, LANCZOS, "1 step", "2 steps", REAL]
    assert set(report["ways"][REAL]) == {"flicker"}
    assert report["ways"]["1 step"]["psnr"] != report["ways"]["2 steps"]["psnr"]
    table = (tmp_path / "upscale.md").read_text()
    assert f"{report['ways'][BICUBIC]['psnr']:.2f}" in table
    with Image.open(tmp_path / "upscale.png") as picture:
        assert picture.width > 500
    with Image.open(tmp_path / "frames.png") as picture:  # soft, bicubic, Lanczos, 1 and 2 steps, real; a column a clip
        assert picture.size == (2 * 32, 6 * 32)

    def figures(found: dict) -> dict:
        return {n: {k: v for k, v in way.items() if k != "seconds"} for n, way in found["ways"].items()}

    assert figures(run()) == figures(report)
    with pytest.raises(LumiereError, match="must be 1 or more"):
        evaluate_upscaling(pipe, atlases, tmp_path, steps=[0], progress=False)


def test_transparent_clips_are_judged_over_two_grounds_beside_any_other_way(tmp_path: Path) -> None:
    y, x = np.mgrid[:32, :32] - 15.5
    alpha = (255 * np.clip(12.5 - np.hypot(y, x), 0, 1)).astype(np.uint8)
    colours = (np.random.default_rng(0).integers(0, 255, (6, 3, 32, 32)) * (alpha / 255)).astype(np.uint8)
    frames = torch.from_numpy(np.concatenate([colours, np.broadcast_to(alpha, (6, 1, 32, 32))], axis=1))
    atlases = {key: Atlas(key, [key], frames) for key in ("tiger", "heart")}
    seen: list[np.ndarray] = []

    def nearest(clip: np.ndarray) -> np.ndarray:
        seen.append(clip)
        return clip.repeat(2, axis=1).repeat(2, axis=2).astype(np.float32) / 255

    report = evaluate_upscaling(
        tiny.second_stage(channels=4), atlases, tmp_path, clips=1, num_frames=16, size=32, steps=[1], classifier=CONFIG,
        transparent=True, others={"nearest": nearest}, progress=False,
    )  # fmt: skip
    assert list(report["ways"]) == [BICUBIC, LANCZOS, "nearest", "1 step", REAL]
    [clip] = seen
    assert clip.shape == (16, 16, 16, 4)
    assert clip[..., 3].min() == 0
    assert clip[..., 3].max() == 255
    assert report["ways"][LANCZOS]["psnr"] > report["ways"]["1 step"]["psnr"]  # random weights
    with Image.open(tmp_path / "frames.png") as picture:
        assert picture.size == (32, 6 * 32)

    real = np.concatenate([np.full((3, 16, 16, 3), 0.5), np.ones((3, 16, 16, 1))], axis=-1).astype(np.float32)
    hidden = real.copy()
    hidden[:, :, :4] = (1, 0, 0, 0)
    other = hidden.copy()
    other[:, :, :4, :3] = 0.3  # colours that nobody sees
    assert compare(other, hidden, classifier())["ssim"] == pytest.approx(1)
    assert compare(real, hidden, classifier())["psnr"] < 20
    with pytest.raises(LumiereError, match="a multiple of the scale"):
        evaluate_upscaling(tiny.second_stage(), atlases, tmp_path, size=33, classifier=CONFIG, progress=False)
