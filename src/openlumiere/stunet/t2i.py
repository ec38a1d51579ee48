"""A text-to-image U-Net's own layers, run on the frames of a clip in the batch dimension."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import nn

from openlumiere.errors import LumiereError

from .condition import pool_condition

# Blocks whose layers are (resnet, attention) pairs between one down- or up-sampler: Stable Diffusion, DeepFloyd IF,
# and most of diffusers. The k-diffusion upscaler's and the skip blocks run their layers in another order.
_SPATIAL_BLOCKS = {
    "DownBlock2D", "CrossAttnDownBlock2D", "SimpleCrossAttnDownBlock2D", "ResnetDownsampleBlock2D", "AttnDownBlock2D",
    "UNetMidBlock2D", "UNetMidBlock2DCrossAttn", "UNetMidBlock2DSimpleCrossAttn",
    "UpBlock2D", "CrossAttnUpBlock2D", "SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D", "AttnUpBlock2D",
}  # fmt: skip

LAYOUT_DIM = 6  # x, y, log side, sine and cosine of the angle, whether given: see STUNet.forward


@dataclass(frozen=True)
class Conditioning:
    """Conditioning of one forward pass, at any frame rate of the levels.

    Attributes:
        embedding: of timestep, class and added conditions, (B, F, D).
        text: (B, L, D'), not repeated for the frames.
        text_bias: added to the logits of attention to text, (B, 1, L).
        temporal: embedding of the temporal layers, (B, F, D).
        condition: ⟨C, M⟩ for the inflation blocks, (B, C, F, H, W).
        masks: channels of M by which the condition is pooled over time, see `pool_condition`.
        frames: F, of the finest level.
    """

    embedding: torch.Tensor
    text: torch.Tensor
    text_bias: torch.Tensor | None
    temporal: torch.Tensor | None
    condition: torch.Tensor | None
    masks: int
    frames: int

    def embedding_for(self, frames: int) -> torch.Tensor:
        """(B * frames, D), of the frames that a level keeps."""
        return self.embedding[:, :: self.frames // frames].flatten(0, 1)

    def temporal_for(self, frames: int) -> torch.Tensor | None:
        """(B, frames, D), of the frames that a level keeps."""
        return None if self.temporal is None else self.temporal[:, :: self.frames // frames]

    def condition_for(self, frames: int, x: torch.Tensor) -> torch.Tensor | None:
        """(B * frames, C, H, W) at the size of features x: pooled in time, averaged in space."""
        if self.condition is None:
            return None
        pooled = fold_frames(pool_condition(self.condition, self.frames // frames, self.masks))
        return pooled if pooled.shape[2:] == x.shape[2:] else F.adaptive_avg_pool2d(pooled, (x.shape[2], x.shape[3]))


def fold_frames(clips: torch.Tensor) -> torch.Tensor:
    """Move frames into the batch dimension: (B, C, F, H, W) -> (B * F, C, H, W)."""
    return clips.transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)


def layers_of(block: Any, inflations: nn.Module) -> Iterator[tuple[nn.Module, nn.Module | None, nn.Module]]:
    """Yield the (resnet, attention or None, inflation block) triples of one block of the T2I."""
    attentions = getattr(block, "attentions", None) or [None] * len(block.resnets)
    return zip(block.resnets, attentions, cast(nn.ModuleList, inflations), strict=True)


def attend(attention: nn.Module, x: torch.Tensor, conditioning: Conditioning, frames: int) -> torch.Tensor:
    """Apply the T2I's own spatial (and text) attention to each frame."""
    if isinstance(attention, Transformer2DModel):
        return attention(
            x, encoder_hidden_states=conditioning.text, encoder_attention_mask=conditioning.text_bias, return_dict=False
        )[0]
    if attention.added_kv_proj_dim is None:  # self-attention of blocks without text
        return attention(x, temb=conditioning.embedding_for(frames))
    # DeepFloyd IF attends to pixels and text at once, so each frame needs a copy of the text.
    text = conditioning.text.repeat_interleave(frames, dim=0)
    mask = None if conditioning.text_bias is None else conditioning.text_bias.repeat_interleave(frames, dim=0)
    return attention(x, encoder_hidden_states=text, attention_mask=mask)


def resample_space(
    sampler: nn.Module, x: torch.Tensor, embedding: torch.Tensor, size: tuple[int, ...] | None = None
) -> torch.Tensor:
    """Apply the T2I's own down- or up-sampler to each frame, up to `size` where that is odd."""
    if isinstance(sampler, ResnetBlock2D):
        return sampler(x, embedding)
    if size is None or size == (2 * x.shape[2], 2 * x.shape[3]):
        return sampler(x)
    return sampler(x, size)


def embed(
    t2i: UNet2DConditionModel,
    sample: torch.Tensor,
    timestep: torch.Tensor | float | int,
    text: torch.Tensor,
    class_labels: torch.Tensor | None,
    timestep_cond: torch.Tensor | None,
    added: dict[str, torch.Tensor] | None,
) -> torch.Tensor:
    """Embed timestep, class and added conditions as the T2I does: (B, D); (B, F, D) for class labels (B, F, 6)."""
    time = t2i.get_time_embed(sample=sample, timestep=timestep)
    embedding = t2i.time_embedding(time, timestep_cond)
    of_class = t2i.get_class_embed(sample=sample, class_labels=class_labels)
    if of_class is not None:
        if of_class.ndim == 3:
            embedding = embedding[:, None].expand(-1, of_class.shape[1], -1)
        concat = t2i.config["class_embeddings_concat"]
        embedding = torch.cat([embedding, of_class], dim=-1) if concat else embedding + of_class
    of_added = t2i.get_aug_embed(emb=embedding, encoder_hidden_states=text, added_cond_kwargs=added or {})
    if of_added is not None:
        embedding = embedding + (of_added if embedding.ndim == 2 else of_added[:, None])
    return t2i.time_embed_act(embedding) if t2i.time_embed_act is not None else embedding


class _TextSharedByFrames(AttnProcessor2_0):
    """Attention to text with all frames of a clip as one long row of queries.

    Attention treats queries independently, so keys and values of the text need computing once for a clip, not once
    for a frame: the processor views (B * F, N, C) queries as (B, F * N, C), to go with (B, L, C) text.
    """

    def __call__(self, attn: Attention, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return super().__call__(attn, hidden_states, *args, **kwargs).reshape(hidden_states.shape)


def share_text_between_frames(unet: UNet2DConditionModel) -> None:
    """Compute keys and values of the text once a clip in all layers that attend to it."""
    for transformer in unet.modules():
        if isinstance(transformer, Transformer2DModel):
            for module in transformer.modules():
                if isinstance(module, Attention):
                    module.set_processor(_TextSharedByFrames())


def check_structure(unet: UNet2DConditionModel) -> None:
    """Raise LumiereError for a U-Net whose layers this module can't run."""
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


def takes_layout(unet: UNet2DConditionModel) -> bool:
    """Return whether the U-Net is told where its subject is: its class embedding takes a layout's six numbers."""
    projects = unet.config["class_embed_type"] in ("projection", "simple_projection")
    return projects and unet.config["projection_class_embeddings_input_dim"] == LAYOUT_DIM


def time_embed_dim(unet: UNet2DConditionModel) -> int:
    """Return the width of `embed`'s result."""
    width = int(unet.time_embedding.linear_2.out_features)
    return 2 * width if unet.config["class_embeddings_concat"] else width


def text_dim(unet: UNet2DConditionModel) -> int:
    """Return the width of the text that the U-Net takes."""
    dim: Callable[[str], Any] = unet.config.get
    return int(dim("encoder_hid_dim") or _last(dim("cross_attention_dim")))


def _last(value: Any) -> int:
    return int(value[-1] if isinstance(value, (list, tuple)) else value)
