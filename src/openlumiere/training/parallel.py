"""One training on several processes: who takes which samples, whole or sharded weights, and who is slow or diverged.

*Data parallel* (DDP): every process has the whole network, and gradients are averaged. *Fully sharded* (FSDP2): every
process keeps a part of each weight, of its moments and of its average, and blocks gather their weights as they run.
Either way a step is that of a single process but for the order in which numbers are added.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import math
import os
import statistics
import time
from collections.abc import Iterator
from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin, InitProcessGroupKwargs
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from tqdm import tqdm

from openlumiere.diffusion.draws import BatchShare
from openlumiere.errors import LumiereError
from openlumiere.stunet.blocks import AttentionBlock, ConvolutionBlock

from . import state
from .config import TrainConfig
from .sharding import whole

# Layers whose weights are gathered together, when they run; all others' are when the network's forward pass begins.
_UNITS = (ResnetBlock2D, Transformer2DModel, Attention, ConvolutionBlock, AttentionBlock)
# Longer than the main process ever samples alone. A process that dies is noticed at once, by torchrun.
_PATIENCE = timedelta(hours=2)
# Who is slow: steps between those that are looked at, looks before it is told, times what most need.
_LOOK_EVERY, _LOOKS = 5, 10
_SLOW = 1.5


class AlikeError(LumiereError):
    """An error that all processes raise together, in the same words: one of them tells it."""


class DivergedError(AlikeError):
    """The loss is not finite any more, and all processes know."""


def make_accelerator(config: TrainConfig) -> tuple[Accelerator, bool]:
    """Join the other processes, if there are any, and return whether weights are to be sharded.

    Raises:
        AlikeError: sharded weights in float16, whose gradients would need one scale on all processes.
        LumiereError: processes that torchrun started anew would find the addresses of those that are gone.
    """
    started_anew = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
    if started_anew and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":  # pytorch#135712
        raise LumiereError(
            "torchrun still hands out the addresses of the processes that are gone; start it with "
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 and --rdzv-backend c10d, and the run goes on"
        )
    launched = _launched_to_shard()
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision,
        gradient_accumulation_plugin=GradientAccumulationPlugin(
            num_steps=config.optim.gradient_accumulation, sync_with_dataloader=False
        ),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=_PATIENCE)],
    )
    wanted = config.parallel == "fsdp" or (config.parallel == "auto" and launched)
    sharded = wanted and accelerator.num_processes > 1
    if sharded and config.mixed_precision == "fp16":
        raise AlikeError("parallel: fsdp does not go with mixed_precision: fp16; use bf16")
    return accelerator, sharded


@functools.cache
def _launched_to_shard() -> bool:
    """Return whether this is `accelerate launch --use_fsdp`.

    Accelerate itself is not to see it, which knows no blocks of ours, nor transformers, which may then load weights in
    the main process alone.
    """
    return os.environ.pop("ACCELERATE_USE_FSDP", "").lower() in ("1", "true", "yes")


def share_of_batch(config: TrainConfig, accelerator: Accelerator, generator: torch.Generator) -> BatchShare:
    """Return which samples of each micro-batch this process takes.

    Raises:
        AlikeError: a batch that the processes can't share evenly.
    """
    optim, processes = config.optim, accelerator.num_processes
    total = optim.batch_size // optim.gradient_accumulation
    if total % processes:
        raise AlikeError(
            f"{processes} processes can't share batches of {total} evenly: make optim.batch_size a multiple of "
            f"{processes * optim.gradient_accumulation}"
        )
    count = total // processes
    return BatchShare(generator, accelerator.process_index * count, count, total)


def shard(network: nn.Module, accelerator: Accelerator) -> nn.Module:
    """Return a copy of a network whose weights, frozen ones too, are sharded over all processes.

    The network itself keeps its shape, but no weights until `averaged` lends them, and its own buffers.
    """
    for weight in network.parameters():
        weight.data = weight.data.contiguous()  # FSDP shards no other layout, such as channels-last
    copied = copy.deepcopy(network, memo={id(weight): weight for weight in network.parameters()})
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    # Gathered in bfloat16, half as many bytes; summed in float32. Inputs such as positions stay exact.
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if accelerator.mixed_precision == "bf16" else None,
        reduce_dtype=torch.float32,
        cast_forward_inputs=False,
    )
    for unit in _units(copied):
        fully_shard(unit, mesh=mesh, mp_policy=policy)
    fully_shard(copied, mesh=mesh, mp_policy=policy)
    _empty(network)
    return copied


def _units(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if isinstance(child, _UNITS):
            yield child
        else:
            yield from _units(child)


def _empty(network: nn.Module) -> None:
    """Let a network's weights go; those that stand for them have their shape, and take no memory."""
    for weight in network.parameters():
        weight.data = torch.zeros((), dtype=weight.dtype, device=weight.device).expand(weight.shape)


