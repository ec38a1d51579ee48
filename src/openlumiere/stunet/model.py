"""STUNet: a text-to-image U-Net inflated to clips, down- and up-sampling in space *and time* (Lumiere, Figure 4)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.utils import BaseOutput
from safetensors.torch import load_file, save_file
from torch import nn

from openlumiere.errors import LumiereError

from .blocks import (
    AttentionBlock,
    ConvolutionBlock,
    GivenGate,
    TemporalConditioning,
    TemporalDownsample,
    TemporalUpsample,
)

_TEMPORAL_WEIGHTS, _TEMPORAL_CONFIG = "temporal.safetensors", "temporal.json"

# Blocks whose layers are (resnet, attention) pairs between one down- or up-sampler: Stable Diffusion, DeepFloyd IF,
# and most of diffusers. The k-diffusion upscaler's and the skip blocks run their layers in another order.
_SPATIAL_BLOCKS = {
    "DownBlock2D", "CrossAttnDownBlock2D", "SimpleCrossAttnDownBlock2D", "ResnetDownsampleBlock2D", "AttnDownBlock2D",
    "UNetMidBlock2D", "UNetMidBlock2DCrossAttn", "UNetMidBlock2DSimpleCrossAttn",
    "UpBlock2D", "CrossAttnUpBlock2D", "SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D", "AttnUpBlock2D",
}  # fmt: skip


@dataclass
class STUNetOutput(BaseOutput):
    """`sample`: the prediction, (batch, channels, frames, height, width)."""

    sample: torch.Tensor


class TemporalLayers(nn.Module):
    """All that inflation adds, in the order in which the forward pass meets it.

    Attributes:
        down, up: for each level of the path, a block for each of its (resnet, attention) pairs.
        mid: the coarsest level's, after the T2I's middle block.
        downsamplers, upsamplers: one after each spatial one; None where time is not resampled.
        conditioning: see `TemporalConditioning`; None as in the paper.
        condition_in: what widens the first convolution by the channels of a condition; None without one.
        gate: lets the condition pass straight to the output; None = it does not.
    """

    def __init__(
        self, unet: UNet2DConditionModel, *, resampled: list[int], attention_layers: int, attention_head_dim: int,
        width: float, conditioning: bool, condition_channels: int,
    ) -> None:  # fmt: skip
        super().__init__()
        channels = list(unet.config["block_out_channels"])
        coarsest = len(channels) - 1
        groups = unet.config["norm_num_groups"] or 32
        condition_dim = _time_embed_dim(unet) if conditioning else None
        self.conditioning = TemporalConditioning(_text_dim(unet), _time_embed_dim(unet)) if conditioning else None
        self.condition_in = _condition_in(unet, condition_channels) if condition_channels else None
        self.gate: GivenGate | None = None

        def block(level: int) -> nn.Module:
            if level == coarsest:
                return _Stack(
                    AttentionBlock(channels[level], head_dim=attention_head_dim, condition_dim=condition_dim)
                    for _ in range(attention_layers)
                )
            inner = max(int(channels[level] * width) // 8, 1) * 8
            return ConvolutionBlock(channels[level], width=inner, groups=groups, condition_dim=condition_dim)

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

    def widen_blocks(self, channels: int) -> None:
        """See `STUNet.widen_blocks`."""
        for module in list(self.modules()):
            if isinstance(module, (ConvolutionBlock, AttentionBlock)):
                module.widen(channels)


class _Stack(nn.ModuleList):
    """Attention blocks one after the other."""

    def forward(
        self,
        x: torch.Tensor,
        num_frames: int,
        condition: torch.Tensor | None = None,
        given: torch.Tensor | None = None,
    ) -> torch.Tensor:
        for block in self:
            x = block(x, num_frames, condition, given)
        return x


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
        temporal_conditioning: tell the temporal layers prompt, noise level and place in the clip directly.
        condition_channels: channels of a condition that the network is given beside the noisy clip, see `widen`.
        condition_blocks: show the condition to every inflation block too, see `widen_blocks`.
        condition_gate: timesteps of the noise schedule where the condition also goes straight to the output, see
            `add_gate`; 0 = it does not.

    Raises:
        LumiereError: for U-Nets whose blocks have another structure.
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
        condition_channels: int = 0,
        condition_blocks: bool = False,
        condition_gate: int = 0,
    ) -> None:
        super().__init__()
        self.spatial = UNet2DConditionModel.from_config(unet)
        _check_structure(self.spatial)
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
        self.temporal = TemporalLayers(
            self.spatial,
            resampled=resampled,
            attention_layers=attention_layers,
            attention_head_dim=attention_head_dim,
            width=temporal_width,
            conditioning=temporal_conditioning,
            condition_channels=condition_channels,
        )
        if condition_blocks:
            self.temporal.widen_blocks(condition_channels)
        if condition_gate:
            self.temporal.gate = _new_gate(self.spatial, condition_channels, condition_gate)
        self.frame_multiple = 2 ** len(resampled)
        self.gradient_checkpointing = False
        self._init_temporal()
        self.freeze_spatial()
        _share_text_between_frames(self.spatial)

    @classmethod
    def from_unet(cls, unet: UNet2DConditionModel, *, temporal: str | Path | None = None, **options: Any) -> STUNet:
        """Inflate a U-Net. Its modules are used, not copied.

        Args:
            unet: any UNet2DConditionModel of (resnet, attention) blocks, on any device (meta too).
            temporal: folder of `save_temporal`, whose weights and options are taken.
            options: as the class's, except `unet`.
        """
        _check_structure(unet)
        if temporal is not None:
            options = _read_json(Path(temporal) / _TEMPORAL_CONFIG) | options
        config = {key: value for key, value in dict(unet.config).items() if not key.startswith("_")}
        # Build on the meta device, so that a large T2I is not in memory twice.
        with torch.device("meta"):
            net = cls(unet=config, **options)
        net.spatial = unet
        _share_text_between_frames(unet)
        weight = next(unet.parameters())
        net.temporal = net.temporal.to(dtype=weight.dtype).to_empty(device=weight.device)
        net._init_temporal()
        net.freeze_spatial()
        if temporal is not None:
            net.load_temporal(temporal)
        return net

    def _init_temporal(self) -> None:
        for module in self.temporal.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
        for module in self.temporal.modules():
            if isinstance(module, (TemporalDownsample, TemporalUpsample)):
                module.init_he() if self.config["temporal_init"] == "he" else module.init_identity()
            elif isinstance(module, TemporalConditioning):
                module.init_zero()
                _init_pooling(module)
            elif isinstance(module, (ConvolutionBlock, AttentionBlock)):
                module.init_zero()
        if self.temporal.condition_in is not None:
            nn.init.zeros_(self.temporal.condition_in.weight)

    def widen(self, channels: int) -> None:
        """Make room for a condition of so many channels beside the noisy clip: ⟨J, C, M⟩ of the paper's section 4.2.

        A convolution over more channels is the sum of two, so the T2I's own first convolution stays as it is, frozen,
        and what is added starts at zero: the widened network returns what it did before, whatever it is given.
        """
        if channels < 1 or self.temporal.condition_in is not None:
            raise LumiereError(f"widen({channels}): a network is widened once, by one channel at least")
        weight = self.spatial.conv_in.weight
        added = _condition_in(self.spatial, channels).to(weight.device, weight.dtype)
        nn.init.zeros_(added.weight)
        self.temporal.condition_in = added
        self.register_to_config(condition_channels=channels)

    def widen_blocks(self) -> None:
        """Show the condition to every inflation block too, shrunk to its level of space-time; zero at the start.

        Beyond the paper. The frozen T2I mixes all that its first convolution returns with the noise, and little of a
        condition comes through; what is trained can read it at first hand. Call `widen` first.
        """
        if self.temporal.condition_in is None or self.config["condition_blocks"]:
            raise LumiereError("widen_blocks: widen the network first, and its blocks once")
        self.temporal.widen_blocks(self.config["condition_channels"])
        self.temporal.to(self.spatial.conv_in.weight.device, self.spatial.conv_in.weight.dtype)
        self.register_to_config(condition_blocks=True)

    def add_gate(self, alphas_cumprod: torch.Tensor, prediction_type: str) -> None:
        """Let the condition pass straight to the output, wherever a learned gate opens: see `GivenGate`.

        Beyond the paper. With nothing given the network returns what it did before. Call `widen` first.

        Args:
            alphas_cumprod, prediction_type: of the noise schedule that the network was trained with.
        """
        channels, own = self.config["condition_channels"], self.spatial.config["in_channels"]
        if channels <= own or self.temporal.gate is not None:
            raise LumiereError(f"add_gate: widen the network by more than {own} channels first, and add its gate once")
        gate = _new_gate(self.spatial, channels, len(alphas_cumprod))
        gate.set_schedule(alphas_cumprod, prediction_type)
        self.temporal.gate = gate.to(self.spatial.conv_in.weight.device, self.spatial.conv_in.weight.dtype)
        self.register_to_config(condition_gate=len(alphas_cumprod))

    def freeze_spatial(self) -> None:
        """Train the temporal layers alone, as the paper does."""
        self.spatial.requires_grad_(False)
        self.temporal.requires_grad_(True)

    def save_temporal(self, folder: str | Path) -> None:
        """Write the temporal weights alone, to be put on any T2I of the same shape by `from_unet(..., temporal=)`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = {k: v for k, v in dict(self.config).items() if not k.startswith("_") and k != "unet"}
        for name, write in (
            (_TEMPORAL_WEIGHTS, lambda path: save_file(_contiguous(self.temporal.state_dict()), path)),
            (_TEMPORAL_CONFIG, lambda path: path.write_text(json.dumps(config, indent=2), encoding="utf-8")),
        ):
            partial = folder / f"{name}.partial"
            write(partial)
            partial.rename(folder / name)

    def load_temporal(self, folder: str | Path) -> None:
        """Read the weights that `save_temporal` wrote.

        Raises:
            LumiereError: if they are missing, damaged or of a network of another shape.
        """
        path = Path(folder) / _TEMPORAL_WEIGHTS
        try:
            weights = load_file(path)
        except Exception as error:
            raise LumiereError(f"cannot read temporal weights from {path}: {error}") from error
        try:
            self.temporal.load_state_dict(weights)
        except RuntimeError as error:
            reason = str(error).splitlines()[1].strip()[:200] if "\n" in str(error) else str(error)
            raise LumiereError(f"{path} is of a network of another shape: {reason}") from error

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
        return_dict: bool = True,
    ) -> STUNetOutput | tuple[torch.Tensor]:
        """Predict the noise, or v, of a noisy clip.

        Args:
            sample: (B, C, F, H, W); F must be a multiple of `frame_multiple`. A widened network's may hold
                `condition_channels` more, the condition's; it may also be left out, which means zeros.
            timestep: a number, or of shape (B,).
            encoder_hidden_states: text, (B, L, D).
            class_labels: (B,), for T2Is with a class embedding, such as the noise level of DeepFloyd IF stage II.
            encoder_attention_mask: (B, L), 1 = keep.
            added_cond_kwargs: as UNet2DConditionModel's, such as SDXL's `text_embeds` and `time_ids`.
            frame_positions: (B, F), where in the clip each frame is, 0 = start, 1 = end, for `temporal_conditioning`;
                None = `sample` is the whole clip.

        Raises:
            LumiereError: if the temporal levels don't divide the number of frames.
        """
        sample, given = self._split(sample)
        batch, _, frames, *_ = sample.shape
        if frames % self.frame_multiple:
            raise LumiereError(
                f"{frames} frames: this network halves time {self.frame_multiple.bit_length() - 1} times, "
                f"so choose a multiple of {self.frame_multiple}"
            )
        t2i = self.spatial
        embedding = _embed(t2i, sample, timestep, encoder_hidden_states, class_labels, timestep_cond, added_cond_kwargs)
        text = t2i.process_encoder_hidden_states(encoder_hidden_states, added_cond_kwargs or {})
        mask = None
        if encoder_attention_mask is not None:
            mask = (1 - encoder_attention_mask.to(sample.dtype))[:, None] * -10000.0
        condition, embedding = None, embedding[:, None].expand(-1, frames, -1)
        if self.temporal.conditioning is not None:
            condition, embedding = self.temporal.conditioning(
                encoder_hidden_states, embedding[:, 0], _spread(frame_positions, sample)
            )
        to_blocks = given if self.config["condition_blocks"] else None
        told = _Told(embedding, text, mask, condition, to_blocks, frames)
        if t2i.config["center_input_sample"]:
            sample = 2 * sample - 1.0

        noisy = _pictures(sample)
        x = t2i.conv_in(noisy)
        if given is not None and self.temporal.condition_in is not None:
            x = x + self.temporal.condition_in(_pictures(given))

        # Down: at each level, spatial layers and inflation blocks, then space and time shrink.
        skips = [x]
        for level, block in enumerate(t2i.down_blocks):
            for resnet, attention, inflation in _units(block, self.temporal.down[level]):
                x = self._layers(x, frames, told, resnet, attention, inflation)
                skips.append(x)
            if block.downsamplers is not None:
                for downsampler in block.downsamplers:
                    x = _resample_space(downsampler, x, told.embedding_for(frames))
                x, frames = self._resample_time(self.temporal.downsamplers[level], x, frames)
                skips.append(x)

        # Middle: the coarsest level of space-time, where most of the work is done.
        if t2i.mid_block is not None and self.temporal.mid is not None:
            x = t2i.mid_block.resnets[0](x, told.embedding_for(frames))
            for attention, resnet in zip(t2i.mid_block.attentions, t2i.mid_block.resnets[1:], strict=True):
                x = _attend(attention, x, told, frames)
                x = resnet(x, told.embedding_for(frames))
            x = self.temporal.mid(x, frames, told.condition_for(frames), told.given_for(frames, x))

        # Up: the mirror image, with the skip connections of the same level of space-time.
        for level, block in enumerate(t2i.up_blocks):
            for resnet, attention, inflation in _units(block, self.temporal.up[level]):
                x = torch.cat([x, skips.pop()], dim=1)
                x = self._layers(x, frames, told, resnet, attention, inflation)
            if block.upsamplers is not None:
                for upsampler in block.upsamplers:
                    x = _resample_space(upsampler, x, told.embedding_for(frames), size=tuple(skips[-1].shape[2:]))
                x, frames = self._resample_time(self.temporal.upsamplers[level], x, frames)

        if t2i.conv_norm_out is not None:
            x = t2i.conv_act(t2i.conv_norm_out(x))
        features = x
        x = t2i.conv_out(features)
        if self.temporal.gate is not None and given is not None:
            x = self.temporal.gate(x, features, noisy, _pictures(given), timestep)
        out = x.unflatten(0, (batch, frames)).transpose(1, 2)
        return STUNetOutput(sample=out) if return_dict else (out,)

    def _split(self, sample: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The noisy clip, and the condition where one is given."""
        own, more = self.spatial.config["in_channels"], self.config["condition_channels"]
        if sample.shape[1] not in (own, own + more):
            wide = f", or {own + more} with its condition" if more else ""
            raise LumiereError(f"a clip of {sample.shape[1]} channels: this network takes {own}{wide}")
        return (sample, None) if sample.shape[1] == own else (sample[:, :own], sample[:, own:])

    def _layers(
        self,
        x: torch.Tensor,
        frames: int,
        told: _Told,
        resnet: nn.Module,
        attention: nn.Module | None,
        inflation: nn.Module,
    ) -> torch.Tensor:
        """Pre-trained spatial layers, then the inflation block on their output."""

        def run(x: torch.Tensor) -> torch.Tensor:
            h = resnet(x, told.embedding_for(frames))
            if attention is not None:
                h = _attend(attention, h, told, frames)
            return inflation(h, frames, told.condition_for(frames), told.given_for(frames, h))

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


@dataclass(frozen=True)
class _Told:
    """Conditioning of one forward pass, at any frame rate of the levels.

    Attributes:
        embedding: of timestep, class and added conditions, (B, F, D).
        text: (B, L, D'), not repeated for the frames.
        mask: bias of attention to text, (B, 1, L).
        condition: of the temporal layers, (B, F, D).
        given: what is given of the clip, for the inflation blocks, (B, C, F, H, W).
        frames: F, of the finest level.
    """

    embedding: torch.Tensor
    text: torch.Tensor
    mask: torch.Tensor | None
    condition: torch.Tensor | None
    given: torch.Tensor | None
    frames: int

    def embedding_for(self, frames: int) -> torch.Tensor:
        """(B * frames, D)."""
        return self._at(self.embedding, frames).flatten(0, 1)

    def condition_for(self, frames: int) -> torch.Tensor | None:
        """(B, frames, D): the finest level's, at the coarser level's rate."""
        return None if self.condition is None else self._at(self.condition, frames)

    def given_for(self, frames: int, x: torch.Tensor) -> torch.Tensor | None:
        """(B * frames, C, H, W) of the size of features: the frames that the level keeps, averaged in space."""
        if self.given is None:
            return None
        kept = _pictures(self.given[:, :, :: self.frames // frames])
        return kept if kept.shape[2:] == x.shape[2:] else F.adaptive_avg_pool2d(kept, (x.shape[2], x.shape[3]))

    def _at(self, told: torch.Tensor, frames: int) -> torch.Tensor:
        return told[:, :: self.frames // frames]


def _pictures(clips: torch.Tensor) -> torch.Tensor:
    """Frames in the batch dimension: (B, C, F, H, W) -> (B * F, C, H, W)."""
    return clips.transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)


def _spread(positions: torch.Tensor | None, sample: torch.Tensor) -> torch.Tensor:
    """Where in the clip each frame is, (B, F): evenly from start to end where it is not told."""
    batch, _, frames, *_ = sample.shape
    if positions is None:
        evenly = (torch.arange(frames, device=sample.device, dtype=torch.float32) + 0.5) / frames
        return evenly.expand(batch, -1)
    return positions.to(sample.device, torch.float32)


def _units(block: Any, inflations: nn.Module) -> Iterator[tuple[nn.Module, nn.Module | None, nn.Module]]:
    """The (resnet, attention or None, inflation block) triples of one block of the T2I."""
    attentions = getattr(block, "attentions", None) or [None] * len(block.resnets)
    return zip(block.resnets, attentions, cast(nn.ModuleList, inflations), strict=True)


def _attend(attention: nn.Module, x: torch.Tensor, told: _Told, frames: int) -> torch.Tensor:
    """The T2I's own spatial (and text) attention on each frame."""
    if isinstance(attention, Transformer2DModel):
        return attention(x, encoder_hidden_states=told.text, encoder_attention_mask=told.mask, return_dict=False)[0]
    if attention.added_kv_proj_dim is None:  # self-attention of blocks without text
        return attention(x, temb=told.embedding_for(frames))
    # DeepFloyd IF attends to pixels and text at once, so each frame needs the text beside it.
    text = told.text.repeat_interleave(frames, dim=0)
    mask = None if told.mask is None else told.mask.repeat_interleave(frames, dim=0)
    return attention(x, encoder_hidden_states=text, attention_mask=mask)


def _resample_space(
    sampler: nn.Module, x: torch.Tensor, embedding: torch.Tensor, size: tuple[int, ...] | None = None
) -> torch.Tensor:
    if isinstance(sampler, ResnetBlock2D):
        return sampler(x, embedding)
    if size is None or size == (2 * x.shape[2], 2 * x.shape[3]):
        return sampler(x)
    return sampler(x, size)


def _embed(
    t2i: UNet2DConditionModel,
    sample: torch.Tensor,
    timestep: torch.Tensor | float | int,
    text: torch.Tensor,
    class_labels: torch.Tensor | None,
    timestep_cond: torch.Tensor | None,
    added: dict[str, torch.Tensor] | None,
) -> torch.Tensor:
    """The T2I's embedding of timestep, class and added conditions, (B, D)."""
    time = t2i.get_time_embed(sample=sample, timestep=timestep)
    embedding = t2i.time_embedding(time, timestep_cond)
    of_class = t2i.get_class_embed(sample=sample, class_labels=class_labels)
    if of_class is not None:
        concat = t2i.config["class_embeddings_concat"]
        embedding = torch.cat([embedding, of_class], dim=-1) if concat else embedding + of_class
    of_added = t2i.get_aug_embed(emb=embedding, encoder_hidden_states=text, added_cond_kwargs=added or {})
    if of_added is not None:
        embedding = embedding + of_added
    return t2i.time_embed_act(embedding) if t2i.time_embed_act is not None else embedding


class _TextSharedByFrames(AttnProcessor2_0):
    """Attention to text with all frames of a clip as one long row of queries.

    Attention treats queries independently, so keys and values of the text need computing once for a clip, not once
    for a frame: the processor views (B * F, N, C) queries beside (B, L, C) text as (B, F * N, C).
    """

    def __call__(self, attn: Attention, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return super().__call__(attn, hidden_states, *args, **kwargs).reshape(hidden_states.shape)


def _share_text_between_frames(unet: UNet2DConditionModel) -> None:
    for transformer in unet.modules():
        if isinstance(transformer, Transformer2DModel):
            for module in transformer.modules():
                if isinstance(module, Attention):
                    module.set_processor(_TextSharedByFrames())


def _check_structure(unet: UNet2DConditionModel) -> None:
    if not isinstance(unet, UNet2DConditionModel):
        raise LumiereError(f"STUNet grows from a UNet2DConditionModel, not from a {type(unet).__name__}")
    blocks = [*unet.down_blocks, *unet.up_blocks] + ([unet.mid_block] if unet.mid_block is not None else [])
    for block in blocks:
        if type(block).__name__ not in _SPATIAL_BLOCKS:
            raise LumiereError(f"cannot inflate a U-Net with {type(block).__name__}; known: {sorted(_SPATIAL_BLOCKS)}")
    if unet.config["addition_embed_type"] == "image_hint" or unet.config["dual_cross_attention"]:
        raise LumiereError("cannot inflate a U-Net with image hints or dual cross-attention")
    if getattr(unet, "position_net", None) is not None:
        raise LumiereError("cannot inflate a GLIGEN U-Net; load the plain one")


def _condition_in(unet: UNet2DConditionModel, channels: int) -> nn.Conv2d:
    first = unet.conv_in
    return nn.Conv2d(channels, first.out_channels, first.kernel_size, padding=first.padding, bias=False)


def _new_gate(unet: UNet2DConditionModel, channels: int, timesteps: int) -> GivenGate:
    return GivenGate(int(unet.config["in_channels"]), channels, features=unet.conv_out.in_channels, timesteps=timesteps)


def _time_embed_dim(unet: UNet2DConditionModel) -> int:
    width = int(unet.time_embedding.linear_2.out_features)
    return 2 * width if unet.config["class_embeddings_concat"] else width


def _text_dim(unet: UNet2DConditionModel) -> int:
    dim: Callable[[str], Any] = unet.config.get
    return int(dim("encoder_hid_dim") or _last(dim("cross_attention_dim")))


def _last(value: Any) -> int:
    return int(value[-1] if isinstance(value, (list, tuple)) else value)


def _init_pooling(conditioning: TemporalConditioning) -> None:
    # AttentionPooling holds a bare parameter, which no reset_parameters reaches.
    embedding = conditioning.text.pool.positional_embedding
    nn.init.normal_(embedding, std=embedding.shape[-1] ** -0.5)


def _contiguous(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.contiguous() for name, value in weights.items()}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise LumiereError(f"cannot read {path}: {error}") from error
