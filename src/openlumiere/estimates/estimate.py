"""Parameters, FLOPs, memory, time and cost of a model's clips and of its training, estimated without weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from openlumiere.counting import Work, count
from openlumiere.diffusion.sampling import steps_left
from openlumiere.errors import LumiereError
from openlumiere.generation.abilities import Abilities
from openlumiere.generation.backends.base import Loading
from openlumiere.generation.backends.memory import DENOISERS
from openlumiere.generation.backends.needs import Needs, needs_of
from openlumiere.generation.backends.networks import SECOND_STAGE, cast, latent_shape
from openlumiere.stunet import STUNet
from openlumiere.stunet.summary import example_inputs, flops_of_levels, levels

from .hardware import Hardware
from .target import Target, own_size
from .training_step import StepMemory, Trained, Way, climb, ladder

_HOUR = 3600


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is to be estimated of a model.

    Attributes:
        size: width and height, pixels; this, and what else is None, is the model's own or the configuration's.
        batch: clips that are made at once, or that a process trains on in a step.
        steps, guidance: of sampling.
        train_steps: of the training.
        devices: that share the training, or make clips of their own.
        price: of a device an hour.
        dtype: of sampling; None = bfloat16 on GPUs, float32 on CPUs.
    """

    hardware: Hardware
    num_frames: int | None = None
    size: tuple[int, int] | None = None
    batch: int | None = None
    steps: int | None = None
    guidance: float | None = None
    train_steps: int | None = None
    devices: int = 1
    price: float | None = None
    dtype: str | None = None


@dataclass(frozen=True, kw_only=True)
class LevelCost:
    """One level of space-time: its features' shape, parameters, and FLOPs of one evaluation of a clip."""

    channels: int
    frames: int
    size: int
    frozen: int
    added: int
    flops: int


@dataclass(frozen=True, kw_only=True)
class Making:
    """What clips take.

    Attributes:
        memory: bytes by the way a model is loaded.
        fits: the first way that the hardware has the memory for; None = none.
        steps_taken: of `steps`, by a clip that starts from a picture of its prompt, see `LumierePipeline`.
        step_seconds, clip_seconds: of the whole batch; the latter with decoding and the second stage.
        cost: of a clip; None without a price.
    """

    dtype: str
    steps: int
    steps_taken: int
    guidance: float
    step_flops: int
    decode_flops: int
    second_stage_flops: int
    memory: dict[str, int]
    fits: str | None
    step_seconds: float
    clip_seconds: float
    cost: float | None


@dataclass(frozen=True, kw_only=True)
class Training:
    """What training takes.

    Attributes:
        memory: of each process, by way.
        way: name of the one that time is told for.
        fits: whether the hardware has the memory for it.
        optimizer: its name.
        step_flops: of one process: forward, backward, what is recomputed, and the encoding of pixels.
        compute_seconds, send_seconds: of a step; they overlap, so that the longer one counts.
        seconds, cost: of all steps; None where nobody says how many, or without a price.
    """

    batch: int
    accumulation: int
    devices: int
    memory: list[StepMemory]
    way: str
    fits: bool
    optimizer: str
    step_flops: int
    compute_seconds: float
    send_seconds: float
    step_seconds: float
    steps: int | None
    seconds: float | None
    cost: float | None


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a model takes.

    Attributes:
        parameters: by network; of a STUNet "t2i" and "temporal".
        trained: how many train.
        forward_flops: of one evaluation of one clip, unguided.
    """

    model: str
    num_frames: int
    height: int
    width: int
    batch: int
    hardware: Hardware
    parameters: dict[str, int]
    trained: int | None
    forward_flops: int
    levels: list[LevelCost] = field(default_factory=list)
    making: Making | None = None
    training: Training | None = None
    notes: list[str] = field(default_factory=list)


def estimate(target: Target, asked: Asked) -> Estimate:
    """Estimate what a target takes on some hardware.

    Raises:
        LumiereError: a clip that the model cannot make.
    """
    config = target.config
    if config is not None:
        own = (config.model.size, config.model.size)
        clip_frames = 1 if config.stage == "t2i" else (config.data.window or config.data.frames_of_clip)
        clip = own_size(target, asked.size or own, asked.num_frames or clip_frames) if target.abilities else (1, *own)
    else:
        clip = own_size(target, asked.size, asked.num_frames)
    seen = latent_shape(target.networks, target.abilities or Abilities(model=target.name, tasks=()), clip)
    notes = list(target.notes)
    spent, rows = _forward(target, seen)
    made = None if target.abilities is None else making(target, target.abilities, asked, clip)
    training = None if target.net is None else _training(target, asked, seen, clip, notes)
    trained = None
    if target.net is not None and training is not None:
        whole = next(row.way.whole for row in training.memory if row.name == training.way)
        trained = sum(p.numel() for p in _trained(target, seen, 1).parameters(whole=whole))
    return Estimate(
        model=target.name, num_frames=clip[0], height=clip[1], width=clip[2], batch=asked.batch or 1,
        hardware=asked.hardware, parameters=_parameters(target), trained=trained, forward_flops=spent, levels=rows,
        making=made, training=training, notes=notes,
    )  # fmt: skip


def _parameters(target: Target) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, net in target.networks.nets.items():
        if net is target.net and isinstance(net, STUNet):
            found["t2i"] = sum(p.numel() for p in net.spatial.parameters())
            found["temporal"] = sum(p.numel() for p in net.temporal.parameters())
        else:
            found[name] = sum(p.numel() for p in net.parameters())
    return found


def _forward(target: Target, seen: tuple[int, int, int]) -> tuple[int, list[LevelCost]]:
    """FLOPs of one evaluation, and of each level of it; of other families half of a guided step's."""
    net = target.net
    if net is None:
        return 0, []
    with torch.no_grad():
        work = count(lambda: net(**example_inputs(net, seen[0], size=seen[1:])))
    if not isinstance(net, STUNet):
        return work.flops, []
    spent = flops_of_levels(net, work.flops_of)
    scale = seen[1] / levels(net, seen[0])[0].size
    rows = [
        LevelCost(
            channels=row.channels, frames=row.frames, size=round(row.size * scale), frozen=row.frozen,
            added=row.added, flops=flops,
        )
        for row, flops in zip(levels(net, seen[0]), spent, strict=True)
    ]  # fmt: skip
    return work.flops, rows


