"""The training loop, the same for every stage, on Accelerate.

Nothing random outlives a step: data and noise are functions of (seed, step, process), so weights, optimizer moments,
the moving average and the step number are the whole state, and a resumed run equals an uninterrupted one.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin
from torch import nn
from torch.utils.data import DataLoader, Sampler
from tqdm import tqdm

from openlumiere import extras
from openlumiere.errors import LumiereError
from openlumiere.files import replacing, write_text

from . import state
from .config import OptimizerConfig, TrainConfig, as_dict
from .muon import Muon
from .stages import make_stage
from .stages.base import Stage


class DivergedError(LumiereError):
    """The loss is not finite any more, and all processes know."""


@contextlib.contextmanager
def _denormals_flushed() -> Iterator[None]:
    """Flush denormals, which slow CPU arithmetic several times, to zero; put the caller's setting back afterwards."""
    already = not (torch.tensor(1e-38) * 1e-3).item()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(already)


@_denormals_flushed()
def train(config: TrainConfig, *, resume: bool = True) -> Path:
    """Run a stage to its last step or to its time budget, and return the folder of the exported weights.

    Args:
        resume: go on from the newest checkpoint in ``config.output``, if there is one.
    """
    started = time.monotonic()
    optim = config.optim
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision,
        gradient_accumulation_plugin=GradientAccumulationPlugin(
            num_steps=optim.gradient_accumulation, sync_with_dataloader=False
        ),
    )
    if accelerator.device.type == "cuda" and config.mixed_precision != "no":
        torch.set_float32_matmul_precision("high")  # of what stays in float32, such as a frozen autoencoder
    output = Path(config.output)
    if accelerator.is_main_process:
        output.mkdir(parents=True, exist_ok=True)
        state.remove_unfinished(output)
        write_text(output / "config.yaml", yaml.safe_dump(as_dict(config), sort_keys=False))
    accelerator.wait_for_everyone()

    torch.manual_seed(config.seed)  # the same initial weights on every process
    stage = make_stage(config, accelerator.device)
    parameters = list(state.trainable(stage.module).values())
    optimizer = make_optimizer(optim, parameters)
    ema = state.EMA(stage.module, optim.ema_decay)
    step = warm_from = 0
    found = state.checkpoints(output) if resume else []
    if found:
        step = state.restore(found[-1], stage.module, optimizer, ema)
        warm_from = 0 if optimizer.state else step
    elif config.initial is not None:
        state.start_from(Path(config.initial), stage.module, ema)
    accelerator.print(_summary(config, stage.module, accelerator, step))
    module, optimizer = accelerator.prepare(stage.module, optimizer)
    forward: nn.Module = torch.compile(module) if optim.compile else module  # type: ignore[assignment]

    micro = optim.batch_size // optim.gradient_accumulation
    loader = DataLoader(
        stage.dataset,
        batch_sampler=_IndexBatches(
            step * optim.gradient_accumulation,
            optim.max_steps * optim.gradient_accumulation,
            micro,
            accelerator.process_index,
            accelerator.num_processes,
        ),
        num_workers=config.data.workers,
    )
    batches = iter(loader)
    # Curves that a killed run drew beyond its last checkpoint are hidden.
    writer = _curves(output / "tensorboard", step) if accelerator.is_main_process else None
    bar = tqdm(
        total=optim.max_steps, initial=step, desc=config.stage, unit="step", disable=not accelerator.is_main_process
    )
    generator = torch.Generator(device=accelerator.device)
    average_loss, saved_at = None, step

    def checkpoint() -> None:
        accelerator.wait_for_everyone()
        if writer:
            writer.flush()  # the curves up to here outlive a kill too
        if accelerator.is_main_process:
            state.save(output, step, stage.module, optimizer, ema, keep=config.keep_checkpoints, config=as_dict(config))

    def sample() -> None:
        if accelerator.is_main_process:
            ema.swap(stage.module)
            stage.sample(output / "samples", step)
            ema.swap(stage.module)
        accelerator.wait_for_everyone()

    while step < optim.max_steps and not _out_of_time(config, started, accelerator):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(optim, step) * _warmed_again(optim, step, warm_from)
        stage.step = step
        total = 0.0
        for part in range(optim.gradient_accumulation):
            seed = seed_of(config.seed, step, part, accelerator.process_index)
            generator.manual_seed(seed)
            torch.manual_seed(seed)
            with accelerator.accumulate(module):
                loss = stage.loss(forward, next(batches), generator)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    norm = accelerator.clip_grad_norm_(parameters, optim.max_grad_norm)
                optimizer.step()
                optimizer.zero_grad()
            total += float(loss.detach())
        total /= optim.gradient_accumulation
        _check_finite(total, step, accelerator)
        ema.update(stage.module)
        step += 1
        average_loss = total if average_loss is None else 0.98 * average_loss + 0.02 * total
        bar.update()
        if step % config.log_every == 0:
            bar.set_postfix(loss=f"{average_loss:.4f}")
            if writer:
                writer.add_scalar("loss", total, step)
                writer.add_scalar("gradient_norm", float(norm), step)
                writer.add_scalar("learning_rate", optimizer.param_groups[0]["lr"], step)
        if step % config.checkpoint_every == 0:
            checkpoint()
            saved_at = step
        if config.sample_every and step % config.sample_every == 0:
            sample()
    bar.close()
    if saved_at != step:
        checkpoint()
    if writer:
        writer.close()
    if accelerator.is_main_process:
        ema.swap(stage.module)
        _export(stage, output / "export")
        ema.swap(stage.module)
    accelerator.wait_for_everyone()
    if step < optim.max_steps:
        accelerator.print(f"time is up at step {step} of {optim.max_steps}; the same command goes on from there")
    accelerator.end_training()
    return output / "export"


