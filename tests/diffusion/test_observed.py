"""Where the subject of given frames is seen, and paths through there."""

from __future__ import annotations

import math

import pytest
import torch

from openlumiere.data.emoji.drawing import render
from openlumiere.diffusion.observed import observed_path, path_through_observed

SIDE = 64


def discs(path: torch.Tensor, *, alpha: bool, colour: tuple[float, float, float] = (0.2, 0.6, 0.9)) -> torch.Tensor:
    """Draw a subject of half of its square's side, in [-1, 1], premultiplied where it has alpha."""
    at = (torch.arange(SIDE) + 0.5) / SIDE * 2 - 1
    dx, dy = at[None] - path[:, 0, None, None], at[:, None] - path[:, 1, None, None]
    inside = (dx.square() + dy.square()).sqrt() < path[:, 2, None, None] * 0.85
    ground = torch.tensor((0.0,) * 3 if alpha else (0.9, 0.9, 0.1))
    picture = torch.where(inside[None], torch.tensor(colour)[:, None, None, None], ground[:, None, None, None])
    return (torch.cat([picture, inside.float()[None]]) if alpha else picture) * 2 - 1


def growing(frames: int = 17) -> torch.Tensor:
    path = torch.zeros(frames, 4)
    path[:, 0] = torch.linspace(-0.3, 0.3, frames)
    path[:, 1] = torch.linspace(0.2, -0.2, frames)
    path[:, 2] = torch.linspace(0.3, 0.6, frames)
    return path


@pytest.mark.parametrize("alpha", [True, False])
def test_a_subject_is_found_where_it_is(alpha: bool) -> None:
    frames = discs(growing(), alpha=alpha)
    frames = frames + 0.02 * torch.randn(frames.shape, generator=torch.Generator().manual_seed(0))
    path, seen = observed_path(frames)
    assert seen.all()
    torch.testing.assert_close(path, growing(), atol=0.04, rtol=0)


def test_a_speck_is_not_the_subject() -> None:
    frames = discs(growing(), alpha=False)
    frames[:, :, 5, 60] = -1
    path, _ = observed_path(frames)
    torch.testing.assert_close(path, growing(), atol=0.04, rtol=0)


