"""The planner: a prompt to a path, for clip models with a layout."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.torch_utils import randn_tensor
from torch import nn

from openlumiere.clock import FPS, clip_seconds
from openlumiere.diffusion.motion import MOTION_DIM, trace, upright
from openlumiere.errors import LumiereError

_TIME_DIM = 32
_FEWEST_SECONDS, _MOST_SECONDS = 1.0, 30.0  # longer and shorter clips count as these


# Saved pipelines name this module, and diffusers looks for `ModelMixin` beside the class: both must stay here.
class PathPlanner(ModelMixin, ConfigMixin):
    """Draws paths that a prompt may mean, by flow matching (Lipman et al. 2023) on the numbers of `diffusion.motion`.

    A residual MLP predicts the velocity from noise to a path, given the prompt and the clip's length in seconds. Of the
    prompt it knows the mean over its tokens of what a layer says of each, so that one word among many is heard.

    Args:
        text_dim: width of the token embeddings.
        text_layers: of the text encoder, whose hidden states are read side by side, the last one last: those in the
            middle tell a word's own meaning best. None = the last alone, as a network's prompt is.
        width, hidden, depth: of the residual layers.
        dropout: of what is known of the prompt, in training.
        fps: of the clips that are planned for.
        num_inference_steps: of Heun's method, from noise to a path.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    @register_to_config
    def __init__(
        self, *, text_dim: int = 384, text_layers: Sequence[int] | None = None, width: int = 256, hidden: int = 384,
        depth: int = 3, dropout: float = 0.1, fps: float = FPS, num_inference_steps: int = 16,
    ) -> None:  # fmt: skip
        super().__init__()
        self.text_width = text_dim * len(text_layers or [-1])
        self.text = nn.Sequential(nn.LayerNorm(self.text_width), nn.Linear(self.text_width, width // 2), nn.SiLU())
        self.drop = nn.Dropout(dropout)
        self.first = nn.Linear(MOTION_DIM + _TIME_DIM + width // 2 + 1, width)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, width))
            for _ in range(depth)
        )
        self.last = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, MOTION_DIM))
        # Of the motions in training; the network sees them standardised.
        self.register_buffer("mean", torch.zeros(MOTION_DIM))
        self.register_buffer("scale", torch.ones(MOTION_DIM))

    def forward(
        self, noisy: torch.Tensor, time: torch.Tensor, text: torch.Tensor, seconds: torch.Tensor
    ) -> torch.Tensor:
        """Predict the velocity, standardised path minus noise, (B, MOTION_DIM).

        Args:
            noisy: (1 - time) noise + time standardised path, (B, MOTION_DIM).
            time: (B,), 0 = noise.
            text: token embeddings, (B, L, text_dim of each layer), zero beyond the prompts' ends.
            seconds: the clip's length, (B,).
        """
        return self._velocity(noisy, time, self._read(text), seconds)

    def last_layer_alone(self, text: torch.Tensor) -> torch.Tensor:
        """Leave out all layers but the last of token embeddings: (B, L, text_dim or more) -> (B, L, text_width)."""
        last = text[..., -self.config.text_dim :]
        return nn.functional.pad(last, (self.text_width - last.shape[-1], 0))

    def _read(self, text: torch.Tensor) -> torch.Tensor:
        tokens = text.ne(0).any(-1, keepdim=True).to(text)
        return self.drop((self.text(text) * tokens).sum(1) / tokens.sum(1).clamp(min=1))

    def _velocity(
        self, noisy: torch.Tensor, time: torch.Tensor, read: torch.Tensor, seconds: torch.Tensor
    ) -> torch.Tensor:
        length = seconds.clamp(_FEWEST_SECONDS, _MOST_SECONDS).log() - math.log(5)
        inputs = [noisy, get_timestep_embedding(1000 * time, _TIME_DIM).to(noisy), read, length[:, None]]
        x = self.first(torch.cat(inputs, dim=1))
        for layer in self.layers:
            x = x + layer(x)
        return self.last(x)

    @torch.no_grad()
    def sample(
        self, text: torch.Tensor, seconds: float, *, generator: torch.Generator | list[torch.Generator] | None = None
    ) -> torch.Tensor:
        """Draw a motion for each prompt: (B, L, text_dim of each layer) -> (B, MOTION_DIM)."""
        device, dtype = self.mean.device, self.mean.dtype
        read = self._read(text.to(device, dtype))
        x = randn_tensor((len(read), MOTION_DIM), generator=generator, device=device, dtype=torch.float32)
        length = torch.full((len(read),), seconds, device=device, dtype=dtype)
        steps = self.config.num_inference_steps
        for i in range(steps):
            now, then = (torch.full_like(length, j / steps) for j in (i, i + 1))
            velocity = self._velocity(x.to(dtype), now, read, length).float()
            x_then = x + velocity / steps
            x = x + (velocity + self._velocity(x_then.to(dtype), then, read, length).float()) / (2 * steps)
        return upright(x * self.scale.float() + self.mean.float())

    def plan(
        self,
        hidden_states: torch.Tensor,
        num_frames: int,
        *,
        loop: bool = False,
        generator: torch.Generator | list[torch.Generator] | None = None,
    ) -> torch.Tensor:
        """Draw a path for each prompt, (B, F, 4), as `diffusion.layout` has them, on the CPU.

        Args:
            hidden_states: token embeddings, (B, L, text_dim of each layer), zero beyond the prompts' ends; or of the
                last layer alone, (B, L, text_dim), from which words that it never saw are told less well.
            loop: the paths' ends flow into their starts.
            generator: one, or one for each prompt.

        Raises:
            LumiereError: embeddings of another text encoder.
        """
        if hidden_states.shape[-1] == self.config.text_dim:
            hidden_states = self.last_layer_alone(hidden_states)
        if hidden_states.shape[-1] != self.text_width:
            raise LumiereError(
                f"this planner reads token embeddings of {self.config.text_dim} numbers, not "
                f"{hidden_states.shape[-1]}: use the text encoder that it was trained with"
            )
        seconds = clip_seconds(num_frames, self.config.fps)
        motion = self.sample(hidden_states, seconds, generator=generator)
        return trace(motion.cpu(), num_frames, seconds, loop=loop)
