"""Sampling mathematics: pixel folding and guidance."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from openlumiere.diffusion.guidance import classifier_free_guidance
from openlumiere.diffusion.noise import progressive_noise
from openlumiere.diffusion.pixels import pixel_shuffle, pixel_unshuffle

few = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**16)


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@few
@given(seeds, st.integers(1, 4), st.integers(1, 2), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))
def test_fold_and_unfold_are_inverse(seed: int, factor: int, batch: int, frames: int, h: int, w: int) -> None:
    clip = noise(seed, batch, 3, frames, h * factor, w * factor)
    folded = pixel_unshuffle(clip, factor)
    assert folded.shape == (batch, 3 * factor**2, frames, h, w)
    assert torch.equal(pixel_shuffle(folded, factor), clip)
    assert torch.equal(pixel_unshuffle(pixel_shuffle(folded, factor), factor), folded)


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (0, 2, 3, 4, 1), (0, 2, 1, 3, 4), (0, 1, 3, 4, 2)])
def test_folding_takes_any_layout_in_memory(order: tuple[int, ...]) -> None:
    clip = noise(0, 1, 12, 5, 6, 6)
    back = sorted(range(5), key=order.__getitem__)
    laid_out = clip.permute(order).contiguous().permute(back)
    assert torch.equal(laid_out, clip)
    assert torch.equal(pixel_shuffle(laid_out, 2), pixel_shuffle(clip, 2))
    assert torch.equal(pixel_unshuffle(laid_out, 2), pixel_unshuffle(clip, 2))
    looped = progressive_noise(clip, 0.9, loop=True)
    assert torch.equal(pixel_shuffle(looped, 2), pixel_shuffle(looped.contiguous(), 2))


@few
@given(seeds, st.integers(1, 3))
def test_folding_keeps_frames_apart_and_neighbours_together(seed: int, factor: int) -> None:
    clip = noise(seed, 1, 3, 4, 2 * factor, 2 * factor)
    assert torch.equal(pixel_unshuffle(clip[:, :, 1:2], factor), pixel_unshuffle(clip, factor)[:, :, 1:2])
    block = clip[0, :, 2, factor:, :factor]  # the pixels of the position below the first
    assert torch.equal(pixel_unshuffle(clip, factor)[0, :, 2, 1, 0].sort().values, block.flatten().sort().values)


@few
@given(seeds, st.floats(0.0, 1.0))
def test_correlated_noise_is_standard_normal_on_every_frame(seed: int, correlation: float) -> None:
    white = noise(seed, 1, 4, 12, 40, 40)
    frames = progressive_noise(white, correlation)
    spread = frames.std(dim=(0, 1, 3, 4))  # of 6400 numbers each
    assert (spread - 1).abs().max() < 0.07
    neighbours = (frames[:, :, 1:] * frames[:, :, :-1]).mean(dim=(0, 1, 3, 4))
    assert (neighbours - correlation).abs().max() < 0.09
    far = (frames[:, :, 10:] * frames[:, :, :-10]).mean()
    assert abs(far - correlation**10) < 0.07


@pytest.mark.parametrize("frames", [1, 7, 8])
def test_noise_around_a_loop_is_standard_normal_and_wraps(frames: int) -> None:
    looped = progressive_noise(noise(1, 1, 4, frames, 60, 60), 0.8, loop=True)
    step = torch.arange(frames)
    for lag in range(frames):
        measured = (looped * looped[:, :, (step + lag) % frames]).mean(dim=(0, 1, 3, 4))
        assert (measured - 0.8 ** min(lag, frames - lag)).abs().max() < 0.06


def test_noise_without_correlation_is_left_alone_and_full_correlation_repeats() -> None:
    white = noise(0, 2, 3, 5, 4, 4)
    assert torch.equal(progressive_noise(white, 0.0), white)
    assert torch.equal(progressive_noise(white, 1.0), white[:, :, :1].expand_as(white))


@few
@given(seeds, st.floats(0, 10))
def test_guidance_goes_from_the_unconditional_through_the_conditional(seed: int, scale: float) -> None:
    conditional, unconditional = noise(seed, 2, 3, 4, 5, 5), noise(seed + 1, 2, 3, 4, 5, 5)
    torch.testing.assert_close(classifier_free_guidance(conditional, unconditional, 1.0), conditional)
    torch.testing.assert_close(classifier_free_guidance(conditional, unconditional, 0.0), unconditional)
    guided = classifier_free_guidance(conditional, unconditional, scale)
    torch.testing.assert_close(guided - unconditional, scale * (conditional - unconditional), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        classifier_free_guidance(conditional, conditional, scale), conditional, rtol=1e-4, atol=1e-4
    )


@few
@given(seeds, st.floats(1.5, 10))
def test_full_rescaling_gives_the_conditionals_spread_and_part_of_it_lies_between(seed: int, scale: float) -> None:
    conditional, unconditional = noise(seed, 3, 3, 4, 5, 5), noise(seed + 1, 3, 3, 4, 5, 5)
    plain = classifier_free_guidance(conditional, unconditional, scale)
    full = classifier_free_guidance(conditional, unconditional, scale, rescale=1.0)
    spread = [x.flatten(1).std(dim=1) for x in (conditional, full, plain)]
    torch.testing.assert_close(spread[1], spread[0], rtol=1e-4, atol=1e-4)
    assert (spread[2] > spread[0]).all()  # what rescaling is against
    half = classifier_free_guidance(conditional, unconditional, scale, rescale=0.5)
    torch.testing.assert_close(half, (plain + full) / 2, rtol=1e-4, atol=1e-4)


@few
@given(seeds)
def test_rescaling_looks_at_each_clip_alone(seed: int) -> None:
    conditional, unconditional = noise(seed, 2, 3, 4, 5, 5), noise(seed + 1, 2, 3, 4, 5, 5)
    together = classifier_free_guidance(conditional, unconditional, 5.0, rescale=0.7)
    conditional[1] *= 10
    torch.testing.assert_close(classifier_free_guidance(conditional, unconditional, 5.0, rescale=0.7)[0], together[0])


def test_rescaling_a_constant_prediction_stays_finite() -> None:
    zeros = torch.zeros(1, 3, 2, 4, 4)
    assert torch.equal(classifier_free_guidance(zeros, zeros, 7.5, rescale=1.0), zeros)
