"""Motion compensation: frames that are given, moved along with their subject."""

from __future__ import annotations

import math

import pytest
import torch

from openlumiere.diffusion.conditioning import masked, propagate_in_time
from openlumiere.diffusion.layout import layout_of
from openlumiere.diffusion.transport import transported

SIDE = 32


def arrow(path: torch.Tensor) -> torch.Tensor:
    """Draw an arrowhead where a path has it, (F, 4) -> (1, F, SIDE, SIDE); it has one axis of symmetry alone."""
    at = (torch.arange(SIDE) + 0.5) / SIDE * 2 - 1
    dx, dy = at[None] - path[:, 0, None, None], at[:, None] - path[:, 1, None, None]
    angle = path[:, 3, None, None]
    # Turned back by the angle, clockwise with y down, and in halves of the subject's side.
    u = (dx * angle.cos() + dy * angle.sin()) / path[:, 2, None, None]
    v = (dy * angle.cos() - dx * angle.sin()) / path[:, 2, None, None]
    return ((u > -0.8) & (v.abs() < 0.4 * (0.8 - u))).float()[None]


@pytest.mark.parametrize(
    "to", [[0.3, -0.2, 0.5, 0.0], [0.0, 0.1, 1.0, 0.0], [0.2, 0.2, 0.4, math.pi / 2],
           [-0.1, 0.0, 0.7, -2.0]],
)  # fmt: skip
def test_a_frame_moves_as_its_subject_does(to: list[float]) -> None:
    path = torch.tensor([[0.0, 0.0, 0.5, 0.0], to])
    drawn = arrow(path)[0][:, None]
    layout = layout_of(path)
    found = transported(drawn[:1], layout[:1], layout[1:])
    wrong, before = ((frame - drawn[1:]).abs().mean() for frame in (found, drawn[:1]))
    assert wrong <= 0.35 * before  # edges alone, which interpolation softens


def test_a_frame_that_stays_is_itself() -> None:
    frames = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    layout = layout_of(torch.tensor([[0.1, 0.2, 0.5, 1.0], [-0.3, 0.0, 1.0, 2.0]]))
    torch.testing.assert_close(transported(frames, layout, layout), frames, atol=1e-5, rtol=1e-5)


def crossing(frames: int = 9) -> torch.Tensor:
    path = torch.zeros(frames, 4)
    path[:, 0], path[:, 2] = torch.linspace(-0.4, 0.4, frames), 0.5
    return path


def given_frames(clip: torch.Tensor, frames: list[int]) -> torch.Tensor:
    mask = torch.zeros(1, 1, *clip.shape[2:])
    mask[:, :, frames] = 1
    return mask


def test_what_is_given_comes_along_with_the_subject() -> None:
    clip = arrow(crossing())[None]
    mask, layout = given_frames(clip, [0, 8]), layout_of(crossing())[None]
    still, sure = propagate_in_time(masked(clip, mask), mask)
    moved, as_sure = propagate_in_time(masked(clip, mask), mask, layout)
    assert (moved - clip).abs().mean() < 0.2 * (still - clip).abs().mean()
    assert torch.equal(moved[:, :, [0, 8]], clip[:, :, [0, 8]])
    assert torch.equal(sure, as_sure)


def test_clips_without_a_layout_and_parts_of_frames_stay() -> None:
    clip = arrow(crossing())[None].repeat(2, 1, 1, 1, 1)
    layout = torch.stack([layout_of(crossing()), torch.zeros(9, 6)])
    mask = given_frames(clip, [0]).repeat(2, 1, 1, 1, 1)
    still, moved = propagate_in_time(clip * mask, mask), propagate_in_time(clip * mask, mask, layout)
    assert torch.equal(still[0][1], moved[0][1])
    assert not torch.equal(still[0][0], moved[0][0])
    mask[..., :3] = 0  # no frame is whole
    for found, expected in zip(
        propagate_in_time(clip * mask, mask, layout), propagate_in_time(clip * mask, mask), strict=True
    ):
        assert torch.equal(found, expected)


def test_what_is_given_elsewhere_stays_given() -> None:
    """A cinemagraph: the first frame whole, and of the others a part."""
    clip = arrow(crossing())[None]
    mask = given_frames(clip, [0])
    mask[..., : SIDE // 4] = 1
    moved, sure = propagate_in_time(clip * mask, mask, layout_of(crossing())[None])
    assert torch.equal(moved[..., : SIDE // 4], clip[..., : SIDE // 4])
    assert (sure[..., : SIDE // 4] == 1).all()
    assert sure[0, 0, :, 0, -1].tolist() == pytest.approx([1 / (1 + away) for away in range(9)])