def test_what_shows_no_subject_is_not_seen() -> None:
    noise = torch.rand(3, 2, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    plain = torch.zeros(3, 2, SIDE, SIDE)
    nothing = torch.full((4, 2, SIDE, SIDE), -1.0)
    for frames in (noise, plain, nothing):
        path, seen = observed_path(frames)
        assert not seen.any()
        assert (path == 0).all()


def test_a_subject_that_leaves_the_frame_is_seen_while_it_is_whole() -> None:
    path = growing()
    path[:, 0] = torch.linspace(-0.2, 1.0, len(path))
    path[:, 2] = 0.4
    found, seen = observed_path(discs(path, alpha=True))
    assert seen[0]
    assert not seen[-1]
    torch.testing.assert_close(found[seen], path[seen], atol=0.04, rtol=0)
    filling = torch.tensor([[0.0, 0.0, 1.4, 0.0]])
    assert observed_path(discs(filling, alpha=True))[1].all()  # there is nothing better to be seen


def petals(path: torch.Tensor, *, alpha: bool) -> torch.Tensor:
    """Draw a subject that looks different from all sides."""
    side = 96
    y, x = (torch.arange(side) + 0.5).mul(2 / side).sub(1)[:, None], (torch.arange(side) + 0.5).mul(2 / side).sub(1)
    square = torch.zeros(4, side, side)
    for number, colour in enumerate(((0.9, 0.2, 0.2), (0.2, 0.8, 0.3), (0.3, 0.3, 0.9))):
        angle = 0.4 + 1.7 * number
        inside = ((x - 0.4 * math.cos(angle)).square() + (y - 0.4 * math.sin(angle)).square()).sqrt() < 0.42
        square[:, inside] = torch.tensor([*colour, 1.0])[:, None]
    drawn = render(square.expand(len(path), -1, -1, -1), path, size=SIDE).transpose(0, 1)
    if not alpha:
        drawn = drawn[:3] + (1 - drawn[3:]) * torch.tensor((0.9, 0.9, 0.1))[:, None, None, None]
    return drawn * 2 - 1


def spinning(frames: int = 33) -> torch.Tensor:
    path = growing(frames)
    path[:, 3] = torch.linspace(0, -9, frames)
    return path


@pytest.mark.parametrize("alpha", [True, False])
def test_how_far_a_subject_is_turned_is_seen(alpha: bool) -> None:
    frames = petals(spinning(), alpha=alpha)
    frames = frames + 0.02 * torch.randn(frames.shape, generator=torch.Generator().manual_seed(0))
    path, seen = observed_path(frames)
    assert seen.all()
    wrong = torch.remainder(path[:, 3] - spinning()[:, 3] + math.pi, 2 * math.pi) - math.pi
    assert wrong.abs().max() < 0.06
    # Where it is: the same point of it in all frames, the middle of what is seen of it in the first.
    upright = observed_path(frames[:, :1])[0]
    torch.testing.assert_close(path[0, :3], upright[0, :3], atol=1e-5, rtol=0)
    torch.testing.assert_close(path[:, 2] / path[0, 2], spinning()[:, 2] / spinning()[0, 2], atol=0.08, rtol=0)


def test_what_waves_or_looks_the_same_from_all_sides_is_upright() -> None:
    path = growing(33)
    path[:, 3] = 0.35 * torch.sin(torch.arange(33) / 3)
    for frames in (petals(path, alpha=True), discs(spinning(), alpha=True)):
        assert (observed_path(frames)[0][:, 3] == 0).all()


def test_a_turn_seen_at_times_goes_on_as_the_plan_turns() -> None:
    real = spinning(81)
    real[:, 3] = torch.linspace(0, 16, 81)
    seen = seen_at(list(range(0, 81, 8)), real)
    seen[0][:, 3] = torch.remainder(seen[0][:, 3] + math.pi, 2 * math.pi) - math.pi
    plans = torch.stack([real, real, real])
    plans[0, :, 3], plans[1, :, 3], plans[2, :, 3] = -real[:, 3], 1 + 0.9 * real[:, 3], 0
    path = path_through_observed(seen[0] * seen[1][:, None], seen[1], plans)
    torch.testing.assert_close(path[:, 3], real[:, 3], atol=0.05, rtol=0)


def seen_at(frames: list[int], path: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    seen = torch.zeros(len(path), dtype=torch.bool)
    seen[frames] = True
    return path * seen[:, None], seen


def test_a_plan_is_moved_to_where_the_subject_is() -> None:
    plan = growing()
    plan[:, 3] = torch.linspace(1, 7, len(plan))  # it turns
    real = torch.tensor([[0.5, 0.5, 0.2, 0.0]]).expand(len(plan), -1)
    path = path_through_observed(*seen_at([0], real), plan[None])
    torch.testing.assert_close(path[0], real[0])
    torch.testing.assert_close(path[:, :2] - path[:1, :2], plan[:, :2] - plan[:1, :2])
    torch.testing.assert_close(path[:, 2] / path[0, 2], plan[:, 2] / plan[0, 2])
    torch.testing.assert_close(path[:, 3], plan[:, 3] - plan[0, 3])


def test_the_plan_that_moves_most_like_it_is_taken() -> None:
    away, back = growing(), growing().flip(0)
    real = growing()
    real[:, 1] += 0.3
    given = seen_at(list(range(9)), real)
    path = path_through_observed(*given, torch.stack([back, away]))
    torch.testing.assert_close(path, real, atol=1e-5, rtol=1e-5)


def test_of_plans_from_a_single_frame_one_that_stays_in_view_is_taken() -> None:
    right, left = growing(), growing() * torch.tensor([-1.0, 1.0, 1.0, 1.0])
    for x, fits in ((0.5, left), (-0.5, right)):
        real = torch.tensor([[x, 0.0, 0.3, 0.0]]).expand(len(right), -1)
        path = path_through_observed(*seen_at([0], real), torch.stack([right, left]))
        torch.testing.assert_close(path[:, 0] - x, fits[:, 0] - fits[0, 0])


def test_frames_between_near_ones_are_crossed_smoothly_and_between_far_ones_as_planned() -> None:
    at = torch.arange(65)
    real = torch.tensor([0.0, 0.0, 0.5, 0.0]).repeat(65, 1)
    real[:, 1] = 0.3 * torch.sin(at * 2 * math.pi / 20)
    still = torch.tensor([0.0, 0.0, 0.5, 0.0]).repeat(1, 65, 1)
    near = path_through_observed(*seen_at(list(range(0, 65, 4)), real), still)
    assert (near - real).abs().max() < 0.04  # at the ends; a line between two would miss by 0.06
    far = path_through_observed(*seen_at([0, 64], real), still)
    torch.testing.assert_close(far[:, 1], torch.lerp(real[0, 1], real[64, 1], at / 64.0), atol=1e-5, rtol=0)


def test_a_users_way_holds_but_for_frames_beside_what_is_seen() -> None:
    told = growing(40)
    real = torch.tensor([[-0.5, 0.5, 0.2, 0.0]]).expand(40, -1)
    path = path_through_observed(*seen_at([0], real), told[None], told=2)
    torch.testing.assert_close(path[0], real[0])
    torch.testing.assert_close(path[16:, :2], told[16:, :2])
    assert path[:, :2].diff(dim=0).norm(dim=1).max() < 0.15  # no jump
    torch.testing.assert_close(path[:, 2] / path[0, 2], told[:, 2] / told[0, 2])  # the size was not told
