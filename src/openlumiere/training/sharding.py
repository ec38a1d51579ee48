"""Tensors of which each process keeps a shard (FSDP2's DTensors), and plain ones, handled alike."""

from __future__ import annotations

import torch
from torch.distributed.tensor import DTensor, distribute_tensor


def whole(value: torch.Tensor) -> torch.Tensor:
    """Return all of a tensor, of a sharded one by asking all processes, each of which must call this."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def own_shard(value: torch.Tensor) -> torch.Tensor:
    """Return what this process keeps of a tensor, not a copy; all of it where it isn't sharded."""
    return value.to_local() if isinstance(value, DTensor) else value


def shard_like(other: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Return a whole tensor, which all processes have, sharded as another of its shape; itself where that isn't."""
    if not isinstance(other, DTensor):
        return value
    return distribute_tensor(value.to(other.device), other.device_mesh, other.placements, src_data_rank=None)
