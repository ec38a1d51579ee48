"""What an eye minds: each measure on clips whose answer is known; alpha; the strict judge and the ways of spoiling."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from openlumiere.data.emoji.scenes import TRANSPARENT, Scene
from openlumiere.errors import LumiereError
from openlumiere.evaluation.features.imagenet import FEATURES, frame_features
from openlumiere.evaluation.features.sharpness import FVD, MODEL, OTHER, REAL, Sharpness
from openlumiere.evaluation.judges.spoiling import SPOILERS
from openlumiere.evaluation.judges.strict import NOTHING, StrictConfig, almost_unspoiled, strict_classifier
from openlumiere.evaluation.metrics import looks
from openlumiere.evaluation.metrics.frechet import within_span
from openlumiere.evaluation.metrics.pixels import on_contrast, transparent
from openlumiere.evaluation.real_clips import real_clips, smaller
from tiny_data import scene, tiny_atlas

SUBJECTS = ("ell", "wedge", "flag")
ATLASES = {key: tiny_atlas(key, side=128) for key in SUBJECTS}
SIZE = 64


def clip(asked: Scene, *, channels: int = 3, num_frames: int = 40) -> np.ndarray:
    return real_clips(ATLASES, [asked], num_frames=num_frames, size=SIZE, channels=channels)[0]


def noisy(frames: np.ndarray, deviation: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, deviation, frames.shape)
    return (frames + noise).round().clip(0, 255).astype(np.uint8)


# --- Looks ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("motion", ["still", "left", "bounce"])
def test_real_ground_has_no_grain_and_noise_is_measured_in_its_own_unit(motion: str) -> None:
    real = clip(scene(motion=motion, background="gray", size="small"))
    assert looks.grain(looks.take_apart(real)) < 0.05
    assert looks.grain(looks.take_apart(noisy(real, 4.0))) == pytest.approx(4.0, rel=0.1)


def test_ground_leaves_out_the_subject_wherever_it_goes() -> None:
    real = clip(scene(motion="left", size="medium"), channels=4)
    parts = looks.take_apart(real)
    assert parts.ground.float().mean() > 0.1
    bare = real_clips(ATLASES, [scene(motion="left", background=TRANSPARENT)], num_frames=40, size=SIZE, channels=4)[0]
    assert not bare[..., 3][parts.ground.numpy()].any()


def test_grain_of_a_transparent_ground_is_what_shows_of_it() -> None:
    cut = clip(scene(background=TRANSPARENT, size="small"), channels=4)
    assert transparent(cut)
    assert looks.grain(looks.take_apart(cut)) == 0
    hazy = cut.copy()
    hazy[::2, ..., 3] = np.maximum(hazy[::2, ..., 3], 6)  # a faint veil in every other frame
    assert looks.grain(looks.take_apart(hazy)) > 1


def test_what_comes_and_goes_wobbles_and_steady_motion_does_not() -> None:
    still, moving = (clip(scene(motion=motion, size="small")) for motion in ("still", "right"))
    base, moved = (looks.wobble(looks.take_apart(each)) for each in (still, moving))
    assert moved < 2 * base
    rng = np.random.default_rng(0)
    shaken = np.stack([np.roll(frame, rng.integers(-2, 3, 2), (0, 1)) for frame in still])
    flickering = still.copy()
    flickering[::2, 20:44, 20:44] = flickering[::2, 20:44, 20:44] // 2
    assert looks.wobble(looks.take_apart(shaken)) < 2 * base, "a shaken camera is motion, not wobble"
    assert looks.wobble(looks.take_apart(flickering)) > 3 * base


def test_the_path_is_as_long_as_the_scene_says() -> None:
    short, long = (clip(scene(motion="right", size="small", drift=(d, 0.5, 0.0))) for d in (0.0, 1.0))
    # From 0.25 or 0.6 to as far on the other side, in half frames; nine tenths of it.
    for frames, reach in ((short, 0.25), (long, 0.6)):
        assert looks.amplitude(looks.take_apart(frames)) == pytest.approx(0.9 * reach, rel=0.15)
    assert looks.amplitude(looks.take_apart(clip(scene(motion="still", size="small")))) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("period", [1.25, 2.5])
def test_turns_are_counted_with_their_sign(period: float) -> None:
    still = {key: replace(atlas, frames=atlas.frames[:1]) for key, atlas in ATLASES.items()}
    asked = scene(motion="spin", period=period, size="medium")
    frames = real_clips(still, [asked], num_frames=40, size=SIZE)[0]
    turned = 360 * (39 / 16) / period
    assert looks.turn(looks.take_apart(frames)) == pytest.approx(turned, rel=0.05)
    assert looks.turn(looks.take_apart(frames[::-1])) == pytest.approx(-turned, rel=0.05)
    assert abs(looks.turn(looks.take_apart(clip(scene(motion="left"))))) < 30


# --- Alpha ------------------------------------------------------------------------------------------------------------


def test_only_a_transparent_border_makes_a_transparent_clip() -> None:
    assert not transparent(clip(scene()))
    assert not transparent(clip(scene(), channels=4))
    assert transparent(clip(scene(background=TRANSPARENT), channels=4))


def test_transparent_subjects_are_laid_over_a_color_unlike_their_own() -> None:
    cut = clip(scene(background=TRANSPARENT, size="small"), channels=4)
    laid = np.asarray(on_contrast(cut))
    assert laid.shape == (*cut.shape[:3], 3)
    ground = laid[0, 0, 0]
    inside = laid[cut[..., 3] == 255].mean(0)
    assert np.linalg.norm(ground - inside) > 0.4
    same = clip(scene())
    assert on_contrast(same) is same


# --- Spoiling and the strict judge ------------------------------------------------------------------------------------


def subjects(side: int = SIZE) -> torch.Tensor:
    drawn = [
        real_clips(ATLASES, [scene(subject=key, background=TRANSPARENT)], num_frames=1, size=side, channels=4)[0, 0]
        for key in SUBJECTS
    ]
    straight = torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).float() / 255
    return torch.cat([straight[:, :3] * straight[:, 3:], straight[:, 3:]], dim=1)


@pytest.mark.parametrize("way", SPOILERS)
def test_spoiled_subjects_stay_pictures_and_differ_by_more_than_an_eye_forgives(way: str) -> None:
    before = subjects()
    forgiven = (almost_unspoiled(before, torch.Generator().manual_seed(0)) - before).abs().mean((1, 2, 3))
    after = SPOILERS[way](before.clone(), torch.Generator().manual_seed(0))
    assert after.shape == before.shape
    assert after.min() >= -1e-5
    assert (after[:, :3] <= after[:, 3:] + 0.02).all(), "not premultiplied"
    assert ((after - before).abs().mean((1, 2, 3)) > 1.5 * forgiven).all()
    again = SPOILERS[way](before.clone(), torch.Generator().manual_seed(0))
    assert torch.equal(after, again)


def test_halved_subjects_lose_a_third_to_two_thirds() -> None:
    before = subjects().repeat(8, 1, 1, 1)
    after = SPOILERS["halved"](before, torch.Generator().manual_seed(0))
    kept = after[:, 3].sum((1, 2)) / before[:, 3].sum((1, 2))
    assert kept.min() > 0.25
    assert kept.max() < 0.75


CONFIG = StrictConfig(side=32, width=8, deep=False, steps=400, batch_size=48, held_out_clips=40)


@pytest.mark.slow
def test_the_strict_judge_knows_real_clips_and_refuses_spoiled_ones(tmp_path: Path) -> None:
    small = smaller(ATLASES, 64)
    weak = tmp_path / "weak"
    weak.mkdir()
    rng = np.random.default_rng(0)
    for index in range(8):  # a weak model: checkered noise
        blocks = rng.integers(0, 255, (10, 4, 4, 3), np.uint8).repeat(8, 1).repeat(8, 2)
        np.save(weak / f"{index}.npy", blocks)
    judge = strict_classifier(small, tmp_path, config=CONFIG, spoiled=weak, progress=False)
    accuracy = judge.card["accuracy"]
    assert accuracy["held-out combinations"] >= 0.8
    assert accuracy["weak models', refused"] == 1.0
    refused = [accuracy[f"{way}, refused"] for way in SPOILERS]
    assert np.mean(refused) > 0.6
    assert NOTHING in judge.subjects

    again = strict_classifier(small, tmp_path, config=CONFIG, spoiled=weak, progress=False)
    assert again.card == judge.card
    quick = replace(CONFIG, steps=2, held_out_clips=2)
    strict_classifier(small, tmp_path, config=quick, progress=False)
    strict_classifier(small, tmp_path, config=quick, spoiled=weak, progress=False)
    assert len(list(tmp_path.glob("strict-*.safetensors"))) == 3  # what it learned to refuse is part of a judge's name
    with pytest.raises(LumiereError, match="holds no clips"):
        strict_classifier(small, tmp_path, config=quick, spoiled=tmp_path / "nowhere", progress=False)


# --- Sharpness --------------------------------------------------------------------------------------------------------


def test_distances_in_the_span_are_those_in_all_dimensions() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(0, 1, (6, 40)), rng.normal(1, 2, (5, 40))
    inner, outer = within_span([ours, theirs])
    assert inner.shape[1] <= 11
    from openlumiere.evaluation.metrics.frechet import frechet

    assert frechet(inner, outer) == pytest.approx(frechet(ours, theirs), rel=1e-6)


def test_imagenet_features_tell_the_blurred_from_the_sharp() -> None:
    frames = clip(scene(), num_frames=4)
    features = frame_features(frames)
    assert features.shape == (4, FEATURES)
    assert (features >= 0).all()
    np.testing.assert_allclose(frame_features(frames[2:3]), features[2:3], atol=1e-4)


@pytest.mark.slow
def test_blurred_clips_are_further_from_real_ones_than_real_ones_are() -> None:
    sharp = Sharpness()
    for index in range(6):
        drawn = [
            clip(scene(subject=SUBJECTS[(index + shift) % 3], drift=(index / 6, shift / 3, 0.2)), num_frames=16)
            for shift in (0, 1)
        ]
        coarse = drawn[0][:, ::8, ::8].repeat(8, 1).repeat(8, 2)
        for which, frames in ((REAL, drawn[0]), (OTHER, drawn[1]), (MODEL, coarse)):
            sharp.add(which, frames)
    found = sharp.report()
    assert set(found) == {FVD, "EfficientNet-Lite0"}
    assert all(measured["ratio"] > 1.2 for measured in found.values())
