"""The training loop, the same for every stage, on Accelerate.

Nothing random outlives a step: data and noise are functions of (seed, step, position in the batch), so weights,
optimizer moments, the moving average and the step number are the whole state; a resumed run equals an uninterrupted
one, and a step is the same on any number of processes (`parallel`).
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, Sampler
from tqdm import tqdm

from openlumiere import extras
from openlumiere.diffusion.draws import BatchShare
from openlumiere.errors import LumiereError
from openlumiere.files import replacing, write_text

from . import state
from .config import OptimizerConfig, TrainConfig, as_dict
from .muon import Muon
from .parallel import Watch, averaged, make_accelerator, shard, share_of_batch
from .saving import Saver
from .sharding import whole
from .stages import make_stage
from .stages.base import Stage


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
    accelerator, sharded = make_accelerator(config)
    share = share_of_batch(config, accelerator, torch.Generator(device=accelerator.device))
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
    trained = shard(stage.module, accelerator) if sharded else stage.module
    named = state.trainable(trained)
    parameters = list(named.values())
    optimizer = make_optimizer(optim, named)
    ema = state.EMA(trained, optim.ema_decay)
    step = warm_from = 0
    found = state.checkpoints(output) if resume else []
    if found:
        step = state.restore(found[-1], trained, optimizer, ema)
        warm_from = 0 if optimizer.state else step
    elif config.initial is not None:
        state.start_from(Path(config.initial), trained, ema)
    accelerator.print(_summary(config, trained, accelerator, step, sharded=sharded))
    if sharded:  # "evaluation": wrapped for mixed precision alone
        module = accelerator.prepare_model(trained, evaluation_mode=True)
        optimizer = accelerator.prepare_optimizer(optimizer)
    else:
        module, optimizer = accelerator.prepare(trained, optimizer)
    forward: nn.Module = torch.compile(module) if optim.compile else module  # type: ignore[assignment]

    loader = DataLoader(
        stage.dataset,
        batch_sampler=_IndexBatches(
            step * optim.gradient_accumulation,
            optim.max_steps * optim.gradient_accumulation,
            share,
        ),
        num_workers=config.data.workers,
    )
    batches = iter(loader)
    # Curves that a killed run drew beyond its last checkpoint are hidden.
    writer = _curves(output / "tensorboard", step) if accelerator.is_main_process else None
    bar = tqdm(
        total=optim.max_steps, initial=step, desc=config.stage, unit="step", disable=not accelerator.is_main_process
    )
    saver = Saver(
        output, keep=config.keep_checkpoints, rank=accelerator.process_index, processes=accelerator.num_processes
    )
    watch = Watch(accelerator)
    average_loss, saved_at = None, step

    def checkpoint() -> None:
        if writer:
            writer.flush()  # the curves up to here outlive a kill too
        saver.save(step, trained, optimizer, ema, config=as_dict(config))

    def sample() -> None:
        with averaged(stage.module, trained, ema, accelerator):
            if accelerator.is_main_process:
                stage.sample(output / "samples", step)
        accelerator.wait_for_everyone()

    with contextlib.closing(saver):
        while step < optim.max_steps and not _out_of_time(config, started, accelerator):
            for group in optimizer.param_groups:
                group["lr"] = group["lr_scale"] * learning_rate(optim, step) * _warmed_again(optim, step, warm_from)
            stage.step = step
            total = 0.0
            for part in range(optim.gradient_accumulation):
                share.generator.manual_seed(seed_of(config.seed, step, part, 0))
                # What layers drop, if any do, is each process's own.
                torch.manual_seed(seed_of(config.seed, step, part, accelerator.process_index))
                with accelerator.accumulate(module):
                    with watch.own_part(step):
                        loss = stage.loss(forward, next(batches), share)
                    accelerator.backward(loss)
                    if accelerator.sync_gradients:
                        norm = accelerator.clip_grad_norm_(parameters, optim.max_grad_norm)
                    optimizer.step()
                    optimizer.zero_grad()
                total += float(loss.detach())
            total = watch.loss_of_all(total / optim.gradient_accumulation, step)
            ema.update(trained)
            step += 1
            average_loss = total if average_loss is None else 0.98 * average_loss + 0.02 * total
            bar.update()
            if step % config.log_every == 0:
                bar.set_postfix(loss=f"{average_loss:.4f}")
                gradient_norm = float(whole(norm))
                if writer:
                    writer.add_scalar("loss", total, step)
                    writer.add_scalar("gradient_norm", gradient_norm, step)
                    writer.add_scalar("learning_rate", optimizer.param_groups[0]["lr"], step)
            saver.check()
            if step % config.checkpoint_every == 0:
                checkpoint()
                saved_at = step
            if config.sample_every and step % config.sample_every == 0:
                sample()
        bar.close()
        if saved_at != step:
            checkpoint()
        saver.wait()
    if writer:
        writer.close()
    with averaged(stage.module, trained, ema, accelerator):
        if accelerator.is_main_process:
            _export(stage, output / "export")
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


def make_optimizer(optim: OptimizerConfig, named: Mapping[str, nn.Parameter]) -> torch.optim.Optimizer:
    """Return the optimizer that a configuration names.

    Its groups are runs of parameters of one `lr_scale`, so that they stay in their order, by which states are saved.
    """
    unused = [prefix for prefix in optim.lr_scales if not any(name.startswith(prefix) for name in named)]
    if unused:
        raise LumiereError(f"optim.lr_scales: nothing that is trained is called {unused[0]}...; leave it out")
    groups: list[dict[str, Any]] = []
    for name, parameter in named.items():
        scale = next((scale for prefix, scale in optim.lr_scales.items() if name.startswith(prefix)), 1.0)
        if not groups or groups[-1]["lr_scale"] != scale:
            groups.append({"params": [], "lr_scale": scale, "lr": scale * optim.lr})
        groups[-1]["params"].append(parameter)
    if optim.optimizer == "muon":
        return Muon(groups, lr=optim.lr, betas=optim.betas, weight_decay=optim.weight_decay)
    return torch.optim.AdamW(groups, lr=optim.lr, betas=optim.betas, weight_decay=optim.weight_decay, fused=True)


def _summary(config: TrainConfig, module: nn.Module, accelerator: Accelerator, step: int, *, sharded: bool) -> str:
    """Return one line that says what is about to run."""
    processes = f" x {accelerator.num_processes}" if accelerator.num_processes > 1 else ""
    processes += ", weights sharded" if sharded else ""
    trained = sum(p.numel() for p in state.trainable(module).values())
    frozen = sum(p.numel() for p in module.parameters()) - trained
    start = f"starting from {config.initial}" if config.initial is not None else "starting anew"
    if step:
        start = f"going on from checkpoint {step}"
    return (
        f"{config.stage} on {accelerator.device.type}{processes}: {trained / 1e6:.2f} M parameters to train, "
        f"{frozen / 1e6:.2f} M frozen; {start}, {config.optim.max_steps} steps of "
        f"{config.optim.batch_size} samples; checkpoints in {config.output}"
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


def _out_of_time(config: TrainConfig, started: float, accelerator: Accelerator) -> bool:
    if not config.time_budget:
        return False
    over = torch.tensor(int(time.monotonic() - started > config.time_budget * 60), device=accelerator.device)
    # All processes must leave the loop at the same step.
    return bool(accelerator.reduce(over, reduction="sum"))


class _IndexBatches(Sampler[list[int]]):
    """Indices of this process's share of each micro-batch, from the present step to the last."""

    def __init__(self, start: int, stop: int, share: BatchShare) -> None:
        self.start, self.stop, self.share = start, stop, share

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[list[int]]:
        for n in range(self.start, self.stop):
            first = n * self.share.total + self.share.first
            yield list(range(first, first + self.share.count))
