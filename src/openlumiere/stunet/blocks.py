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
from diffusers.models.embeddings import TextTimeEmbedding
from torch import nn


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
        """He et al. 2015, the baseline of the paper's ablation."""
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")
        nn.init.zeros_(self._bias)

    @property
    def _bias(self) -> torch.Tensor:
        assert self.conv.bias is not None
        return self.conv.bias

    def forward(self, x: torch.Tensor, num_frames: int, stride: int = 1) -> torch.Tensor:
        """(B * F, C, H, W) -> (B * F / stride, C, H, W)."""
        n, channels, height, width = x.shape
        clip = x.permute(0, 2, 3, 1).reshape(n // num_frames, num_frames, height * width, channels)
        clip = torch.cat([clip[:, :1], clip, clip[:, -1:]], dim=1).permute(0, 3, 1, 2)
        out = F.conv2d(clip, self.conv.weight, self.conv.bias, stride=(stride, 1))
        return out.permute(0, 2, 3, 1).reshape(n // stride, height, width, channels).permute(0, 3, 1, 2)


class TemporalDownsample(TemporalConv):
    """Temporal down-sampling: a convolution, then every second frame. At identity, it drops odd frames."""

    def forward(self, x: torch.Tensor, num_frames: int, stride: int = 2) -> torch.Tensor:
        """(B * F, C, H, W) -> (B * F / 2, C, H, W)."""
        return super().forward(x, num_frames, stride)


class TemporalUpsample(TemporalConv):
    """Temporal up-sampling: each frame twice, then a convolution. At identity, nearest neighbour."""

    def forward(self, x: torch.Tensor, num_frames: int, stride: int = 1) -> torch.Tensor:
        """(B * F, C, H, W) -> (B * 2F, C, H, W)."""
        return super().forward(x.repeat_interleave(2, dim=0), 2 * num_frames, stride)


class TemporalConditioning(nn.Module):
    """What temporal layers are told beside the features: the prompt, the noise level, the place in the clip.

    And the subject's layout in each frame, where the T2I takes one.

    Not in the paper. Its T2I is large enough to carry any word of the prompt through its frozen features; a small
    one drops the words that no single picture shows, such as a direction.

    Prompt and noise level choose the coefficients of a short Fourier series over the clip, so that a path in time can
    be told at once: "left" is one coefficient.
    """

    _HARMONICS = 8  # a clip of four bounces needs the eighth

    def __init__(self, text_dim: int, dim: int, num_heads: int = 8, *, layout_dim: int = 0) -> None:
        super().__init__()
        self.text = TextTimeEmbedding(text_dim, dim, num_heads)
        self.noise_level = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim))
        self.coefficients = nn.Linear(dim, (1 + 2 * self._HARMONICS) * dim)
        self.layout: nn.Module | None = None
        if layout_dim:
            self.layout = nn.Sequential(nn.Linear(layout_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.steering = nn.Linear(dim, dim)

    def init_zero(self) -> None:
        """Leave the T2I's own embedding alone."""
        _zero(self.steering)

    def forward(
        self,
        text: torch.Tensor,
        time_embedding: torch.Tensor,
        positions: torch.Tensor,
        layout: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what the temporal layers are told, and what steers the T2I: (B, F, dim) each.

        The second is for the T2I's embedding of timestep and prompt, from frame to frame: a T2I that can show its
        subject left and right so puts it there in turn.

        Args:
            text: (B, L, text_dim).
            time_embedding: the T2I's embedding without a layout, (B, dim).
            positions: fractions of the clip, (B, F), so that another number of frames stretches the motion over it.
            layout: (B, F, layout_dim), for those that take one.
        """
        conditioning = F.silu(self.text(text) + self.noise_level(time_embedding))
        coefficients = self.coefficients(conditioning).unflatten(-1, (1 + 2 * self._HARMONICS, -1))
        angles = positions[..., None] * math.pi * torch.arange(1, self._HARMONICS + 1, device=text.device)
        series = torch.cat([torch.ones_like(angles[..., :1]), angles.sin(), angles.cos()], dim=-1)
        condition = series.to(text.dtype) @ coefficients  # (B, F, terms) @ (B, terms, dim)
        if self.layout is not None and layout is not None:
            condition = condition + self.layout(layout)
        return condition, self.steering(condition)


class Modulation(nn.Module):
    """Scales and shifts features by what `TemporalConditioning` tells, per channel; the shift also varies in space.

    Shifts are low-order polynomials of the position in the frame, so that "left" at "the end of the clip" can be said
    at once, where convolutions would have to work out positions from the frame's borders.
    """

    _TERMS = 6

    def __init__(self, condition_dim: int, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(condition_dim, (1 + self._TERMS) * channels)

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """x (B * F, H, W, C), condition (B, F, condition_dim) -> (B * F, H, W, C)."""
        n, height, width, channels = x.shape
        conditioning = self.linear(condition).reshape(n, 1 + self._TERMS, channels)
        row = torch.linspace(-1, 1, height, device=x.device, dtype=x.dtype)[:, None].expand(height, width)
        column = torch.linspace(-1, 1, width, device=x.device, dtype=x.dtype).expand(height, width)
        terms = torch.stack([torch.ones_like(row), column, row, column**2, row**2, column * row], dim=-1)
        shift = terms.reshape(-1, self._TERMS) @ conditioning[:, 1:]  # (B * F, H * W, C)
        return x * (1 + conditioning[:, :1, None]) + shift.reshape(n, height, width, channels)


class ConvolutionBlock(nn.Module):
    """Convolution-based inflation block (Figure 4b): a factorised space-time convolution beside the T2I's output.

    2-D convolution, norm, activation, 1-D temporal convolution, norm, activation, linear projection; the projection
    starts at zero, so that the block starts as the identity.
    """

    def __init__(self, channels: int, *, width: int, groups: int, condition_dim: int | None = None) -> None:
        super().__init__()
        self.spatial_conv = nn.Conv2d(channels, width, kernel_size=3, padding=1)
        self.spatial_norm = nn.GroupNorm(math.gcd(groups, width), width)
        self.temporal_conv = TemporalConv(width)
        self.temporal_norm = nn.GroupNorm(math.gcd(groups, width), width)
        self.modulation = Modulation(condition_dim, width) if condition_dim else None
        self.given_conv: nn.Conv2d | None = None
        self.projection = nn.Conv2d(width, channels, kernel_size=1)

    def init_zero(self) -> None:
        """Make the block the identity."""
        _zero(self.projection)

    def add_condition_channels(self, channels: int) -> None:
        """Look at so many channels of what is given, too; zero at the start."""
        self.given_conv = nn.Conv2d(channels, self.spatial_conv.out_channels, kernel_size=3, padding=1, bias=False)
        _zero(self.given_conv)

    def forward(
        self,
        x: torch.Tensor,
        num_frames: int,
        condition: torch.Tensor | None = None,
        given: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(B * F, C, H, W), condition (B, F, condition_dim), given (B * F, C', H, W) -> (B * F, C, H, W)."""
        h = self.spatial_conv(x)
        if self.given_conv is not None and given is not None:
            h = h + self.given_conv(given)
        h = self.spatial_norm(h)
        if self.modulation is not None and condition is not None:
            h = self.modulation(h.permute(0, 2, 3, 1), condition).permute(0, 3, 1, 2)
        h = self.temporal_conv(F.silu(h), num_frames)
        return x + self.projection(F.silu(self.temporal_norm(h)))


class AttentionBlock(nn.Module):
    """Attention-based inflation block (Figure 4c): 1-D attention along time beside the T2I's output.

    Positions are rotary (Su et al. 2021): attention sees distances in frames, so any number of frames will do. The
    linear projection starts at zero, so that the block starts as the identity.
    """

    def __init__(self, channels: int, *, head_dim: int, condition_dim: int | None = None) -> None:
        super().__init__()
        # Heads of at least head_dim channels, as many as divide the channels evenly.
        most = max(channels // head_dim, 1)
        self.num_heads = next(heads for heads in range(most, 0, -1) if channels % heads == 0)
        self.norm = nn.LayerNorm(channels)
        self.modulation = Modulation(condition_dim, channels) if condition_dim else None
        self.given_linear: nn.Linear | None = None
        self.to_qkv = nn.Linear(channels, 3 * channels)
        self.projection = nn.Linear(channels, channels)

    def init_zero(self) -> None:
        """Make the block the identity."""
        _zero(self.projection)

    def add_condition_channels(self, channels: int) -> None:
        """Look at so many channels of what is given, too; zero at the start."""
        self.given_linear = nn.Linear(channels, self.projection.in_features, bias=False)
        _zero(self.given_linear)

    def forward(
        self,
        x: torch.Tensor,
        num_frames: int,
        condition: torch.Tensor | None = None,
        given: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(B * F, C, H, W), condition (B, F, condition_dim), given (B * F, C', H, W) -> (B * F, C, H, W)."""
        n, channels, height, width = x.shape
        h = self.norm(x.permute(0, 2, 3, 1))
        if self.given_linear is not None and given is not None:
            h = h + self.given_linear(given.permute(0, 2, 3, 1))
        if self.modulation is not None and condition is not None:
            h = self.modulation(h, condition)
        h = h.reshape(n // num_frames, num_frames, height * width, channels)
        tokens = h.transpose(1, 2).reshape(-1, num_frames, channels)
        qkv = self.to_qkv(tokens).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)  # (B * H * W, heads, F, head_dim) each
        attended = F.scaled_dot_product_attention(_rotate(query), _rotate(key), value)
        out = self.projection(attended.transpose(1, 2).flatten(2))
        out = out.reshape(n // num_frames, height * width, num_frames, channels).transpose(1, 2)
        return x + out.reshape(n, height, width, channels).permute(0, 3, 1, 2)


class ConditionGate(nn.Module):
    """Where what is given, or guessed from other frames, is right, the prediction is taken from it.

    Not in the paper. A noisy sample and a clean one determine what a network should predict: v, or the noise, is a sum
    of the two whose coefficients the noise schedule knows. So instead of carrying a clean sample through a network, it
    is enough to say where it is right. The gate starts open where M is 1 and nearly closed far from it, and learns
    from the network's last features.
    """

    of_noisy: torch.Tensor
    of_given: torch.Tensor

    def __init__(self, channels: int, given: int, *, features: int, timesteps: int) -> None:
        """`channels` of the sample and of C; `given` of C and M; `features` before the T2I's last convolution."""
        super().__init__()
        self.channels, self.masks = channels, given - channels
        self.conv = nn.Conv2d(features + given, channels, kernel_size=3, padding=1)
        self.register_buffer("of_noisy", torch.zeros(timesteps))
        self.register_buffer("of_given", torch.zeros(timesteps))

    @torch.no_grad()
    def set_schedule(self, alphas_cumprod: torch.Tensor, prediction_type: str) -> None:
        """Take the schedule's coefficients, and set the gate to its start."""
        alpha, sigma = alphas_cumprod.sqrt(), (1 - alphas_cumprod).sqrt().clamp(min=0.02)
        match prediction_type:
            case "v_prediction":
                of_noisy, of_given = alpha / sigma, -1 / sigma
            case "epsilon":
                of_noisy, of_given = 1 / sigma, -alpha / sigma
            case _:
                of_noisy, of_given = torch.zeros_like(alpha), torch.ones_like(alpha)
        self.of_noisy.copy_(of_noisy)
        self.of_given.copy_(of_given)
        nn.init.zeros_(self.conv.weight)
        for channel in range(self.channels):  # M's channels are the last ones, each for several of C's
            self.conv.weight[channel, channel % self.masks - self.masks, 1, 1] = 8
        assert self.conv.bias is not None
        self.conv.bias.fill_(-4)

    def forward(
        self,
        predicted: torch.Tensor,
        features: torch.Tensor,
        noisy: torch.Tensor,
        given: torch.Tensor,
        timestep: torch.Tensor | float | int,
    ) -> torch.Tensor:
        """The prediction, taken from what is given where the gate opens.

        Args:
            predicted, features, noisy, given: (B * F, channels, H, W) each; the last is C and M.
            timestep: a number, or of shape (B,).
        """
        at = torch.as_tensor(timestep, device=noisy.device).long().reshape(-1)
        at = at.repeat_interleave(len(noisy) // len(at))[:, None, None, None]
        clean, mask = given.tensor_split([-self.masks], dim=1)
        known = (self.of_noisy[at] * noisy + self.of_given[at] * clean).to(predicted)
        gate = self.conv(torch.cat([features, given], dim=1)).sigmoid()
        gate = gate * (mask > 0).repeat(1, self.channels // self.masks, 1, 1)
        own, variance = predicted.tensor_split([self.channels], dim=1)
        return torch.cat([torch.lerp(own, known, gate), variance], dim=1)


def _rotate(x: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding over the last but one dimension; (..., F, head_dim) -> the same."""
    num_frames, dim = x.shape[-2:]
    half = dim // 2
    # Clips are short: a base of 100 spreads the wavelengths over 6 to some hundreds of frames.
    rates = 100.0 ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angles = torch.arange(num_frames, device=x.device, dtype=torch.float32)[:, None] * rates
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat([a * cos - b * sin, a * sin + b * cos, rest], dim=-1)


def _zero(layer: nn.Conv2d | nn.Linear) -> None:
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
