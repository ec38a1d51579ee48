"""What a model takes of a device's memory, and how it is made to take less."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def weight_bytes(components: Iterable[Any]) -> int:
    """Return the bytes of the parameters of all networks among a pipeline's components; shared ones count once."""
    from torch import nn

    found = {id(w): w for part in components if isinstance(part, nn.Module) for w in part.parameters()}
    return sum(weight.numel() * weight.element_size() for weight in found.values())
