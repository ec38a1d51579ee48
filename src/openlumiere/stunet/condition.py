"""⟨C, M⟩, the condition beside the noisy clip: at the rate of coarser levels, and straight to the output.

Channels are C's, as many as the clip's own, then M's: 1 where C is given, less where it is a guess, 0 where it is not.
Each of M's channels belongs to several of C's, as `pixel_unshuffle` lays channels out.
"""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from openlumiere.errors import LumiereError

POOLINGS = ("first", "max")


def check_condition(
    unet: UNet2DConditionModel, channels: int, *, blocks: bool = False, gate: bool = False, pooling: str = "first"
) -> None:
    """Raise LumiereError if a condition of so many channels cannot be used in these ways."""
    own = int(unet.config["in_channels"])
    if pooling not in POOLINGS:
        raise LumiereError(f"condition_pooling {pooling!r}: use 'first' or 'max'")
    if (blocks or gate) and channels < 1:
        raise LumiereError("condition_blocks and condition_gate: widen the network first, by condition_channels")
    if (gate or (blocks and pooling == "max")) and (channels <= own or own % (channels - own)):
        raise LumiereError(
            f"{channels} condition_channels hold no M: choose more than {own}, C's, so that M's channels divide C's"
        )


def pool_condition(condition: torch.Tensor, stride: int, masks: int) -> torch.Tensor:
    """Condition at a coarser level's rate, (B, C, F, H, W) -> (B, C, F / stride, H, W).

    A frame of the coarser level stands for `stride` frames of the clip. Where it keeps only the first of them, what is
    given in the others, a clip's last frame for one, is lost.

    Args:
        masks: channels of M. M is the maximum over the frames that a coarse frame stands for, and C what it is in the
            frame where M has that maximum, the first of several. 0 = keep the first frame.
    """
    if stride == 1 or not masks:
        return condition[:, :, ::stride]
    clip, mask = condition.unflatten(2, (-1, stride)).tensor_split([-masks], dim=1)
    mask, at = mask.max(dim=3)
    return torch.cat(
        [clip.gather(3, at.repeat(1, clip.shape[1] // masks, 1, 1, 1)[:, :, :, None])[:, :, :, 0], mask], 1
    )


class ConditionGate(nn.Module):
    """Takes the prediction from C where C is right. Not in the paper.

    A noisy sample and a clean one determine what a network should predict: v, or the noise, is a sum of the two whose
    coefficients the noise schedule knows. So instead of carrying a clean sample through a network, it is enough to say
    where it is right. The gate starts open where M is 1 and nearly closed far from it, and learns from the network's
    last features.

    Args:
        channels: of the sample, and of C.
        condition_channels: of C and M.
        features: channels before the T2I's last convolution.
        timesteps: of the noise schedule, which `set_schedule` or loaded weights bring.
    """

    of_noisy: torch.Tensor
    of_given: torch.Tensor

    def __init__(self, channels: int, condition_channels: int, *, features: int, timesteps: int) -> None:
        super().__init__()
        self.channels, self.masks = channels, condition_channels - channels
        self.conv = nn.Conv2d(features + condition_channels, channels, kernel_size=3, padding=1)
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
        condition: torch.Tensor,
        timestep: torch.Tensor | float | int,
    ) -> torch.Tensor:
        """Mix the network's prediction with the one that C implies, by the gate.

        Args:
            predicted, features, noisy, condition: (B * F, channels, H, W) each.
            timestep: a number, or of shape (B,).
        """
        at = torch.as_tensor(timestep, device=noisy.device).long().reshape(-1)
        at = at.repeat_interleave(len(noisy) // len(at))[:, None, None, None]
        clean, mask = condition.tensor_split([-self.masks], dim=1)
        implied = (self.of_noisy[at] * noisy + self.of_given[at] * clean).to(predicted)
        gate = self.conv(torch.cat([features, condition], dim=1)).sigmoid()
        gate = gate * (mask > 0).repeat(1, self.channels // self.masks, 1, 1)
        own, variance = predicted.tensor_split([self.channels], dim=1)
        return torch.cat([torch.lerp(own, implied, gate), variance], dim=1)
