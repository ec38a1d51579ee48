"""What evaluations keep on disk: classifiers, named by a fingerprint of what they were trained on, arrays, settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from openlumiere import files
from openlumiere.data.emoji.drawing import Atlas
from openlumiere.data.emoji.scenes import PATHS, vocabulary
from openlumiere.errors import LumiereError

if TYPE_CHECKING:
    from openlumiere.pipelines.lumiere import LumierePipeline

Card = dict[str, Any]


def data_fingerprint(atlases: Mapping[str, Atlas]) -> str:
    """Return the SHA-256 of the subjects' pictures and of what scenes are drawn from; captions are not seen."""
    words = vocabulary()
    drawn = {
        "sizes": {key: entry["scale"] for key, entry in words["sizes"].items()},
        "places": {key: entry["at"] for key, entry in words["places"].items()},
        "backgrounds": words["backgrounds"],
        "motions": {key: entry.get("period") for key, entry in words["motions"].items()},
        "paths": PATHS,
    }
    digest = hashlib.sha256(json.dumps(drawn, sort_keys=True).encode())
    for key in sorted(atlases):
        frames = atlases[key].frames.contiguous()
        digest.update(f"{key} {tuple(frames.shape)}".encode())
        digest.update(frames.numpy().tobytes())
    return digest.hexdigest()


def arrays_fingerprint(arrays: Iterable[np.ndarray]) -> str:
    """Return the SHA-256 of arrays in their order; nothing where there are none."""
    listed = list(arrays)
    digest = hashlib.sha256()
    for array in listed:
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest() if listed else ""


def weights_hash(model: LumierePipeline | torch.nn.Module) -> str:
    """Return the SHA-256 of all weights of a pipeline's networks, or of one network, as loaded."""
    digest = hashlib.sha256()
    components = {"": model} if isinstance(model, torch.nn.Module) else dict(model.components)
    if components.get("super_resolution") is not None:
        components["sr_unet"] = components["super_resolution"].unet  # its name in hashes that are stored with scores
    for component, module in sorted(components.items()):
        if isinstance(module, torch.nn.Module):
            for name, tensor in sorted(module.state_dict().items()):
                digest.update(f"{component}.{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
                digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def drawn_by(pipe: LumierePipeline) -> dict[str, Any]:
    """Return what a pipeline's clips of text depend on besides a call's arguments: its weights, and how it draws."""
    names = ("canonical", "picture_strength")
    return {"weights_sha256": weights_hash(pipe), **{name: getattr(pipe.config, name) for name in names}}


def cached_path(folder: Path, kind: str, data: str, config: Mapping[str, Any]) -> Path:
    """Return where a classifier of this kind, data and configuration lies; others have other names."""
    key = hashlib.sha256(json.dumps([data, dict(config)], sort_keys=True).encode()).hexdigest()[:12]
    return folder / f"{kind}-{key}.safetensors"


def restore(path: Path, network: torch.nn.Module) -> bool:
    """Read a cached network's weights and its `card`; False where none is cached.

    Raises:
        LumiereError: damaged files.
    """
    card = path.with_suffix(".json")
    if not (path.exists() and card.exists()):
        return False
    try:
        network.load_state_dict(load_file(path))
        network.card = json.loads(card.read_text(encoding="utf-8"))
    except Exception as error:
        raise LumiereError(
            f"{path} is damaged ({files.one_line(error)}); delete it and run the command again"
        ) from error
    network.eval()
    return True


def save(path: Path, network: torch.nn.Module, card: Card) -> None:
    """Write a network; its card comes last, so that a network with a card is whole."""
    with files.replacing(path) as partial:
        save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, partial)
    files.write_json(path.with_suffix(".json"), card, indent=1)


def write_array(path: Path, values: np.ndarray) -> None:
    """Write an array whole or not at all."""
    with files.replacing(path) as partial, partial.open("wb") as file:
        np.save(file, values, allow_pickle=False)


def read_array(path: Path) -> np.ndarray:
    """Read what `write_array` wrote."""
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise LumiereError(
            f"{path} is damaged ({files.one_line(error)}); delete it and run the command again"
        ) from error


def eight_bit(clip: np.ndarray) -> np.ndarray:
    """Return a clip in [0, 1] as uint8, as a file would hold it."""
    return (np.nan_to_num(clip).clip(0.0, 1.0) * 255.0).round().astype(np.uint8)


def continue_or_start(output: Path, settings: Mapping[str, Any]) -> None:
    """Check that a report's folder is new, or holds clips of the same settings; several processes may start at once.

    Raises:
        LumiereError: clips of other settings are there, or the folder cannot be used.
    """
    path = output / "settings.json"
    try:
        if not path.exists():
            files.write_json(path, settings, indent=1)
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise LumiereError(f"cannot use {output} ({files.one_line(error)}); choose another output folder") from error
    changed = sorted(key for key in {*before, *settings} if before.get(key) != settings.get(key))
    if changed:
        raise LumiereError(
            f"{output} holds clips made with another {', '.join(changed)}; delete it or choose another output folder"
        )