# ------------------------------------------------------------------------------------------------------------- a clip


def making(target: Target, abilities: Abilities, asked: Asked, clip: tuple[int, int, int]) -> Making:
    """Estimate what making clips takes.

    Args:
        clip: frames, height and width in pixels.
    """
    hardware, (frames, height, width) = asked.hardware, clip
    name = asked.dtype or ("bfloat16" if hardware.gpu else "float32")
    dtype = getattr(torch, name)
    model = target.networks
    cast(model.nets, dtype)
    options: Mapping[str, Any] = {"size": (width, height), "num_frames": frames, "dtype": dtype, "gpu": hardware.gpu}
    try:
        needs = needs_of(model, abilities, **options)
        memory = {name: needs.total(way) for name, way in needs.ways(Loading(memory=1))}
        windows = abilities.window_frames
        if windows is not None and windows < frames:
            whole = needs_of(model, abilities, **options, windowed=False)
            memory = {"as it is, in one pass": whole.total(Loading())} | memory
    finally:
        cast(model.nets, torch.float32)
    steps = asked.steps or abilities.num_inference_steps or 50
    guidance = asked.guidance if asked.guidance is not None else abilities.guidance_scale or 1.0
    batch = asked.batch or 1
    taken = steps_taken(steps, target.networks.index, planned=abilities.planner)
    step, step_seconds = _spent(needs, DENOISERS, hardware, name)
    if guidance <= 1:
        step, step_seconds = step // 2, step_seconds / 2
    decode, decode_seconds = _spent(needs, ("vae",), hardware, name)
    second, second_seconds = _spent(needs, (SECOND_STAGE,), hardware, name)
    clip_seconds = batch * (taken * step_seconds + decode_seconds + abilities.upscale_steps * second_seconds)
    price = None if asked.price is None else asked.price * clip_seconds / batch / _HOUR
    return Making(
        dtype=name, steps=steps, steps_taken=taken, guidance=guidance, step_flops=step, decode_flops=decode,
        second_stage_flops=second * abilities.upscale_steps, memory=memory,
        fits=next((name for name, size in memory.items() if size <= hardware.memory), None),
        step_seconds=batch * step_seconds, clip_seconds=clip_seconds, cost=price,
    )  # fmt: skip


def steps_taken(steps: int, index: Mapping[str, Any], *, planned: bool) -> int:
    """Return how many steps of all its frames a clip of a prompt takes, by what ``model_index.json`` says.

    Drawing the picture that some clips start from takes a frame's time a step, which is not counted.
    """
    if not (planned and index.get("canonical")):  # only where its path is known does it start from a picture
        return steps
    return steps_left(steps, index.get("picture_strength", 1.0), least=1)


