"""Layouts: where the subject is in each frame, as functions."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from openlumiere.diffusion.layout import catmull_rom, drop, in_view, layout_of, path_through
from openlumiere.diffusion.way_points import format_way_points, parse_way_points, times_of
from openlumiere.errors import LumiereError

few = settings(max_examples=25, deadline=None)
points_of = st.lists(
    st.tuples(*[st.floats(0, 1)] * 2, st.floats(0.1, 1.5), st.floats(-720, 720)), min_size=1, max_size=6
)


def assert_close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_layout_tells_a_path_in_six_numbers() -> None:
    path = torch.tensor([[0.5, -0.25, 1.0, 0.0], [0.0, 0.0, 0.5, math.pi / 2]])
    expected = torch.tensor([[0.5, -0.25, 0.0, 0.0, 1.0, 1.0], [0.0, 0.0, math.log(0.5), 1.0, 0.0, 1.0]])
    assert_close(layout_of(path), expected)


def test_a_path_over_the_frames_edge_is_seen_from_further_away() -> None:
    sways = torch.tensor([[-0.5, 0.1, 0.75, 0.3], [0.5, 0.1, 0.75, 0.3]])
    rests = torch.tensor([[0.2, 0.0, 0.5, 0.0], [0.2, 0.0, 0.5, 0.0]])
    grows = torch.tensor([[0.0, -0.4, 0.4, 0.0], [0.0, -0.4, 1.2, 0.0]])
    seen = in_view(torch.stack([sways, rests, grows]))
    torch.testing.assert_close(seen[1], rests)
    for before, after in ((sways, seen[0]), (grows, seen[2])):
        zoom = after[0, 2] / before[0, 2]
        assert zoom < 0.9
        torch.testing.assert_close(after, torch.cat([before[:, :3] * zoom, before[:, 3:]], dim=1))
    assert float((seen[..., :2].abs().amax(-1) + 0.95 * seen[..., 2]).max()) == pytest.approx(1)


def test_dropping_takes_whole_clips_as_often_as_asked() -> None:
    layout = tiny.random_layout(4000, 3)
    dropped = drop(layout, 0.15, seeded(0))
    gone = (dropped == 0).all(-1)
    assert torch.equal(gone.any(1), gone.all(1))
    assert 0.13 < gone.all(1).float().mean() < 0.17
    assert torch.equal(dropped[~gone], layout[~gone])
    assert torch.equal(drop(layout, 0.0, seeded(0)), layout)


@few
@given(points_of, st.integers(1, 5))
def test_a_path_meets_its_way_points_evenly(points: list[tuple[float, ...]], between: int) -> None:
    path = path_through(points, between * (len(points) - 1) + 1)
    told = torch.tensor(points)
    expected = torch.stack([2 * told[:, 0] - 1, 2 * told[:, 1] - 1, told[:, 2], told[:, 3].deg2rad()], dim=1)
    assert_close(path[::between], expected, 1e-4)


def test_two_points_are_a_straight_line_and_three_are_no_corner() -> None:
    line = path_through([(0.1, 0.5), (0.9, 0.5)], 5)
    assert_close(line, torch.tensor([[x, 0.0, 0.75, 0.0] for x in (-0.8, -0.4, 0.0, 0.4, 0.8)]))
    steps = path_through([(0.2, 0.2), (0.8, 0.2), (0.8, 0.8)], 81)[:, :2].diff(dim=0)
    directions = torch.atan2(steps[:, 1], steps[:, 0])
    assert directions.diff().abs().max() < math.radians(10)  # of the 90 that it turns


@few
@given(points_of, st.integers(8, 40))
def test_a_looping_path_comes_round(points: list[tuple[float, ...]], frames: int) -> None:
    """The step from the last frame to the first is one of the path's own."""
    n = frames * len(points)
    layout = layout_of(path_through(points, n, loop=True))
    steps = (layout.roll(-1, dims=0) - layout).abs()
    assert (steps[-1] <= steps.max(0).values * 1.01 + 1e-4).all()
    assert_close(layout[0], layout_of(path_through(points, 1)[0]), 1e-4)
    # Twice as many frames make half the step: the path itself has no jump.
    finer = layout_of(path_through(points, 8 * n, loop=True))
    jump = (finer[0] - finer[-1]).abs().max()
    assert jump < max(float(steps.max()), 1e-3)


def test_a_looping_turn_goes_on() -> None:
    path = path_through([(0.5, 0.5, 0.5, 0.0), (0.5, 0.5, 0.5, 180.0), (0.5, 0.5, 0.5, 300.0)], 36, loop=True)
    assert path[-1, 3] > math.radians(300)  # to 360, not back to 0


