"""Real clips that no model was trained on, for measures that compare with the real thing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from openlumiere.data.compose import Atlas, draw
from openlumiere.data.emoji import load_atlases
from openlumiere.data.scenes import Scene, SceneSampler, vocabulary

from .judges.tracks import SIDE

SCENES = 2_000_003  # scenes of their own, far from those of training


def atlases_of(data: Path | Mapping[str, Atlas], size: int) -> Mapping[str, Atlas]:
    """The vocabulary's animations for clips of `size` pixels: from `lumiere data emoji`'s folder, or as given."""
    if isinstance(data, Mapping):
        return data
    return load_atlases(Path(data), list(vocabulary()["subjects"]), side=2 * size)


def held_out_clips(
    atlases: Mapping[str, Atlas], count: int, *, size: int, num_frames: int, seed: int = 0
) -> Iterator[tuple[Scene, torch.Tensor]]:
    """Scenes of held-out combinations and their clips, (3, F, size, size) in [-1, 1]."""
    sampler = SceneSampler({key: a.names for key, a in atlases.items()}, split="combinations", seed=SCENES + seed)
    for index in range(count):
        scene = sampler(index)
        yield scene, draw(scene, atlases[scene.subject], size=size, num_frames=num_frames)[0]


def real_clips(atlases: Mapping[str, Atlas], scenes: Sequence[Scene], *, num_frames: int = 80) -> np.ndarray:
    """Clips of the data set itself at the judges' size: uint8 (scenes, F, SIDE, SIDE, 3)."""
    clips = [draw(scene, atlases[scene.subject], size=SIDE, num_frames=num_frames)[0] for scene in scenes]
    return ((torch.stack(clips).permute(0, 2, 3, 4, 1) + 1.0) * 127.5).round().to(torch.uint8).numpy()
