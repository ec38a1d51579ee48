"""What is given to a pipeline for each application."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openlumiere.errors import LumiereError
from openlumiere.pipelines.tasks import Task, animate, cinemagraph, extend, inpaint, interpolate, outpaint, restyle


def clip(frames: int = 6, height: int = 4, width: int = 5) -> np.ndarray:
    return np.random.default_rng(frames).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def seen(task: Task) -> np.ndarray:
    """Which frames are wholly given."""
    assert task.mask is not None
    return np.flatnonzero(~task.mask.any(axis=(1, 2)))


def test_a_picture_is_the_first_frame_and_another_the_last() -> None:
    first, last = clip(2)
    task = animate(first, 8)
    assert seen(task).tolist() == [0]
    np.testing.assert_array_equal(task.video[0], first)
    both = animate(first, 8, last=last)
    assert seen(both).tolist() == [0, 7]
    np.testing.assert_array_equal(both.video[-1], last)
    with pytest.raises(LumiereError, match="make them equal"):
        animate(first, 8, last=last[1:])


def test_of_a_cinemagraph_only_the_region_is_made_and_not_in_the_first_frame() -> None:
    region = np.zeros((4, 5), bool)
    region[1:3, 2] = True
    task = cinemagraph(clip(1)[0], region, 8)
    assert not task.mask[0].any()
    assert (task.mask[1:] == region).all()
    with pytest.raises(LumiereError, match="black everywhere"):
        cinemagraph(clip(1)[0], region & False, 8)


def test_inpainting_takes_one_region_or_one_for_each_frame() -> None:
    regions = np.zeros((6, 4, 5), bool)
    regions[2, 1] = True
    np.testing.assert_array_equal(inpaint(clip(), regions).mask, regions)
    assert (inpaint(clip(), regions[2:3]).mask == regions[2]).all()
    with pytest.raises(LumiereError, match="black everywhere"):
        inpaint(clip(), regions[:1])


def test_outpainting_keeps_the_clip_in_the_middle() -> None:
    task = outpaint(clip(), 4, 10)
    np.testing.assert_array_equal(task.video[:, :, 2:7], clip())
    assert (task.mask == np.isin(np.arange(10), [0, 1, 7, 8, 9])).all()
    for size in ((4, 5), (3, 20)):
        with pytest.raises(LumiereError, match="no room"):
            outpaint(clip(), *size)


def test_extending_sees_the_last_frames_and_keeps_all() -> None:
    task = extend(clip(), 5, context=4)
    assert seen(task).tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(task.video[:4], clip()[2:])
    whole = task.finish(task.video / np.float32(255))
    assert whole.shape == (11, 4, 5, 3)
    np.testing.assert_array_equal(whole[:6], clip() / np.float32(255))
    assert extend(clip(), 5, context=40).before is None


@pytest.mark.parametrize(("frames", "context", "seen"), [(7, 9, 5), (9, 9, 9), (9, 6, 5), (3, 3, 1)])
def test_of_a_clip_that_goes_on_whole_latents_are_seen(frames: int, context: int, seen: int) -> None:
    clip = np.random.default_rng(0).integers(0, 256, (frames, 4, 4, 3), np.uint8)
    task = extend(clip, 3, context=context).with_context_of(4)
    assert task.mask is not None
    assert (~task.mask.any((1, 2))).sum() == seen
    assert len(task.video) == seen + 3
    np.testing.assert_array_equal(task.video[:seen], clip[frames - seen :])
    finished = task.finish(task.video / np.float32(255))
    assert len(finished) == frames + 3
    np.testing.assert_allclose(finished[:frames], clip / np.float32(255), atol=1e-6)


@given(st.integers(2, 9), st.integers(2, 6))
def test_interpolation_keeps_every_nth_frame(frames: int, factor: int) -> None:
    task = interpolate(clip(frames), factor)
    assert task.num_frames == (frames - 1) * factor + 1
    np.testing.assert_array_equal(seen(task), np.arange(frames) * factor)
    np.testing.assert_array_equal(task.video[::factor], clip(frames))


def test_too_little_to_interpolate_is_refused() -> None:
    for frames, factor in ((1, 2), (4, 1)):
        with pytest.raises(LumiereError, match="nothing to fill in"):
            interpolate(clip(frames), factor)


@pytest.mark.parametrize("task", [inpaint(clip(6), np.ones((4, 5))), restyle(clip(6)), interpolate(clip(2), 5)])
def test_frames_are_filled_up_and_cut_off_again(task: Task) -> None:
    full = task.filled_up(8)
    assert len(full.video) == 8
    assert full.given["num_frames"] == 8
    if full.mask is not None:
        assert full.mask[6:].all()
    assert len(full.finish(full.video)) == 6
    assert task.filled_up(6) is task
