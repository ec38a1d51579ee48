"""What a training step takes of memory, with each saving, and of time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import nn

from openlumiere.counting import Work, checkpoint, count
from openlumiere.generation.backends.needs import FRAGMENTED, GPU_BYTES
from openlumiere.stunet import STUNet
from openlumiere.stunet.blocks import AttentionBlock, ConvolutionBlock
from openlumiere.stunet.summary import example_inputs

from .hardware import Hardware

_FLOAT32, _BFLOAT16 = 4, 2
# Bytes of a parameter's two moments, in blocks of 256 with a float32 scale each (Dettmers et al. 2022).
_EIGHT_BIT = 2 * (1 + 4 / 256)


@dataclass(frozen=True, kw_only=True)
class Way:
    """How a training step is computed.

    Attributes:
        whole: the text-to-image half trains too.
        mixed: convolutions and matrix products in bfloat16, by autocast; weights stay float32.
        checkpointing: activations of each layer are computed again in the backward pass.
        shards: processes that all that is kept between steps is spread over (FSDP); 1 = each has all.
        eight_bit: moments of the optimizer in 8 bits.
    """

    whole: bool = False
    mixed: bool = False
    checkpointing: bool = False
    shards: int = 1
    eight_bit: bool = False

    @property
    def dtype(self) -> str:
        """What most is computed in."""
        return "bfloat16" if self.mixed else "float32"


@dataclass(frozen=True, kw_only=True)
class StepMemory:
    """What one process keeps, in bytes.

    Attributes:
        name: what this way saves beside those before it.
        weights: of all networks, frozen ones included.
        state: the optimizer's, and the moving average.
        gradients: of what trains.
        activations: most that is alive at once beside all these.
        total: at most at once: gradients come as activations go.
        seconds: of a step's forward and backward passes.
    """

    name: str
    way: Way
    weights: int
    state: int
    gradients: int
    activations: int
    total: int
    flops: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What trains, and on what.

    Attributes:
        net: on the meta device; of pictures, if no STUNet.
        clip: frames, height and width as it sees them.
        batch: clips at once on each process.
        frozen: parameters of other networks that are held.
        optimizer: "adamw" or "muon".
    """

    net: STUNet | UNet2DConditionModel
    clip: tuple[int, int, int]
    batch: int = 1
    frozen: int = 0
    optimizer: str = "adamw"

    def parameters(self, *, whole: bool) -> list[nn.Parameter]:
        """Return those that train."""
        if isinstance(self.net, STUNet) and not whole:
            return list(self.net.temporal.parameters())
        return list(self.net.parameters())

    def trace(self, way: Way) -> Work:
        """Count the forward and the backward pass."""
        net: Any = self.net
        trained = {id(p) for p in self.parameters(whole=way.whole)}
        for parameter in net.parameters():
            parameter.requires_grad_(id(parameter) in trained)
        if way.checkpointing:
            net.enable_gradient_checkpointing(checkpoint)
        else:
            net.disable_gradient_checkpointing()
        net.train()
        inputs = example_inputs(net, self.clip[0], batch=self.batch, size=self.clip[1:])
        try:
            with torch.enable_grad():
                return count(
                    lambda: net(**inputs).sample.square().mean().backward(),
                    parameters=[p for p in net.parameters() if p.requires_grad],
                    autocast=torch.bfloat16 if way.mixed else None,
                )
        finally:
            net.zero_grad(set_to_none=True)
            net.disable_gradient_checkpointing()

    def memory(self, name: str, way: Way, work: Work, hardware: Hardware) -> StepMemory:
        """Return what a step of counted work takes."""
        trained = self.parameters(whole=way.whole)
        count_trained = sum(p.numel() for p in trained)
        weights = _FLOAT32 * (sum(p.numel() for p in self.net.parameters()) + self.frozen)
        gradients = _FLOAT32 * count_trained
        state = round(self._moments(trained, way)) + _FLOAT32 * count_trained
        activations = work.activation_bytes
        if way.shards == 1:
            total = weights + state + work.peak_bytes * (FRAGMENTED if hardware.gpu else 1.0)
        else:
            gathered = 2 * _largest_block(self.net) * (_BFLOAT16 if way.mixed else _FLOAT32)
            weights, gradients, state = (-(-size // way.shards) for size in (weights, gradients, state))
            activations += gathered
            total = weights + state + gradients + activations * (FRAGMENTED if hardware.gpu else 1.0)
        return StepMemory(
            name=name, way=way, weights=weights, state=state, gradients=gradients, activations=activations,
            total=round(total) + (GPU_BYTES if hardware.gpu else 0), flops=work.flops,
            seconds=hardware.seconds(work, way.dtype),
        )  # fmt: skip

    def sent_bytes(self, way: Way, devices: int) -> float:
        """Return what each process sends in a step: gradients summed, and with FSDP weights gathered twice."""
        if devices == 1:
            return 0.0
        share = (devices - 1) / devices
        gradients = _FLOAT32 * sum(p.numel() for p in self.parameters(whole=way.whole))
        if way.shards == 1:
            return 2 * share * gradients
        weights = (_BFLOAT16 if way.mixed else _FLOAT32) * sum(p.numel() for p in self.net.parameters())
        return share * (2 * weights + gradients)

    def _moments(self, trained: Iterable[nn.Parameter], way: Way) -> float:
        if way.eight_bit:
            return _EIGHT_BIT * sum(p.numel() for p in trained)
        matrices = 1 if self.optimizer == "muon" else 2  # moments of a parameter
        return _FLOAT32 * sum(p.numel() * (matrices if p.ndim > 1 else 2) for p in trained)


def ladder(way: Way, *, can_freeze: bool) -> list[tuple[str, Way]]:
    """Return ways that save more and more, each with its name, from float32 with everything trained.

    Args:
        way: whether bfloat16 is to be had, and over how many processes; those that train more can shard more.
    """
    steps = [("float32, all trained", Way(whole=True))]
    if can_freeze:
        steps.append(("T2I frozen", Way()))
    last = steps[-1][1]
    if way.mixed:
        last = replace(last, mixed=True)
        steps.append(("and bf16", last))
    last = replace(last, checkpointing=True)
    steps.append(("and activation checkpointing", last))
    if way.shards > 1:
        last = replace(last, shards=way.shards)
        steps.append((f"and FSDP over {way.shards}", last))
    steps.append(("and 8-bit moments *", replace(last, eight_bit=True)))
    return steps


def climb(trained: Trained, ways: Sequence[tuple[str, Way]], hardware: Hardware) -> list[StepMemory]:
    """Return what each way takes; ways that differ in what is kept alone are traced once."""
    known: dict[Way, Work] = {}
    found = []
    for name, way in ways:
        traced = replace(way, shards=1, eight_bit=False)
        if traced not in known:
            known[traced] = trained.trace(traced)
        found.append(trained.memory(name, way, known[traced], hardware))
    return found


def _largest_block(net: nn.Module) -> int:
    """Parameters of the largest block that FSDP gathers at once."""
    blocks = (ResnetBlock2D, Transformer2DModel, ConvolutionBlock, AttentionBlock)
    sizes = [sum(p.numel() for p in block.parameters()) for block in net.modules() if isinstance(block, blocks)]
    return max(sizes, default=sum(p.numel() for p in net.parameters()))
