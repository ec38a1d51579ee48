"""What training is made of, piece by piece: schedule, data order, average, objective, checkpoints."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import tiny
from openlumiere.diffusion.draws import BatchShare
from openlumiere.diffusion.timesteps import sampling_timesteps
from openlumiere.errors import LumiereError
from openlumiere.pipelines.text import PromptCache, TextConditions
from openlumiere.training import saving, state
from openlumiere.training.config import DiffusionOptimizerConfig, OptimizerConfig
from openlumiere.training.loop import _IndexBatches, learning_rate
from openlumiere.training.objective import annealed_shift, diffusion_loss, loss_weights, stratified_timesteps, target_of

SOME = settings(max_examples=30, deadline=None)


# Schedule, data order, average


@SOME
@given(warmup=st.integers(0, 50), rest=st.integers(1, 400), ratio=st.floats(0, 1))
def test_the_learning_rate_warms_up_and_decays(warmup: int, rest: int, ratio: float) -> None:
    optim = OptimizerConfig(lr=2e-3, warmup_steps=warmup, max_steps=warmup + rest, final_lr_ratio=ratio)
    rates = np.array([learning_rate(optim, step) for step in range(optim.max_steps + 1)])
    assert (np.diff(rates[: warmup + 1]) >= -1e-15).all()
    assert (np.diff(rates[warmup:]) <= 1e-15).all()
    assert rates.min() >= 0
    assert rates.max() == pytest.approx(2e-3)
    assert rates[-1] == pytest.approx(2e-3 * ratio, abs=1e-12)


@SOME
@given(size=st.integers(1, 5), world=st.integers(1, 4), start=st.integers(0, 20), length=st.integers(0, 20))
def test_processes_share_the_data_and_a_late_start_goes_on_where_it_was(
    size: int, world: int, start: int, length: int
) -> None:
    def order(first: int) -> list[list[list[int]]]:
        shares = [BatchShare(torch.Generator(), rank * size, size, world * size) for rank in range(world)]
        return [list(_IndexBatches(first, 20 + length, share)) for share in shares]

    whole, late = order(0), order(start)
    assert sorted(i for batches in whole for batch in batches for i in batch) == list(
        range((20 + length) * size * world)
    )
    assert late == [batches[start:] for batches in whole]


@SOME
@given(values=st.lists(st.floats(-5, 5), min_size=1, max_size=30), decay=st.floats(0, 0.999))
def test_the_average_is_its_closed_form(values: list[float], decay: float) -> None:
    module = nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        module.weight.fill_(1.5)
    ema = state.EMA(module, decay)
    for value in values:
        with torch.no_grad():
            module.weight.fill_(value)
        ema.update(module)
    decays = np.array([min(decay, (1 + n) / (10 + n)) for n in range(len(values))])
    remaining = np.append(np.cumprod(decays[::-1])[::-1][1:], 1.0)  # what later updates leave of each
    expected = 1.5 * decays.prod() + ((1 - decays) * remaining * values).sum()
    assert float(ema.average["weight"]) == pytest.approx(expected, abs=1e-9)
    ema.swap(module)
    assert module.weight.item() == pytest.approx(expected, abs=1e-9)
    ema.swap(module)
    assert module.weight.item() == values[-1]


# Objective


def scheduler(prediction_type: str) -> DDIMScheduler:
    return DDIMScheduler(**(tiny.TRAINING["scheduler"] | {"prediction_type": prediction_type}))  # type: ignore[operator]


@SOME
@given(batch=st.integers(1, 100), seed=st.integers(0, 2**31))
def test_timesteps_cover_the_range_evenly(batch: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    drawn = stratified_timesteps(batch, 1000, generator=generator, device=torch.device("cpu"))
    for k, timestep in enumerate(sorted(drawn.tolist())):
        assert math.floor(k * 1000 / batch) - 1 <= timestep <= math.ceil((k + 1) * 1000 / batch)
    assert drawn.min() >= 0
    assert drawn.max() < 1000


@SOME
@given(batch=st.integers(1, 64), shift=st.floats(1, 20))
def test_shifted_timesteps_lean_towards_noise_and_reach_as_far(batch: int, shift: float) -> None:
    def drawn(shift: float) -> torch.Tensor:
        generator = torch.Generator().manual_seed(batch)
        return stratified_timesteps(batch, 1000, generator=generator, device=torch.device("cpu"), shift=shift)

    plain, leaning = drawn(1.0).double(), drawn(shift).double()
    assert (leaning >= plain - 1).all()
    expected = shift * (plain / 1000) / (1 + (shift - 1) * plain / 1000) * 1000
    assert (leaning - expected).abs().max() <= shift + 1  # a timestep's rounding, magnified
    sampled = sampling_timesteps(batch, 1000, shift)
    assert sampled[0] == 999  # pure noise, where sampling starts
    assert sampled == sorted(set(sampled), reverse=True)
    assert sampled[-1] >= 0
    if shift == 1:
        assert len(sampled) == batch


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shift", "uniform", "high", "low"),
    [
        # Without a uniform part hardly anything is learnt of low noise, where details are decided.
        (40, 0.0, 0.678, 0.003), (10, 0.0, 0.345, 0.011), (3, 0.0, 0.136, 0.036),
        (40, 0.2, 0.552, 0.022), (10, 0.2, 0.286, 0.029), (3, 0.2, 0.119, 0.048),
        (40, 0.4, 0.427, 0.042), (40, 1.0, 0.05, 0.1),
    ],
)  # fmt: skip
def test_a_part_of_the_timesteps_is_not_shifted(shift: float, uniform: float, high: float, low: float) -> None:
    """Shares of the samples above t = 950 and below 100, of 1000."""
    leaning = [1 - 0.95 / (0.95 + 0.05 * shift), 0.1 / (0.1 + 0.9 * shift)]
    expected = [uniform * plain + (1 - uniform) * part for plain, part in zip((0.05, 0.1), leaning, strict=True)]
    assert [high, low] == pytest.approx(expected, abs=6e-4)
    for batch in (5, 64):  # however small batches are
        generator = torch.Generator().manual_seed(0)
        drawn = torch.cat([
            stratified_timesteps(
                batch, 1000, generator=generator, device=torch.device("cpu"), shift=shift, uniform=uniform
            ) for _ in range(8000 // batch)
        ])  # fmt: skip
        assert (drawn >= 950).float().mean().item() == pytest.approx(high, abs=0.012)
        assert (drawn < 100).float().mean().item() == pytest.approx(low, abs=0.004)
        assert drawn.min() >= 0
        assert drawn.max() < 1000


@SOME
@given(batch=st.integers(1, 80), seed=st.integers(0, 2**31), shift=st.floats(1, 60), uniform=st.floats(0, 1))
def test_both_parts_are_spread_evenly(batch: int, seed: int, shift: float, uniform: float) -> None:
    def drawn(**options: float) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return stratified_timesteps(batch, 1000, generator=generator, device=torch.device("cpu"), **options)

    mixed = drawn(shift=shift, uniform=uniform)
    assert torch.equal(mixed, drawn(shift=shift, uniform=uniform))
    if uniform == 0:
        assert torch.equal(mixed, drawn(shift=shift))
    # Fractions of the range of which a share of the samples lies below, to within one sample.
    for below in (0.1, 0.5, 0.9):
        share = uniform * below + (1 - uniform) * below / (below + shift * (1 - below))
        assert abs((mixed < 1000 * below).sum().item() - share * batch) <= 2 + 1e-6


def test_the_shift_is_annealed_evenly_in_its_logarithm() -> None:
    optim = DiffusionOptimizerConfig(timestep_shift=3.0, timestep_shift_start=40.0, timestep_shift_steps=1000)
    assert annealed_shift(optim, 0) == 40
    assert annealed_shift(optim, 500) == pytest.approx((40 * 3) ** 0.5)  # 11: from 40 by way of 10 to 3
    assert annealed_shift(optim, 1000) == annealed_shift(optim, 5000) == pytest.approx(3)
    ratios = [annealed_shift(optim, n + 1) / annealed_shift(optim, n) for n in range(0, 1000, 50)]
    assert max(ratios) - min(ratios) < 1e-9
    assert annealed_shift(DiffusionOptimizerConfig(timestep_shift=3.0), 7) == 3.0


def test_timesteps_come_in_any_order_and_reach_both_ends() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack(
        [stratified_timesteps(4, 1000, generator=generator, device=torch.device("cpu")) for _ in range(2000)]
    )
    assert drawn.min() < 5
    assert drawn.max() > 994
    assert (drawn.float().mean(0) - 499.5).abs().max() < 30  # each place in the batch sees all of the range


@SOME
@given(seed=st.integers(0, 2**31), timestep=st.integers(0, 999))
def test_targets_give_back_what_was_mixed(seed: int, timestep: int) -> None:
    torch.manual_seed(seed)
    sample, noise, t = torch.rand(2, 3, 1, 4, 4) * 2 - 1, torch.randn(2, 3, 1, 4, 4), torch.tensor([timestep] * 2)
    velocity = scheduler("v_prediction")
    noisy, v = velocity.add_noise(sample, noise, t), target_of(velocity, sample, noise, t)
    a, s = velocity.alphas_cumprod[timestep].sqrt(), (1 - velocity.alphas_cumprod[timestep]).sqrt()
    torch.testing.assert_close(a * noisy - s * v, sample, atol=1e-5, rtol=0)
    torch.testing.assert_close(s * noisy + a * v, noise, atol=1e-5, rtol=0)
    assert target_of(scheduler("epsilon"), sample, noise, t) is noise
    assert target_of(scheduler("sample"), sample, noise, t) is sample


@pytest.mark.parametrize("gamma", [0.0, 2.0, 10.0])
def test_weights_cap_the_loss_at_low_noise(gamma: float) -> None:
    t = torch.arange(20, 999, 7)
    alpha_bar = scheduler("epsilon").alphas_cumprod[t].double()
    snr = alpha_bar / (1 - alpha_bar)
    of_sample = (snr + 1).clamp(max=gamma)
    expected = {"v_prediction": of_sample / (snr + 1), "epsilon": of_sample / snr, "sample": of_sample}
    for kind, weights in expected.items():
        wanted = weights if gamma else torch.ones(len(t), dtype=torch.float64)
        torch.testing.assert_close(loss_weights(scheduler(kind), t, gamma).double(), wanted, atol=1e-4, rtol=1e-3)
    # At zero SNR, where subject and background are decided, nothing is lost.
    assert float(loss_weights(scheduler("v_prediction"), torch.tensor([999]), gamma)) == pytest.approx(1.0, abs=1e-6)
    assert torch.isfinite(loss_weights(scheduler("epsilon"), torch.tensor([0, 999]), gamma)).all()


def test_a_perfect_network_has_no_loss_and_a_silent_one_the_targets_power() -> None:
    sample, plan = torch.rand(64, 3, 1, 4, 4) * 2 - 1, scheduler("v_prediction")

    def knowing(noisy: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        a, s = (x.sqrt().view(-1, 1, 1, 1, 1) for x in (plan.alphas_cumprod[t], 1 - plan.alphas_cumprod[t]))
        noise = (noisy - a * sample) / s.clamp(min=1e-6)
        return a * noise - s * sample

    def loss(denoise: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], seed: int = 0) -> float:
        generator = torch.Generator().manual_seed(seed)
        return float(diffusion_loss(denoise, plan, sample, gamma=0.0, generator=generator))

    assert loss(knowing) < 1e-6
    silent = loss(lambda noisy, _: torch.zeros_like(noisy))
    assert silent == pytest.approx((1 + 1 / 3) / 2, rel=0.1)  # half noise, half uniform pixels
    assert loss(lambda noisy, _: torch.zeros_like(noisy)) == silent
    assert loss(lambda noisy, _: torch.zeros_like(noisy), seed=1) != silent


# Checkpoints


def test_only_the_newest_checkpoints_are_kept_and_abandoned_ones_go(tmp_path: Path) -> None:
    parts = tiny.trained_once()
    for step in (10, 20, 30):
        saving.save(tmp_path, step, *parts, keep=2, config={})
    assert [path.name for path in state.checkpoints(tmp_path)] == ["checkpoint-0000020", "checkpoint-0000030"]
    # Started anew: what the former run left must not be gone on from.
    saving.save(tmp_path, 5, *parts, keep=2, config={})
    assert [path.name for path in state.checkpoints(tmp_path)] == ["checkpoint-0000005"]


def test_a_restored_optimizer_goes_on_to_the_bit(tmp_path: Path) -> None:
    """Convolutions in channels-last too, whose moments lie in memory as the weights do."""

    def step(module: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
        torch.manual_seed(seed)
        module(torch.randn(2, 6, 5, 5)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    def fresh(seed: int) -> tuple[nn.Module, torch.optim.Optimizer, state.EMA]:
        torch.manual_seed(seed)
        module = nn.Conv2d(6, 8, 3).to(memory_format=torch.channels_last)
        return module, torch.optim.AdamW(module.parameters(), lr=1e-2, fused=True), state.EMA(module, 0.9)

    module, optimizer, ema = fresh(0)
    for seed in range(3):
        step(module, optimizer, seed)
    saved = saving.save(tmp_path, 3, module, optimizer, ema, keep=1, config={})
    other, other_optimizer, other_ema = fresh(1)
    state.restore(saved, other, other_optimizer, other_ema)
    for seed in range(3, 6):
        step(module, optimizer, seed)
        step(other, other_optimizer, seed)
    assert torch.equal(module.weight, other.weight)


def test_what_is_unfinished_is_no_checkpoint(tmp_path: Path) -> None:
    parts = tiny.trained_once()
    whole = saving.save(tmp_path, 10, *parts, keep=2, config={})
    for name in ("checkpoint-0000020.partial", ".checkpoint-0000020.1.partial"):  # of earlier versions, and of this one
        shutil.copytree(whole, tmp_path / name)
    shutil.copytree(whole, tmp_path / "checkpoint-0000030")
    (tmp_path / "checkpoint-0000030" / "state.json").unlink()  # as a kill within a removal leaves it
    assert state.checkpoints(tmp_path) == [whole]
    state.remove_unfinished(tmp_path)
    assert not list(tmp_path.glob("*.partial"))
    assert state.checkpoints(tmp_path) == [whole]


def test_another_networks_checkpoint_is_refused(tmp_path: Path) -> None:
    found = saving.save(tmp_path, 10, *tiny.trained_once(4), keep=2, config={})
    module, optimizer, ema = tiny.trained_once(5)
    before = [p.clone() for p in module.parameters()]
    with pytest.raises(LumiereError, match="is of another network than the configuration's; choose another `output`"):
        state.restore(found, module, optimizer, ema)
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))


# Prompts


def test_prompts_are_encoded_once_as_long_as_all_of_them_fit() -> None:
    encoded: list[str] = []

    def encode(prompts: list[str]) -> TextConditions:
        encoded.extend(prompts)
        return TextConditions(torch.tensor([[[float(prompt)] * 4] * 2 for prompt in prompts]))

    size = 2 * 4 * 2  # in half precision
    cache = PromptCache(encode, max_bytes=3 * size)
    assert torch.equal(cache(["1", "2", "1"]).hidden_states[:, 0, 0], torch.tensor([1.0, 2.0, 1.0]))
    cache(["3", "1"])
    assert encoded == ["1", "2", "3"]
    cache(["4"])  # the oldest goes
    cache(["1", "2", "3", "4"])
    assert encoded == ["1", "2", "3", "4", "1"]
