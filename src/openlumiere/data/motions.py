"""The scenes' own paths beside their captions, as a planner is trained on them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch.utils.data import Dataset

from openlumiere.diffusion.motion import observed_seconds, oscillation, with_trend
from openlumiere.errors import LumiereError

from .scenes import Scene, SceneSampler, speed, trajectory, vocabulary

DURATIONS = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0)  # seconds


def scene_path(scene: Scene, seconds: np.ndarray, duration: float) -> np.ndarray:
    """Where the scene's subject is, (T, 4), so many seconds from the start of a clip of some duration."""
    return trajectory(scene, seconds, duration)


class ScenePaths(Dataset[dict[str, torch.Tensor]]):
    """Motions of the training scenes, ``{"motion": (MOTION_DIM,), "text": (D,), "seconds": ()}``.

    Item n is a pure function of (seed, n): a caption, and a path of any scene that the same words could tell, so that
    a caption seen often never stands for one path.

    Args:
        encode: captions to what a planner is told of them, (N, D).
        captions: number of distinct scenes.
        empty: fraction of captions left out.
        fps: of the clips.
    """

    def __init__(
        self, encode: Callable[[list[str]], torch.Tensor], *, captions: int, empty: float, fps: float, seed: int = 0,
        subjects: list[str] | None = None,
    ) -> None:  # fmt: skip
        words = vocabulary()["subjects"]
        unknown = next((key for key in subjects or [] if key not in words), None)
        if unknown is not None:
            raise LumiereError(f"data.subjects: {unknown!r} is not in the vocabulary")
        if captions < 1:
            raise LumiereError(f"data.pool {captions}: a planner needs the number of captions to learn from")
        names = {key: words[key]["names"] for key in subjects or words}
        sampler = SceneSampler(names, seed=seed)
        scenes = [sampler(index) for index in range(captions)]
        self.seed, self.empty = seed, empty
        self.text = encode([scene.caption for scene in scenes])
        self.nothing = encode([""])[0]
        waves = oscillations(scenes)
        lengths = [add_trends(waves, scenes, duration, fps=fps) for duration in DURATIONS]
        self.motions = torch.stack(lengths, dim=1).float()
        groups: dict[tuple[object, ...], list[int]] = {}
        for index, scene in enumerate(scenes):
            groups.setdefault(_words(scene), []).append(index)
        self.alike = [np.array(groups[_words(scene)]) for scene in scenes]

    def __len__(self) -> int:
        return len(self.text)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng([self.seed, index, 0x9A7B])
        told = int(rng.integers(len(self.text)))
        shown, length = int(rng.choice(self.alike[told])), int(rng.integers(len(DURATIONS)))
        text = self.nothing if rng.random() < self.empty else self.text[told]
        return {"motion": self.motions[shown, length], "text": text, "seconds": torch.tensor(DURATIONS[length])}


def oscillations(scenes: list[Scene]) -> torch.Tensor:
    """What oscillates in scenes' paths, in real time and so however long a clip is: see `diffusion.motion`."""
    seconds = observed_seconds().numpy()
    duration = float(seconds[-1])
    return oscillation(torch.from_numpy(np.stack([scene_path(scene, seconds, duration) for scene in scenes])))


def add_trends(motions: torch.Tensor, scenes: list[Scene], duration: float, *, fps: float) -> torch.Tensor:
    """Scenes' motions in clips of some duration, float64, (N, MOTION_DIM)."""
    count = max(round(duration * fps), 4)
    seconds = np.arange(count) * duration / count
    paths = np.stack([scene_path(scene, seconds, duration) for scene in scenes])
    return with_trend(motions, torch.from_numpy(paths), duration)


def _words(scene: Scene) -> tuple[object, ...]:
    """All that a caption can tell of a scene's path."""
    return scene.motion, scene.place, scene.size, speed(scene)
