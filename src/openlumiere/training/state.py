"""Checkpoints: everything a run needs to go on as if it had never stopped, in safetensors and JSON.

A checkpoint is written under another name and renamed, so a kill at any moment leaves the last one whole. Its tensors
are whole, whatever each process keeps of them, so that any number of processes goes on from it. Large ones are in
several files, such as ``ema-00002-of-00008.safetensors``, each written by another process.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from torch.distributed.tensor import DTensor

from openlumiere.errors import LumiereError
from openlumiere.files import PARTIAL, one_line, remove

from .sharding import own_shard, shard_like, whole

_PREFIX = "checkpoint-"
_NETWORK = "unet"  # folder of a saved pipeline
_SPATIAL = "spatial."  # what a STUNet calls its text-to-image half
STATE = "state.json"
# A file of a checkpoint grows to about so much before another process writes a further one.
PART_BYTES = 2**29


class EMA:
    """Exponential moving average of a network's trainable weights, warmed up as min(decay, (1 + n) / (10 + n))."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.average = {name: p.detach().clone() for name, p in trainable(module).items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        weights = trainable(module)
        mine = [own_shard(average) for average in self.average.values()]
        torch._foreach_lerp_(mine, [own_shard(weights[name]) for name in self.average], 1 - decay)

    @torch.no_grad()
    def swap(self, module: nn.Module) -> None:
        """Exchange the average and the network's own weights; call twice to sample with the average."""
        for name, weight in trainable(module).items():
            mine = self.average[name].clone()
            self.average[name].copy_(weight)
            weight.copy_(mine)


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that require gradients, by name."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def buffers(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return what training changes without gradients, by name: the running statistics of norms."""
    weights = {name for name, _ in module.named_parameters()}
    return {name: value for name, value in module.state_dict().items() if name not in weights}


