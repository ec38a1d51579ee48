"""What tests of distribution metrics share: small moving clips, TorchScript networks called as I3D and C3D are."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from torch import nn

from openlumiere.evaluation.features.cache import Extraction
from openlumiere.evaluation.protocols import distributions
from openlumiere.evaluation.scores import Score


def moving_square(seed: int, *, frames: int = 20, side: int = 32, speed: float = 1.0) -> np.ndarray:
    """A coloured square that crosses a plain background: uint8 (frames, side, side, 3)."""
    rng = np.random.default_rng(seed)
    back, front = rng.integers(40, 216, (2, 3))
    start, step = rng.uniform(0, side, 2), rng.normal(size=2) * speed
    axis = np.arange(side)
    clip = np.empty((frames, side, side, 3), np.uint8)
    clip[:] = back
    for i in range(frames):
        y, x = (start + step * i) % side
        inside = (np.abs(axis[:, None] - y) < side / 6) & (np.abs(axis[None] - x) < side / 6)
        clip[i][inside] = front
    return clip


def write_avi(frames: np.ndarray, path: Path, *, fps: int = 25) -> Path:
    """MPEG-4 in AVI, as UCF101 has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        stream.bit_rate = 2_000_000
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


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
