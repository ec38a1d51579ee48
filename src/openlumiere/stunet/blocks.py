"""What inflation adds to a text-to-image U-Net: Lumiere's temporal layers (Figure 4).

Every layer takes and returns frames folded into the batch, ``(batch * frames, channels, height, width)`` in
channels-last memory, as the pre-trained spatial layers do. A temporal convolution is then a (3, 1) convolution over
``(frames, height * width)`` of the same memory: no copy but the padding, and 2-7 times faster on a CPU than
gathering frames for a matrix product.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from .modulation import Modulation


class TemporalConv(nn.Module):
    """1-D convolution of width 3 along time; the first and last frame are repeated at the borders.

    Repeating, rather than zeros, keeps a clip whose frames are all equal so, whatever the weights.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel_size=(3, 1))

    def init_identity(self) -> None:
        """Pass the centre frame through."""
        nn.init.dirac_(self.conv.weight)
        nn.init.zeros_(self._bias)

    def init_he(self) -> None:
        """Draw from He et al. 2015's distribution, the baseline of the paper's ablation."""
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")
        nn.init.zeros_(self._bias)

    @property
    def _bias(self) -> torch.Tensor:
        assert self.conv.bias is not None
        return self.conv.bias

    def forward(self, x: torch.Tensor, num_frames: int, stride: int = 1) -> torch.Tensor:
        """Convolve, (B * F, C, H, W) -> (B * F / stride, C, H, W)."""
        n, channels, height, width = x.shape
        clip = x.permute(0, 2, 3, 1).reshape(n // num_frames, num_frames, height * width, channels)
        clip = torch.cat([clip[:, :1], clip, clip[:, -1:]], dim=1).permute(0, 3, 1, 2)
        out = F.conv2d(clip, self.conv.weight, self.conv.bias, stride=(stride, 1))
        return out.permute(0, 2, 3, 1).reshape(n // stride, height, width, channels).permute(0, 3, 1, 2)


class TemporalDownsample(TemporalConv):
    """Temporal down-sampling: a convolution, then every second frame. At identity, it drops odd frames."""

    def forward(self, x: torch.Tensor, num_frames: int, stride: int = 2) -> torch.Tensor:
        """Halve time, (B * F, C, H, W) -> (B * F / 2, C, H, W)."""
        return super().forward(x, num_frames, stride)


class TemporalUpsample(TemporalConv):
    """Temporal up-sampling: each frame twice, then a convolution. At identity, nearest neighbour."""

    def forward(self, x: torch.Tensor, num_frames: int, stride: int = 1) -> torch.Tensor:
        """Double time, (B * F, C, H, W) -> (B * 2F, C, H, W)."""
        return super().forward(x.repeat_interleave(2, dim=0), 2 * num_frames, stride)


class ConvolutionBlock(nn.Module):
    """Convolution-based inflation block (Figure 4b): a factorised space-time convolution, added to the T2I's output.

    2-D convolution, norm, activation, 1-D temporal convolution, norm, activation, linear projection; the projection
    starts at zero, so that the block starts as the identity.
    """

    def __init__(self, channels: int, *, width: int, groups: int, embedding_dim: int | None = None) -> None:
        super().__init__()
        self.spatial_conv = nn.Conv2d(channels, width, kernel_size=3, padding=1)
        self.spatial_norm = nn.GroupNorm(math.gcd(groups, width), width)
        self.temporal_conv = TemporalConv(width)
        self.temporal_norm = nn.GroupNorm(math.gcd(groups, width), width)
        self.modulation = Modulation(embedding_dim, width) if embedding_dim else None
        self.given_conv: nn.Conv2d | None = None
        self.projection = nn.Conv2d(width, channels, kernel_size=1)

    def init_zero(self) -> None:
        """Make the block the identity, and blind to the condition."""
        _zero(self.projection)
        if self.given_conv is not None:
            _zero(self.given_conv)

    def add_condition_channels(self, channels: int) -> None:
        """See a condition of so many channels too; zero at the start."""
        self.given_conv = nn.Conv2d(channels, self.spatial_conv.out_channels, kernel_size=3, padding=1, bias=False)
        _zero(self.given_conv)

    def forward(
        self,
        x: torch.Tensor,
        num_frames: int,
        embedding: torch.Tensor | None = None,
        condition: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Run on x (B * F, C, H, W), with embedding (B, F, embedding_dim) and condition (B * F, C', H, W)."""
        h = self.spatial_conv(x)
        if self.given_conv is not None and condition is not None:
            h = h + self.given_conv(condition)
        h = self.spatial_norm(h)
        if self.modulation is not None and embedding is not None:
            h = self.modulation(h.permute(0, 2, 3, 1), embedding).permute(0, 3, 1, 2)
        h = self.temporal_conv(F.silu(h), num_frames)
        return x + self.projection(F.silu(self.temporal_norm(h)))


class AttentionBlock(nn.Module):
    """Attention-based inflation block (Figure 4c): 1-D attention along time, added to the T2I's output.

    Positions are rotary (Su et al. 2021): attention sees distances in frames, so any number of frames will do. The
    linear projection starts at zero, so that the block starts as the identity.
    """

    def __init__(self, channels: int, *, head_dim: int, embedding_dim: int | None = None) -> None:
        super().__init__()
        # Heads of at least head_dim channels, as many as divide the channels evenly.
        most = max(channels // head_dim, 1)
        self.num_heads = next(heads for heads in range(most, 0, -1) if channels % heads == 0)
        self.norm = nn.LayerNorm(channels)
        self.modulation = Modulation(embedding_dim, channels) if embedding_dim else None
        self.given_linear: nn.Linear | None = None
        self.to_qkv = nn.Linear(channels, 3 * channels)
        self.projection = nn.Linear(channels, channels)

    def init_zero(self) -> None:
        """Make the block the identity, and blind to the condition."""
        _zero(self.projection)
        if self.given_linear is not None:
            _zero(self.given_linear)

    def add_condition_channels(self, channels: int) -> None:
        """See a condition of so many channels too; zero at the start."""
        self.given_linear = nn.Linear(channels, self.projection.in_features, bias=False)
        _zero(self.given_linear)

    def forward(
        self,
        x: torch.Tensor,
        num_frames: int,
        embedding: torch.Tensor | None = None,
        condition: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Run on x (B * F, C, H, W), with embedding (B, F, embedding_dim) and condition (B * F, C', H, W)."""
        n, channels, height, width = x.shape
        h = self.norm(x.permute(0, 2, 3, 1))
        if self.given_linear is not None and condition is not None:
            h = h + self.given_linear(condition.permute(0, 2, 3, 1))
        if self.modulation is not None and embedding is not None:
            h = self.modulation(h, embedding)
        h = h.reshape(n // num_frames, num_frames, height * width, channels)
        tokens = h.transpose(1, 2).reshape(-1, num_frames, channels)
        qkv = self.to_qkv(tokens).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)  # (B * H * W, heads, F, head_dim) each
        attended = F.scaled_dot_product_attention(_rotate(query), _rotate(key), value)
        out = self.projection(attended.transpose(1, 2).flatten(2))
        out = out.reshape(n // num_frames, height * width, num_frames, channels).transpose(1, 2)
        return x + out.reshape(n, height, width, channels).permute(0, 3, 1, 2)


def _rotate(x: torch.Tensor) -> torch.Tensor:
    """Apply rotary position embedding over the last but one dimension, (..., F, head_dim)."""
    num_frames, dim = x.shape[-2:]
    half = dim // 2
    rates = rotation_rates(dim, x.device)
    angles = torch.arange(num_frames, device=x.device, dtype=torch.float32)[:, None] * rates
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat([a * cos - b * sin, a * sin + b * cos, rest], dim=-1)


def rotation_rates(dim: int, device: torch.device) -> torch.Tensor:
    """Return the angles by which the pairs of a head's channels turn from frame to frame, (dim // 2,) radians."""
    half = dim // 2
    # Clips are short: a base of 100 spreads the wavelengths over 6 to some hundreds of frames.
    return 100.0 ** (-torch.arange(half, device=device, dtype=torch.float32) / half)


def _zero(layer: nn.Conv2d | nn.Linear) -> None:
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
