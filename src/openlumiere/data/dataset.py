"""The emoji data set as training sees it: clips, or single frames of them, drawn on the fly."""

from __future__ import annotations

from pathlib import Path
from typing import NotRequired, TypedDict

import torch
from torch.utils.data import Dataset

from openlumiere.errors import LumiereError

from .compose import draw
from .emoji import load_atlases
from .scenes import SceneSampler, vocabulary


class Sample(TypedDict):
    """`pixels`: (3, F, size, size) in [-1, 1]; `caption`: what they show; `alpha`: (1, F, size, size) in [0, 1]."""

    pixels: torch.Tensor
    caption: str
    alpha: NotRequired[torch.Tensor]


class EmojiClips(Dataset[Sample]):
    """Composed emoji clips; item n is a pure function of (seed, n).

    Args:
        folder: shards made by `lumiere data emoji`.
        subjects: keys of the vocabulary; None = all of them.
        size: height and width in pixels.
        num_frames: length of a clip.
        window: give this many consecutive frames of each clip, at a random place; 0 = all of them.
        pool, with_motion: see `SceneSampler`.
        alpha: give the subject's alpha too.
    """

    def __init__(
        self, folder: Path, *, subjects: list[str] | None, size: int, num_frames: int = 80, window: int = 0,
        seed: int = 0, pool: int = 0, with_motion: float = 1.0, alpha: bool = False,
    ) -> None:  # fmt: skip
        if not 0 <= window <= num_frames:
            raise LumiereError(f"a window of {window} frames of clips of {num_frames}: choose 0 to {num_frames}")
        self.size, self.num_frames, self.window, self.seed, self.alpha = size, num_frames, window, seed, alpha
        chosen = subjects if subjects is not None else list(vocabulary()["subjects"])
        self.atlases = load_atlases(folder, chosen, side=2 * size)
        names = {key: atlas.names for key, atlas in self.atlases.items()}
        self.scenes = SceneSampler(names, seed=seed, pool=pool, with_motion=with_motion)

    def __getitem__(self, index: int) -> Sample:
        scene = self.scenes(index)
        frames = None
        if self.window:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
            start = int(torch.randint(self.num_frames - self.window + 1, (), generator=generator))
            frames = list(range(start, start + self.window))
        atlas = self.atlases[scene.subject]
        rgb, alpha = draw(scene, atlas, size=self.size, num_frames=self.num_frames, frames=frames)
        sample = Sample(pixels=rgb, caption=scene.caption)
        if self.alpha:
            sample["alpha"] = alpha
        return sample
