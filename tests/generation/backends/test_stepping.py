"""Steps, as schedulers of all kinds see them: told, counted, stopped."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from diffusers import (
    CogVideoXDPMScheduler,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)

from openlumiere.generation.backends.stepping import stepping
from openlumiere.generation.progress import Cancelled, Progress, Watch

SCHEDULERS: dict[str, Any] = {
    "ddim": DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1),
    "ddim-v": DDIMScheduler(
        clip_sample=False, prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"
    ),
    "euler": EulerDiscreteScheduler(),
    "euler-v": EulerDiscreteScheduler(prediction_type="v_prediction", use_karras_sigmas=True),
    "ancestral": EulerAncestralDiscreteScheduler(),
    "heun": HeunDiscreteScheduler(),
    "pndm": PNDMScheduler(skip_prk_steps=True, steps_offset=1),
    "pndm-warm-up": PNDMScheduler(),
    "dpm": DPMSolverMultistepScheduler(),
    "lcm": LCMScheduler(),
    "unipc-flow": UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
    "flow": FlowMatchEulerDiscreteScheduler(shift=3.0),
}


def sampled(scheduler: Any, steps: int = 5, *, start: int = 0, calls: int = 1) -> torch.Tensor:
    """A pipeline's loop, with a prediction that hangs on the sample."""
    scheduler.set_timesteps(steps)
    sample = torch.randn(1, 4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    sample = sample * getattr(scheduler, "init_noise_sigma", 1)
    for timestep in scheduler.timesteps[start:]:
        for _ in range(calls):
            seen = scheduler.scale_model_input(sample, timestep) if hasattr(scheduler, "scale_model_input") else sample
            stepped = scheduler.step(torch.tanh(seen) + 0.1, timestep, sample).prev_sample
        sample = stepped
    return sample


def told(scheduler: Any, steps: int = 5, **options: Any) -> list[tuple[int, int]]:
    found: list[Progress] = []
    with stepping(scheduler, Watch(found.append), steps):
        sampled(scheduler, steps, **options)
    assert {each.stage for each in found} == {"denoise"}
    return [(each.step, each.total) for each in found]


@pytest.mark.parametrize("name", SCHEDULERS)
def test_steps_are_told_as_the_scheduler_counts_them(name: str) -> None:
    scheduler = SCHEDULERS[name]
    steps = told(scheduler)
    total = len(scheduler.timesteps)
    assert steps == [(0, 5), *((step, total) for step in range(1, total + 1))]


def test_a_start_in_the_middle_shortens_the_total() -> None:
    assert told(SCHEDULERS["ddim"], start=2) == [(0, 5), (1, 3), (2, 3), (3, 3)]
    assert told(SCHEDULERS["heun"], start=2)[-1] == (7, 7)


def test_two_calls_a_step_count_once() -> None:
    assert told(SCHEDULERS["ddim"], steps=3, calls=2) == [(0, 3), (1, 3), (1, 3), (2, 3), (2, 3), (3, 3), (3, 3)]


def test_arguments_are_found_by_their_names() -> None:
    scheduler, found = CogVideoXDPMScheduler(), []
    scheduler.set_timesteps(3)
    sample, old = torch.ones(1, 2, 4, 8, 8), None
    with stepping(scheduler, Watch(found.append), 3):
        for i, timestep in enumerate(scheduler.timesteps):
            back = scheduler.timesteps[i - 1] if i else None
            sample, old = scheduler.step(sample * 0.5, old, timestep, back, sample, return_dict=False)
    assert [(each.step, each.total) for each in found] == [(1, 3), (2, 3), (3, 3)]


def test_samples_and_signatures_are_as_without() -> None:
    scheduler = SCHEDULERS["ddim"]
    before = sampled(scheduler), inspect.signature(scheduler.step)
    with stepping(scheduler, Watch(), 5):
        torch.testing.assert_close(sampled(scheduler), before[0], rtol=0, atol=0)
        assert inspect.signature(scheduler.step) == before[1]  # pipelines look for `eta` and `generator`
    assert not {"step", "set_timesteps"} & set(vars(scheduler))


@pytest.mark.parametrize("after", [0, 1, 3])
def test_cancelling_stops_between_steps(after: int) -> None:
    scheduler, found = DDIMScheduler(), []
    watch = Watch(found.append, lambda: len(found) > after)
    with pytest.raises(Cancelled), stepping(scheduler, watch, 5):
        sampled(scheduler)
    assert [each.step for each in found] == list(range(after + 1))
    assert not {"step", "set_timesteps"} & set(vars(scheduler))


def test_a_finished_clip_is_not_cancelled() -> None:
    scheduler, found = DDIMScheduler(), []
    with stepping(scheduler, Watch(found.append, lambda: len(found) == 4), 3):
        sampled(scheduler, 3)
    assert found[-1].step == 3
