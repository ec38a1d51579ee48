"""STUNet: a text-to-image U-Net inflated to clips, down- and up-sampling in space *and time* (Lumiere, Figure 4)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import UNet2DConditionModel
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import BaseOutput
from safetensors.torch import load_file, save_file
from torch import nn

from openlumiere.clock import frame_position
from openlumiere.errors import LumiereError

from .blocks import TemporalDownsample, TemporalUpsample
from .t2i import (
    LAYOUT_DIM,
    Conditioning,
    attend,
    check_structure,
    embed,
    fold_frames,
    layers_of,
    resample_space,
    share_text_between_frames,
    takes_layout,
)
from .temporal import TemporalLayers, condition_in, new_gate

_TEMPORAL_WEIGHTS, _TEMPORAL_CONFIG = "temporal.safetensors", "temporal.json"


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
        temporal_conditioning: tell the temporal layers prompt, noise level and place in the clip directly.
        condition_channels: channels of a condition that the network is given beside the noisy clip, see
            `add_condition_channels`.
        condition_blocks: show the condition to every inflation block too, see `add_condition_to_blocks`.
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
            options: as the class's, except `unet`.
        """
        check_structure(unet)
        if temporal is not None:
            options = _read_json(Path(temporal) / _TEMPORAL_CONFIG) | options
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
        """Make room for a condition of so many channels beside the noisy clip: ⟨J, C, M⟩ of the paper's section 4.2.

        A convolution over more channels is the sum of two, so the T2I's own first convolution stays as it is, frozen,
        and what is added starts at zero: the widened network returns what it did before, whatever it is given.
        """
        if channels < 1 or self.temporal.condition_in is not None:
            raise LumiereError(f"widen({channels}): a network is widened once, by one channel at least")
        weight = self.spatial.conv_in.weight
        added = condition_in(self.spatial, channels).to(weight.device, weight.dtype)
        nn.init.zeros_(added.weight)
        self.temporal.condition_in = added
        self.register_to_config(condition_channels=channels)

    def add_condition_to_blocks(self) -> None:
        """Show the condition to every inflation block too, shrunk to its level of space-time; zero at the start.

        Beyond the paper. The frozen T2I mixes all that its first convolution returns with the noise, and little of a
        condition comes through; what is trained can read it at first hand. Call `add_condition_channels` first.
        """
        if self.temporal.condition_in is None or self.config["condition_blocks"]:
            raise LumiereError("widen_blocks: widen the network first, and its blocks once")
        self.temporal.add_condition_to_blocks(self.config["condition_channels"])
        self.temporal.to(self.spatial.conv_in.weight.device, self.spatial.conv_in.weight.dtype)
        self.register_to_config(condition_blocks=True)

    def add_gate(self, alphas_cumprod: torch.Tensor, prediction_type: str) -> None:
        """Let the condition pass straight to the output, wherever a learned gate opens: see `ConditionGate`.

        Beyond the paper. With nothing given the network returns what it did before. Call
        `add_condition_channels` first.

        Args:
            alphas_cumprod, prediction_type: of the noise schedule that the network was trained with.
        """
        channels, own = self.config["condition_channels"], self.spatial.config["in_channels"]
        if channels <= own or self.temporal.gate is not None:
            raise LumiereError(f"add_gate: widen the network by more than {own} channels first, and add its gate once")
        gate = new_gate(self.spatial, channels, len(alphas_cumprod))
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
        layout: torch.Tensor | None = None,
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
            frame_positions: (B, F), where in the clip each frame is (`clock.frame_position`), for
                `temporal_conditioning`; None = `sample` is the whole clip.
            layout: (B, F, 6), where the subject is in each frame, for T2Is whose class embedding takes it: x and y in
                [-1, 1], log side, sine and cosine of the angle, and whether it is given; see `diffusion.layout`.
                None = it is not given.

        Raises:
            LumiereError: if the temporal levels don't divide the number of frames; a layout of another shape, or for a
                T2I that takes none.
        """
        sample, given = self._split(sample)
        batch, _, frames, *_ = sample.shape
        if frames % self.frame_multiple:
            raise LumiereError(
                f"{frames} frames: this network halves time {self.frame_multiple.bit_length() - 1} times, "
                f"so choose a multiple of {self.frame_multiple}"
            )
        t2i = self.spatial
        layout = self._layout(layout, class_labels, sample)

        def embedded(labels: torch.Tensor | None) -> torch.Tensor:
            return embed(t2i, sample, timestep, encoder_hidden_states, labels, timestep_cond, added_cond_kwargs)

        embedding = embedded(class_labels if layout is None else layout)
        text = t2i.process_encoder_hidden_states(encoder_hidden_states, added_cond_kwargs or {})
        mask = None
        if encoder_attention_mask is not None:
            mask = (1 - encoder_attention_mask.to(sample.dtype))[:, None] * -10000.0
        if embedding.ndim == 2:
            embedding = embedding[:, None].expand(-1, frames, -1)
        condition = None
        if self.temporal.conditioning is not None:
            unplaced = embedding[:, 0] if layout is None else embedded(torch.zeros_like(layout[:, 0]))
            condition, steering = self.temporal.conditioning(
                encoder_hidden_states, unplaced, _spread(frame_positions, sample), layout
            )
            embedding = embedding + steering
        to_blocks = given if self.config["condition_blocks"] else None
        conditioning = Conditioning(embedding, text, mask, condition, to_blocks, frames)
        if t2i.config["center_input_sample"]:
            sample = 2 * sample - 1.0

        noisy = fold_frames(sample)
        x = t2i.conv_in(noisy)
        if given is not None and self.temporal.condition_in is not None:
            x = x + self.temporal.condition_in(fold_frames(given))

        # Down: at each level, spatial layers and inflation blocks, then space and time shrink.
        skips = [x]
        for level, block in enumerate(t2i.down_blocks):
            for resnet, attention, inflation in layers_of(block, self.temporal.down[level]):
                x = self._layers(x, frames, conditioning, resnet, attention, inflation)
                skips.append(x)
            if block.downsamplers is not None:
                for downsampler in block.downsamplers:
                    x = resample_space(downsampler, x, conditioning.embedding_for(frames))
                x, frames = self._resample_time(self.temporal.downsamplers[level], x, frames)
                skips.append(x)

        # Middle: the coarsest level of space-time, where most of the work is done.
        if t2i.mid_block is not None and self.temporal.mid is not None:
            x = t2i.mid_block.resnets[0](x, conditioning.embedding_for(frames))
            for attention, resnet in zip(t2i.mid_block.attentions, t2i.mid_block.resnets[1:], strict=True):
                x = attend(attention, x, conditioning, frames)
                x = resnet(x, conditioning.embedding_for(frames))
            x = self.temporal.mid(x, frames, conditioning.condition_for(frames), conditioning.given_for(frames, x))

        # Up: the mirror image, with the skip connections of the same level of space-time.
        for level, block in enumerate(t2i.up_blocks):
            for resnet, attention, inflation in layers_of(block, self.temporal.up[level]):
                x = torch.cat([x, skips.pop()], dim=1)
                x = self._layers(x, frames, conditioning, resnet, attention, inflation)
            if block.upsamplers is not None:
                for upsampler in block.upsamplers:
                    x = resample_space(
                        upsampler, x, conditioning.embedding_for(frames), size=tuple(skips[-1].shape[2:])
                    )
                x, frames = self._resample_time(self.temporal.upsamplers[level], x, frames)

        if t2i.conv_norm_out is not None:
            x = t2i.conv_act(t2i.conv_norm_out(x))
        features = x
        x = t2i.conv_out(features)
        if self.temporal.gate is not None and given is not None:
            x = self.temporal.gate(x, features, noisy, fold_frames(given), timestep)
        out = x.unflatten(0, (batch, frames)).transpose(1, 2)
        return STUNetOutput(sample=out) if return_dict else (out,)

    @property
    def takes_layout(self) -> bool:
        """Whether the network is told where its subject is, see `forward`."""
        return takes_layout(self.spatial)

    def _layout(
        self, layout: torch.Tensor | None, class_labels: torch.Tensor | None, sample: torch.Tensor
    ) -> torch.Tensor | None:
        """The layout of each frame, (B, F, 6), zeros where it is not given; None for T2Is that take none."""
        batch, _, frames, *_ = sample.shape
        if not self.takes_layout:
            if layout is not None:
                raise LumiereError("this network's T2I was not trained to be told a layout; leave it out")
            return None
        if layout is not None and class_labels is not None:
            raise LumiereError("give a layout for each frame, or one as class_labels for all, not both")
        if layout is None:
            layout = sample.new_zeros(batch, LAYOUT_DIM) if class_labels is None else class_labels
            layout = layout[:, None].expand(-1, frames, -1)
        if layout.shape != (batch, frames, LAYOUT_DIM):
            raise LumiereError(
                f"a layout of shape {tuple(layout.shape)}; this clip needs {(batch, frames, LAYOUT_DIM)}"
            )
        return layout.to(sample)

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
        conditioning: Conditioning,
        resnet: nn.Module,
        attention: nn.Module | None,
        inflation: nn.Module,
    ) -> torch.Tensor:
        """Pre-trained spatial layers, then the inflation block on their output."""

        def run(x: torch.Tensor) -> torch.Tensor:
            h = resnet(x, conditioning.embedding_for(frames))
            if attention is not None:
                h = attend(attention, h, conditioning, frames)
            return inflation(h, frames, conditioning.condition_for(frames), conditioning.given_for(frames, h))

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


def _spread(positions: torch.Tensor | None, sample: torch.Tensor) -> torch.Tensor:
    """Where in the clip each frame is, (B, F): as in a whole clip where it is not told."""
    batch, _, frames, *_ = sample.shape
    if positions is None:
        evenly = frame_position(torch.arange(frames, device=sample.device, dtype=torch.float32), frames)
        return evenly.expand(batch, -1)
    return positions.to(sample.device, torch.float32)


def _contiguous(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.contiguous() for name, value in weights.items()}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise LumiereError(f"cannot read {path}: {error}") from error