def _spent(needs: Needs, names: tuple[str, ...], hardware: Hardware, dtype: str) -> tuple[int, float]:
    """FLOPs and seconds of some components' calls."""
    parts = [part for part in needs.components if part.name in names and part.work is not None]
    if names is DENOISERS:
        parts = parts[:1]  # of Wan 2.2's two networks one runs at a step
    seconds = sum(part.calls * hardware.seconds(part.work, dtype) for part in parts if part.work is not None)
    return sum(part.flops for part in parts), seconds


# ---------------------------------------------------------------------------------------------------------- a training


def _trained(target: Target, seen: tuple[int, int, int], batch: int) -> Trained:
    assert target.net is not None
    frozen = [net for name, net in target.networks.nets.items() if net is not target.net and name != SECOND_STAGE]
    return Trained(
        net=target.net, clip=seen, batch=batch, frozen=sum(p.numel() for net in frozen for p in net.parameters()),
        optimizer="adamw" if target.config is None else target.config.optim.optimizer,
    )  # fmt: skip


def _training(
    target: Target, asked: Asked, seen: tuple[int, int, int], clip: tuple[int, int, int], notes: list[str]
) -> Training:
    config, hardware = target.config, asked.hardware
    optim = None if config is None else config.optim
    # A configuration's batch is of all processes together.
    batch = asked.batch or (1 if optim is None else max(optim.batch_size // asked.devices, 1))
    accumulation = 1 if optim is None else optim.gradient_accumulation
    if batch % accumulation:
        raise LumiereError(f"--batch {batch}: choose a multiple of optim.gradient_accumulation, {accumulation}")
    trained = _trained(target, seen, batch // accumulation)
    can_freeze = isinstance(target.net, STUNet)
    mixed = hardware.gpu if config is None else config.mixed_precision == "bf16"
    rows = climb(trained, ladder(Way(mixed=mixed, shards=asked.devices), can_freeze=can_freeze), hardware)
    if config is not None and optim is not None:
        way = Way(whole=not can_freeze, mixed=mixed, checkpointing=optim.gradient_checkpointing)
        chosen = next((row for row in rows if row.way == way), None)
        if chosen is None:
            (chosen,) = climb(trained, [("as configured", way)], hardware)
            rows.append(chosen)
    else:
        offered = [
            row for row in rows
            if row.way.mixed == mixed and row.way.whole != can_freeze and not row.way.eight_bit
        ]  # fmt: skip
        chosen = next((row for row in offered if row.total <= hardware.memory), offered[-1])
    encode, encode_seconds = _encoding(target, hardware, clip)
    if encode and (config is None or getattr(config.data, "cache", None) is None):
        notes.append("a training step encodes its clips; latents kept on disk (data.cache) save that")
    else:
        encode, encode_seconds = 0, 0.0
    update = 8 * (chosen.weights + chosen.gradients + chosen.state) / 4 / hardware.bandwidth
    compute = accumulation * chosen.seconds + batch * encode_seconds + update
    send = hardware.seconds_to_send(trained.sent_bytes(chosen.way, asked.devices), asked.devices)
    steps = asked.train_steps or (None if optim is None else optim.max_steps)
    step = max(compute, send)
    seconds = None if steps is None else steps * step
    cost = None if seconds is None or asked.price is None else asked.price * asked.devices * seconds / _HOUR
    return Training(
        batch=batch, accumulation=accumulation, devices=asked.devices, memory=rows, way=chosen.name,
        fits=chosen.total <= hardware.memory, optimizer=trained.optimizer,
        step_flops=accumulation * chosen.flops + batch * encode, compute_seconds=compute, send_seconds=send,
        step_seconds=step, steps=steps, seconds=seconds, cost=cost,
    )  # fmt: skip


def _encoding(target: Target, hardware: Hardware, clip: tuple[int, int, int]) -> tuple[int, float]:
    """FLOPs and seconds to encode the frames of one clip, which frozen autoencoders do in float32."""
    vae: Any = target.networks.nets.get("vae")
    if vae is None:
        return 0, 0.0
    frames, height, width = clip
    picture = torch.zeros(1, vae.config["in_channels"], height, width, device="meta")
    with torch.no_grad():
        work: Work = count(lambda: vae.encode(picture))
    return work.flops * frames, hardware.seconds(work, "float32") * frames
