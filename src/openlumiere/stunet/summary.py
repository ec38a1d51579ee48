"""What an inflated network is made of and what it costs, without running it: counted on the meta device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from openlumiere.counting import Work, count

from .model import STUNet
from .t2i import takes_layout, text_dim

_TOKENS = 77


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
    """One evaluation of the network for one clip, see `counting.Work`, and the bytes of its weights.

    Attributes:
        activation_bytes: most of its tensors that are alive at once, beside the weights.
    """

    flops: int
    weight_bytes: int
    activation_bytes: int


def levels(net: STUNet, num_frames: int = 80) -> list[Level]:
    """The network's levels, finest first; the middle block counts to the coarsest."""
    t2i, temporal = net.spatial, net.temporal
    last = len(t2i.down_blocks) - 1
    size, _ = trained_size(t2i)
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


def example_inputs(
    net: STUNet | UNet2DConditionModel, num_frames: int = 80, *, batch: int = 1, size: tuple[int, int] | None = None
) -> dict[str, Any]:
    """Return arguments of a network's forward pass: zeros, on its device, with a condition where it takes one.

    Args:
        net: of a clip, or of pictures, of which there are `batch`.
        size: height and width as the network sees them; None = what it was trained on.
    """
    t2i = net.spatial if isinstance(net, STUNet) else net
    weight, config = t2i.conv_in.weight, t2i.config
    channels = config["in_channels"] + (net.config["condition_channels"] if isinstance(net, STUNet) else 0)
    height, width = size or trained_size(t2i)
    clip = (num_frames, height, width) if isinstance(net, STUNet) else (height, width)
    inputs: dict[str, Any] = {
        "sample": weight.new_zeros(batch, channels, *clip),
        "timestep": weight.new_zeros(batch),
        "encoder_hidden_states": weight.new_zeros(batch, _TOKENS, text_dim(t2i)),
    }
    if config["addition_embed_type"] == "text_time":
        pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
        inputs["added_cond_kwargs"] = {
            "text_embeds": weight.new_zeros(batch, pooled), "time_ids": weight.new_zeros(batch, 6)
        }  # fmt: skip
    if not (isinstance(net, STUNet) and takes_layout(t2i)):  # which itself says that none is known
        inputs["class_labels"] = _labels(config, weight, batch)
    return inputs


def trained_size(t2i: UNet2DConditionModel) -> tuple[int, int]:
    """Return height and width that a T2I was trained on, as it sees them."""
    sample = t2i.config["sample_size"] or 64
    return (sample, sample) if isinstance(sample, int) else (sample[0], sample[1])


def work(net: STUNet, num_frames: int = 80) -> Work:
    """Count one evaluation of a clip at the trained size; the network itself is not run."""
    with torch.device("meta"):
        twin = STUNet.from_config(dict(net.config)).to(net.dtype)
    with torch.no_grad():
        return count(lambda: twin(**example_inputs(twin, num_frames)))


def cost(net: STUNet, num_frames: int = 80) -> Cost:
    """Count one evaluation at the trained size; the network itself is not run."""
    done = work(net, num_frames)
    weights = sum(p.numel() * p.element_size() for p in net.parameters())
    return Cost(flops=done.flops, weight_bytes=weights, activation_bytes=done.peak_bytes)


def flops_of_levels(net: STUNet, flops_of: Mapping[str, int]) -> list[int]:
    """Return how many FLOPs of one evaluation each level spends, finest first; embeddings count to the first.

    Args:
        flops_of: `Work.flops_of` of that evaluation.
    """
    last = len(net.spatial.down_blocks) - 1
    spent = [0] * (last + 1)
    for path, flops in flops_of.items():
        _, *names = path.split(".")
        match names:
            case ["spatial", "down_blocks", level, *_] | ["temporal", "down" | "downsamplers", level, *_]:
                spent[int(level)] += flops
            case ["spatial", "up_blocks", level, *_] | ["temporal", "up", level, *_]:
                spent[last - int(level)] += flops
            case ["temporal", "upsamplers", level, *_]:
                spent[last - 1 - int(level)] += flops
            case ["spatial", "mid_block", *_] | ["temporal", "mid", *_]:
                spent[last] += flops
            case _:
                spent[0] += flops
    return spent


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


def _labels(config: Mapping[str, Any], like: torch.Tensor, batch: int) -> torch.Tensor | None:
    if config["class_embed_type"] in ("projection", "simple_projection"):
        return like.new_zeros(batch, config["projection_class_embeddings_input_dim"])
    if config["class_embed_type"] is not None:
        return like.new_zeros(batch)
    return like.new_zeros(batch, dtype=torch.long) if config["num_class_embeds"] else None


def _count(modules: list[torch.nn.Module]) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def _millions(count: int) -> str:
    return f"{count / 1e6:.2f} M"


def _gigabytes(count: int) -> str:
    return f"{count / 2**30:.2f} GiB"
