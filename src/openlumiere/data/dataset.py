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
    """One clip.

    Attributes:
        pixels: (3, F, size, size) in [-1, 1].
        caption: what they show.
        alpha: of the subject, (1, F, size, size) in [0, 1].
        place: of each frame of a window in its clip, (F,), 0 = start, 1 = end.
    """

    pixels: torch.Tensor
    caption: str
    alpha: NotRequired[torch.Tensor]
    place: NotRequired[torch.Tensor]


class EmojiClips(Dataset[Sample]):
    """Composed emoji clips; item n is a pure function of (seed, n).

    Args:
        folder: shards made by `lumiere data emoji`.
        subjects: keys of the vocabulary; None = all of them.
        size: height and width in pixels.
        num_frames: length of a clip.
        every: give every n-th frame alone, from the first.
        window: give this many consecutive ones of them, at a random place; 0 = all of them.
        pool, with_motion: see `SceneSampler`.
        alpha: give the subject's alpha too.
    """

    def __init__(
        self, folder: Path, *, subjects: list[str] | None, size: int, num_frames: int = 80, every: int = 1,
        window: int = 0, seed: int = 0, pool: int = 0, with_motion: float = 1.0, alpha: bool = False,
    ) -> None:  # fmt: skip
        if not 1 <= every <= num_frames:
            raise LumiereError(f"every {every}. frame of clips of {num_frames}: choose 1 to {num_frames}")
        self.frames = range(0, num_frames, every)
        if not 0 <= window <= len(self.frames):
            raise LumiereError(
                f"a window of {window} frames of clips of {len(self.frames)}: choose 0 to {len(self.frames)}"
            )
        self.size, self.num_frames, self.window, self.seed, self.alpha = size, num_frames, window, seed, alpha
        chosen = subjects if subjects is not None else list(vocabulary()["subjects"])
        self.atlases = load_atlases(folder, chosen, side=2 * size)
        names = {key: atlas.names for key, atlas in self.atlases.items()}
        self.scenes = SceneSampler(names, seed=seed, pool=pool, with_motion=with_motion)

    def __getitem__(self, index: int) -> Sample:
        scene = self.scenes(index)
        frames = self.frames
        if self.window:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
            start = int(torch.randint(len(frames) - self.window + 1, (), generator=generator))
            frames = frames[start : start + self.window]
        atlas = self.atlases[scene.subject]
        rgb, alpha = draw(scene, atlas, size=self.size, num_frames=self.num_frames, frames=list(frames))
        sample = Sample(pixels=rgb, caption=scene.caption)
        if self.alpha:
            sample["alpha"] = alpha
        if self.window:
            sample["place"] = torch.tensor(frames) / max(self.num_frames - 1, 1)
        return sample
