"""TorchScript networks that are called as I3D and C3D are, with random weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import nn

from openlumiere.evaluation.features.cache import Extraction
from openlumiere.evaluation.protocols import distributions
from openlumiere.evaluation.scores import Score


class LikeI3D(nn.Module):
    """Brightness and change of a few regions, by random weights; uint8 in, as the published file takes it."""

    def __init__(self, dimensions: int = 6, poison: bool = False) -> None:
        super().__init__()
        self.poison = poison
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("weights", torch.randn(3 * 4 * 4 * 4, dimensions, generator=generator))

    def forward(
        self, x: torch.Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False
    ) -> torch.Tensor:
        assert x.dtype == torch.uint8
        assert rescale
        assert resize
        assert return_features
        pooled = nn.functional.adaptive_avg_pool3d(x.float() * 2.0 / 255.0 - 1.0, [4, 4, 4])
        found = pooled.flatten(1) @ self.weights
        return found / 0.0 if self.poison else found


class LikeC3D(nn.Module):
    """Probabilities of ten classes, by random weights."""

    def __init__(self, softmax: bool = True) -> None:
        super().__init__()
        self.softmax = softmax
        generator = torch.Generator().manual_seed(1)
        self.register_buffer("weights", torch.randn(3 * 2 * 4 * 4, 10, generator=generator))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = nn.functional.adaptive_avg_pool3d(x.float() / 25.0, [2, 4, 4])
        found = pooled.flatten(1) @ self.weights
        return found.softmax(1) if self.softmax else found


def torchscript(network: nn.Module, path: Path) -> Path:
    """A network as a TorchScript file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.jit.script(network.eval()).save(str(path))
    return path


def extraction_of(options: dict[str, Any]) -> Extraction:
    """Take the options of `Extraction` out of a test's options."""
    names = {field.name for field in dataclasses.fields(Extraction)}
    return Extraction(**{name: options.pop(name) for name in list(options) if name in names})


def fvd(real: Path, generated: Path, output: Path | None = None, **options: Any) -> Score:
    """`distributions.fvd`, all options side by side."""
    extraction = extraction_of(options)
    return distributions.fvd(real, generated, output, distributions.FVDSettings(**options), extraction)


def inception(generated: Path, output: Path | None = None, **options: Any) -> Score:
    """`distributions.inception`, all options side by side."""
    extraction = extraction_of(options)
    return distributions.inception(generated, output, distributions.InceptionSettings(**options), extraction)
