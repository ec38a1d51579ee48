"""Temporal MultiDiffusion, against a brute-force least-squares solve."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from openlumiere.diffusion.windows import Denoiser, Windows, denoise_in_windows, frame_positions, plan_windows
from openlumiere.errors import LumiereError

few = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**16)


@st.composite
def plans(draw: st.DrawFn) -> Windows:
    length = draw(st.integers(1, 20))
    return plan_windows(
        draw(st.integers(1, 60)),
        length,
        draw(st.integers(0, length - 1)),
        loop=draw(st.booleans()),
        tapered=draw(st.booleans()),
    )


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.slow
@pytest.mark.parametrize("tapered", [False, True])
@pytest.mark.parametrize("length", [8, 16])
def test_weights_sum_to_one_on_every_frame_of_every_length(length: int, tapered: bool) -> None:
    for num_frames in range(length, 401):
        for loop in (False, True):
            plan = plan_windows(num_frames, length, 2, tapered=tapered, loop=loop)
            total = torch.zeros(num_frames).index_add_(0, plan.frames.flatten(), plan.weights.flatten())
            torch.testing.assert_close(total, torch.ones(num_frames))
            assert (plan.weights > 0).all()


@pytest.mark.parametrize(("length", "overlap"), [(16, 2), (8, 4), (5, 0)])
def test_windows_lie_inside_and_overlap_enough(length: int, overlap: int) -> None:
    for num_frames in range(length, 200):
        frames = plan_windows(num_frames, length, overlap).frames
        assert (frames.diff(dim=1) == 1).all()  # neighbours in time, none invented
        assert frames[0, 0] == 0
        assert frames[-1, -1] == num_frames - 1
        assert (frames[1:, 0] <= frames[:-1, -1] + 1 - overlap).all()
        spacing = frames[:, 0].diff()
        assert (spacing > 0).all()
        assert (spacing[:-1] == length - overlap).all()  # the last alone is shifted


def test_looping_windows_wrap_around_evenly() -> None:
    for num_frames in range(8, 200):
        frames = plan_windows(num_frames, 8, 2, loop=True).frames
        assert (frames.diff(dim=1) % num_frames == 1).all()
        starts = frames[:, 0].tolist()
        spacing = [(b - a) % num_frames for a, b in zip(starts, starts[1:] + starts[:1], strict=True)]
        assert max(spacing) - min(spacing) <= 1
        assert max(spacing) <= 6
        # Some window sees the last frame and then the first.
        assert ((frames[:, :-1] == num_frames - 1) & (frames[:, 1:] == 0)).any()


@pytest.mark.parametrize("num_frames", [1, 7, 32, 79, 80])
def test_a_loop_no_longer_than_a_window_takes_two(num_frames: int) -> None:
    assert plan_windows(num_frames, 80, 40, loop=True).frames.shape == (2, num_frames)


def test_the_place_in_a_clip_runs_from_start_to_end_and_in_a_loop_back_again() -> None:
    frames = torch.arange(80)
    straight = frame_positions(frames, 80)
    assert straight[0] == 0
    assert straight[-1] == 79 / 80
    assert straight.diff().min() > 0
    around = frame_positions(frames, 80, loop=True)
    torch.testing.assert_close(around, around.roll(-1).flip(0), atol=1e-5, rtol=0)  # as far from the seam
    assert around.min() < 0.001
    assert around.max() > 0.999
    steps = torch.cat([around, around[:1]]).diff().abs()
    assert steps[-1] < 0.002  # where it starts again it stands nearly still
    assert steps.max() < 3.2 * straight.diff().max()  # there and back, at most pi times as fast


@pytest.mark.slow
@few
@given(plans(), seeds)
def test_the_average_solves_the_least_squares_problem(plan: Windows, seed: int) -> None:
    of_window = noise(seed, len(plan), 1, plan.frames.shape[1], 1, 2)  # what each window says
    parts = iter(of_window.split(1))
    merged = denoise_in_windows([Denoiser(lambda *_: next(parts))], torch.zeros(1, 1, plan.num_frames, 1, 2), plan)
    # Minimise sum_i w_i || S_i x - y_i ||^2 by brute force; the plan's weights, of any scale, are the w_i.
    select = torch.nn.functional.one_hot(plan.frames.flatten(), plan.num_frames).double()
    root = plan.weights.flatten().double().sqrt()[:, None]
    said = of_window[:, 0].flatten(0, 1)[:, 0].double()
    expected = torch.linalg.lstsq(root * select, root * said).solution
    torch.testing.assert_close(merged[0, 0, :, 0].double(), expected, atol=1e-5, rtol=1e-5)


@few
@given(st.integers(1, 30), st.integers(0, 10), seeds)
def test_one_window_that_covers_the_clip_is_one_pass(num_frames: int, more: int, seed: int) -> None:
    clip = noise(seed, 2, 3, num_frames, 4, 4)

    def denoise(x: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        assert frames.tolist() == [list(range(num_frames))]
        return x.cumsum(2) * 2

    plan = plan_windows(num_frames, num_frames + more, 0)
    assert torch.equal(denoise_in_windows([Denoiser(denoise)], clip, plan), denoise(clip, plan.frames))


@few
@given(plans(), seeds, st.integers(1, 5))
def test_what_works_frame_by_frame_does_not_see_the_windows(plan: Windows, seed: int, batch_size: int) -> None:
    clip = noise(seed, 2, 3, plan.num_frames, 2, 2)
    merged = denoise_in_windows([Denoiser(lambda x, _: x.square())], clip, plan, batch_size=batch_size)
    torch.testing.assert_close(merged, clip.square())


@pytest.mark.slow
@few
@given(plans(), seeds, st.integers(1, 7))
def test_the_batch_size_changes_nothing(plan: Windows, seed: int, batch_size: int) -> None:
    clip = noise(seed, 2, 3, plan.num_frames, 2, 2)

    def denoise(x: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        assert x.shape[0] == 2 * len(frames)
        assert torch.equal(x.unflatten(0, (2, -1))[0], clip[0][:, frames].transpose(0, 1))
        return x.cumsum(2)

    net = [Denoiser(denoise)]
    some = denoise_in_windows(net, clip, plan, batch_size=batch_size)
    torch.testing.assert_close(some, denoise_in_windows(net, clip, plan))


def test_tapered_windows_count_least_at_their_ends() -> None:
    plan = plan_windows(80, 16, 8, tapered=True)
    middle = plan.weights[3]
    assert middle[8] > middle[0]
    assert middle[8] > middle[-1]
    torch.testing.assert_close(middle, middle.flip(0))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [((0, 8), "both must be 1 or more"), ((8, 0, 0), "both must be 1"), ((80, 8, 8), "cannot overlap by 8"),
     ((80, 8, -1), "choose 0 to 7")],
)  # fmt: skip
def test_what_cannot_be_covered_is_refused(arguments: tuple[int, ...], words: str) -> None:
    with pytest.raises(LumiereError, match=words):
        plan_windows(*arguments)


def test_windows_of_another_clip_are_refused() -> None:
    with pytest.raises(LumiereError, match="80 frames do not fit a clip of 40"):
        denoise_in_windows([Denoiser(lambda x, _: x)], torch.zeros(1, 3, 40, 2, 2), plan_windows(80, 16))


@pytest.mark.slow
@few
@given(plans(), seeds, st.integers(1, 3))
def test_several_devices_share_the_windows_and_change_nothing(plan: Windows, seed: int, batch_size: int) -> None:
    clip = noise(seed, 2, 3, plan.num_frames, 2, 2)
    seen: list[list[int]] = [[], [], []]

    def denoiser(worker: int) -> Denoiser:
        def predict(x: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
            assert not torch.is_grad_enabled()
            seen[worker] += frames[:, 0].tolist()
            return x.cumsum(2)

        return Denoiser(predict, torch.device("cpu"))

    with torch.no_grad():
        together = denoise_in_windows([denoiser(i) for i in range(3)], clip, plan, batch_size=batch_size)
        assert sorted(start for starts in seen for start in starts) == sorted(plan.frames[:, 0].tolist())
        assert torch.equal(together, denoise_in_windows([denoiser(0)], clip, plan, batch_size=batch_size))


def test_several_devices_share_the_parts_of_one_windows_prediction() -> None:
    clip, plan = noise(0, 2, 3, 8, 2, 2), plan_windows(8, 8)
    both_at_work = threading.Barrier(2, timeout=60)

    def part(factor: int) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        def predict(x: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
            both_at_work.wait()
            return factor * x

        return predict

    parts = [part(10), part(1)]
    net = Denoiser(parts, merge=lambda first, second: first - second)
    torch.testing.assert_close(denoise_in_windows([net, net], clip, plan), 9 * clip)


def test_an_error_on_one_device_is_told() -> None:
    def broken(x: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"):
        denoise_in_windows([Denoiser(broken), Denoiser(broken)], torch.zeros(1, 3, 80, 2, 2), plan_windows(80, 16))
