"""A warm start: the coarsest level's temporal attention, taken from an AnimateDiff motion adapter.

A motion module (Guo et al. 2023) is GroupNorm over the clip, a linear layer in, then for each of its transformer
blocks two temporal self-attentions and a feed-forward layer, each behind a LayerNorm and added to its input, and a
linear layer out. An `AttentionBlock` is one LayerNorm, one self-attention, one projection. So each self-attention
becomes one block, in order, the linear layers and scales around it multiplied into its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import MotionAdapter
from torch import nn

from openlumiere.errors import LumiereError

from .blocks import AttentionBlock, rotation_rates
from .temporal import TemporalLayers


@dataclass(frozen=True)
class CarriedBlock:
    """What became of a motion module.

    Attributes:
        place: of the stack of blocks in `TemporalLayers`.
        carried: its self-attentions that are blocks now.
        left_out: those that the stack had no room for.
        fresh: blocks of the stack that none was left for.
    """

    place: str
    carried: int
    left_out: int
    fresh: int


def motion_options(adapter: MotionAdapter, channels: int) -> dict[str, Any]:
    """Return the options of `STUNet` with which its coarsest attention has an adapter's heads and layers.

    Args:
        channels: of the T2I's coarsest level.

    Raises:
        LumiereError: the adapter is for a T2I of another width.
    """
    config = adapter.config
    width = config["block_out_channels"][-1]
    if width != channels:
        raise LumiereError(
            f"--motion: the adapter's coarsest level has {width} channels, the text-to-image model's {channels}; "
            "choose an adapter for this model"
        )
    most = max(
        (len(module.transformer_blocks) for _, modules in _modules(adapter) for module in modules), default=1
    )
    return {"attention_head_dim": channels // _last(config["motion_num_attention_heads"]), "attention_layers": 2 * most}


def carry_motion(
    temporal: TemporalLayers, adapter: MotionAdapter, *, positions: bool = True, projections: bool = True
) -> list[CarriedBlock]:
    stacks = {"down": temporal.down[-1], "mid": [] if temporal.mid is None else [temporal.mid], "up": temporal.up[0]}
    found = []
    for place, modules in _modules(adapter):
        if len(modules) != len(stacks[place]):
            raise LumiereError(
                f"--motion: the adapter has {len(modules)} modules at the coarsest level ({place}), the text-to-image "
                f"model {len(stacks[place])}; choose an adapter for this model"
            )
        for i, (module, stack) in enumerate(zip(modules, stacks[place], strict=True)):
            pairs = [(n, a) for block in module.transformer_blocks for n, a in _attentions(block)]
            for (norm, attention), block in zip(pairs, stack, strict=False):
                _carry(block, module, norm, attention, positions=positions, projections=projections)
            n = min(len(pairs), len(stack))
            found.append(CarriedBlock(f"{place}.{i}", n, len(pairs) - n, len(stack) - n))
    return found


def _modules(adapter: MotionAdapter) -> Iterator[tuple[str, list[nn.Module]]]:
    """An adapter's motion modules at the coarsest level, by where they are."""
    yield "down", list(adapter.down_blocks[-1].motion_modules)
    yield "mid", [] if adapter.mid_block is None else list(adapter.mid_block.motion_modules)
    yield "up", list(adapter.up_blocks[0].motion_modules)


def _attentions(block: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
    return [(norm, attention) for norm, attention in ((block.norm1, block.attn1), (block.norm2, block.attn2)) if attention is not None]


@torch.no_grad()
def _carry(block: AttentionBlock, module: nn.Module, norm: nn.Module, attention: nn.Module, *, positions, projections) -> None:
    if attention.heads != block.num_heads:
        raise LumiereError(f"--motion: heads {attention.heads} {block.num_heads}")
    inside, out = module.proj_in, attention.to_out[0]
    # LN1(P g + b) of normalised g
    p = inside.weight - inside.weight.mean(0)
    b = inside.bias - inside.bias.mean()
    g, beta = module.norm.weight, module.norm.bias
    b = p @ beta + b
    scale = (((p * g) ** 2).sum() + (b**2).sum()).div(len(b)).rsqrt()
    w = norm.weight[:, None] * p * scale
    shift = norm.weight * b * scale - norm.weight * (p @ beta) * scale + norm.bias
    block.norm.weight.copy_(g); block.norm.bias.copy_(beta)
    pe = _positions(module)
    qkv = torch.cat([attention.to_q.weight, attention.to_k.weight, attention.to_v.weight])
    block.to_qkv.weight.copy_(qkv @ w)
    block.to_qkv.bias.copy_(qkv @ (shift + (pe.mean(0) if positions else 0)))
    if positions:
        q, k = _relative(attention, pe, block)
        c = len(q)
        block.to_qkv.bias[:c] = q
        block.to_qkv.bias[c:2*c] = k
        block.to_qkv.bias[:2*c] += (qkv @ shift)[: 2 * c]
    if projections:
        block.projection.weight.copy_(module.proj_out.weight @ out.weight)
        block.projection.bias.copy_(module.proj_out.weight @ out.bias)


def _positions(module: nn.Module) -> torch.Tensor:
    return module.transformer_blocks[0].pos_embed.pe[0]


def _relative(attention, pe, block):
    """q, k biases whose rotated product is nearest to what the positions add to the scores at each distance."""
    frames = 16
    pe = pe[:frames].double()
    pe = pe - pe.mean(0)
    heads = attention.heads
    q = (pe @ attention.to_q.weight.double().T).unflatten(1, (heads, -1)).transpose(0, 1)
    k = (pe @ attention.to_k.weight.double().T).unflatten(1, (heads, -1)).transpose(0, 1)
    score = q @ k.transpose(1, 2)  # heads, F, F
    dist = torch.arange(1 - frames, frames)
    target = torch.stack([score.diagonal(int(-d), 1, 2).mean(-1) for d in dist], 1)  # i - j = d
    weight = (frames - dist.abs()).double()
    dim = q.shape[-1]
    rates = rotation_rates(dim, dist.device).double()
    ang = dist[:, None] * rates
    basis = torch.cat([torch.ones(len(dist), 1).double(), ang.cos(), ang.sin()], 1)
    w = weight[:, None]
    gram = basis.T @ (w * basis) + 1e-2 * weight.sum() * torch.eye(basis.shape[1]).double()
    gram[0, 0] -= 1e-2 * weight.sum()
    coef = torch.linalg.solve(gram, basis.T @ (w * target.T)).T[:, 1:]  # heads, 2 half
    half = dim // 2
    a, s = coef[:, :half], coef[:, half:]
    # zq conj(zk) = a - i s -> Re((a - i s) e^{i theta d}) = a cos + s sin
    amp = (a**2 + s**2).sqrt().sqrt()
    phi = torch.atan2(-s, a)
    qb = torch.zeros(heads, dim).double(); kb = torch.zeros(heads, dim).double()
    qb[:, :half] = amp * phi.cos(); qb[:, half:2*half] = amp * phi.sin()
    kb[:, :half] = amp
    return qb.flatten().float(), kb.flatten().float()


def _last(value: Any) -> int:
    return int(value[-1] if isinstance(value, (list, tuple)) else value)
