"""STUNet: a text-to-image U-Net inflated to clips, down- and up-sampling in space *and time* (Lumiere, Figure 4)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import UNet2DConditionModel
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import BaseOutput
from torch import nn

from openlumiere.errors import LumiereError

from . import weights
from .blocks import TemporalDownsample, TemporalUpsample
from .condition import check_condition
from .embedding import embed_clip, layout_of_frames
from .modulation import DEFAULT_HARMONICS
from .t2i import (
    Conditioning,
    attend,
    check_structure,
    fold_frames,
    layers_of,
    resample_space,
    share_text_between_frames,
    takes_layout,
)
from .temporal import TemporalLayers, condition_in, new_gate


@dataclass
class STUNetOutput(BaseOutput):
    """`sample`: the prediction, (batch, channels, frames, height, width)."""

    sample: torch.Tensor


# Saved pipelines name this module, and diffusers looks for `ModelMixin` beside the class: both must stay here.
class STUNet(ModelMixin, ConfigMixin):
    """Space-time U-Net.

    The pre-trained U-Net is kept whole, as `spatial`, and frozen; what inflation adds is `temporal`. At
    initialisation it returns what the T2I would with nearest-neighbour resampling of time, and so, for a clip whose
    frames are all equal, exactly the T2I's prediction on each frame.

    Args:
        unet: configuration of the UNet2DConditionModel.
        resampled_levels: indices of the spatial down-samplers that are followed by a temporal one (and the matching
            up-samplers); None = all, as in the paper; [] = none, a fixed-frame-rate inflation.
        attention_layers: attention blocks stacked at each place of the coarsest level.
        attention_head_dim: channels of each head of temporal attention.
        temporal_width: inner channels of the convolution blocks, as a fraction of the level's.
        temporal_init: "identity" as in the paper or "he" (ablation), of the temporal resampling convolutions.
        temporal_conditioning: condition the temporal layers on prompt, noise level and position in the clip directly,
            see `TemporalConditioning`.
        temporal_harmonics: highest frequency of what they are told, in half-periods over the clip: twice the number of
            times that the fastest motion repeats itself in a clip.
        condition_channels: channels of ⟨C, M⟩, the condition beside the noisy clip, see `add_condition_channels`.
        condition_blocks: show the condition to every inflation block too, see `add_condition_to_blocks`.
        condition_pooling: how blocks of coarser levels of time see it, see `add_condition_to_blocks`. The default is
            that of models saved before there was a choice; new ones get "max".
        condition_gate: timesteps of the noise schedule by which C also goes straight to the output, see `add_gate`;
            0 = it does not. The schedule itself comes with the weights.

    Raises:
        LumiereError: a U-Net whose blocks have another structure, or an option out of range.
    """

    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(
        self,
        *,
        unet: dict[str, Any],
        resampled_levels: list[int] | None = None,
        attention_layers: int = 2,
        attention_head_dim: int = 32,
        temporal_width: float = 1.0,
        temporal_init: Literal["identity", "he"] = "identity",
        temporal_conditioning: bool = False,
        temporal_harmonics: int = DEFAULT_HARMONICS,
        condition_channels: int = 0,
        condition_blocks: bool = False,
        condition_pooling: Literal["first", "max"] = "first",
        condition_gate: int = 0,
    ) -> None:
        super().__init__()
        self.spatial = UNet2DConditionModel.from_config(unet)
        check_structure(self.spatial)
        samplers = len(self.spatial.down_blocks) - 1
        resampled = list(range(samplers)) if resampled_levels is None else sorted(resampled_levels)
        if any(not 0 <= level < samplers for level in resampled):
            raise LumiereError(
                f"resampled_levels {resampled}: this U-Net's spatial down-samplers are 0 to {samplers - 1}"
            )
        if len(set(resampled)) < len(resampled):
            raise LumiereError(f"resampled_levels {resampled}: name each level once")
        if temporal_init not in ("identity", "he"):
            raise LumiereError(f"temporal_init {temporal_init!r}: use 'identity' or 'he'")
        if temporal_harmonics < 1:
            raise LumiereError(f"temporal_harmonics {temporal_harmonics}: choose 1 or more")
        check_condition(
            self.spatial, condition_channels,
            blocks=condition_blocks, gate=condition_gate > 0, pooling=condition_pooling,
        )  # fmt: skip
        self.temporal = TemporalLayers(
            self.spatial,
            resampled=resampled,
            attention_layers=attention_layers,
            attention_head_dim=attention_head_dim,
            width=temporal_width,
            conditioning=temporal_conditioning,
            harmonics=temporal_harmonics,
            condition_channels=condition_channels,
        )
        if condition_blocks:
            self.temporal.add_condition_to_blocks(condition_channels)
        if condition_gate:
            self.temporal.gate = new_gate(self.spatial, condition_channels, condition_gate)
        self.frame_multiple = 2 ** len(resampled)
        self.gradient_checkpointing = False
        self.temporal.reset(self.config["temporal_init"])
        self.freeze_spatial()
        share_text_between_frames(self.spatial)

    @classmethod
    def from_unet(cls, unet: UNet2DConditionModel, *, temporal: str | Path | None = None, **options: Any) -> STUNet:
        """Inflate a U-Net. Its modules are used, not copied.

        Args:
            unet: any UNet2DConditionModel of (resnet, attention) blocks, on any device (meta too).
            temporal: folder of `save_temporal`, whose weights and options are taken.
            options: as the class's, except `unet`; a gate is added by `add_gate` afterwards.
        """
        check_structure(unet)
        if temporal is not None:
            options = weights.read_options(temporal) | options
        else:
            options = {"condition_pooling": "max"} | options
            if options.get("condition_gate"):
                raise LumiereError(
                    "condition_gate needs a noise schedule: leave it out, and call add_gate(alphas_cumprod, "
                    "prediction_type) on the inflated network"
                )
        config = {key: value for key, value in dict(unet.config).items() if not key.startswith("_")}
        # Build on the meta device, so that a large T2I is not in memory twice.
        with torch.device("meta"):
            net = cls(unet=config, **options)
        net.spatial = unet
        share_text_between_frames(unet)
        weight = next(unet.parameters())
        net.temporal = net.temporal.to(dtype=weight.dtype).to_empty(device=weight.device)
        net.temporal.reset(net.config["temporal_init"])
        net.freeze_spatial()
        if temporal is not None:
            net.load_temporal(temporal)
        return net

    def add_condition_channels(self, channels: int) -> None:
        """Take a condition of so many channels beside the noisy clip: ⟨J, C, M⟩ of the paper's section 4.2.

        A convolution over more channels is the sum of two, so the T2I's own first convolution stays as it is, frozen,
        and the added one starts at zero: the widened network returns what it did before, whatever the condition.
        """
        if channels < 1 or self.temporal.condition_in is not None:
            raise LumiereError(
                f"add_condition_channels({channels}): a network is widened once, by one channel at least"
            )
        added = condition_in(self.spatial, channels)
        nn.init.zeros_(added.weight)
        self.temporal.condition_in = added
        self._grown(condition_channels=channels)

    def add_condition_to_blocks(self, pooling: Literal["first", "max"] = "max") -> None:
        """Show the condition to every inflation block too, pooled to its level of space-time; zero at the start.

        Beyond the paper. The frozen T2I mixes all that its first convolution returns with the noise, and little of a
        condition comes through; trained layers can read it at first hand. Call `add_condition_channels` first.

        Args:
            pooling: what a frame of a coarser level sees of the frames that it stands for: "max" = where M is largest;
                "first" = the first of them alone, as in models saved before there was a choice.
        """
        if self.temporal.condition_in is None or self.config["condition_blocks"]:
            raise LumiereError(
                "add_condition_to_blocks: widen the network first (add_condition_channels), and its blocks once"
            )
        channels = self.config["condition_channels"]
        check_condition(self.spatial, channels, blocks=True, pooling=pooling)
        self.temporal.add_condition_to_blocks(channels)
        self._grown(condition_blocks=True, condition_pooling=pooling)

    def add_gate(self, alphas_cumprod: torch.Tensor, prediction_type: str) -> None:
        """Let C pass straight to the output, wherever a learned gate opens: see `ConditionGate`.

        Beyond the paper. With nothing given the network returns what it did before. Call `add_condition_channels`
        first.

        Args:
            alphas_cumprod, prediction_type: of the noise schedule that the network was trained with.
        """
        if self.temporal.gate is not None:
            raise LumiereError("add_gate: this network has a gate; add it once")
        channels = self.config["condition_channels"]
        check_condition(self.spatial, channels, gate=True)
        self.temporal.gate = new_gate(self.spatial, channels, len(alphas_cumprod))
        self.temporal.gate.set_schedule(alphas_cumprod, prediction_type)
        self._grown(condition_gate=len(alphas_cumprod))

    def _grown(self, **config: Any) -> None:
        """Bring new layers to the network's device and dtype, and note them in its config."""
        weight = self.spatial.conv_in.weight
        self.temporal.to(weight.device, weight.dtype)
        self.register_to_config(**config)

    def freeze_spatial(self) -> None:
        """Train the temporal layers alone, as the paper does."""
        self.spatial.requires_grad_(False)
        self.temporal.requires_grad_(True)

    def save_temporal(self, folder: str | Path) -> None:
        """Write the temporal weights alone, to be put on any T2I of the same shape by `from_unet(..., temporal=)`."""
        weights.save_temporal(folder, self.temporal, self.config)

    def load_temporal(self, folder: str | Path) -> None:
        """Read the weights that `save_temporal` wrote.

        Raises:
            LumiereError: they are missing, damaged, or of a network of another shape.
        """
        weights.load_temporal(folder, self.temporal)

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | float | int,
        encoder_hidden_states: torch.Tensor,
        *,
        class_labels: torch.Tensor | None = None,
        timestep_cond: torch.Tensor | None = None,
        encoder_attention_mask: torch.Tensor | None = None,
        added_cond_kwargs: dict[str, torch.Tensor] | None = None,
        frame_positions: torch.Tensor | None = None,
        layout: torch.Tensor | None = None,
        temporal_layers: bool = True,
        return_dict: bool = True,
    ) -> STUNetOutput | tuple[torch.Tensor]:
        """Predict the noise, or v, of a noisy clip.

        Args:
            sample: (B, C, F, H, W); F must be a multiple of `frame_multiple`. A widened network's may hold
                `condition_channels` more, the condition's; left out, the condition is zero.
            timestep: a number, or of shape (B,).
            encoder_hidden_states: text, (B, L, D).
            class_labels: (B,), for T2Is with a class embedding, such as the noise level of DeepFloyd IF stage II.
            encoder_attention_mask: (B, L), 1 = keep.
            added_cond_kwargs: as UNet2DConditionModel's, such as SDXL's `text_embeds` and `time_ids`.
            frame_positions: (B, F), where in the clip each frame is (`clock.frame_position`), for
                `temporal_conditioning`; None = `sample` is the whole clip.
            layout: (B, F, 6), where the subject is in each frame, for T2Is whose class embedding takes it: x and y in
                [-1, 1], log side, sine and cosine of the angle, and whether it is known; see `diffusion.layout`.
                None = it is not known.
            temporal_layers: False = leave them out, and the condition: each frame is predicted by itself, as the T2I
                would; any number of frames then.

        Raises:
            LumiereError: a number of frames that the temporal levels don't divide; a layout of another shape, or for a
                T2I that takes none.
        """
        sample, condition = self._split(sample)
        batch, _, frames, *_ = sample.shape
        if not temporal_layers:
            out = self._by_itself(
                sample, timestep, encoder_hidden_states, class_labels, encoder_attention_mask, added_cond_kwargs, layout
            )
            return STUNetOutput(sample=out) if return_dict else (out,)
        if frames % self.frame_multiple:
            raise LumiereError(
                f"{frames} frames: this network halves time {self.frame_multiple.bit_length() - 1} times, "
                f"so choose a multiple of {self.frame_multiple}"
            )
        t2i, temporal = self.spatial, self.temporal
        conditioning = embed_clip(
            t2i,
            temporal.conditioning,
            sample,
            timestep,
            encoder_hidden_states,
            condition=condition if self.config["condition_blocks"] else None,
            masks=self._pooling_masks,
            class_labels=class_labels,
            timestep_cond=timestep_cond,
            text_mask=encoder_attention_mask,
            added=added_cond_kwargs,
            positions=frame_positions,
            layout=layout,
        )

        noisy = fold_frames(2 * sample - 1.0 if t2i.config["center_input_sample"] else sample)
        x = t2i.conv_in(noisy)
        if condition is not None and temporal.condition_in is not None:
            x = x + temporal.condition_in(fold_frames(condition))

        # Down: at each level, spatial layers and inflation blocks, then space and time shrink.
        skips = [x]
        for level, block in enumerate(t2i.down_blocks):
            for resnet, attention, inflation in layers_of(block, temporal.down[level]):
                x = self._layers(x, frames, conditioning, resnet, attention, inflation)
                skips.append(x)
            if block.downsamplers is not None:
                for downsampler in block.downsamplers:
                    x = resample_space(downsampler, x, conditioning.embedding_for(frames))
                x, frames = self._resample_time(temporal.downsamplers[level], x, frames)
                skips.append(x)

        # Middle: the coarsest level of space-time, where most of the work is done.
        if t2i.mid_block is not None and temporal.mid is not None:
            x = t2i.mid_block.resnets[0](x, conditioning.embedding_for(frames))
            for attention, resnet in zip(t2i.mid_block.attentions, t2i.mid_block.resnets[1:], strict=True):
                x = attend(attention, x, conditioning, frames)
                x = resnet(x, conditioning.embedding_for(frames))
            x = temporal.mid(x, frames, conditioning.temporal_for(frames), conditioning.condition_for(frames, x))

        # Up: the mirror image, with the skip connections of the same level of space-time.
        for level, block in enumerate(t2i.up_blocks):
            for resnet, attention, inflation in layers_of(block, temporal.up[level]):
                x = torch.cat([x, skips.pop()], dim=1)
                x = self._layers(x, frames, conditioning, resnet, attention, inflation)
            if block.upsamplers is not None:
                size = tuple(skips[-1].shape[2:])
                for upsampler in block.upsamplers:
                    x = resample_space(upsampler, x, conditioning.embedding_for(frames), size)
                x, frames = self._resample_time(temporal.upsamplers[level], x, frames)

        if t2i.conv_norm_out is not None:
            x = t2i.conv_act(t2i.conv_norm_out(x))
        out = t2i.conv_out(x)
        if temporal.gate is not None and condition is not None:
            out = temporal.gate(out, x, noisy, fold_frames(condition), timestep)
        out = out.unflatten(0, (batch, frames)).transpose(1, 2)
        return STUNetOutput(sample=out) if return_dict else (out,)

    def _by_itself(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | float | int,
        text: torch.Tensor,
        class_labels: torch.Tensor | None,
        text_mask: torch.Tensor | None,
        added: dict[str, torch.Tensor] | None,
        layout: torch.Tensor | None,
    ) -> torch.Tensor:
        """Predict each frame as the T2I does; arguments as `forward`'s, with as many timesteps as clips or one."""
        batch, _, frames, *_ = sample.shape
        every = partial(torch.repeat_interleave, repeats=frames, dim=0)
        layout = layout_of_frames(self.spatial, sample, layout, class_labels)
        if layout is not None:
            class_labels = layout.flatten(0, 1)
        elif class_labels is not None:
            class_labels = every(class_labels)
        several = isinstance(timestep, torch.Tensor) and timestep.ndim > 0 and len(timestep) > 1
        out = self.spatial(
            fold_frames(sample),
            every(timestep) if several else timestep,
            every(text),
            class_labels=class_labels,
            encoder_attention_mask=None if text_mask is None else every(text_mask),
            added_cond_kwargs=None if added is None else {name: every(value) for name, value in added.items()},
        ).sample
        return out.unflatten(0, (batch, frames)).transpose(1, 2)

    @property
    def takes_layout(self) -> bool:
        """Whether the network takes a layout, see `forward`."""
        return takes_layout(self.spatial)

    @property
    def _pooling_masks(self) -> int:
        """Channels of M by which the condition is pooled over time, see `pool_condition`."""
        if not self.config["condition_blocks"] or self.config["condition_pooling"] == "first":
            return 0
        return int(self.config["condition_channels"] - self.spatial.config["in_channels"])

    def _split(self, sample: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Split the noisy clip from the condition, where there is one."""
        own, more = self.spatial.config["in_channels"], self.config["condition_channels"]
        if sample.shape[1] not in (own, own + more):
            wide = f", or {own + more} with its condition" if more else ""
            raise LumiereError(f"a clip of {sample.shape[1]} channels: this network takes {own}{wide}")
        return (sample, None) if sample.shape[1] == own else (sample[:, :own], sample[:, own:])

    def _layers(
        self,
        x: torch.Tensor,
        frames: int,
        conditioning: Conditioning,
        resnet: nn.Module,
        attention: nn.Module | None,
        inflation: nn.Module,
    ) -> torch.Tensor:
        """Run pre-trained spatial layers, then the inflation block on their output."""

        def run(x: torch.Tensor) -> torch.Tensor:
            h = resnet(x, conditioning.embedding_for(frames))
            if attention is not None:
                h = attend(attention, h, conditioning, frames)
            return inflation(h, frames, conditioning.temporal_for(frames), conditioning.condition_for(frames, h))

        if self.gradient_checkpointing and torch.is_grad_enabled():
            return self._gradient_checkpointing_func(run, x)
        return run(x)

    @staticmethod
    def _resample_time(sampler: nn.Module, x: torch.Tensor, frames: int) -> tuple[torch.Tensor, int]:
        match sampler:
            case TemporalDownsample():
                return sampler(x, frames), frames // 2
            case TemporalUpsample():
                return sampler(x, frames), frames * 2
            case _:
                return x, frames
