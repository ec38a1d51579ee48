"""Layouts: where the subject is in each frame, as functions, in the network and in the pipeline."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from openlumiere import STUNet
from openlumiere.diffusion.layout import LAYOUT_DIM, catmull_rom, drop, layout_of, path_through
from openlumiere.errors import LumiereError

few = settings(max_examples=25, deadline=None)
WITH_LAYOUT = ["bundled-layout", "class-beside-time"]
points_of = st.lists(st.tuples(*[st.floats(0, 1)] * 2, st.floats(0.1, 1.5), st.floats(-720, 720)), min_size=1, max_size=6)


def assert_close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_layout(batch: int, frames: int, seed: int = 0) -> torch.Tensor:
    path = torch.rand(batch, frames, 4, generator=seeded(seed)) + torch.tensor([-0.5, -0.5, 0.2, 0.0])
    return layout_of(path)


# --- Paths ------------------------------------------------------------------------------------------------------------


def test_a_layout_tells_a_path_in_six_numbers() -> None:
    path = torch.tensor([[0.5, -0.25, 1.0, 0.0], [0.0, 0.0, 0.5, math.pi / 2]])
    expected = torch.tensor([[0.5, -0.25, 0.0, 0.0, 1.0, 1.0], [0.0, 0.0, math.log(0.5), 1.0, 0.0, 1.0]])
    assert_close(layout_of(path), expected)


def test_dropping_takes_whole_clips_as_often_as_asked() -> None:
    layout = random_layout(4000, 3)
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
        ([(0.5, 0.5, 0.0)], "size"),
        ([(0.5, 0.5, 0.5, math.inf)], "degrees"),
    ],
)
def test_bad_way_points_are_one_line(points: Any, says: str) -> None:
    with pytest.raises(LumiereError, match=says) as error:
        path_through(points, 8)
    assert "\n" not in str(error.value)


# --- In the network ---------------------------------------------------------------------------------------------------


def network(name: str, *, awake: bool = False, **options: Any) -> tuple[STUNet, dict[str, Any]]:
    t2i = tiny.unet(name)
    inputs = tiny.inputs(t2i)
    inputs.pop("class_labels")
    net = STUNet.from_unet(t2i, **options).eval()
    return tiny.wake(net) if awake else net, inputs


@torch.no_grad()
def run(net: STUNet, inputs: dict[str, Any], **more: Any) -> torch.Tensor:
    return net(**inputs, **more).sample


@pytest.mark.parametrize("conditioning", [False, True], ids=["paper", "conditioned"])
@pytest.mark.parametrize("name", WITH_LAYOUT)
@torch.no_grad()
def test_a_fresh_network_is_its_t2i_at_each_frames_layout(name: str, conditioning: bool) -> None:
    """Without resampling of time, frame by frame; with it, where frames and layouts are equal."""
    t2i = tiny.unet(name)
    net, inputs = network(name, temporal_conditioning=conditioning, resampled_levels=[])
    layout = random_layout(2, 8)
    frames = inputs["sample"].transpose(1, 2).flatten(0, 1)
    text, timestep = (inputs[key].repeat_interleave(8, dim=0) for key in ("encoder_hidden_states", "timestep"))
    expected = t2i(frames, timestep, text, class_labels=layout.flatten(0, 1)).sample
    made = run(net, inputs, layout=layout)
    assert_close(made.transpose(1, 2).flatten(0, 1), expected)

    net, _ = network(name, temporal_conditioning=conditioning)
    still = inputs | {"sample": inputs["sample"][:, :, :1].expand(-1, -1, 8, -1, -1)}
    alike = layout[:, :1].expand(-1, 8, -1)
    picture = t2i(still["sample"][:, :, 0], inputs["timestep"], inputs["encoder_hidden_states"], class_labels=alike[:, 0])
    made = run(net, still, layout=alike)
    assert_close(made, picture.sample[:, :, None].expand_as(made))


@pytest.mark.parametrize("name", WITH_LAYOUT)
def test_nothing_given_is_zeros_and_labels_are_a_layout_for_all_frames(name: str) -> None:
    net, inputs = network(name, awake=True, temporal_conditioning=True)
    untold = run(net, inputs)
    assert torch.equal(untold, run(net, inputs, layout=torch.zeros(2, 8, LAYOUT_DIM)))
    one = random_layout(2, 1)
    told = run(net, inputs, layout=one.expand(-1, 8, -1))
    assert torch.equal(told, run(net, inputs, class_labels=one[:, 0]))
    assert not torch.allclose(told, untold, atol=1e-3)


def test_coarser_levels_are_told_the_frames_that_they_keep() -> None:
    """What is told of odd frames reaches the finest level alone; what is told of even ones, every level."""
    net, inputs = network("bundled-layout", temporal_conditioning=True, awake=True)
    told: dict[int, list[torch.Tensor]] = {}
    for block in net.spatial.down_blocks:
        for resnet in block.resnets:
            resnet.register_forward_pre_hook(lambda _m, args: told.setdefault(len(args[1]) // 2, []).append(args[1]))
    layout = random_layout(2, 8)
    run(net, inputs, layout=layout)
    before, told = told, {}
    changed = layout.clone()
    changed[:, 1::2] += 1
    run(net, inputs, layout=changed)
    assert sorted(before) == [2, 4, 8]
    assert not torch.equal(before[8][0], told[8][0])
    for frames in (2, 4):
        assert torch.equal(before[frames][0], told[frames][0])


def test_the_temporal_layers_learn_from_the_layout_too() -> None:
    net, inputs = network("bundled-layout", temporal_conditioning=True, awake=True)
    net(**inputs, layout=random_layout(2, 8)).sample.square().mean().backward()
    conditioning = net.temporal.conditioning
    assert conditioning is not None
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in conditioning.layout.parameters())
    plain = STUNet.from_unet(tiny.unet("bundled"), temporal_conditioning=True)
    assert plain.temporal.conditioning.layout is None


def test_layouts_that_do_not_fit_are_one_line() -> None:
    net, inputs = network("bundled-layout")
    with pytest.raises(LumiereError, match=r"\(2, 8, 6\)"):
        run(net, inputs, layout=random_layout(2, 4))
    with pytest.raises(LumiereError, match="not both"):
        run(net, inputs, layout=random_layout(2, 8), class_labels=torch.zeros(2, 6))
    plain = STUNet.from_unet(copy.deepcopy(tiny.unet("bundled")))
    assert not plain.takes_layout
    with pytest.raises(LumiereError, match="not trained to be told"):
        run(plain, inputs, layout=random_layout(2, 8))