@few
@given(st.integers(2, 6), st.integers(3, 5), st.booleans(), st.integers(0, 2**32 - 1))
def test_even_times_change_nothing(count: int, between: int, loop: bool, seed: int) -> None:
    """But where something rests between two points, which the spline without times may overshoot: not among these."""
    drawn = torch.rand(count, 4, generator=seeded(seed), dtype=torch.float64) * torch.tensor([1.0, 1.0, 1.4, 720.0])
    points = (drawn + torch.tensor([0.0, 0.0, 0.1, -360.0])).tolist()
    segments = count if loop else count - 1
    timed = [(*point, number / segments) for number, point in enumerate(points)]
    n = between * segments + (not loop)
    assert_close(path_through(timed, n, loop=loop), path_through(points, n, loop=loop), 1e-4)


def test_points_are_met_at_their_times_and_rest_where_they_are_given_twice() -> None:
    points = [(0.1, 0.5), (0.5, 0.2, None, None, 0.25), (0.5, 0.2, None, None, 0.75), (0.9, 0.5)]
    path = path_through(points, 81)
    assert_close(path[[0, 20, 60, 80], :2], torch.tensor([[-0.8, 0.0], [0.0, -0.6], [0.0, -0.6], [0.8, 0.0]]))
    assert_close(path[20:61, :2], torch.tensor([[0.0, -0.6]]).expand(41, -1))
    assert_close(path[:, 2:], torch.tensor([[0.75, 0.0]]).expand(81, -1))
    late = path_through([(0.1, 0.5, None, None, 0.5), (0.9, 0.5)], 81)
    assert_close(late[:41, 0], torch.full((41,), -0.8))
    round_ = path_through([(0.1, 0.5), (0.9, 0.5, None, None, 0.25)], 80, loop=True)
    assert_close(round_[[0, 20], 0], torch.tensor([-0.8, 0.8]))
    assert (round_[21:, 0].diff() < 0).all()  # three quarters of the clip for the way back


def test_times_between_are_even() -> None:
    points = parse_way_points("0,0 0.1,0 0.2,0@0.5 0.3,0 0.4,0")
    assert times_of(points) == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert times_of(points, loop=True) == pytest.approx([0, 0.25, 0.5, 0.5 + 1 / 6, 0.5 + 2 / 6])
    assert times_of(points[:1]) is None


@pytest.mark.parametrize("text", ["0.1,0.5 0.9,0.5", "0.1,0.5@0.2 0.9,0.5", "0.1,0.5,0.3,10.0@0.2 0.9,0.5,0.5,-90.0"])
def test_way_points_are_written_as_they_are_read(text: str) -> None:
    points = parse_way_points(text)
    assert format_way_points(points) == text
    assert parse_way_points(format_way_points(points)) == points


def test_what_way_points_leave_open_is_the_defaults() -> None:
    default = torch.rand(8, 4, generator=seeded(1)) + 0.1
    for width in (2, 3, 4):
        path = path_through([(0.2, 0.4, 0.5, 30.0)[:width], (0.6, 0.4, 0.7, 90.0)[:width]], 8, default=default)
        assert torch.equal(path[:, width:], default[:, width:])
        assert not torch.isclose(path[:, :width], default[:, :width]).all(1).any()


def test_a_spline_through_a_lines_points_is_the_line() -> None:
    points = torch.linspace(0, 3, 4, dtype=torch.float64)[:, None] * torch.tensor([[1.0, -2.0]], dtype=torch.float64)
    assert_close(catmull_rom(points, 31), torch.linspace(0, 3, 31, dtype=torch.float64)[:, None] * points[1])


@pytest.mark.parametrize(
    ("points", "says"),
    [
        ([], "way point"),
        ([(0.5,)], "x,y"),
        ([(0.5, 0.5), (0.5, 0.5, 0.5)], "alike"),
        ([(1.2, 0.5)], "outside the frame"),
        ([(math.nan, 0.5)], "outside the frame"),
        ([(0.5, 0.5, 0.0)], "size 0"),
        ([(0.5, 0.5, 0.5, math.inf)], "degrees"),
        ([(0.5, 0.5, None, 30.0)], "alike"),
        ([(0.5, 0.5, None, None, 0.5, 1.0)], "alike"),
        ([(0.5, 0.5, None, None, 0.5), (0.5, 0.5, None, None, 0.5)], "rise"),
        ([(0.5, 0.5), (0.5, 0.5, None, None, 1.5)], "rise"),
        ([(0.5, 0.5), (0.5, 0.5, None, None, math.nan)], "rise"),
        ([(0.5, 0.5), (0.5, 0.5, None, None, 1.0), (0.5, 0.5)], "rise"),
    ],
)
def test_bad_way_points_are_one_line(points: Any, says: str) -> None:
    with pytest.raises(LumiereError, match=says) as error:
        path_through(points, 8)
    assert "\n" not in str(error.value)
