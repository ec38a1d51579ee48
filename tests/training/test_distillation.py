"""Progressive distillation: a student's one step against two of its teacher, in formulas and in whole runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler

import tiny
from openlumiere.diffusion.guidance import classifier_free_guidance
from openlumiere.diffusion.sampling import denoised_estimate
from openlumiere.errors import LumiereError
from openlumiere.pipelines.load import load_pipeline
from openlumiere.pipelines.lumiere import LumierePipeline
from openlumiere.training.config_files import parse
from openlumiere.training.distillation import CLEAN, ddim_step, distillation_target, halved, levels
from openlumiere.training.export import export
from openlumiere.training.loop import train
from openlumiere.training.stages.distill import Distill

PROMPT = "a tiger on a green background"


def first_order(**options: Any) -> DPMSolverMultistepScheduler:
    given = tiny.TRAINING["scheduler"] | {"solver_order": 1, "clip_sample": False} | options
    return DPMSolverMultistepScheduler.from_config(DDIMScheduler(**tiny.TRAINING["scheduler"]).config, **given)


def teacher() -> LumierePipeline:
    """Guided, of two steps, whose network does something."""
    pipe = tiny.conditioned()
    pipe.scheduler = first_order()
    pipe.register_to_config(timestep_shift=3.0, noise_correlation=0.5)
    return pipe


# --- Formulas ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("count", [1, 4, 7, 15])
def test_a_student_steps_over_every_other_step_of_its_teacher(count: int, shift: float) -> None:
    steps = halved(first_order(), count, shift=shift)
    assert len(steps.starts) == len(steps.middles) == count
    assert steps.ends.tolist() == [*steps.starts[1:].tolist(), CLEAN]
    assert (steps.starts > steps.middles).all()
    assert (steps.middles > steps.ends).all()


def test_steps_that_cannot_be_halved_are_refused() -> None:
    with pytest.raises(LumiereError, match="are not every other one of 14; choose another sample_steps"):
        halved(first_order(timestep_spacing="leading"), 7)
    with pytest.raises(LumiereError, match="choose another sample_steps"):
        halved(first_order(), 600)  # of 1 000 timesteps


@pytest.mark.parametrize("kind", ["v_prediction", "epsilon", "sample"])
def test_a_teacher_that_knows_the_clip_is_the_clip(kind: str) -> None:
    """And a student's step towards the target ends where its teacher's two do, whatever that predicts."""
    # Without zero SNR, at which noise says nothing of the clip.
    scheduler = DDIMScheduler(prediction_type=kind, beta_schedule="squaredcos_cap_v2")
    generator = torch.Generator().manual_seed(0)
    clips, noise = torch.randn(2, 2, 3, 2, 4, 4, generator=generator)
    start, middle, end = (torch.tensor(at) for at in ([900, 300], [600, 150], [350, CLEAN]))
    noisy = scheduler.add_noise(clips, noise, start)

    def knowing(now: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        alpha, sigma = (level.float() for level in levels(scheduler, at))
        noise_in, velocity = (now - alpha * clips) / sigma, (alpha * now - clips) / sigma
        return {"v_prediction": velocity, "epsilon": noise_in, "sample": clips}[kind]

    target = distillation_target(knowing, scheduler, noisy, start, middle, end)
    assert torch.allclose(target, clips, atol=1e-4)

    def wrong(now: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        return 0.3 * now.flip(-1)

    target = distillation_target(wrong, scheduler, noisy, start, middle, end)
    reached = noisy
    for now, then in ((start, middle), (middle, end)):
        sample = denoised_estimate(scheduler, wrong(reached, now), reached, now)
        reached = ddim_step(scheduler, sample, reached, now, then)
    assert torch.allclose(ddim_step(scheduler, target, noisy, start, end), reached, atol=1e-4)


def test_the_target_is_where_sampling_by_the_pipeline_arrives() -> None:
    pipe = teacher()
    steps = halved(first_order(), 1, shift=3.0)
    noise = torch.randn(1, 12, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    options = {"num_frames": 8, "planner": False, "output_type": "latent", "latents": noise}
    sampled = pipe(PROMPT, num_inference_steps=2, guidance_scale=2.5, **options)[0]
    text = pipe.encode_prompts([PROMPT, ""])
    empty = torch.zeros(1, pipe.condition_channels, 8, 8, 8)

    def guided(noisy: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        seen = torch.cat([noisy, empty], dim=1).repeat(2, 1, 1, 1, 1)
        return classifier_free_guidance(*pipe.call_network(pipe.unet, seen, at.repeat(2), text).chunk(2), 2.5)

    schedule = DDIMScheduler.from_config(pipe.scheduler.config)
    with torch.no_grad():
        target = distillation_target(guided, schedule, noise, steps.starts, steps.middles, steps.ends)
    assert torch.allclose(target, sampled, atol=2e-3)
    assert (target - noise).abs().mean() > 0.1


# --- Runs -------------------------------------------------------------------------------------------------------------


def recipe(output: Path, data: Path, source: Path, **more: Any) -> dict[str, Any]:
    return {
        "stage": "distill", "output": str(output), "sample_every": 0, "sample_steps": 1,
        "model": {"size": 16, "t2i": str(source), "guidance": 2.5},
        "data": {"kind": "emoji", "folder": str(data), "subjects": ["tiger", "heart"], "num_frames": 8},
        "optim": {"max_steps": 2, "batch_size": 4, "warmup_steps": 1, "lr": 2e-3, "ema_decay": 0.5},
    } | more  # fmt: skip


@pytest.mark.slow
def test_a_student_comes_nearer_to_its_teacher(loops: Path, tmp_path: Path) -> None:
    pipe = teacher()
    with torch.no_grad():  # so that two steps of random weights are no riddle to as small a network
        pipe.unet.spatial.conv_out.weight.mul_(0.3)
    source = tiny.saved(pipe, tmp_path / "teacher")
    run = recipe(tmp_path / "run", loops, source)
    run["model"]["masks"] = ["none"]
    run["optim"] |= {"max_steps": 40, "batch_size": 8, "lr": 5e-3, "ema_decay": 0.8}
    train(parse(run))
    export(tmp_path / "run", tmp_path / "student", dtype=torch.float32)
    before, after = load_pipeline(str(source)), load_pipeline(str(tmp_path / "student"))
    config = after.config
    assert (config.num_inference_steps, config.guidance_scale, config.timestep_shift) == (1, 1.0, 3.0)
    assert after.scheduler.config.solver_order == 1
    spatial = after.unet.spatial.state_dict()
    assert any(not torch.equal(value, spatial[name]) for name, value in before.unet.spatial.state_dict().items())

    def made(by: LumierePipeline, steps: int, guidance: float) -> torch.Tensor:
        prompts = [PROMPT, "a red heart on a blue background"]
        seeds = [torch.Generator().manual_seed(seed) for seed in range(2)]
        options = {"num_inference_steps": steps, "guidance_scale": guidance, "output_type": "latent"}
        return by(prompts, num_frames=8, generator=seeds, **options)[0]

    wanted = made(before, 2, 2.5)
    nearer, far = ((made(by, 1, 1.0) - wanted).square().mean() for by in (after, before))
    assert nearer < 0.8 * far


@pytest.mark.slow
def test_a_student_is_halved_again_and_samples_what_it_is_given(loops: Path, tmp_path: Path) -> None:
    run = recipe(tmp_path / "two", loops, tiny.saved(teacher(), tmp_path / "teacher"), sample_steps=2, sample_every=2)
    run["model"]["masks"] = ["first frame", "none"]
    two = train(parse(run)) / "pipeline"
    assert sorted(path.name for path in (tmp_path / "two" / "samples").iterdir()) == [
        "0000002-first-frame.webp", "0000002-none.webp",
    ]  # fmt: skip
    run = recipe(tmp_path / "one", loops, two)
    run["model"]["guidance"] = 1.0
    one = load_pipeline(str(train(parse(run)) / "pipeline"))
    assert one(PROMPT)[0].shape == (1, 8, 16, 16, 3)


def test_what_a_student_cannot_be_told_is_refused(loops: Path, tmp_path: Path) -> None:
    source = tiny.saved(teacher(), tmp_path / "teacher")

    def asked(**changes: Any) -> None:
        run = recipe(tmp_path / "run", loops, source)
        for section, values in changes.items():
            run[section] |= values
        Distill(parse(run), torch.device("cpu"))

    with pytest.raises(LumiereError, match=r"leave optim\.timestep_shift out"):
        asked(optim={"timestep_shift": 3.0})
    with pytest.raises(LumiereError, match=r"model\.guidance 0\.5: choose 1"):
        asked(model={"guidance": 0.5})
    with pytest.raises(LumiereError, match="a student has its teacher's network"):
        asked(model={"condition_gate": True})
    pipe = teacher()
    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config, timestep_spacing="leading")
    pipe.save_pretrained(tmp_path / "euler")
    assert asked(model={"t2i": str(tmp_path / "euler")}) is None  # any of diffusers' will do
