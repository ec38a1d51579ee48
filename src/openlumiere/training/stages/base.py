"""What the loop needs to know of a stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import nn
from torch.utils.data import Dataset

from openlumiere.diffusion import draws
from openlumiere.training.config import TrainConfig


class Stage(Protocol):
    """One kind of training: its settings, its network, its data, its loss and its samples.

    Attributes:
        Config: the stage's configuration, which its constructor takes.
        module: the network; parameters that require gradients are trained.
        dataset: map-style and endless in effect: item n is a pure function of the seed and n.
        step: how many steps were made; the loop sets it before each, for what changes in the course of a training.
    """

    Config: ClassVar[type[TrainConfig]]
    dataset: Dataset[Any]
    step: int

    def __init__(self, config: Any, device: torch.device) -> None: ...

    @property
    def module(self) -> nn.Module: ...

    def loss(self, module: nn.Module, batch: Any, generator: draws.Generator) -> torch.Tensor:
        """Return the scalar loss of one collated batch; `module` is the prepared (wrapped) network.

        All that is random is drawn by `diffusion.draws`: the batch may be this process's share of a larger one.
        """
        ...

    def sample(self, folder: Path, step: int) -> None:
        """Write pictures or clips made with the network's present weights."""
        ...

    def export(self, folder: Path) -> None:
        """Write the network's present weights in the layout that later stages and pipelines read."""
        ...
