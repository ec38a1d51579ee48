"""Judges on disk: safetensors and JSON, named by a fingerprint of what they were trained on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from openlumiere.data.compose import Atlas
from openlumiere.data.scenes import vocabulary
from openlumiere.errors import LumiereError

Card = dict[str, Any]


def data_fingerprint(atlases: Mapping[str, Atlas]) -> str:
    """SHA-256 of the subjects' pictures and of what scenes are drawn from, captions aside: judges see none."""
    words = vocabulary()
    drawn = {
        "sizes": {key: entry["scale"] for key, entry in words["sizes"].items()},
        "places": {key: entry["at"] for key, entry in words["places"].items()},
        "backgrounds": words["backgrounds"],
        "motions": list(words["motions"]),
    }
    digest = hashlib.sha256(json.dumps(drawn, sort_keys=True).encode())
    for key in sorted(atlases):
        frames = atlases[key].frames.contiguous()
        digest.update(f"{key} {tuple(frames.shape)}".encode())
        digest.update(frames.numpy().tobytes())
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