def _as(like: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Return a whole tensor in the memory layout of another of its shape, or this process's shard of it."""
    return shard_like(like, value) if isinstance(like, DTensor) else torch.empty_like(like).copy_(value)


@dataclass(frozen=True)
class Snapshot:
    """A checkpoint as one process holds it in memory, while training goes on.

    Attributes:
        own: the files that this process writes: whole tensors on the CPU, which nothing changes any more.
        files: names of all files of tensors, by whichever process.
        told: what goes into state.json.
    """

    step: int
    own: dict[str, dict[str, torch.Tensor]]
    files: list[str]
    told: dict[str, Any]


def snapshot(
    step: int, module: nn.Module, optimizer: torch.optim.Optimizer, ema: EMA, *, config: dict, rank: int = 0,
    processes: int = 1,
) -> Snapshot:  # fmt: skip
    """Copy all that a checkpoint contains, each process its share; all of them must call this where there are shards.

    Frozen weights are not part of it: they come from where the run's configuration takes them.
    """
    names = list(trainable(module))
    kinds: dict[str, dict[str, torch.Tensor]] = {
        "weights": {name: p.detach() for name, p in trainable(module).items()},
        "ema": ema.average,
        "buffers": buffers(module),
        "optimizer": {
            f"{names[index]}/{key}": value
            for index, entry in optimizer.state_dict()["state"].items()
            for key, value in entry.items()
        },
    }
    if not kinds["buffers"]:
        del kinds["buffers"]
    own: dict[str, dict[str, torch.Tensor]] = {}
    files = []
    for kind, tensors in kinds.items():
        parts = _parts(tensors, processes)
        for writer, part in enumerate(parts):
            name = f"{kind}-{writer + 1:05d}-of-{len(parts):05d}" if len(parts) > 1 else kind
            files.append(f"{name}.safetensors")
            for key in part:
                value = whole(tensors[key])
                if writer == rank:
                    kept = torch.empty(value.shape, dtype=value.dtype).copy_(value)
                    own.setdefault(files[-1], {})[key] = kept
            if writer == rank:
                own.setdefault(files[-1], {})
    return Snapshot(step, own, files, {"step": step, "ema_updates": ema.updates, "config": config})


def _parts(tensors: dict[str, torch.Tensor], processes: int) -> list[list[str]]:
    """Divide tensors, by name and in their order, into files of about equal size, one for each process at most."""
    sizes = {name: value.numel() * value.element_size() for name, value in tensors.items()}
    total = sum(sizes.values())
    count = min(max(-(-total // PART_BYTES), 1), processes)
    parts: list[list[str]] = [[] for _ in range(count)]
    before = 0
    for name, size in sizes.items():
        parts[min(before * count // max(total, 1), count - 1)].append(name)
        before += size
    return [part for part in parts if part] or [[]]


def remove_unfinished(folder: Path) -> None:
    """Remove what killed runs, also of earlier versions, left half written in a run's folder."""
    for pattern in (f".*{PARTIAL}", f"{_PREFIX}*{PARTIAL}", f"export{PARTIAL}"):
        for path in folder.glob(pattern):
            remove(path)


def prune(folder: Path, newest: Path, *, keep: int) -> None:
    """Remove all checkpoints but the last `keep` up to the newest.

    Those of later steps are of a run that was abandoned, and are removed too: nothing may resume from them.
    """
    found = checkpoints(folder)
    index = found.index(newest)
    for other in found[: max(index + 1 - keep, 0)] + found[index + 1 :]:
        remove_checkpoint(other)


def remove_checkpoint(checkpoint: Path) -> None:
    """Remove a checkpoint; what is half removed is none any more."""
    (checkpoint / STATE).unlink(missing_ok=True)
    shutil.rmtree(checkpoint)


def folder_of(folder: Path, step: int) -> Path:
    """Return the folder of a run's checkpoint of a step."""
    return folder / f"{_PREFIX}{step:07d}"


def step_of(checkpoint: Path) -> int:
    """Return the step of a checkpoint, by its folder's name."""
    return int(checkpoint.name.removeprefix(_PREFIX))


def checkpoints(folder: Path) -> list[Path]:
    """Return the whole checkpoints in `folder`, oldest first."""
    found = (path for path in folder.glob(f"{_PREFIX}*") if path.suffix != PARTIAL)
    return sorted(path for path in found if (path / STATE).exists())


def files_of(checkpoint: Path, kind: str) -> list[Path]:
    """Return the files of a checkpoint that hold its "weights", "ema", "buffers" or "optimizer".

    Raises:
        FileNotFoundError: there are none, or one of several is missing.
    """
    one = checkpoint / f"{kind}.safetensors"
    if one.exists():
        return [one]
    found = sorted(checkpoint.glob(f"{kind}-*-of-*.safetensors"))
    if not found or len(found) != int(found[0].stem.rpartition("-")[2]):
        raise FileNotFoundError(f"{kind}.safetensors, or a part of it, is missing")
    return found


def read(checkpoint: Path, kind: str) -> dict[str, torch.Tensor]:
    """Return what `files_of` a checkpoint contain: whole tensors, by name."""
    return {name: value for file in files_of(checkpoint, kind) for name, value in load_file(file).items()}


def restore(checkpoint: Path, module: nn.Module, optimizer: torch.optim.Optimizer, ema: EMA) -> int:
    """Read a checkpoint back into the given objects, and return its step.

    A checkpoint that was carried in few bits may lack the optimizer's moments, and says so: these start anew.
    """
    try:
        state = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
        weights, average = read(checkpoint, "weights"), read(checkpoint, "ema")
        moments = read(checkpoint, "optimizer") if state.get("moments", True) else {}
        kept = read(checkpoint, "buffers") if buffers(module) else {}
    except Exception as error:
        raise LumiereError(
            f"{checkpoint} is damaged ({one_line(error)}); delete it to go on from the one before"
        ) from error
    own = trainable(module)
    if {n: p.shape for n, p in own.items()} != {n: p.shape for n, p in weights.items()}:
        raise LumiereError(f"{checkpoint} is of another network than the configuration's; choose another `output`")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(_as(parameter, weights[name]))
            ema.average[name].copy_(_as(parameter, average[name]))
        for name, value in buffers(module).items():
            value.copy_(kept[name])
    ema.updates = state["ema_updates"]
    if not moments:
        return int(state["step"])
    entries: dict[int, dict[str, torch.Tensor]] = {}
    index_of = {name: index for index, name in enumerate(own)}
    for path, value in moments.items():
        name, _, key = path.rpartition("/")
        # In the weight's own memory layout: the fused optimizer walks through both element by element, as they lie.
        laid_out = _as(own[name].detach(), value) if value.shape == own[name].shape else value
        entries.setdefault(index_of[name], {})[key] = laid_out
    optimizer.load_state_dict({"state": entries, "param_groups": optimizer.state_dict()["param_groups"]})
    return int(state["step"])


def start_from(folder: Path, module: nn.Module, ema: EMA) -> None:
    """Start a new run from the moving average of another's last checkpoint, or from a model's network.

    Args:
        folder: a run, or a model whose ``unet`` is this network, or has it as its spatial half.

    Raises:
        LumiereError: neither, damaged, or of another network.
    """
    found = [folder] if (folder / _NETWORK).is_dir() else checkpoints(folder)
    if not found:
        raise LumiereError(f"`initial`: {folder} holds no checkpoint to start from")
    own = trainable(module)
    try:
        average = _saved_network(folder / _NETWORK, own) if found[-1] == folder else read(found[-1], "ema")
    except Exception as error:
        raise LumiereError(
            f"`initial`: {found[-1]} is damaged ({one_line(error)}); delete it to start from another"
        ) from error
    if {name: p.shape for name, p in own.items()} != {name: value.shape for name, value in average.items()}:
        raise LumiereError(f"`initial`: {found[-1]} is of another network than the configuration's")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(_as(parameter, average[name]))
            ema.average[name].copy_(_as(parameter, average[name]))


def _saved_network(folder: Path, own: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Read a saved network's weights, of a STUNet those of its text-to-image half if they are what `own` names."""
    weights = {name: value for file in sorted(folder.glob("*.safetensors")) for name, value in load_file(file).items()}
    if not own.keys() & weights.keys():
        weights = {name.removeprefix(_SPATIAL): value for name, value in weights.items() if name.startswith(_SPATIAL)}
    return {name: weights[name] for name in own if name in weights}
