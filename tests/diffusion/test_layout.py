"""Layouts: where the subject is in each frame, as functions, in the network and in the pipeline."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from openlumiere import LumierePipeline, STUNet
from openlumiere.diffusion.layout import LAYOUT_DIM, catmull_rom, drop, in_view, layout_of, path_through
from openlumiere.diffusion.way_points import format_way_points, parse_way_points, times_of
from openlumiere.errors import LumiereError
from openlumiere.pipelines.load import load_pipeline
from openlumiere.pipelines.planner import PathPlanner
from openlumiere.training.config_files import parse
from openlumiere.training.stages.denoising import DenoisingTask

few = settings(max_examples=25, deadline=None)
WITH_LAYOUT = ["bundled-layout", "class-beside-time"]
points_of = st.lists(
    st.tuples(*[st.floats(0, 1)] * 2, st.floats(0.1, 1.5), st.floats(-720, 720)), min_size=1, max_size=6
)


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


@pytest.mark.slow
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
    picture = t2i(
        still["sample"][:, :, 0], inputs["timestep"], inputs["encoder_hidden_states"], class_labels=alike[:, 0]
    )
    made = run(net, still, layout=alike)
    assert_close(made, picture.sample[:, :, None].expand_as(made))


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_LAYOUT)
def test_nothing_given_is_zeros_and_labels_are_a_layout_for_all_frames(name: str) -> None:
    net, inputs = network(name, awake=True, temporal_conditioning=True)
    untold = run(net, inputs)
    assert torch.equal(untold, run(net, inputs, layout=torch.zeros(2, 8, LAYOUT_DIM)))
    one = random_layout(2, 1)
    told = run(net, inputs, layout=one.expand(-1, 8, -1))
    assert torch.equal(told, run(net, inputs, class_labels=one[:, 0]))
    assert not torch.allclose(told, untold, atol=1e-3)


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_temporal_layers_learn_from_the_layout_too() -> None:
    net, inputs = network("bundled-layout", temporal_conditioning=True, awake=True)
    net(**inputs, layout=random_layout(2, 8)).sample.square().mean().backward()
    conditioning = net.temporal.conditioning
    assert conditioning is not None
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in conditioning.layout.parameters())
    plain = STUNet.from_unet(tiny.unet("bundled"), temporal_conditioning=True)
    assert plain.temporal.conditioning.layout is None


@pytest.mark.slow
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


# --- In training ------------------------------------------------------------------------------------------------------


def drawn(unet: Any, batch: dict[str, Any], *, dropout: float) -> torch.Tensor | None:
    config = parse({"stage": "t2i", "output": "-", "data": {"layout_dropout": dropout}})
    task = SimpleNamespace(config=config, device=torch.device("cpu"))
    return DenoisingTask.draw_layout(task, unet, batch, seeded(0))  # type: ignore[arg-type]


def test_training_tells_what_the_data_hold_to_networks_that_take_it() -> None:
    unet, pixels, layout = tiny.unet("bundled-layout"), torch.zeros(400, 3, 2, 8, 8), random_layout(400, 2)
    told = drawn(unet, {"pixels": pixels, "layout": layout}, dropout=0.15)
    assert told is not None
    kept = told[:, :, 5].amin(1) == 1
    assert 0.8 < kept.float().mean() < 0.9
    assert torch.equal(told[kept], layout[kept])
    assert (told[~kept] == 0).all()
    assert torch.equal(drawn(unet, {"pixels": pixels}, dropout=0.0), torch.zeros(400, 2, 6))
    assert drawn(tiny.unet("bundled"), {"pixels": pixels, "layout": layout}, dropout=0.0) is None


# --- In the pipeline --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pipe() -> LumierePipeline:
    return tiny.conditioned(layout=True)


def make(pipe: LumierePipeline, prompt: str | list[str] = "a tiger", **options: Any) -> torch.Tensor:
    given_ = {"num_frames": 8, "generator": seeded(0), "upscale": False, "output_type": "pt", "guidance_scale": 3.0}
    return pipe(prompt, **given_ | options).frames


def told(pipe: LumierePipeline, **options: Any) -> list[torch.Tensor | None]:
    """The layouts that the network is called with."""
    seen: list[torch.Tensor | None] = []
    hook = pipe.unet.register_forward_pre_hook(
        lambda _m, _a, kwargs: seen.append(kwargs.get("layout")), with_kwargs=True
    )
    make(pipe, **options)
    hook.remove()
    return seen


@pytest.mark.slow
def test_both_halves_of_guidance_are_told_the_same(pipe: LumierePipeline) -> None:
    layout = random_layout(2, 8)
    for seen in told(pipe, prompt=["a tiger", "a heart"], layout=layout):
        assert_close(seen, torch.cat([layout, layout]))
    (one, *_) = told(pipe, prompt="a tiger", layout=layout[0], num_videos_per_prompt=2, guidance_scale=1.0)
    assert_close(one, layout[:1].expand(2, -1, -1))


@pytest.mark.slow
@pytest.mark.parametrize("loop", [False, True])
def test_each_window_is_told_its_own_frames(pipe: LumierePipeline, loop: bool) -> None:
    layout = random_layout(1, 13)
    seen = told(pipe, layout=layout, num_frames=13, loop=loop, guidance_scale=1.0, num_inference_steps=1)
    windows = pipe._windows(13, None, None, loop=loop)
    assert len(seen) == len(windows) > 1
    for frames, window in zip(windows.frames, seen, strict=True):
        assert_close(window, layout[:, frames])
    (batched,) = told(
        pipe, prompt=["a", "b"], layout=torch.cat([layout, -layout]), num_frames=13, loop=loop, guidance_scale=1.0,
        num_inference_steps=1, window_batch_size=len(windows),
    )  # fmt: skip
    assert_close(batched, torch.cat([layout, -layout])[:, windows.frames].flatten(0, 1))


@pytest.mark.slow
def test_way_points_and_what_they_leave_open(pipe: LumierePipeline) -> None:
    points = [(0.1, 0.5), (0.9, 0.5)]
    (alone, *_) = told(pipe, layout=points, planner=False, guidance_scale=1.0)
    assert_close(alone[0], layout_of(path_through(points, 8)))
    (planned, *_) = told(pipe, layout=points, guidance_scale=1.0)
    (free, *_) = told(pipe, guidance_scale=1.0)
    assert_close(planned[..., :2], alone[..., :2])
    assert_close(planned[..., 3:], free[..., 3:])  # size and angle are the planner's
    stepped_back = planned[..., 2] - free[..., 2]  # which a user's path doesn't ask for
    assert_close(stepped_back, stepped_back[:, :1].expand_as(stepped_back))
    assert float(stepped_back.min()) >= 0
    assert not torch.allclose(planned[..., :2], free[..., :2], atol=1e-2)
    assert torch.equal(make(pipe, layout=points), make(pipe, layout=torch.tensor(points, dtype=torch.float64)))


@pytest.mark.slow
def test_the_planner_hangs_on_seed_and_prompt_alone(pipe: LumierePipeline) -> None:
    (first, *_) = told(pipe, guidance_scale=1.0)
    assert torch.equal(first, told(pipe, guidance_scale=1.0)[0])
    assert not torch.allclose(first, told(pipe, generator=seeded(1), guidance_scale=1.0)[0], atol=1e-3)
    assert not torch.allclose(first, told(pipe, prompt="a heart", guidance_scale=1.0)[0], atol=1e-3)
    both = told(pipe, prompt=["a heart", "a tiger"], generator=[seeded(5), seeded(0)], guidance_scale=1.0)[0]
    assert_close(both[1:], first)


@pytest.mark.slow
def test_without_planner_and_layout_text_alone_decides(pipe: LumierePipeline) -> None:
    assert told(pipe, planner=False) == [None] * pipe.config.num_inference_steps
    bare = LumierePipeline(**{**pipe.components, "planner": None}, **_options(pipe))
    bare.set_progress_bar_config(disable=True)
    assert torch.equal(make(bare), make(pipe, planner=False))
    assert not torch.allclose(make(bare), make(pipe), atol=1e-3)


def test_a_given_clip_is_where_it_is(pipe: LumierePipeline) -> None:
    video, mask = torch.rand(8, 3, 16, 16, generator=seeded(2)), torch.ones(8, 16, 16)
    assert set(told(pipe, video=video, mask=mask)) == {None}
    assert all(seen is not None for seen in told(pipe, video=video, mask=mask, layout=[(0.5, 0.5)]))


def test_a_given_picture_moves_from_where_its_subject_is(pipe: LumierePipeline) -> None:
    """A model that was trained to is told a path through there: the planner's, or a user's way points."""
    video = torch.ones(8, 3, 16, 16)
    video[:, 0, 2:8, 8:14] = 0  # its centre is at (0.375, -0.375)
    mask = torch.ones(8, 16, 16)
    mask[0] = 0
    given_ = {"video": video, "mask": mask, "guidance_scale": 1.0, "rigid": False}
    assert told(pipe, **given_)[0] is None
    pipe.register_to_config(follow_layout=True)
    (planned, *_), (free, *_) = told(pipe, **given_), told(pipe, guidance_scale=1.0)
    assert_close(planned[0, 0, :2], torch.tensor([0.375, -0.375]))
    way, freely = (told_[0, :, :2] - told_[0, :1, :2] for told_ in (planned, free))
    zoom = freely.norm() / way.norm()  # from text alone the subject would be smaller, to stay in the frame
    assert 0 < zoom <= 1
    assert_close(way * zoom, freely)
    (led, *_) = told(pipe, **given_, layout=[(0.5, 0.5)])
    assert_close(led[0, 0, :2], torch.tensor([0.375, -0.375]))
    assert (led[0, :, 0].diff() < 0).all()  # on its way to the point
    assert told(pipe, **given_, planner=False)[0] is None
    mask[0, :4] = 1  # a part of the frame
    assert told(pipe, **given_)[0] is None
    assert told(pipe, video=video, strength=0.9, guidance_scale=1.0)[0] is not None
    pipe.register_to_config(follow_layout=False)


def test_a_picture_that_the_network_does_not_know_moves_as_it_is(pipe: LumierePipeline) -> None:
    video = torch.ones(8, 3, 16, 16)
    video[:, 0, 2:8, 8:14] = 0
    mask = torch.ones(8, 16, 16)
    mask[0] = 0
    given_ = {"video": video, "mask": mask, "guidance_scale": 1.0}
    pipe.register_to_config(follow_layout=True, spread_condition=True)
    try:
        asked, *_ = told(pipe, **given_)
        assert asked is not None
        assert asked.shape[1] == pipe.unet.frame_multiple  # what it takes the picture to be
        # An untrained network knows nothing.
        moved = make(pipe, **given_)
        assert torch.equal(moved, make(pipe, **given_, rigid=True))
        asked = told(pipe, **given_, rigid=True)
        assert asked == []  # nothing is left to be made
        path = torch.tensor([[0.375, -0.375, 0.4, 0.0], [-0.375, 0.375, 0.4, 0.0]])
        crossing = layout_of(torch.lerp(path[0], path[1], torch.linspace(0, 1, 8)[:, None]))
        moved = make(pipe, **given_, rigid=True, layout=crossing)
        assert_close(moved[0, 0], video[0], 1e-3)
        mirrored = torch.ones(3, 16, 16)
        mirrored[0, 8:14, 2:8] = 0
        assert_close(moved[0, 7], mirrored, 1e-3)
        assert not torch.equal(make(pipe, **given_), make(pipe, **given_, rigid=False))
    finally:
        pipe.register_to_config(follow_layout=False, spread_condition=False)


@pytest.mark.slow
def test_a_planner_is_saved_and_loaded_with_its_model(pipe: LumierePipeline, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path / "with")
    again = load_pipeline(str(tmp_path / "with"), device="cpu")
    again.set_progress_bar_config(disable=True)
    assert_close(make(again), make(pipe), 1e-4)
    old = tiny.conditioned()
    old.save_pretrained(tmp_path / "old")
    index = json.loads((tmp_path / "old" / "model_index.json").read_text())
    del index["planner"]  # as models of before planners have it
    (tmp_path / "old" / "model_index.json").write_text(json.dumps(index))
    again = load_pipeline(str(tmp_path / "old"), device="cpu")
    again.set_progress_bar_config(disable=True)
    assert_close(make(again), make(old), 1e-4)


@pytest.mark.parametrize(
    ("layout", "says"),
    [
        (torch.zeros(7, 6), "8 frames"),
        (torch.zeros(3, 8, 6), "8 frames"),
        (torch.full((8, 6), math.nan), "finite"),
        (torch.zeros(8, 7), "x,y"),
        ([(0.5, 0.5), (0.5,)], "x,y"),
        ("left", "way points"),
        ([("a", 0.5)], "way points"),
        ([(2.0, 0.5)], "outside"),
    ],
    ids=str,
)
def test_layouts_that_are_none_are_one_line(pipe: LumierePipeline, layout: Any, says: str) -> None:
    with pytest.raises(LumiereError, match=says) as error:
        make(pipe, layout=layout)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_models_that_take_no_layout_refuse_one_and_never_plan() -> None:
    old = tiny.conditioned()
    with pytest.raises(LumiereError, match="not trained to be told"):
        make(old, layout=[(0.5, 0.5)])
    before = make(old)
    old.register_modules(planner=tiny.planner())
    assert torch.equal(make(old), before)


def test_a_planner_of_another_text_encoder_is_refused(pipe: LumierePipeline) -> None:
    with pytest.raises(LumiereError, match="16 numbers"):
        PathPlanner(text_dim=16, width=8, hidden=8, depth=1).plan(torch.zeros(1, 4, 384), 8)


def _options(pipe: LumierePipeline) -> dict[str, Any]:
    return {key: value for key, value in dict(pipe.config).items() if key in ("pixel_unshuffle", "num_inference_steps",
            "window_frames")}  # fmt: skip
