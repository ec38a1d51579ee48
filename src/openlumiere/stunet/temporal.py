"""All that inflation adds to a text-to-image U-Net (Lumiere, Figure 4), as one module of its weights."""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from .blocks import AttentionBlock, ConvolutionBlock, TemporalDownsample, TemporalUpsample
from .condition import ConditionGate
from .modulation import TemporalConditioning
from .t2i import LAYOUT_DIM, takes_layout, text_dim, time_embed_dim


class TemporalLayers(nn.Module):
    """All that inflation adds, in the order of the forward pass.

    Attributes:
        down, up: for each level of the path, a block for each of its (resnet, attention) pairs.
        mid: the coarsest level's, after the T2I's middle block.
        downsamplers, upsamplers: one after each spatial one; None where time is not resampled.
        conditioning: see `TemporalConditioning`; None as in the paper.
        condition_in: widens the first convolution by the channels of ⟨C, M⟩; None without a condition.
        gate: passes C straight to the output; None = it does not.
    """

    def __init__(
        self, unet: UNet2DConditionModel, *, resampled: list[int], attention_layers: int, attention_head_dim: int,
        width: float, conditioning: bool, harmonics: int, condition_channels: int,
    ) -> None:  # fmt: skip
        super().__init__()
        channels = list(unet.config["block_out_channels"])
        coarsest = len(channels) - 1
        groups = unet.config["norm_num_groups"] or 32
        embedding_dim = time_embed_dim(unet) if conditioning else None
        self.conditioning: TemporalConditioning | None = None
        if conditioning:
            layout_dim = LAYOUT_DIM if takes_layout(unet) else 0
            self.conditioning = TemporalConditioning(
                text_dim(unet), time_embed_dim(unet), layout_dim=layout_dim, harmonics=harmonics
            )
        self.condition_in = condition_in(unet, condition_channels) if condition_channels else None
        self.gate: ConditionGate | None = None

        def block(level: int) -> nn.Module:
            if level == coarsest:
                return _Stack(
                    AttentionBlock(channels[level], head_dim=attention_head_dim, embedding_dim=embedding_dim)
                    for _ in range(attention_layers)
                )
            inner = max(int(channels[level] * width) // 8, 1) * 8
            return ConvolutionBlock(channels[level], width=inner, groups=groups, embedding_dim=embedding_dim)

        levels = range(len(channels))
        self.down = nn.ModuleList(
            nn.ModuleList(block(level) for _ in unet.down_blocks[level].resnets) for level in levels
        )
        self.mid = block(coarsest) if unet.mid_block is not None else None
        self.up = nn.ModuleList(
            nn.ModuleList(block(level) for _ in unet.up_blocks[coarsest - level].resnets) for level in reversed(levels)
        )
        # The sampler between levels l and l + 1 works on the coarser grid's channels of the layer before it.
        self.downsamplers = nn.ModuleList(
            TemporalDownsample(channels[level]) if level in resampled else nn.Identity() for level in range(coarsest)
        )
        self.upsamplers = nn.ModuleList(
            TemporalUpsample(channels[level + 1]) if level in resampled else nn.Identity()
            for level in reversed(range(coarsest))
        )

    def reset(self, init: str) -> None:
        """Initialise as the T2I with nearest-neighbour resampling of time; `init`: of the resamplers, see `STUNet`."""
        for module in self.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
        for module in self.modules():
            if isinstance(module, (TemporalDownsample, TemporalUpsample)):
                module.init_he() if init == "he" else module.init_identity()
            elif isinstance(module, (TemporalConditioning, ConvolutionBlock, AttentionBlock)):
                module.init_zero()
        if self.condition_in is not None:
            nn.init.zeros_(self.condition_in.weight)

    def add_condition_to_blocks(self, channels: int) -> None:
        """See `STUNet.add_condition_to_blocks`."""
        for module in list(self.modules()):
            if isinstance(module, (ConvolutionBlock, AttentionBlock)):
                module.add_condition_channels(channels)


class _Stack(nn.ModuleList):
    """Attention blocks one after the other."""

    def forward(
        self,
        x: torch.Tensor,
        num_frames: int,
        embedding: torch.Tensor | None = None,
        condition: torch.Tensor | None = None,
    ) -> torch.Tensor:
        for block in self:
            x = block(x, num_frames, embedding, condition)
        return x


def condition_in(unet: UNet2DConditionModel, channels: int) -> nn.Conv2d:
    """Make a second first convolution, over a condition's channels alone."""
    first = unet.conv_in
    return nn.Conv2d(channels, first.out_channels, first.kernel_size, padding=first.padding, bias=False)


def new_gate(unet: UNet2DConditionModel, channels: int, timesteps: int) -> ConditionGate:
    """Make a gate for this U-Net and a condition of so many channels, over a schedule of so many timesteps."""
    return ConditionGate(
        int(unet.config["in_channels"]), channels, features=unet.conv_out.in_channels, timesteps=timesteps
    )
