"""What a network is conditioned on: text, concatenated channels, layouts."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from openlumiere.diffusion.conditioning import propagate_in_time

from .text import TextConditions


@dataclass(frozen=True)
class ConcatCondition:
    """Channels that a network takes beside the noisy clip.

    Attributes:
        channels: concatenated to the clip's own, (B, C, F, h, w).
        class_labels: (B,), such as the noise level of a super-resolution network.
        mask_channels: so many of the last channels are M; C and M are propagated in time in each window, see
            `diffusion.conditioning.propagate_in_time`. 0 = they are left as they are.
        moved: channels of clips of which whole frames are given, all filled along with their subject; None = of none.
        follows: which clips these are, bool (B,).
    """

    channels: torch.Tensor
    class_labels: torch.Tensor | None = None
    mask_channels: int = 0
    moved: torch.Tensor | None = None
    follows: torch.Tensor | None = None

    def seen(self, frames: torch.Tensor) -> torch.Tensor:
        """Return what windows, (w, L), see: (B * w, C, L, h, w)."""
        parts = _windows_of(self.channels, frames)
        if not self.mask_channels:
            return parts
        given, mask = parts.tensor_split([-self.mask_channels], dim=1)
        spread = torch.cat(propagate_in_time(given, mask), dim=1)
        if self.moved is None or self.follows is None:
            return spread
        follows = self.follows.repeat_interleave(len(frames))[:, None, None, None, None]
        return torch.where(follows, _windows_of(self.moved, frames), spread)


def _windows_of(channels: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    return channels[:, :, frames.to(channels.device)].transpose(1, 2).flatten(0, 1)


@dataclass(frozen=True)
class Conditions:
    """What whole clips are denoised with.

    Attributes:
        text: of the B clips, and then of what they are guided away from; without guidance the first half alone.
        num_frames: of a clip.
        guidance_scale, guidance_rescale: see `diffusion.guidance`.
        concat: channels beside the noisy clip.
        loop: the clip's end flows into its start.
        layout: where the subject of each of the B clips is, (B, F, 6), see `diffusion.layout`; None = left open.
        guidance_interval: the noise at which there is guidance, as shares of the schedule's timesteps, both included.
    """

    text: TextConditions
    num_frames: int
    guidance_scale: float = 1.0
    guidance_rescale: float = 0.0
    concat: ConcatCondition | None = None
    loop: bool = False
    layout: torch.Tensor | None = None
    guidance_interval: tuple[float, float] = (0.0, 1.0)

    def at(self, noise: float, clips: int) -> Conditions:
        """Return those of B clips at a share of the timesteps: outside of the interval, the prompts alone."""
        low, high = self.guidance_interval
        return self if low <= noise <= high else self.halves(clips)[0]

    def halves(self, clips: int) -> list[Conditions]:
        """Return those of B clips with their prompts, and those of what they are guided away from if they are."""
        count = len(self.text.hidden_states) // clips
        return [replace(self, text=self.text.select(slice(i * clips, (i + 1) * clips))) for i in range(count)]
