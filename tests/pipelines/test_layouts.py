"""Layouts in the pipeline: what it tells the network, by what was asked and what was planned."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from openlumiere import LumierePipeline
from openlumiere.diffusion.layout import layout_of, path_through, reach
from openlumiere.errors import LumiereError
from openlumiere.pipelines import layouts
from openlumiere.pipelines.load import load_pipeline
from openlumiere.pipelines.planner import PathPlanner


def assert_close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


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
    layout = tiny.random_layout(2, 8)
    for seen in told(pipe, prompt=["a tiger", "a heart"], layout=layout):
        assert_close(seen, torch.cat([layout, layout]))
    (one, *_) = told(pipe, prompt="a tiger", layout=layout[0], num_videos_per_prompt=2, guidance_scale=1.0)
    assert_close(one, layout[:1].expand(2, -1, -1))


@pytest.mark.slow
@pytest.mark.parametrize("loop", [False, True])
def test_each_window_is_told_its_own_frames(pipe: LumierePipeline, loop: bool) -> None:
    layout = tiny.random_layout(1, 13)
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


def test_a_given_picture_moves_from_where_its_subject_is(
    pipe: LumierePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that was trained to is told a path through there: the planner's, or a user's way points."""
    video = torch.ones(8, 3, 16, 16)
    video[:, 0, 2:8, 8:14] = 0  # its centre is at (0.375, -0.375)
    mask = torch.ones(8, 16, 16)
    mask[0] = 0
    given_ = {"video": video, "mask": mask, "guidance_scale": 1.0, "rigid": False}
    assert told(pipe, **given_)[0] is None
    pipe.register_to_config(follow_layout=True)
    (chosen, *_), (free, *_) = told(pipe, **given_), told(pipe, guidance_scale=1.0)
    monkeypatch.setattr(layouts, "_PLANS", 1)
    (planned, *_) = told(pipe, **given_)
    monkeypatch.undo()
    assert_close(planned[0, 0, :2], torch.tensor([0.375, -0.375]))
    way, freely = (told_[0, :, :2] - told_[0, :1, :2] for told_ in (planned, free))
    zoom = freely.norm() / way.norm()  # from text alone the subject would be smaller, to stay in the frame
    assert 0 < zoom <= 1
    assert_close(way * zoom, freely)
    assert_close(chosen[0, 0, :2], planned[0, 0, :2])

    def outside(layout: torch.Tensor) -> torch.Tensor:
        path = torch.cat([layout[..., :2], layout[..., 2:3].exp(), layout[..., 3:4]], dim=-1)
        return (reach(path) - 1).clamp(min=0).square().mean()

    assert outside(chosen) < outside(planned)  # of several plans, one that keeps it in the frame
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
