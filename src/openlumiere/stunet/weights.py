"""The temporal layers alone in a folder: their weights, and the options of the network that they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import nn

from openlumiere.errors import LumiereError
from openlumiere.files import one_line, read_json, replacing, write_json

_WEIGHTS, _CONFIG = "temporal.safetensors", "temporal.json"


def save_temporal(folder: str | Path, temporal: nn.Module, config: Mapping[str, Any]) -> None:
    """Write weights and options; `config` is the whole network's."""
    with replacing(Path(folder) / _WEIGHTS) as partial:
        save_file({name: value.contiguous() for name, value in temporal.state_dict().items()}, partial)
    options = {key: value for key, value in config.items() if not key.startswith("_") and key != "unet"}
    write_json(Path(folder) / _CONFIG, options)


def read_options(folder: str | Path) -> dict[str, Any]:
    """Read the options of `STUNet` that `save_temporal` wrote."""
    return dict(read_json(Path(folder) / _CONFIG, otherwise="cannot read temporal weights without it: save them again"))


def load_temporal(folder: str | Path, temporal: nn.Module) -> None:
    """Read the weights that `save_temporal` wrote.

    Raises:
        LumiereError: they are missing, damaged, or of a network of another shape.
    """
    path = Path(folder) / _WEIGHTS
    try:
        weights = load_file(path)
    except Exception as error:
        raise LumiereError(f"cannot read temporal weights from {path}: {one_line(error)}") from error
    try:
        temporal.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).partition("\n")[2] or str(error)
        raise LumiereError(f"{path} is of a network of another shape: {one_line(reason)}") from error