@contextlib.contextmanager
def averaged(network: nn.Module, trained: nn.Module, ema: state.EMA, accelerator: Accelerator) -> Iterator[None]:
    """Within it the main process's `network`, whole, has the moving average of the weights. All processes enter it.

    Args:
        trained: what trains: `network` itself, or its sharded copy.
    """
    main = accelerator.is_main_process
    if trained is network:
        if main:
            ema.swap(network)
        yield
        if main:
            ema.swap(network)
        return
    own = dict(network.named_parameters())
    for name, weight in trained.named_parameters():
        gathered = whole(ema.average.get(name, weight).detach())
        if main:
            own[name].data = gathered
    copied = dict(trained.named_buffers())
    for name, buffer in network.named_buffers():
        buffer.copy_(copied[name])
    yield
    _empty(network)


def lost_others(error: RuntimeError) -> bool:
    """Return whether an error says that another process can't be reached: NCCL's, and gloo's, which has no class."""
    return isinstance(error, torch.distributed.DistError) or "/gloo/" in str(error)


class Watch:
    """Tells all processes of each other at every step: whether the loss is finite everywhere, and who is slow."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self._own = 0.0
        self._seconds: list[list[float]] = []  # of the steps looked at, of each process

    @contextlib.contextmanager
    def own_part(self, step: int) -> Iterator[None]:
        """Time what a process does before it waits for the others: drawing its samples, and the forward pass."""
        began = time.perf_counter()
        yield
        if self._looks_at(step) and self.accelerator.device.type == "cuda":
            torch.cuda.synchronize()
        self._own += time.perf_counter() - began

    def loss_of_all(self, loss: float, step: int) -> float:
        """Return the mean of all processes' losses; stop all alike if one is not finite, as others would wait for it.

        Raises:
            DivergedError: a loss is not finite; with the same words on every process.
        """
        losses = [loss]
        if self.accelerator.num_processes > 1:
            told = torch.tensor([[loss, self._own]], device=self.accelerator.device)
            losses, seconds = self.accelerator.gather(told).T.tolist()
            if self._looks_at(step):
                self._seconds.append(seconds)
        self._own = 0.0
        worst = next((value for value in losses if not math.isfinite(value)), None)
        if worst is not None:
            raise DivergedError(
                f"the loss became {worst} at step {step}; start again from the last checkpoint with a lower optim.lr"
            )
        if len(self._seconds) == _LOOKS:
            slow = slow_processes(self._seconds)
            if slow and self.accelerator.is_main_process:
                tqdm.write(f"step {step}: all wait for {slow}; see what else runs there, and how fast its data come")
            self._seconds.clear()
        return math.fsum(losses) / len(losses)

    def _looks_at(self, step: int) -> bool:
        return self.accelerator.num_processes > 1 and step % _LOOK_EVERY == 0


def slow_processes(seconds: list[list[float]]) -> str:
    """Name the processes that need far longer than most, "" where there are none.

    Args:
        seconds: of each step, of each process.
    """
    typical = [statistics.median(times) for times in zip(*seconds, strict=True)]
    # The lower median: of two processes one may be slow.
    most = statistics.median_low(typical)
    return ", ".join(
        f"process {rank} ({time:.2f} s a step, most need {most:.2f} s)"
        for rank, time in enumerate(typical)
        if time > _SLOW * most
    )