def _curves(folder: Path, step: int) -> Any:
    """Return a writer of TensorBoard's files; None where that is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        tqdm.write(f"{extras.missing('tensorboard')}; no curves are written")
        return None
    return SummaryWriter(str(folder), purge_step=step + 1)


def make_optimizer(optim: OptimizerConfig, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Return the optimizer that a configuration names."""
    if optim.optimizer == "muon":
        return Muon(parameters, lr=optim.lr, betas=optim.betas, weight_decay=optim.weight_decay)
    return torch.optim.AdamW(parameters, lr=optim.lr, betas=optim.betas, weight_decay=optim.weight_decay, fused=True)


def _summary(config: TrainConfig, module: nn.Module, accelerator: Accelerator, step: int) -> str:
    """Return one line that says what is about to run."""
    processes = f" x {accelerator.num_processes}" if accelerator.num_processes > 1 else ""
    trained = sum(p.numel() for p in state.trainable(module).values())
    frozen = sum(p.numel() for p in module.parameters()) - trained
    start = f"starting from {config.initial}" if config.initial is not None else "starting anew"
    if step:
        start = f"going on from checkpoint {step}"
    return (
        f"{config.stage} on {accelerator.device.type}{processes}: {trained / 1e6:.2f} M parameters to train, "
        f"{frozen / 1e6:.2f} M frozen; {start}, {config.optim.max_steps} steps of "
        f"{config.optim.batch_size * accelerator.num_processes} samples; checkpoints in {config.output}"
    )


def _export(stage: Stage, target: Path) -> None:
    with replacing(target) as partial:
        stage.export(partial)


def learning_rate(optim: OptimizerConfig, step: int) -> float:
    """Return the rate of a step: linear warm-up, then a cosine to `final_lr_ratio` of the peak at the last step.

    With `decay_steps` the rate stays at its peak until so many steps before the last, so that a run can be prolonged,
    and then falls as 1 - sqrt does (Hägele et al. 2024).
    """
    if step < optim.warmup_steps:
        return optim.lr * (step + 1) / optim.warmup_steps
    if optim.decay_steps:
        left = (optim.max_steps - step) / optim.decay_steps
        return optim.lr * max(1 - max(1 - left, 0.0) ** 0.5, optim.final_lr_ratio)
    progress = min((step - optim.warmup_steps) / max(optim.max_steps - optim.warmup_steps, 1), 1.0)
    return optim.lr * (optim.final_lr_ratio + (1 - optim.final_lr_ratio) * 0.5 * (1 + math.cos(math.pi * progress)))


def _warmed_again(optim: OptimizerConfig, step: int, since: int) -> float:
    """Return the factor of the warm-up after step `since`, where a run was resumed without moments; 0 = it was not."""
    return min((step - since + 1) / max(optim.warmup_steps, 1), 1.0) if since else 1.0


def seed_of(*numbers: int) -> int:
    """Return a seed for `torch.Generator` that depends on all of some numbers, 0 or more, in their order."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def _check_finite(loss: float, step: int, accelerator: Accelerator) -> None:
    """Stop all processes alike if the loss of one is not finite: the others would wait for it for ever.

    Raises:
        DivergedError: that is so; with the same words on every process.
    """
    losses = accelerator.gather(torch.tensor([loss], device=accelerator.device)).tolist()
    worst = next((value for value in losses if not math.isfinite(value)), None)
    if worst is not None:
        raise DivergedError(
            f"the loss became {worst} at step {step}; start again from the last checkpoint with a lower optim.lr"
        )


def _out_of_time(config: TrainConfig, started: float, accelerator: Accelerator) -> bool:
    if not config.time_budget:
        return False
    over = torch.tensor(int(time.monotonic() - started > config.time_budget * 60), device=accelerator.device)
    # All processes must leave the loop at the same step.
    return bool(accelerator.reduce(over, reduction="sum"))


class _IndexBatches(Sampler[list[int]]):
    """Indices of each micro-batch, from the present step to the last, disjoint between processes."""

    def __init__(self, start: int, stop: int, size: int, rank: int, world: int) -> None:
        self.start, self.stop, self.size, self.rank, self.world = start, stop, size, rank, world

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[list[int]]:
        for n in range(self.start, self.stop):
            first = (n * self.world + self.rank) * self.size
            yield list(range(first, first + self.size))
