"""Motion compensation: frames that are given, moved along with their subject."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import tiny
from openlumiere.diffusion.conditioning import move_along
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


def test_what_is_given_comes_along_with_the_subject() -> None:
    clip, layout = arrow(crossing()), layout_of(crossing())
    at = torch.tensor([0, 8])
    moved, seen = move_along(clip[:, at], at, layout)
    assert seen.float().mean() > 0.6
    still = torch.lerp(clip[:, :1], clip[:, -1:], torch.linspace(0, 1, 9)[:, None, None])
    assert (moved - clip).abs().mean() < 0.2 * (still - clip).abs().mean()
    torch.testing.assert_close(moved[:, at], clip[:, at], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("given", [0, 4, 8])
def test_one_frame_fills_the_clip_before_it_and_after_it(given: int) -> None:
    path = crossing()
    path[:, 3] = torch.linspace(0, 2, 9)
    clip, at = arrow(path), torch.tensor([given])
    moved, _ = move_along(clip[:, at], at, layout_of(path))
    assert (moved - clip).abs().mean() < 0.35 * (clip[:, at] - clip).abs().mean()


def test_what_lay_outside_of_the_frame_is_ground_and_not_seen() -> None:
    path = torch.tensor([[-1.0, 0.0, 0.9, 0.0], [0.2, 0.0, 0.9, 0.0]])  # half of it is outside at first
    clip, at = arrow(path) * 0.5 + 0.25, torch.tensor([0])
    moved, seen = move_along(clip[:, at], at, layout_of(path))
    assert seen[0].all()
    columns = int(1.2 / 2 * SIDE)  # that it moves by
    touched = clip[0, 0, :, 0] > 0.3  # the rows in which it reached the edge
    assert not seen[1, touched, : columns - 1].any()
    assert seen[1, :, columns + 1 :].all()
    assert seen[1, 0].all()  # beside it there is nothing but ground, beyond the edge too
    assert (moved[0, 1, :, : columns - 1] - 0.25).abs().max() < 1e-6
    torch.testing.assert_close(moved[:, 1, :, columns + 1 :], clip[:, 1, :, columns + 1 :], atol=0.5, rtol=0)


def condition(mask: torch.Tensor, layout: torch.Tensor, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what a model that follows layouts sees of an arrow that crosses, and what one that does not: C and M."""
    pipe = tiny.conditioned(layout=True)
    clip = arrow(crossing(8))[None].expand(len(mask), 3, -1, -1, -1) * 2 - 1
    frames = torch.arange(8)[None]
    pipe.register_to_config(spread_condition=True)
    given = pipe.encode_condition(clip, mask)
    still = pipe.follow(given, layout, clips=clip, **options).seen(frames)
    pipe.register_to_config(follow_layout=True)
    return pipe.follow(given, layout, clips=clip, **options).seen(frames), still


def first_frame(clips: int = 1) -> torch.Tensor:
    mask = torch.zeros(clips, 1, 8, SIDE, SIDE)
    mask[:, :, 0] = 1
    return mask


def test_clips_without_a_layout_and_parts_of_frames_stay() -> None:
    layout = torch.stack([layout_of(crossing(8)), torch.zeros(8, 6)])
    moved, still = condition(first_frame(2), layout)
    assert torch.equal(moved[1], still[1])
    assert not torch.equal(moved[0], still[0])
    parts = first_frame(2)
    parts[..., :4] = 0  # no frame is whole
    assert torch.equal(*condition(parts, layout))


def test_what_is_given_elsewhere_stays_given() -> None:
    """A cinemagraph: the first frame whole, and of the others a part."""
    mask = first_frame()
    mask[..., : SIDE // 4] = 1
    moved, still = condition(mask, layout_of(crossing(8))[None])
    part = slice(moved.shape[-1] // 4)
    assert torch.equal(moved[..., part], still[..., part])
    assert (moved[:, -4:, ..., part] == 1).all()
    assert moved[0, -1, :, 0, -1].tolist() == [1.0] + [0.75] * 7


def test_of_what_has_no_motion_of_its_own_all_is_known() -> None:
    layout = layout_of(crossing(8))[None].expand(2, -1, -1)
    moved, _ = condition(first_frame(2), layout, rigid=torch.tensor([True, False]))
    assert (moved[0, -4:] == 1).all()
    assert (moved[1, -4:, 1:] == 0.75).all()
    assert torch.equal(moved[0, :-4], moved[1, :-4])


def test_pixels_are_decoded_where_only_latents_are_kept() -> None:
    pipe = tiny.conditioned(layout=True)
    pipe.register_to_config(spread_condition=True, follow_layout=True)
    clip = arrow(crossing(8))[None].expand(1, 3, -1, -1, -1) * 2 - 1
    given = pipe.encode_condition(clip, first_frame())
    layout = layout_of(crossing(8))[None]
    shown, decoded = (pipe.follow(given, layout, clips=each).seen(torch.arange(8)[None]) for each in (clip, None))
    torch.testing.assert_close(shown, decoded)
