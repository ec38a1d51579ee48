"""A tiny model of each kind that a backend drives, by the name that docs/models.md gives it, and what to ask of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import tiny_backends
import tiny_transformers
from openlumiere.generation.abilities import Abilities
from openlumiere.generation.requests import TASKS
from tiny_requests import Files

EVERY_TASK = [task for task in TASKS if task != "upscale"]


def _adapter_and_base(folder: Path, *, sparse: bool = False) -> str:
    parts = [tiny_backends.save_motion_adapter(folder / "adapter"), tiny_backends.save_base(folder / "base")]
    return "+".join(map(str, [*parts, *([tiny_backends.save_sparse_control(folder / "control")] if sparse else [])]))


FAMILIES: dict[str, Callable[[Path], object]] = {
    "AnimateDiff": _adapter_and_base,
    "AnimateDiff + SparseCtrl": partial(_adapter_and_base, sparse=True),
    "ZeroScope": tiny_backends.save_zeroscope,
    "Stable Video Diffusion": tiny_backends.save_svd,
    "Wan 2.1 T2V": tiny_transformers.save_wan,
    "Wan 2.2 T2V": partial(tiny_transformers.save_wan, kind="t2v-2.2"),
    "Wan 2.1 I2V": partial(tiny_transformers.save_wan, kind="i2v"),
    "Wan 2.1 FLF2V": partial(tiny_transformers.save_wan, kind="flf2v"),
    "Wan 2.2 I2V": partial(tiny_transformers.save_wan, kind="i2v-2.2"),
    "Wan 2.2 TI2V": partial(tiny_transformers.save_wan, kind="ti2v"),
    "Wan 2.1 VACE": partial(tiny_transformers.save_wan, kind="vace"),
    "LTX-Video, to 0.9.1": partial(tiny_transformers.save_ltx, kind="text"),
    "LTX-Video, from 0.9.5": tiny_transformers.save_ltx,
    "CogVideoX": tiny_transformers.save_cogvideox,
    "CogVideoX I2V": partial(tiny_transformers.save_cogvideox, kind="i2v"),
    "CogVideoX 1.5": partial(tiny_transformers.save_cogvideox, kind="t2v-1.5"),
    "CogVideoX 1.5 I2V": partial(tiny_transformers.save_cogvideox, kind="i2v-1.5"),
}


def saved_in(folder: Path) -> Callable[[str], str]:
    """Return what saves a model of `FAMILIES` when it is first asked for, and returns it as `--model` takes it."""
    names = list(FAMILIES)
    return cache(lambda name: str(FAMILIES[name](folder / str(names.index(name)))))


@dataclass(frozen=True)
class Small:
    """The smallest clip of a model that shows what it does, and files to start from.

    Attributes:
        size: width and height.
        num_frames: of the source, and of what is made of a picture or of text.
    """

    able: Abilities
    size: tuple[int, int]
    num_frames: int
    files: Files

    @classmethod
    def of(cls, able: Abilities, folder: Path) -> Small:
        side = max(able.size_multiple, 64 if able.family == "ltx" else 16)
        size = (side, side) if able.resizable else (able.width or 0, able.height or 0)
        num_frames = able.frame_multiple + 1 if able.frame_offset else 5
        folder.mkdir(parents=True, exist_ok=True)
        return cls(able, size, num_frames, Files(folder, size, num_frames, able.fps))

    def length(self, task: str) -> int:
        """How many frames the clip of a task has, if it is told `num_frames` of a picture or text, and 4 to extend."""
        return {"extend": self.num_frames + 4, "interpolate": 2 * self.num_frames - 1}.get(task, self.num_frames)
