"""The denoising loop, with each of diffusers' schedulers: pure, and right where the answer is known."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch

from openlumiere.diffusion.sampling import (
    Img2ImgStart,
    KnownRegion,
    check_scheduler,
    denoise,
    denoised_estimate,
    set_timesteps,
    start_from,
)
from openlumiere.diffusion.windows import Denoiser, plan_windows
from openlumiere.errors import LumiereError

DETERMINISTIC = [
    "DDIMScheduler", "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "EulerDiscreteScheduler",
    "HeunDiscreteScheduler", "UniPCMultistepScheduler", "PNDMScheduler", "DEISMultistepScheduler",
    "LMSDiscreteScheduler", "KDPM2DiscreteScheduler",
]  # fmt: skip
# Of these, those that take chosen timesteps.
SHIFTABLE = [
    "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler",
]  # fmt: skip
STOCHASTIC = ["DDPMScheduler", "EulerAncestralDiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "LCMScheduler"]
CLIP = torch.rand(1, 2, 4, 3, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1
NOISE = torch.randn(1, 2, 4, 3, 3, generator=torch.Generator().manual_seed(2))


def made(name: str, **options: Any) -> Any:
    return getattr(diffusers, name)(num_train_timesteps=1000, **options)


def oracle(scheduler: Any, clip: torch.Tensor) -> Any:
    """A network that knows the clip, and so says the very noise that a sample holds."""
    alphas = scheduler.alphas_cumprod

    def at(t: torch.Tensor) -> list[Denoiser]:
        index = t.float().clamp(0, 999)
        low, high = index.floor().long(), index.ceil().long()
        sigmas = ((1 - alphas) / alphas).sqrt().log()  # as schedulers on sigmas go between timesteps
        sigma = torch.lerp(sigmas[low], sigmas[high], index - low).exp()
        kept = 1 / (1 + sigma**2)
        return [Denoiser(lambda sample, _: (sample - kept.sqrt() * clip) / (1 - kept).sqrt())]

    return at


@pytest.mark.slow
@pytest.mark.parametrize("name", DETERMINISTIC)
@pytest.mark.parametrize("start", [None, 0.5])
def test_with_a_network_that_knows_the_clip_it_comes_out(name: str, start: float | None) -> None:
    scheduler = made(name)
    set_timesteps(scheduler, 10, torch.device("cpu"))
    begin = None if start is None else Img2ImgStart(CLIP, start)
    if begin and name == "PNDMScheduler":  # whose steps hang on those before
        with pytest.raises(LumiereError, match="cannot start from a clip"):
            start_from(scheduler, NOISE, begin)
        return
    latents, timesteps = start_from(scheduler, NOISE, begin)
    steps: list[int] = []

    def count(i: int, _t: torch.Tensor, latents: torch.Tensor, _denoised: object) -> torch.Tensor:
        steps.append(i)
        return latents

    found = denoise(
        oracle(scheduler, CLIP), scheduler, latents, timesteps, plan_windows(4, 4), noise=NOISE, on_step=count
    )
    assert (found - CLIP).abs().max() < 0.1
    assert steps == list(range(len(timesteps)))


@pytest.mark.parametrize("name", ["DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler"])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_a_right_prediction_stands_for_the_very_clip(name: str, kind: str) -> None:
    scheduler = made(name, prediction_type=kind)
    scheduler.set_timesteps(10)
    t = scheduler.timesteps[4]
    noisy = scheduler.add_noise(CLIP, NOISE, t[None])
    kept = scheduler.alphas_cumprod[t.long()]
    velocity = kept.sqrt() * NOISE - (1 - kept).sqrt() * CLIP
    prediction = {"epsilon": NOISE, "v_prediction": velocity, "sample": CLIP}[kind]
    torch.testing.assert_close(denoised_estimate(scheduler, prediction, noisy, t), CLIP, atol=1e-4, rtol=0)
    # DeepFloyd IF predicts a variance behind it.
    both = torch.cat([prediction, NOISE], dim=1)
    torch.testing.assert_close(denoised_estimate(scheduler, both, noisy, t), CLIP, atol=1e-4, rtol=0)


def test_a_flow_stands_for_the_very_clip() -> None:
    scheduler = made("DPMSolverMultistepScheduler", prediction_type="flow_prediction", use_flow_sigmas=True)
    scheduler.set_timesteps(10)
    t = scheduler.timesteps[4]
    noisy = scheduler.add_noise(CLIP, NOISE, t[None])
    torch.testing.assert_close(denoised_estimate(scheduler, NOISE - CLIP, noisy, t), CLIP, atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in DETERMINISTIC if name != "KDPM2DiscreteScheduler"])
def test_each_step_tells_the_clip_that_it_is_on_the_way_to(name: str) -> None:
    scheduler = made(name)
    set_timesteps(scheduler, 6, torch.device("cpu"))
    latents, timesteps = start_from(scheduler, NOISE)
    errors: list[float] = []

    def look(_i: int, _t: torch.Tensor, latents: torch.Tensor, denoised: torch.Tensor | None) -> torch.Tensor:
        assert denoised is not None
        errors.append(float((denoised - CLIP).abs().max()))
        return latents

    denoise(
        oracle(scheduler, CLIP), scheduler, latents, timesteps, plan_windows(4, 4), noise=NOISE, on_step=look,
        wants_denoised=True,
    )  # fmt: skip
    assert len(errors) == len(timesteps)
    assert max(errors) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_the_known_region_arrives(name: str) -> None:
    scheduler = made(name)
    set_timesteps(scheduler, 5, torch.device("cpu"))
    latents, timesteps = start_from(scheduler, NOISE)
    mask = torch.zeros_like(CLIP)
    mask[:, :, :2] = 1

    def wrong(_t: torch.Tensor) -> list[Denoiser]:
        return [Denoiser(lambda sample, _: 0 * sample)]

    known = KnownRegion(CLIP, mask)
    found = denoise(wrong, scheduler, latents, timesteps, plan_windows(4, 4), noise=NOISE, known=known)
    assert torch.equal(found[:, :, :2], CLIP[:, :, :2])
    assert (found[:, :, 2:] - CLIP[:, :, 2:]).abs().max() > 0.1


def test_strength_0_is_the_clip_and_1_all_of_the_steps() -> None:
    for name in ("DDIMScheduler", "HeunDiscreteScheduler"):
        scheduler = made(name)
        set_timesteps(scheduler, 6, torch.device("cpu"))
        latents, timesteps = start_from(scheduler, NOISE, Img2ImgStart(CLIP, 0.0))
        assert torch.equal(latents, CLIP)
        assert len(timesteps) == 0
        assert len(start_from(scheduler, NOISE, Img2ImgStart(CLIP, 1.0))[1]) == len(scheduler.timesteps)


@pytest.mark.slow
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_shifted_timesteps_are_taken_or_refused_in_one_line(name: str) -> None:
    scheduler = made(name)
    if name not in SHIFTABLE:
        with pytest.raises(LumiereError, match="use DPMSolverMultistepScheduler") as error:
            check_scheduler(scheduler, shift=3.0, noise_correlation=0.9)
        assert "\n" not in str(error.value)
        return
    check_scheduler(scheduler, shift=3.0, noise_correlation=0.9)
    set_timesteps(scheduler, 6, torch.device("cpu"), shift=3.0)
    latents, timesteps = start_from(scheduler, NOISE)
    found = denoise(oracle(scheduler, CLIP), scheduler, latents, timesteps, plan_windows(4, 4), noise=NOISE)
    assert (found - CLIP).abs().max() < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", STOCHASTIC)
def test_noise_of_their_own_is_refused_where_noise_is_correlated(name: str) -> None:
    check_scheduler(made(name), shift=1.0, noise_correlation=0.0)
    with pytest.raises(LumiereError, match="adds noise that differs from frame to frame"):
        check_scheduler(made(name), shift=1.0, noise_correlation=0.9)


def test_sde_variants_are_stochastic_too() -> None:
    with pytest.raises(LumiereError, match="adds noise"):
        check_scheduler(
            made("DPMSolverMultistepScheduler", algorithm_type="sde-dpmsolver++"), shift=1.0, noise_correlation=0.5
        )
    # A scheduler made from the config of one of them remembers the option, and does not have it.
    other = diffusers.DDIMScheduler.from_config(
        made("DPMSolverMultistepScheduler", algorithm_type="sde-dpmsolver++").config
    )
    check_scheduler(other, shift=1.0, noise_correlation=0.5)
