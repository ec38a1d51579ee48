"""How the small networks that measure clips are trained: one construction, one loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import torch
from torch import nn
from tqdm import tqdm

Network = TypeVar("Network", bound=nn.Module)
_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}  # faster on the CPU, by dimensions of a kernel


class FitConfig(Protocol):
    """What `fit` reads of a network's configuration."""

    @property
    def steps(self) -> int: ...
    @property
    def lr(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...


def build(make: Callable[[], Network], *, seed: int) -> Network:
    """Construct a network with weights that depend on the seed alone, in training mode and channels-last."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = make().train()
    for parameter in network.parameters():
        if parameter.ndim in _CHANNELS_LAST:
            parameter.data = parameter.data.contiguous(memory_format=_CHANNELS_LAST[parameter.ndim])
    return network


def fit(
    network: Network,
    loss_of: Callable[[int], torch.Tensor],
    config: FitConfig,
    *,
    title: str,
    warmup: float = 0.1,
    progress: bool = True,
) -> Network:
    """Minimise a loss with AdamW and a one-cycle learning rate (Smith and Topin 2019).

    Args:
        loss_of: the loss of the n-th step's batch, a scalar.
        title: shown at the progress bar.
        warmup: share of the steps in which the learning rate rises to `config.lr`.

    Returns:
        The network, in inference mode.
    """
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, total_steps=config.steps, pct_start=warmup)
    bar = tqdm(range(config.steps), title, unit="step", disable=not progress)
    for step in bar:
        loss = loss_of(step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 20 == 0:
            bar.set_postfix(loss=f"{loss.item():.2f}")
    return network.eval()
