"""A warm start: the coarsest level's temporal attention, taken from an AnimateDiff motion adapter.

A motion module (Guo et al. 2023) is GroupNorm over the clip and a linear layer in; for each of its transformer blocks
two temporal self-attentions and a feed-forward layer, each behind a LayerNorm and added to its input; and a linear
layer out. An `AttentionBlock` is LayerNorm, one self-attention and a projection, added to its input. So each of the
self-attentions becomes one block, in order, and the linear layers before and after it are multiplied into its own.

That is equal but for three things. LayerNorm stands for GroupNorm, and the norm inside the module for the length that
its input has on average. The feed-forward layers and the module's own path past its attention are left out. And
positions: an adapter adds sinusoids to what attention sees, so that it knows the place in the clip, while ours turns
queries and keys, and knows distances. What the sinusoids add to the scores on average over the pairs at a distance is
a function of that distance, which the rotation makes of two constants: they go into the biases of queries and keys, by
least squares. What they add to values is the same for all frames on average: it goes into the bias of values.

Whether training gets nearer by it is not known: docs/training-log.md has what ``benchmarks/warm_start.py`` measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import MotionAdapter, UNet2DConditionModel
from torch import nn

from openlumiere.errors import LumiereError

from .blocks import AttentionBlock, rotation_rates
from .temporal import TemporalLayers

_FIT_FRAMES = 16  # clips that AnimateDiff's adapters were trained on
_RIDGE = 1e-2  # keeps constants small that all but cancel


@dataclass(frozen=True)
class CarriedModule:
    """What became of one motion module.

    Attributes:
        place: of the stack of blocks, as `TemporalLayers` names it.
        carried: its self-attentions that are blocks now.
        fresh: blocks of the stack that it had no attention for.
        left_out: what of it was not carried over.
    """

    place: str
    carried: int
    fresh: int
    left_out: str


def motion_options(adapter: MotionAdapter, unet: UNet2DConditionModel) -> dict[str, Any]:
    """Return the options of `STUNet` with which its temporal attention has an adapter's heads and layers.

    Raises:
        LumiereError: the adapter is for a T2I of another shape.
    """
    channels, width = unet.config["block_out_channels"][-1], adapter.config["block_out_channels"][-1]
    if width != channels:
        raise LumiereError(
            f"--motion: the adapter's coarsest level has {width} channels, the text-to-image model's {channels}; "
            "choose an adapter for this model"
        )
    modules = [module for found in _modules(adapter).values() for module in found]
    heads = {module.transformer_blocks[0].attn1.heads for module in modules}
    return {
        "attention_head_dim": channels // max(heads),
        "attention_layers": max(len(_attentions(module)) for module in modules),
    }


def carry_motion(
    temporal: TemporalLayers, adapter: MotionAdapter, *, positions: bool = True, projections: bool = False
) -> list[CarriedModule]:
    """Initialise the coarsest level's temporal attention from a motion adapter.

    Args:
        temporal: of a network with the options of `motion_options`.
        positions: put what the adapter's position embeddings add on average into biases; else they are dropped.
        projections: carry the projections over too, so that the network is no longer the T2I; else they stay zero, and
            it is. Without the feed-forward layers that they were trained beside, they start worse.

    Raises:
        LumiereError: numbers of modules, heads or channels that do not match.
    """
    mid = [] if temporal.mid is None else [temporal.mid]
    stacks: dict[str, Any] = {"down": temporal.down[-1], "mid": mid, "up": temporal.up[0]}
    found = []
    for place, modules in _modules(adapter).items():
        if modules and len(modules) != len(stacks[place]):
            raise LumiereError(
                f"--motion: the adapter has {len(modules)} modules in its coarsest {place} block, the text-to-image "
                f"model {len(stacks[place])} layers; choose an adapter for this model"
            )
        for i, (module, stack) in enumerate(zip(modules, stacks[place], strict=True)):
            pairs = _attentions(module)
            for block, (norm, attention) in zip(stack, pairs, strict=False):
                _carry(block, module, norm, attention, positions=positions, projections=projections)
            n = min(len(stack), len(pairs))
            rest = ["feed-forward", *([f"{len(pairs) - n} attentions"] if len(pairs) > n else [])]
            found.append(CarriedModule(f"{place}.{i}", n, len(stack) - n, ", ".join(rest)))
    return found


def _modules(adapter: MotionAdapter) -> dict[str, Sequence[Any]]:
    """An adapter's motion modules at the coarsest level, by the block that they are in."""
    mid = adapter.mid_block
    return {
        "down": adapter.down_blocks[-1].motion_modules,
        "mid": [] if mid is None else mid.motion_modules,
        "up": adapter.up_blocks[0].motion_modules,
    }


def _attentions(module: Any) -> list[tuple[nn.Module, Any]]:
    """A motion module's self-attentions, each with the norm before it."""
    pairs = [pair for b in module.transformer_blocks for pair in ((b.norm1, b.attn1), (b.norm2, b.attn2))]
    return [(norm, attention) for norm, attention in pairs if attention is not None]


