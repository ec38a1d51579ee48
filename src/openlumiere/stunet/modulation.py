"""Conditioning of the temporal layers on prompt, noise level and position in the clip. Not in the paper.

Its T2I is large enough to carry any word of the prompt through its frozen features; a small one drops the words that no
single picture shows, such as a direction.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from diffusers.models.embeddings import TextTimeEmbedding
from torch import nn

DEFAULT_HARMONICS = 8  # of models saved before `temporal_harmonics` could be chosen


class TemporalConditioning(nn.Module):
    """Embeds prompt, noise level, position in the clip and, where the T2I takes one, the layout of each frame.

    Prompt and noise level predict the coefficients of a Fourier series over the clip, so that a path in time is a
    linear readout of the prompt: "left" is one coefficient.

    Args:
        text_dim: width of the text.
        dim: width of the T2I's time embedding, and of the result.
        layout_dim: numbers of a frame's layout; 0 = none.
        harmonics: the series' highest frequency, in half-periods over the clip: a motion that repeats itself n times
            in a clip needs the 2n-th.
    """

    def __init__(
        self,
        text_dim: int,
        dim: int,
        num_heads: int = 8,
        *,
        layout_dim: int = 0,
        harmonics: int = DEFAULT_HARMONICS,
    ) -> None:
        super().__init__()
        self.harmonics = harmonics
        self.text = TextTimeEmbedding(text_dim, dim, num_heads)
        self.noise_level = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim))
        self.coefficients = nn.Linear(dim, (1 + 2 * harmonics) * dim)
        self.layout: nn.Module | None = None
        if layout_dim:
            self.layout = nn.Sequential(nn.Linear(layout_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.steering = nn.Linear(dim, dim)

    @torch.no_grad()
    def init_zero(self) -> None:
        """Leave the T2I's own embedding alone, and give the series the same variance whatever its length."""
        nn.init.zeros_(self.steering.weight)
        nn.init.zeros_(self.steering.bias)
        scale = math.sqrt((1 + DEFAULT_HARMONICS) / (1 + self.harmonics))  # sine and cosine of a term add up to 1
        self.coefficients.weight.mul_(scale)
        self.coefficients.bias.mul_(scale)
        # AttentionPooling holds a bare parameter, which no reset_parameters reaches.
        pooled = self.text.pool.positional_embedding
        nn.init.normal_(pooled, std=pooled.shape[-1] ** -0.5)

    def series(self, positions: torch.Tensor) -> torch.Tensor:
        """Evaluate the terms of the series, (..., F) -> (..., F, 1 + 2 * harmonics): 1, then sines, then cosines."""
        angles = positions[..., None] * math.pi * torch.arange(1, self.harmonics + 1, device=positions.device)
        return torch.cat([torch.ones_like(angles[..., :1]), angles.sin(), angles.cos()], dim=-1)

    def forward(
        self,
        text: torch.Tensor,
        time_embedding: torch.Tensor,
        positions: torch.Tensor,
        layout: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the temporal layers' embedding and what is added to the T2I's own, (B, F, dim) each.

        The second steers the T2I from frame to frame: one that can show its subject on the left and on the right puts
        it there in turn.

        Args:
            text: (B, L, text_dim).
            time_embedding: the T2I's embedding without a layout, (B, dim).
            positions: fractions of the clip, (B, F), so that another number of frames stretches the motion over it.
            layout: (B, F, layout_dim), for those that take one.
        """
        prompt = F.silu(self.text(text) + self.noise_level(time_embedding))
        coefficients = self.coefficients(prompt).unflatten(-1, (1 + 2 * self.harmonics, -1))
        embedding = self.series(positions).to(text.dtype) @ coefficients  # (B, F, terms) @ (B, terms, dim)
        if self.layout is not None and layout is not None:
            embedding = embedding + self.layout(layout)
        return embedding, self.steering(embedding)


class Modulation(nn.Module):
    """Scales and shifts features by the temporal embedding, per channel; the shift also varies in space.

    Shifts are polynomials of second order in the position in the frame, so that "left" at "the end of the clip" is one
    linear map, where convolutions would have to work out positions from the frame's borders.
    """

    _TERMS = 6

    def __init__(self, embedding_dim: int, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(embedding_dim, (1 + self._TERMS) * channels)

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """Modulate x (B * F, H, W, C) by embedding (B, F, embedding_dim)."""
        n, height, width, channels = x.shape
        coefficients = self.linear(embedding).reshape(n, 1 + self._TERMS, channels)
        row = torch.linspace(-1, 1, height, device=x.device, dtype=x.dtype)[:, None].expand(height, width)
        column = torch.linspace(-1, 1, width, device=x.device, dtype=x.dtype).expand(height, width)
        terms = torch.stack([torch.ones_like(row), column, row, column**2, row**2, column * row], dim=-1)
        shift = terms.reshape(-1, self._TERMS) @ coefficients[:, 1:]  # (B * F, H * W, C)
        return x * (1 + coefficients[:, :1, None]) + shift.reshape(n, height, width, channels)
