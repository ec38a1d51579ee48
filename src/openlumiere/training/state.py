"""Checkpoints: everything a run needs to go on as if it had never stopped, in safetensors and JSON.

A checkpoint is written under another name and renamed, so a kill at any moment leaves the last one whole.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from openlumiere.errors import LumiereError
from openlumiere.files import one_line, remove, replacing, write_json

_PREFIX = "checkpoint-"


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
        torch._foreach_lerp_(list(self.average.values()), [weights[name] for name in self.average], 1 - decay)

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


def save(
    folder: Path, step: int, module: nn.Module, optimizer: torch.optim.Optimizer, ema: EMA, *, keep: int, config: dict
) -> Path:
    """Write ``folder/checkpoint-STEP`` and remove all but the last `keep`.

    Checkpoints of later steps are of a run that was abandoned, and are removed too: nothing may resume from them.
    """
    target = folder_of(folder, step)
    with replacing(target) as partial:
        partial.mkdir()
        names = list(trainable(module))
        save_file({n: p.detach().contiguous() for n, p in trainable(module).items()}, partial / "weights.safetensors")
        save_file({n: p.contiguous() for n, p in ema.average.items()}, partial / "ema.safetensors")
        if kept := buffers(module):
            save_file({name: value.contiguous() for name, value in kept.items()}, partial / "buffers.safetensors")
        moments = {
            f"{names[index]}/{key}": value.contiguous()
            for index, entry in optimizer.state_dict()["state"].items()
            for key, value in entry.items()
        }
        save_file(moments, partial / "optimizer.safetensors")
        write_json(partial / "state.json", {"step": step, "ema_updates": ema.updates, "config": config})
        _to_disk(partial)
        if target.exists():  # left by an abandoned run
            _remove(target)
    found = checkpoints(folder)
    index = found.index(target)
    for other in found[: max(index + 1 - keep, 0)] + found[index + 1 :]:
        _remove(other)
    return target


def remove_unfinished(folder: Path) -> None:
    """Remove what killed runs, also of earlier versions, left half written in a run's folder."""
    for pattern in (".*.partial", f"{_PREFIX}*.partial", "export.partial"):
        for path in folder.glob(pattern):
            remove(path)


def _remove(checkpoint: Path) -> None:
    (checkpoint / "state.json").unlink(missing_ok=True)  # what is half removed is no checkpoint any more
    shutil.rmtree(checkpoint)


def _to_disk(folder: Path) -> None:
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def folder_of(folder: Path, step: int) -> Path:
    """Return the folder of a run's checkpoint of a step."""
    return folder / f"{_PREFIX}{step:07d}"


def step_of(checkpoint: Path) -> int:
    """Return the step of a checkpoint, by its folder's name."""
    return int(checkpoint.name.removeprefix(_PREFIX))


def checkpoints(folder: Path) -> list[Path]:
    """Return the whole checkpoints in `folder`, oldest first."""
    found = (path for path in folder.glob(f"{_PREFIX}*") if path.suffix != ".partial")
    return sorted(path for path in found if (path / "state.json").exists())


def restore(checkpoint: Path, module: nn.Module, optimizer: torch.optim.Optimizer, ema: EMA) -> int:
    """Read a checkpoint back into the given objects, and return its step.

    A checkpoint that was carried in few bits may lack the optimizer's moments, and says so: these start anew.
    """
    try:
        state = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
        weights = load_file(checkpoint / "weights.safetensors")
        average = load_file(checkpoint / "ema.safetensors")
        moments = load_file(checkpoint / "optimizer.safetensors") if state.get("moments", True) else {}
        kept = load_file(checkpoint / "buffers.safetensors") if buffers(module) else {}
    except Exception as error:
        raise LumiereError(
            f"{checkpoint} is damaged ({one_line(error)}); delete it to go on from the one before"
        ) from error
    own = trainable(module)
    if {n: p.shape for n, p in own.items()} != {n: p.shape for n, p in weights.items()}:
        raise LumiereError(f"{checkpoint} is of another network than the configuration's; choose another `output`")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(weights[name])
            ema.average[name].copy_(average[name])
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
        laid_out = torch.empty_like(own[name]).copy_(value) if value.shape == own[name].shape else value
        entries.setdefault(index_of[name], {})[key] = laid_out
    optimizer.load_state_dict({"state": entries, "param_groups": optimizer.state_dict()["param_groups"]})
    return int(state["step"])


def start_from(folder: Path, module: nn.Module, ema: EMA) -> None:
    """Start a new run from the moving average of another's last checkpoint."""
    found = checkpoints(folder)
    if not found:
        raise LumiereError(f"`initial`: {folder} holds no checkpoint to start from")
    try:
        average = load_file(found[-1] / "ema.safetensors")
    except Exception as error:
        raise LumiereError(
            f"`initial`: {found[-1]} is damaged ({one_line(error)}); delete it to start from another"
        ) from error
    own = trainable(module)
    if {name: p.shape for name, p in own.items()} != {name: value.shape for name, value in average.items()}:
        raise LumiereError(f"`initial`: {found[-1]} is of another network than the configuration's")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(average[name])
            ema.average[name].copy_(average[name])
