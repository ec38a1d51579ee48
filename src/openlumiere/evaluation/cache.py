"""What evaluations keep on disk: judges, named by a fingerprint of what they were trained on, and clips, so that a
stopped evaluation goes on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from openlumiere.data.emoji.drawing import Atlas
from openlumiere.data.emoji.scenes import PATHS, vocabulary
from openlumiere.errors import LumiereError

if TYPE_CHECKING:
    from openlumiere.pipelines.lumiere import LumierePipeline

Card = dict[str, Any]


def data_fingerprint(atlases: Mapping[str, Atlas]) -> str:
    """SHA-256 of the subjects' pictures and of what scenes are drawn from, captions aside: judges see none."""
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
    """SHA-256 of arrays in their order; nothing where there are none."""
    listed = list(arrays)
    digest = hashlib.sha256()
    for array in listed:
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest() if listed else ""


def weights_hash(model: LumierePipeline | torch.nn.Module) -> str:
    """SHA-256 over all weights of a pipeline's networks, or of one network, as loaded, by component and name."""
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


def cached_path(folder: Path, kind: str, data: str, config: Mapping[str, Any]) -> Path:
    """Where a judge of this kind, data and configuration lies: another one never takes its place."""
    key = hashlib.sha256(json.dumps([data, dict(config)], sort_keys=True).encode()).hexdigest()[:12]
    return folder / f"{kind}-{key}.safetensors"


def load(path: Path) -> tuple[dict[str, torch.Tensor], Card] | None:
    """Weights and card of a cached judge, or None where there is none."""
    card = path.with_suffix(".json")
    if not (path.exists() and card.exists()):
        return None
    try:
        return load_file(path), json.loads(card.read_text(encoding="utf-8"))
    except Exception as error:
        raise LumiereError(f"{path} is damaged ({error}); delete it and run the command again") from error


def save(path: Path, module: torch.nn.Module, card: Card) -> None:
    """Write a judge; its card comes last, so that a judge with a card is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file({name: tensor.contiguous() for name, tensor in module.state_dict().items()}, partial)
    partial.rename(path)
    write_text(path.with_suffix(".json"), json.dumps(card, indent=1))


def write_text(path: Path, text: str) -> None:
    """Write beside, then rename."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.rename(path)


def write_array(path: Path, values: np.ndarray) -> None:
    """Write beside, then rename."""
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.save(file, values, allow_pickle=False)
    partial.rename(path)


def read_array(path: Path) -> np.ndarray:
    """What `write_array` wrote."""
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise LumiereError(f"{path} is damaged ({error}); delete it and run the command again") from error


def eight_bit(clip: np.ndarray) -> np.ndarray:
    """A clip in [0, 1] as uint8, as a file would hold it."""
    return (np.nan_to_num(clip).clip(0.0, 1.0) * 255.0).round().astype(np.uint8)


def continue_or_start(output: Path, settings: Mapping[str, Any]) -> None:
    """Clips of different settings must not end up in one report."""
    path = output / "settings.json"
    try:
        (output / "clips").mkdir(parents=True, exist_ok=True)
        if not path.exists():
            write_text(path, json.dumps(settings, indent=1))
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise LumiereError(f"cannot use {output} ({error}); choose another output folder") from error
    changed = sorted(key for key in {*before, *settings} if before.get(key) != settings.get(key))
    if changed:
        raise LumiereError(
            f"{output} holds clips made with another {', '.join(changed)}; delete it or choose another output folder"
        )