@torch.no_grad()
def _carry(
    block: AttentionBlock, module: Any, norm: Any, attention: Any, *, positions: bool, projections: bool
) -> None:
    """Make a block of one self-attention of a motion module."""
    if attention.heads != block.num_heads or module.in_channels != block.projection.out_features:
        raise LumiereError(
            f"--motion: the adapter has {attention.heads} heads on {module.in_channels} channels, the network "
            f"{block.num_heads} on {block.projection.out_features}; leave attention_head_dim out"
        )
    block.norm.weight.copy_(module.norm.weight)
    block.norm.bias.copy_(module.norm.bias)
    weight, bias = _entrance(module, norm)
    embeddings = _embeddings(module, attention) if positions else None
    for i, layer in enumerate((attention.to_q, attention.to_k, attention.to_v)):
        rows = slice(i * block.projection.in_features, (i + 1) * block.projection.in_features)
        constant = bias if embeddings is None else bias + embeddings.mean(0)
        block.to_qkv.weight[rows] = layer.weight @ weight
        block.to_qkv.bias[rows] = layer.weight @ constant + (0 if layer.bias is None else layer.bias)
    if embeddings is not None:
        query, key = _rotary_biases(attention, embeddings)
        block.to_qkv.bias[: len(query)] += query
        block.to_qkv.bias[len(query) : 2 * len(query)] += key
    if projections:
        out = attention.to_out[0]
        block.projection.weight.copy_(module.proj_out.weight @ out.weight)
        block.projection.bias.copy_(module.proj_out.weight @ out.bias)


def _entrance(module: Any, norm: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The linear map, weight and bias, that the layer in and the LayerNorm behind it are on normalised channels.

    LayerNorm centres and divides by the root mean square, which is that of an input whose channels are normalised and
    otherwise do not hang together.
    """
    linear, scale, shift = module.proj_in, module.norm.weight, module.norm.bias
    weight, bias = linear.weight - linear.weight.mean(0), linear.bias - linear.bias.mean()  # centred
    spread = weight * scale
    spread = spread - spread.mean(1, keepdim=True)  # normalised channels sum to zero
    channels = len(scale)
    square = spread.square().sum() * channels / max(channels - 1, 1) + (weight @ shift + bias).square().sum()
    gain = norm.weight * (len(bias) / square.clamp(min=1e-12)).sqrt()
    return gain[:, None] * weight, gain * bias + norm.bias


def _embeddings(module: Any, attention: Any) -> torch.Tensor | None:
    """The position embeddings of a motion module's first frames, (F, channels)."""
    owner = next(b for b in module.transformer_blocks if attention in (b.attn1, b.attn2))
    return None if owner.pos_embed is None else owner.pos_embed.pe[0, :_FIT_FRAMES]


def _rotary_biases(attention: Any, embeddings: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Biases of queries and keys that make, rotated, the scores which positions alone have at each distance.

    Of a pair of channels that turns by r a frame, constants a exp(ip) and a have the product a² cos(r d + p) at the
    distance of d frames.
    """
    frames = len(embeddings)
    centred = (embeddings - embeddings.mean(0)).double()
    query, key = (
        (centred @ layer.weight.double().T).unflatten(1, (attention.heads, -1)).transpose(0, 1)
        for layer in (attention.to_q, attention.to_k)
    )
    scores = query @ key.transpose(1, 2)  # (heads, F, F), before they are divided by the root of the head's width
    distances = torch.arange(1 - frames, frames, device=scores.device)
    target = torch.stack([scores.diagonal(-int(d), 1, 2).mean(-1) for d in distances])  # (distances, heads)
    pairs = (frames - distances.abs()).double()[:, None]
    dim = query.shape[-1]
    angles = distances[:, None] * rotation_rates(dim, scores.device).double()
    basis = torch.cat([angles.cos(), angles.sin(), torch.ones_like(pairs)], dim=1)  # softmax does not see the last
    ridge = _RIDGE * pairs.sum() * torch.eye(basis.shape[1], dtype=basis.dtype, device=basis.device)
    ridge[-1, -1] = 0
    solved = torch.linalg.solve(basis.T @ (pairs * basis) + ridge, basis.T @ (pairs * target))
    cos, sin = solved[:-1].T.unflatten(1, (2, -1)).unbind(1)  # (heads, dim // 2) each
    size = (cos.square() + sin.square()).pow(0.25)
    phase = torch.atan2(-sin, cos)
    rest = size.new_zeros(len(size), dim % 2)
    found = torch.cat([size * phase.cos(), size * phase.sin(), rest], 1), torch.cat([size, 0 * size, rest], 1)
    return found[0].flatten().to(embeddings.dtype), found[1].flatten().to(embeddings.dtype)
