"""Clips drawn in the canonical frame of their subject, and moved along its path."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from openlumiere import LumierePipeline
from openlumiere.data.emoji.dataset import EmojiClips
from openlumiere.diffusion.alpha import EMPTY
from openlumiere.diffusion.canonical import CanonicalFrame
from openlumiere.diffusion.layout import layout_of

SIDE, FRAMES = 48, 9


def wedge(path: torch.Tensor) -> torch.Tensor:
    """Draw a soft wedge on nothing where a path has it, (F, 4) -> premultiplied (4, F, SIDE, SIDE) in [-1, 1]."""
    at = (torch.arange(SIDE) + 0.5) / SIDE * 2 - 1
    dx, dy = at[None] - path[:, 0, None, None], at[:, None] - path[:, 1, None, None]
    angle, side = path[:, 3, None, None], path[:, 2, None, None]
    u, v = (dx * angle.cos() + dy * angle.sin()) / side, (dy * angle.cos() - dx * angle.sin()) / side
    inside = torch.minimum(0.4 * (0.8 - u) - v.abs(), u + 0.8) * side * SIDE / 2
    alpha = inside.clamp(0, 1)
    return torch.stack([alpha, 0.5 * alpha, 0 * alpha, alpha]) * 2 - 1


def turning_and_crossing() -> torch.Tensor:
    path = torch.zeros(FRAMES, 4)
    path[:, 0], path[:, 1] = torch.linspace(-0.3, 0.3, FRAMES), 0.1
    path[:, 2], path[:, 3] = torch.linspace(0.4, 0.7, FRAMES), torch.linspace(0, 3, FRAMES)
    return path


def frame_of(path: torch.Tensor) -> CanonicalFrame:
    return CanonicalFrame.of(layout_of(path)[None])


def test_a_subject_is_drawn_upright_in_the_middle() -> None:
    path = turning_and_crossing()
    for largest, side in ((0.8, 0.8), (0.5, 0.75), (1.2, 0.85)):  # in between as told, so that it is drawn well
        path[:, 2] = torch.linspace(0.4, largest, FRAMES)
        expected = layout_of(torch.tensor([0.0, 0.0, side, 0.0])).expand(1, FRAMES, 6)
        torch.testing.assert_close(frame_of(path).layout, expected)


def drawn(canonical: CanonicalFrame) -> torch.Tensor:
    """The wedge as the network should draw it, (1, 4, F, SIDE, SIDE)."""
    path = torch.zeros(FRAMES, 4)
    path[:, 2] = canonical.layout[0, :, 2].exp()
    return wedge(path)[None]


def test_it_comes_where_the_path_has_it() -> None:
    path = turning_and_crossing()
    canonical = frame_of(path)
    found, there = canonical.moved(drawn(canonical))[0], wedge(path)
    wrong, before = ((frames - there).abs().mean((0, 2, 3)) for frames in (found, drawn(canonical)[0]))
    assert (wrong < 0.15 * before).all()


def test_some_frames_are_moved_as_all_are() -> None:
    canonical = frame_of(turning_and_crossing())
    clip = drawn(canonical)
    at = [1, 4, 8]
    torch.testing.assert_close(canonical.moved(clip[:, :, at], at), canonical.moved(clip)[:, :, at])


def test_the_ground_becomes_even_and_the_subject_stays() -> None:
    path = torch.tensor([0.2, -0.1, 0.6, 1.0]).expand(FRAMES, 4)
    canonical = frame_of(path)
    clip = drawn(canonical)
    on_blue = torch.tensor([-0.7, -0.2, 0.8, 1.0])[:, None, None, None]
    alpha = (clip[:, 3:] + 1) / 2
    clip = torch.cat([clip[:, :3] + (1 - alpha) * (on_blue[:3] + 1), torch.ones_like(alpha)], dim=1)
    grain = 2 * 4 / 255 * (torch.rand(clip[:, :3].shape, generator=torch.Generator().manual_seed(0)) * 2 - 1)
    grainy = torch.cat([clip[:, :3] + grain, clip[:, 3:]], dim=1)
    clean, found = canonical.moved(clip)[0], canonical.moved(grainy)[0]
    corner = found[:, :, :6, :6]
    assert (corner == corner[:, :1, :1, :1]).all()
    assert (corner[:, :1, :1, :1] - on_blue).abs().max() < 2 / 255
    assert (found - clean).abs().max() < 2 * 8 / 255


def test_frames_of_another_shape_turn_without_shearing() -> None:
    """In a frame twice as wide as high, what is turned by 90 degrees is as long as before, in pixels."""
    path = torch.zeros(2, 4)
    path[:, 2], path[1, 3] = 0.8, math.pi / 2
    clip = torch.full((1, 4, 2, 32, 64), EMPTY)
    clip[:, :, :, 14:18, 22:42] = 1  # 20 pixels long
    moved = frame_of(path).moved(clip)[0, 3] > 0
    assert moved[0].any(1).sum() == 4
    assert moved[1].any(1).sum() == pytest.approx(20, abs=1)
    assert moved[1].any(0).sum() == pytest.approx(4, abs=1)


# ------------------------------------------------------------------------------------------------- pipeline


@pytest.fixture
def pipe() -> LumierePipeline:
    return tiny.conditioned(layout=True)


def made(pipe: LumierePipeline, **options: Any) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
    """A clip, and the layouts that the network was told."""
    told: list[torch.Tensor | None] = []
    hook = pipe.unet.register_forward_pre_hook(lambda _m, _a, given: told.append(given.get("layout")), with_kwargs=True)
    given = {"num_frames": 8, "generator": torch.Generator().manual_seed(0), "upscale": False, "output_type": "pt"}
    clip = pipe("a tiger", **given | {"guidance_scale": 1.0} | options).frames
    hook.remove()
    return clip, told


@pytest.mark.slow
def test_a_model_draws_in_the_canonical_frame_where_it_knows_the_path(pipe: LumierePipeline) -> None:
    ends = torch.tensor([[-0.4, 0, 0.5, 0], [0.4, 0, 0.5, 3]])
    layout = layout_of(torch.lerp(ends[0], ends[1], torch.linspace(0, 1, 8)[:, None]))
    direct, told = made(pipe, layout=layout)
    torch.testing.assert_close(told[0], layout[None])
    canonical = CanonicalFrame.of(layout[None])
    moved, told = made(pipe, layout=layout, canonical=True)
    torch.testing.assert_close(told[0], canonical.layout)
    still, _ = made(pipe, layout=canonical.layout[0])
    expected = canonical.moved(still.transpose(1, 2) * 2 - 1).transpose(1, 2)
    torch.testing.assert_close(moved, ((expected + 1) / 2).clamp(0, 1))
    pipe.register_to_config(canonical=True)
    assert torch.equal(made(pipe, layout=layout)[0], moved)
    assert torch.equal(made(pipe, layout=layout, canonical=False)[0], direct)
    planned, _ = made(pipe)
    assert not torch.equal(planned, made(pipe, canonical=False)[0])
    # Where it is not told the path in all frames, or a part of the clip is given, all is as before.
    layout[3] = 0
    video = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    given = {"video": video, "mask": np.ones((16, 16))}
    for options in ({"layout": layout}, {"planner": False}, given):
        assert torch.equal(made(pipe, **options)[0], made(pipe, **options, canonical=False)[0])


@pytest.mark.slow
def test_such_clips_start_from_a_picture_of_the_t2i(pipe: LumierePipeline) -> None:
    layout = layout_of(torch.tensor([[0.4, 0.3, 0.4, 1.0]])).expand(8, 6)
    options = {"layout": layout, "canonical": True, "num_inference_steps": 4}
    calls: list[tuple[bool, int, torch.Tensor]] = []

    def note(_module: Any, args: tuple[torch.Tensor, ...], given: dict[str, Any]) -> None:
        calls.append((given.get("temporal_layers", True), args[0].shape[2], given["layout"]))

    alone, _ = made(pipe, **options)
    pipe.register_to_config(picture_strength=0.5)
    hook = pipe.unet.register_forward_pre_hook(note, with_kwargs=True)
    started, _ = made(pipe, **options)
    hook.remove()
    assert not torch.equal(started, alone)
    pictures = [call for call in calls if not call[0]]
    assert [frames for _, frames, _ in calls] == [1] * len(pictures) + [8, 8]  # two of four steps are left
    upright = CanonicalFrame.of(layout[None]).layout
    assert all(torch.equal(told, upright[:, :frames]) for _, frames, told in calls)
    assert pipe.num_timesteps == 2
    # A single step is taken, from noise alone.
    single = options | {"num_inference_steps": 1}
    started_so, _ = made(pipe, **single)
    pipe.register_to_config(picture_strength=1.0)
    assert torch.equal(started_so, made(pipe, **single)[0])
    pipe.register_to_config(picture_strength=0.5)
    # A clip does not depend on its batch.
    seeds = [torch.Generator().manual_seed(seed) for seed in (3, 0)]
    both = pipe(["a heart", "a tiger"], **options, num_frames=8, generator=seeds, upscale=False, output_type="pt",
                guidance_scale=1.0).frames  # fmt: skip
    torch.testing.assert_close(both[1:], started, atol=1e-4, rtol=1e-4)
    assert torch.equal(made(pipe, layout=layout)[0], made(pipe, layout=layout, canonical=False)[0])


@pytest.mark.slow
def test_previews_show_subjects_where_they_will_be(pipe: LumierePipeline) -> None:
    layout = layout_of(torch.tensor([[0.4, 0.3, 0.4, 1.0]])).expand(8, 6)
    seen: list[np.ndarray] = []

    def look(pipe: LumierePipeline, _step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        seen.append(pipe.decode_clips(tensors["denoised"], frames=list(range(8)))[0])
        return {}

    clip, _ = made(
        pipe, layout=layout, canonical=True, output_type="np", callback_on_step_end=look,
        callback_on_step_end_tensor_inputs=["denoised"],
    )  # fmt: skip
    np.testing.assert_allclose(seen[-1], clip[0], atol=1e-5)


# ------------------------------------------------------------------------------------------------- data


def test_training_can_show_subjects_there(loops: Path) -> None:
    def layouts(share: float) -> torch.Tensor:
        clips = EmojiClips(loops, subjects=["tiger", "heart"], size=32, num_frames=8, canonical=share)
        return torch.stack([sample["layout"] for sample in clips.__getitems__(range(40))])

    usual, some, every = layouts(0.0), layouts(0.5), layouts(1.0)
    torch.testing.assert_close(every, CanonicalFrame.of(usual).layout)
    there = (some == every).flatten(1).all(1)
    assert 10 < there.sum() < 30
    assert torch.equal(some[~there], usual[~there])
