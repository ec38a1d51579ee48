"""How scenes are drawn: what moves, what lies where, clip by clip and in batches."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from openlumiere.data.emoji.drawing import Atlas, Sprites, draw, draw_batch, ground, over, render
from openlumiere.data.emoji.scenes import (
    TRANSPARENT,
    Scene,
    SceneSampler,
    has_test_animation,
    trajectory,
    vocabulary,
)
from openlumiere.diffusion.layout import layout_of
from openlumiere.errors import LumiereError

WORDS = vocabulary()
NAMES = {key: entry["names"] for key, entry in WORDS["subjects"].items()}
PLAIN = Scene("tiger", "green", "medium", "center", "still", "a tiger", (0.5, 0.5, 0.0))
SOME = settings(max_examples=30, deadline=None)

drifts = st.tuples(*[st.floats(0.0, 1.0, exclude_max=True)] * 3)


def atlas(key: str = "tiger", *, loop: int = 12, side: int = 48) -> Atlas:
    """A half-transparent-edged disc with a bright right half, whose colour tells the frame."""
    axis = (torch.arange(side) + 0.5) / side * 2 - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    alpha = (x**2 + (1.6 * y) ** 2 < 0.7).float()
    frames = torch.zeros(loop, 4, side, side, dtype=torch.uint8)
    for i in range(loop):
        frames[i, 0] = (alpha * (255 * i // loop)).to(torch.uint8)
        frames[i, 1] = (alpha * (x > 0) * 250).to(torch.uint8)
        frames[i, 3] = (alpha * 255).to(torch.uint8)
    return Atlas(key, ["tiger"], frames)


def centroids(alpha: torch.Tensor) -> torch.Tensor:
    """Alpha (1, F, S, S) -> centres (F, 2) as (x, y) in [-1, 1]."""
    size = alpha.shape[-1]
    axis = (torch.arange(size) + 0.5) / size * 2 - 1
    mass = alpha[0].sum((1, 2))
    return torch.stack([(alpha[0].sum(1) * axis).sum(1) / mass, (alpha[0].sum(2) * axis).sum(1) / mass], dim=1)


@SOME
@given(
    drift=drifts,
    motion=st.sampled_from(list(WORDS["motions"])),
    background=st.sampled_from(list(WORDS["backgrounds"])),
    size=st.sampled_from(list(WORDS["sizes"])),
)
def test_pixels_are_in_range_and_background_shows_where_alpha_is_zero(
    drift: tuple[float, float, float], motion: str, background: str, size: str
) -> None:
    scene = replace(PLAIN, motion=motion, background=background, size=size, drift=drift)
    rgb, alpha = draw(scene, atlas(), size=24, num_frames=6)
    assert rgb.shape == (3, 6, 24, 24)
    assert alpha.shape == (1, 6, 24, 24)
    assert rgb.abs().max() <= 1
    assert alpha.min() >= 0
    assert alpha.max() <= 1
    color = torch.tensor(WORDS["backgrounds"][background]) / 127.5 - 1
    free = (alpha[0] == 0).expand(3, -1, -1, -1)
    torch.testing.assert_close(rgb[free], color[:, None, None, None].expand_as(rgb)[free], rtol=0, atol=1e-6)


def test_corners_of_a_small_centred_subject_are_background_and_its_middle_is_not() -> None:
    rgb, alpha = draw(replace(PLAIN, size="small"), atlas(), size=32, num_frames=8)
    green = torch.tensor(WORDS["backgrounds"]["green"]) / 127.5 - 1
    for row, column in product((0, -1), repeat=2):
        assert torch.allclose(rgb[:, :, row, column], green[:, None], atol=1e-6)
    assert (alpha[0, :, 16, 16] == 1).all()
    assert not torch.allclose(rgb[:, 0, 16, 16], green, atol=0.1)


def test_alpha_covers_what_the_sizes_say() -> None:
    covered = {
        size: draw(replace(PLAIN, size=size), atlas(), size=64, num_frames=1)[1].mean() for size in WORDS["sizes"]
    }
    disc = float((atlas().frames[0, 3] > 0).float().mean())
    for size, fraction in covered.items():
        assert float(fraction) == pytest.approx(disc * WORDS["sizes"][size]["scale"] ** 2, rel=0.03)


@pytest.mark.parametrize(
    ("motion", "axis", "sign"), [("left", 0, -1), ("right", 0, 1), ("up", 1, -1), ("down", 1, 1)]
)  # fmt: skip
def test_what_moves_is_drawn_moving(motion: str, axis: int, sign: int) -> None:
    _, alpha = draw(replace(PLAIN, motion=motion, size="small"), atlas(), size=32, num_frames=10)
    steps = centroids(alpha).diff(dim=0)
    assert (sign * steps[:, axis] > 0.03).all()
    assert steps[:, 1 - axis].abs().max() < 0.01


def test_growing_and_shrinking_change_the_covered_area() -> None:
    for motion, sign in (("grow", 1), ("shrink", -1)):
        _, alpha = draw(replace(PLAIN, motion=motion, size="small"), atlas(), size=32, num_frames=10)
        assert (sign * alpha.mean((0, 2, 3)).diff() > 0).all()


def test_spinning_turns_clockwise_once_in_its_period_and_still_does_not_move() -> None:
    scene = replace(PLAIN, motion="spin", drift=(0.5, 0.5, 0.0))
    rgb, alpha = draw(scene, atlas(loop=1), size=48, num_frames=17, fps=3.2)  # an eighth of a round a frame
    bright = rgb[1:2].clamp(min=0.5) - 0.5  # the right half of the disc
    offset = centroids(bright) - centroids(alpha)
    angles = torch.atan2(offset[:, 1], offset[:, 0])
    turned = torch.remainder(angles.diff() + torch.pi, 2 * torch.pi) - torch.pi
    assert torch.allclose(turned, torch.full_like(turned, torch.pi / 4), atol=0.15)
    assert torch.allclose(rgb[:, 0], rgb[:, 8], atol=1e-4)
    still, _ = draw(replace(scene, motion="still"), atlas(loop=1), size=48, num_frames=4)
    assert torch.equal(still[:, :1].expand_as(still), still)


@pytest.mark.slow
@SOME
@given(drift=drifts, motion=st.sampled_from(list(WORDS["motions"])), wanted=st.lists(st.integers(0, 19), min_size=1))
def test_single_frames_are_those_of_the_clip(drift: tuple[float, float, float], motion: str, wanted: list[int]) -> None:
    scene = replace(PLAIN, motion=motion, drift=drift)
    rgb, alpha = draw(scene, atlas(), size=16, num_frames=20)
    some, some_alpha = draw(scene, atlas(), size=16, num_frames=20, frames=wanted)
    torch.testing.assert_close(some, rgb[:, wanted], rtol=0, atol=1e-5)
    torch.testing.assert_close(some_alpha, alpha[:, wanted], rtol=0, atol=1e-5)


def test_the_subjects_own_animation_goes_on_and_starts_where_drift_says() -> None:
    subject = next(key for key in NAMES if not has_test_animation(key))
    scene = replace(PLAIN, subject=subject)

    def shown(drift: float) -> list[int]:
        rgb, _ = draw(replace(scene, drift=(0.5, 0.5, drift)), atlas(subject), size=32, num_frames=15, fps=16)
        return ((rgb[0, :, 16, 12] + 1) * 127.5 / 255 * 12).round().int().tolist()

    assert shown(0.0) == [i % 12 for i in range(15)]
    assert shown(0.5) == [(i + 6) % 12 for i in range(15)]


def test_a_test_animation_is_drawn_from_its_second_half_alone() -> None:
    subject = next(key for key in NAMES if has_test_animation(key))
    scene = replace(PLAIN, subject=subject)

    def shown(test: bool) -> set[int]:
        rgb, _ = draw(scene, atlas(subject), size=32, num_frames=40, fps=16, test_animation=test)
        return set(((rgb[0, :, 16, 12] + 1) * 127.5 / 255 * 12).round().int().tolist())

    assert shown(False) == set(range(6))
    assert shown(True) == set(range(6, 12))


def test_the_animation_goes_on_in_real_time_whatever_frames_are_shown() -> None:
    subject = next(key for key in NAMES if not has_test_animation(key))
    scene = replace(PLAIN, subject=subject, drift=(0.5, 0.5, 0.0))

    def shown(**options: int | float | list[int]) -> list[int]:
        rgb, _ = draw(scene, atlas(subject), size=32, **options)  # type: ignore[arg-type]
        return ((rgb[0, :, 16, 12] + 1) * 127.5 / 255 * 12).round().int().tolist()

    whole = shown(num_frames=80)
    assert shown(num_frames=80, frames=list(range(0, 80, 5))) == whole[::5]
    assert shown(num_frames=16, fps=3.2) == whole[::5]  # the same five seconds
    assert shown(num_frames=16) == whole[::5]  # as clips last where nothing is said
    assert shown(num_frames=160, fps=32)[::2] == whole
    assert shown(num_frames=40, fps=16) == whole[:40]  # a shorter clip is no faster


@pytest.mark.slow
@SOME
@given(motion=st.sampled_from(list(WORDS["motions"])), drift=drifts, stride=st.sampled_from([2, 4, 5]))
def test_a_clip_of_fewer_frames_shows_the_same_moments(
    motion: str, drift: tuple[float, float, float], stride: int
) -> None:
    scene = replace(PLAIN, motion=motion, drift=drift, phase=drift[1])
    whole, _ = draw(scene, atlas(), size=16, num_frames=40, fps=16)
    fewer, _ = draw(scene, atlas(), size=16, num_frames=40 // stride, fps=16 / stride)
    torch.testing.assert_close(fewer, whole[:, ::stride], rtol=0, atol=1e-5)


def test_a_still_picture_is_an_atlas_of_one_frame() -> None:
    for subject in (next(k for k in NAMES if has_test_animation(k) == has) for has in (False, True)):
        for test in (False, True):
            rgb, alpha = draw(replace(PLAIN, subject=subject), atlas(subject, loop=1), size=16, num_frames=20,
                              test_animation=test)  # fmt: skip
            assert torch.equal(rgb[:, :1].expand_as(rgb), rgb)
            assert alpha.max() == 1


# Batches


def test_a_batch_of_clips_is_what_its_scenes_are_alone() -> None:
    atlases = {"tiger": atlas("tiger", loop=7), "heart": atlas("heart", loop=12), "cat": atlas("cat", loop=1)}
    drawn = [SceneSampler({key: [key] for key in atlases}, seed=2)(index) for index in range(9)]
    times = np.arange(8) / 8
    rgba, poses = draw_batch(drawn, Sprites(atlases), size=20, seconds=times, duration=10.0)
    assert rgba.shape == (9, 4, 8, 20, 20)
    assert poses.shape == (9, 8, 4)
    rgb = over(rgba, ground([scene.background for scene in drawn]))
    assert (rgb[:, 3] - 1).abs().max() < 1e-6  # over a color, nothing is transparent
    for row, scene in enumerate(drawn):
        alone, alpha = draw(scene, atlases[scene.subject], size=20, num_frames=80, fps=8, frames=list(range(8)))
        torch.testing.assert_close(rgb[row, :3] * 2 - 1, alone, rtol=0, atol=1e-5)
        torch.testing.assert_close(rgba[row, 3:], alpha, rtol=0, atol=1e-5)
        np.testing.assert_allclose(poses[row], trajectory(scene, times, 10.0), atol=1e-6)
    # Each scene may have times of its own.
    starts = np.stack([times + 0.5 * row for row in range(9)])
    later, _ = draw_batch(drawn, Sprites(atlases), size=20, seconds=starts, duration=10.0)
    assert torch.equal(later[0], rgba[0])
    again, _ = draw_batch(drawn[4:5], Sprites(atlases), size=20, seconds=starts[4], duration=10.0)
    torch.testing.assert_close(later[4], again[0], rtol=0, atol=1e-5)


def test_colors_are_premultiplied_and_transparent_scenes_keep_their_alpha() -> None:
    scene = replace(PLAIN, background=TRANSPARENT)
    rgba, _ = draw_batch([scene], Sprites({"tiger": atlas()}), size=32, seconds=np.zeros(1))
    assert (rgba[:, :3] <= rgba[:, 3:] + 1e-6).all()
    assert rgba[:, 3].min() == 0
    assert rgba[:, 3].max() == 1
    assert torch.equal(over(rgba, ground([TRANSPARENT])), rgba)
    half = torch.tensor([[0.25, 0.0, 0.0, 0.5]])
    torch.testing.assert_close(over(half, ground(["white"])), torch.tensor([[0.75, 0.5, 0.5, 1.0]]))
    with pytest.raises(LumiereError, match="has no RGB"):
        draw(scene, atlas(), size=16)
    with pytest.raises(LumiereError, match=r"unknown backgrounds .'plaid'.; known: white"):
        ground(["plaid"])
    with pytest.raises(LumiereError, match="of one size"):
        Sprites({"tiger": atlas(), "cat": atlas("cat", side=24)})


def test_memory_is_bounded_without_changing_what_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = atlas(loop=6).frames
    poses = torch.tensor([[0.1 * n, 0.0, 0.3 + 0.1 * n, 0.5 * n] for n in range(6)])
    whole = render(pictures, poses, size=12)
    monkeypatch.setattr("openlumiere.data.emoji.drawing._PIXELS_AT_ONCE_CPU", 1)
    torch.testing.assert_close(render(pictures, poses, size=12), whole)


@SOME
@given(x=st.floats(-1, 1), y=st.floats(-1, 1), side=st.floats(0.2, 2), angle=st.floats(-3, 3))
def test_a_layout_tells_a_pose(x: float, y: float, side: float, angle: float) -> None:
    layout = layout_of(torch.tensor([[x, y, side, angle]], dtype=torch.float64))[0]
    assert layout[:2].tolist() == [x, y]
    assert layout[2].exp().item() == pytest.approx(side)
    assert torch.atan2(layout[3], layout[4]).item() == pytest.approx(angle)
    assert layout[5] == 1
