"""What an inflated network is made of and what it costs, without running it: counted on the meta device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from .model import STUNet
from .t2i import text_dim


@dataclass(frozen=True)
class Level:
    """One level of space-time.

    Attributes:
        channels, frames, size: of its features; `size` is height or width at the trained resolution.
        frozen, added: parameters of the T2I and of inflation.
        blocks: kind of inflation block.
    """

    channels: int
    frames: int
    size: int
    frozen: int
    added: int
    blocks: str


@dataclass(frozen=True)
class Cost:
    """One evaluation of the network for one clip: multiply-adds times two, and bytes of weights and activations.

    Attributes:
        activation_bytes: of the largest feature maps alive at once: the skip connections and the finest level's work.
    """

    flops: int
    weight_bytes: int
    activation_bytes: int


def levels(net: STUNet, num_frames: int = 80) -> list[Level]:
    """The network's levels, finest first; the middle block counts to the coarsest."""
    t2i, temporal = net.spatial, net.temporal
    last = len(t2i.down_blocks) - 1
    sample = t2i.config["sample_size"] or 64
    size = sample if isinstance(sample, int) else sample[0]
    rows, frames = [], num_frames
    for level, channels in enumerate(t2i.config["block_out_channels"]):
        spatial = [t2i.down_blocks[level], t2i.up_blocks[last - level]]
        added = [temporal.down[level], temporal.up[last - level]]
        if level == last:
            spatial += [t2i.mid_block] if t2i.mid_block is not None else []
            added += [temporal.mid] if temporal.mid is not None else []
        else:
            added += [temporal.downsamplers[level], temporal.upsamplers[last - level - 1]]
        kind = "attention" if level == last else "convolution"
        rows.append(Level(channels, frames, size, _count(spatial), _count(added), kind))
        if level < last:
            size = -(-size // 2)
            frames //= 2 if list(temporal.downsamplers[level].parameters()) else 1
    return rows


def cost(net: STUNet, num_frames: int = 80) -> Cost:
    """Count one evaluation at the trained size; the network itself is not run."""
    with torch.device("meta"):
        twin = STUNet.from_config(dict(net.config))
    config = twin.spatial.config
    sample = config["sample_size"] or 64
    height, width = (sample, sample) if isinstance(sample, int) else sample
    text_width = text_dim(twin.spatial)
    inputs = torch.empty(1, config["in_channels"], num_frames, height, width, device="meta")
    text = torch.empty(1, 77, text_width, device="meta")
    added = None
    if config["addition_embed_type"] == "text_time":
        pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
        added = {
            "text_embeds": torch.empty(1, pooled, device="meta"),
            "time_ids": torch.empty(1, 6, device="meta"),
        }
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        twin(inputs, torch.empty(1, device="meta"), text, class_labels=_labels(config), added_cond_kwargs=added)
    itemsize = torch.empty(0, dtype=net.dtype).element_size()
    skips = sum(
        row.channels * row.frames * row.size**2 * (len(block.resnets) + 1)
        for row, block in zip(levels(net, num_frames), twin.spatial.down_blocks, strict=True)
    )
    finest = config["block_out_channels"][0] * num_frames * height * width
    return Cost(
        flops=counter.get_total_flops(),
        weight_bytes=sum(p.numel() for p in net.parameters()) * itemsize,
        activation_bytes=(skips + 4 * finest) * itemsize,
    )


def table(net: STUNet, num_frames: int = 80) -> str:
    """The levels and the cost as a table for the terminal."""
    head = f"{'level':>5} {'frames':>7} {'size':>9} {'channels':>9} {'frozen':>10} {'added':>10}  inflation blocks"
    lines = [head, "-" * len(head)]
    for i, row in enumerate(levels(net, num_frames)):
        size = f"{row.size}x{row.size}"
        lines.append(
            f"{i:>5} {row.frames:>7} {size:>9} {row.channels:>9} {_millions(row.frozen):>10} "
            f"{_millions(row.added):>10}  {row.blocks}"
        )
    frozen, added = _count([net.spatial]), _count([net.temporal])
    spent = cost(net, num_frames)
    lines += [
        "-" * len(head),
        f"all levels, with embeddings: {_millions(frozen)} parameters frozen, {_millions(added)} added "
        f"({added / frozen:.0%})",
        f"one evaluation of {num_frames} frames: {spent.flops / 1e12:.3g} TFLOPs; weights "
        f"{_gigabytes(spent.weight_bytes)}, activations about {_gigabytes(spent.activation_bytes)} "
        f"in {str(net.dtype).removeprefix('torch.')}",
    ]
    return "\n".join(lines)


def _labels(config: Mapping[str, Any]) -> torch.Tensor | None:
    if config["class_embed_type"] in ("projection", "simple_projection"):
        return torch.empty(1, config["projection_class_embeddings_input_dim"], device="meta")
    if config["class_embed_type"] is not None:
        return torch.empty(1, device="meta")
    return torch.empty(1, dtype=torch.long, device="meta") if config["num_class_embeds"] else None


def _count(modules: list[torch.nn.Module]) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def _millions(count: int) -> str:
    return f"{count / 1e6:.2f} M"


def _gigabytes(count: int) -> str:
    return f"{count / 2**30:.2f} GiB"
