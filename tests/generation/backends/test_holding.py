"""What is given of a clip is put back at every step, under the noise of that step."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_stepping import SCHEDULERS, sampled

from openlumiere.generation.backends.holding import Known, encode_frames, holding, pool_mask
from openlumiere.generation.backends.stepping import around
from tiny import stable_diffusion

LATENTS = torch.randn(1, 4, 3, 8, 8, generator=torch.Generator().manual_seed(7))
MAKE = torch.zeros(LATENTS.shape, dtype=torch.bool)
MAKE[..., 3:] = True
MAKE[:, :, 2] = True


def trace(scheduler: Any, known: Known | None, steps: int = 5) -> list[torch.Tensor]:
    """The samples after each step."""
    found: list[torch.Tensor] = []

    def step(step: Any, *inputs: Any, **options: Any) -> Any:
        result = step(*inputs, **options)
        found.append(result.prev_sample.clone())
        return result

    torch.manual_seed(0)  # what ancestral samplers draw
    with nullcontext() if known is None else holding(scheduler, known), around(scheduler, "step", step):
        sampled(scheduler, steps)
    return found


def level_after(scheduler: Any, index: int) -> tuple[float, float]:
    """Shares of the clip and of the noise in a sample after a step, by the scheduler's own tables."""
    if index + 1 >= len(scheduler.timesteps):
        return 1.0, 0.0
    timestep = scheduler.timesteps[index + 1]
    if not hasattr(scheduler, "sigmas"):
        kept = float(scheduler.alphas_cumprod[int(timestep)])
        return kept**0.5, (1 - kept) ** 0.5
    at = scheduler.timesteps.tolist().index(timestep)
    if type(scheduler).__name__.startswith("Heun"):
        at += 1  # both timesteps of a pair share a sigma, listed in the second's place
    sigma = float(scheduler.sigmas[at])
    if getattr(scheduler.config, "use_flow_sigmas", False) or type(scheduler).__name__.startswith("Flow"):
        return 1 - sigma, sigma
    if type(scheduler).__name__.startswith("DPM"):
        return (1 + sigma**2) ** -0.5, sigma * (1 + sigma**2) ** -0.5
    return 1.0, sigma


@pytest.mark.parametrize("name", SCHEDULERS)
def test_what_is_given_stands_under_the_noise_of_each_step(name: str) -> None:
    scheduler = copy.deepcopy(SCHEDULERS[name])
    samples = trace(scheduler, Known(LATENTS, MAKE))
    noise = torch.randn(LATENTS.shape, generator=torch.Generator().manual_seed(1))
    for index, sample in enumerate(samples):
        clip, share = level_after(scheduler, index)
        torch.testing.assert_close(sample[~MAKE], (clip * LATENTS + share * noise)[~MAKE], rtol=1e-4, atol=1e-4)
    assert torch.equal(samples[-1][~MAKE], LATENTS[~MAKE])
    assert not torch.isclose(samples[-1][MAKE], LATENTS[MAKE]).any()


@pytest.mark.parametrize("name", SCHEDULERS)
def test_nothing_given_changes_nothing(name: str) -> None:
    free = trace(copy.deepcopy(SCHEDULERS[name]), None)
    held = trace(copy.deepcopy(SCHEDULERS[name]), Known(LATENTS, torch.ones_like(MAKE)))
    for left, right in zip(free, held, strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=0)


@pytest.mark.parametrize(("strength", "held"), [(0.0, 4), (0.5, 2), (0.75, 1), (1.0, 0)])
def test_a_start_from_a_noisy_clip_holds_all_of_it_until_then(strength: float, held: int) -> None:
    scheduler = copy.deepcopy(SCHEDULERS["ddim"])
    samples = trace(scheduler, Known(LATENTS, torch.ones_like(MAKE), strength), steps=4)
    noise = torch.randn(LATENTS.shape, generator=torch.Generator().manual_seed(1))
    for index, sample in enumerate(samples):
        clip, share = level_after(scheduler, index)
        assert torch.allclose(sample, clip * LATENTS + share * noise, atol=1e-5) == (index < held)


def test_tuples_keep_what_else_a_scheduler_returns() -> None:
    scheduler = copy.deepcopy(SCHEDULERS["ddim"])
    scheduler.set_timesteps(1)
    sample = torch.ones_like(LATENTS)
    with holding(scheduler, Known(LATENTS, MAKE)):
        found = scheduler.step(sample, scheduler.timesteps[0], sample, return_dict=False)
    assert len(found) == 2
    assert torch.equal(found[0][~MAKE], LATENTS[~MAKE])
    assert "step" not in vars(scheduler)


@settings(max_examples=30, deadline=None)
@given(frames=st.integers(1, 4), every=st.sampled_from([1, 4, 8]), factor=st.sampled_from([1, 2, 8]), data=st.data())
def test_masks_are_pooled_to_all_that_sees_what_is_to_be_made(
    frames: int, every: int, factor: int, data: st.DataObject
) -> None:
    shape = ((frames - 1) * every + 1, 3 * factor, 2 * factor)
    mask = torch.zeros(shape, dtype=torch.bool)
    for _ in range(data.draw(st.integers(0, 3))):
        mask[tuple(data.draw(st.integers(0, side - 1)) for side in shape)] = True
    pooled = pool_mask(mask, (frames, 3, 2))[0, 0]
    first, *others = mask[:1], *(mask[1:].split(every) if frames > 1 else ())
    for found, group in zip(pooled, [first, *others], strict=True):
        blocks = group.reshape(len(group), 3, factor, 2, factor)
        assert torch.equal(found, blocks.any(0).any(1).any(-1))


def test_frames_are_encoded_one_by_one_in_any_chunks(tmp_path: Any) -> None:
    vae = stable_diffusion(tmp_path).vae
    pixels = torch.rand(1, 3, 5, 16, 16) * 2 - 1
    with torch.no_grad():
        latents = encode_frames(vae, pixels, chunk=2)
        last = vae.encode(pixels[:, :, -1]).latent_dist.mode() * vae.config.scaling_factor
    assert latents.shape == (1, 4, 5, 8, 8)
    torch.testing.assert_close(latents[:, :, -1], last, rtol=1e-4, atol=1e-5)
