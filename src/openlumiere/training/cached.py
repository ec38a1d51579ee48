"""Latents of a data set's clips, kept on disk: drawing and encoding a clip takes as long as a training step.

On a machine with a GPU clips are better drawn and encoded as they are needed: leave `data.cache` out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn.functional import adaptive_avg_pool3d
from torch.utils.data import Dataset, default_collate
from tqdm import tqdm

from openlumiere.data.shown_frames import ShownFrames
from openlumiere.errors import LumiereError
from openlumiere.files import read_json, replacing, write_json

_INDEX = "cache.json"
_RENAMED = {"place": "frame_positions"}  # in shards of earlier versions
_FRAMES_OF_A_SHARD, _SHORTEST_SHARD = 256, 16
_ENCODED_AT_ONCE = 16  # frames of single-frame clips; a clip of many frames is encoded alone


class CachedLatents(Dataset[dict[str, Any]]):
    """The first `count` items of a data set with ``latents`` in place of ``pixels``, in another order each round.

    Shards that are there are read, others are made; so a cache grows when `count` does, and one that was stopped goes
    on.

    Args:
        source: map-style; item n is a pure function of n.
        encode: pixels, (B, 4, F, H, W), to latents.
        folder: for the shards.
        identity: all that the items depend on; a cache of something else is refused.
        shard: items of a file, which are lost if it is stopped in between; as few of long clips as take a quarter of a
            minute when None.
        small: also keep the pixels shrunk to the latents' size, as ``small``: what masks are drawn by. A cache that has
            them serves those who don't ask for them too.
    """

    def __init__(
        self, source: Dataset[Any], encode: Callable[[torch.Tensor], torch.Tensor], folder: Path, *, count: int,
        identity: dict[str, Any], seed: int = 0, shard: int | None = None, small: bool = False,
    ) -> None:  # fmt: skip
        self.count, self.seed = count, seed
        if shard is None:
            shard = max(_FRAMES_OF_A_SHARD // source[0]["pixels"].shape[1], _SHORTEST_SHARD)
        folder.mkdir(parents=True, exist_ok=True)
        also_for_masks = _check_identity(folder, identity | {"shard": shard, "small": small})
        self.captions: list[str] = []
        parts: dict[str, list[torch.Tensor]] = {}
        missing = [n for n in range(0, count, shard) if not _path(folder, n).exists()]
        if missing and also_for_masks:
            raise LumiereError(
                f"{folder} was begun by a stage with masks, and holds fewer than {count} clips: run that stage first, "
                "or choose another data.cache"
            )
        for start in tqdm(_from_my_turn(missing), desc="encoding", unit=f"{shard} clips", disable=not missing):
            if not _path(folder, start).exists():  # another process was faster
                _write(source, encode, _path(folder, start), range(start, start + shard), small=small)
        for start in range(0, count, shard):
            with safe_open(_path(folder, start), "pt") as file:
                self.captions += json.loads(file.metadata()["captions"])
                for name in file.keys():  # noqa: SIM118 (not a dictionary)
                    parts.setdefault(_RENAMED.get(name, name), []).append(file.get_tensor(name))
        self.tensors = {name: torch.cat(each) for name, each in parts.items()}

    def __getitem__(self, index: int) -> dict[str, Any]:
        round_, position = divmod(index, self.count)
        item = int(_order(self.seed, round_, self.count)[position])
        sample: dict[str, Any] = {"caption": self.captions[item]}
        for name, values in self.tensors.items():
            value = values[item]
            value = value / 255 if value.dtype == torch.uint8 else value.float()
            sample[name] = value * 2 - 1 if name == "small" else value
        return sample


class ShownLatents(Dataset[dict[str, Any]]):
    """The frames of cached whole clips that a network is shown; other windows of a clip each time it comes round.

    Adds ``frame_positions`` where the frames need them. So one cache serves networks of all windows and strides.
    """

    def __init__(self, clips: Dataset[dict[str, Any]], shown: ShownFrames) -> None:
        self.clips, self.shown = clips, shown

    def __getitem__(self, index: int) -> dict[str, Any]:
        frames = self.shown.of(index)
        sample = self.clips[index]
        for name, values in sample.items():
            if name == "layout":
                sample[name] = values[frames]
            elif name not in ("caption", "still"):
                sample[name] = values[:, frames]
        if (positions := self.shown.positions(frames)) is not None:
            sample["frame_positions"] = positions
        return sample


def in_latents(
    batch: dict[str, Any], encode: Callable[[torch.Tensor], torch.Tensor], *, small: bool = False
) -> dict[str, Any]:
    """Return a batch with ``latents`` for ``pixels``, encoded as it is needed: what `CachedLatents` gives, unrounded.

    Args:
        small: see `CachedLatents`; ``small`` and ``alpha`` go to the CPU, where masks are drawn.
    """
    batch = dict(batch)
    pixels = batch.pop("pixels")
    latents = batch["latents"] = encode(pixels)
    if small:
        batch["small"] = pixels
    for name in {"small", "alpha"} & set(batch):
        batch[name] = adaptive_avg_pool3d(batch[name], (latents.shape[2], latents.shape[3], latents.shape[4])).cpu()
    return batch


def _from_my_turn(shards: list[int]) -> list[int]:
    """Return them in their order, but of several processes each begins at another one, so that they share the work."""
    if not (dist.is_available() and dist.is_initialized()):
        return shards
    first = dist.get_rank() * len(shards) // dist.get_world_size()
    return shards[first:] + shards[:first]


def _path(folder: Path, start: int) -> Path:
    return folder / f"{start:07d}.safetensors"


def _write(
    source: Dataset[Any],
    encode: Callable[[torch.Tensor], torch.Tensor],
    path: Path,
    items: Sequence[int],
    *,
    small: bool,
) -> None:
    found: dict[str, list[torch.Tensor]] = {}
    captions: list[str] = []
    at_once = 0
    while len(captions) < len(items):
        # As many frames as are fast to encode together.
        batch = _items(source, items[len(captions) : len(captions) + max(at_once, 1)])
        at_once = max(_ENCODED_AT_ONCE // batch[0]["pixels"].shape[1], 1)
        captions += [sample.pop("caption") for sample in batch]
        stacked = default_collate(batch)
        pixels = stacked.pop("pixels")
        latents = encode(pixels)
        found.setdefault("latents", []).append(latents.half().cpu())
        if small:
            stacked["small"] = pixels / 2 + 0.5
        for name in {"small", "alpha"} & set(stacked):
            shrunk = adaptive_avg_pool3d(stacked[name], (latents.shape[2], latents.shape[3], latents.shape[4]))
            stacked[name] = (shrunk * 255).round().to(torch.uint8)
        for name, values in stacked.items():
            found.setdefault(name, []).append(values)
    tensors = {name: torch.cat(parts).contiguous() for name, parts in found.items()}
    with replacing(path) as partial:
        save_file(tensors, partial, metadata={"captions": json.dumps(captions)})


def _items(source: Dataset[Any], indices: Sequence[int]) -> list[dict[str, Any]]:
    """Return several items, at once where the data set can, as PyTorch's loader asks for them."""
    at_once = getattr(source, "__getitems__", None)
    return at_once(indices) if at_once is not None else [source[index] for index in indices]


def _check_identity(folder: Path, identity: dict[str, Any]) -> bool:
    """Refuse latents of something else; return whether the folder also keeps what masks are drawn by, not asked for."""
    index = folder / _INDEX
    plain = json.loads(json.dumps(identity))
    if not index.exists():
        write_json(index, plain, indent=1)
        return False
    kept = read_json(index, otherwise=f"delete {folder}")
    also_for_masks = bool(kept.get("small")) and not plain["small"]
    if kept != plain | {"small": plain["small"] or also_for_masks}:
        raise LumiereError(
            f"{folder} holds latents of other clips or another autoencoder: choose another data.cache, or delete it"
        )
    return also_for_masks


@lru_cache(maxsize=2)
def _order(seed: int, round_: int, count: int) -> np.ndarray:
    return np.random.default_rng([seed, round_, 0xCAC4E]).permutation(count)
