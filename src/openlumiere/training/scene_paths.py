"""The scenes' own paths beside their captions, as a planner is trained on them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch.utils.data import Dataset

from openlumiere.clock import frame_seconds
from openlumiere.data.emoji.captions import pick
from openlumiere.data.emoji.scenes import Scene, SceneSampler, speed, trajectory
from openlumiere.data.emoji.vocabulary import more_words, vocabulary
from openlumiere.diffusion.motion import observed_seconds, oscillation, with_trend
from openlumiere.errors import LumiereError

_TRANSPARENT = 0.15  # fraction of scenes without a background
_AS_USERS_SAY = (
    "a {size} {name} {motion} {pace} {place} {behind}", "a {size} {name} {pace} {motion} {place} {behind}",
    "{size} {name} {motion} {place} {pace}", "the {size} {name} {place} {motion} {pace}, {behind}",
    "{name}, {size}, {motion} {pace}, {place}", "a video of a {size} {name} {place} {motion} {pace} {behind}",
    "I want a {size} {name} {place} that is {motion} {pace} {behind}", "{pace} {motion} {size} {name} {place}",
    "show me one {size} {name} {motion} {pace} {place}, {behind}", "{behind} a {size} {name} {motion} {pace} {place}",
    "a {name} is {motion} {pace} {place}", "{name} {motion} {pace}", "{motion}, a {size} {name}, {place} {behind}",
    "an animated {size} {name} {motion} {pace} {place} {behind}", "please make a {size} {name} {place} {motion} {pace}",
)  # fmt: skip
_BEHIND = (
    "on {color}", "on a {color} background", "in front of {color}", "background: {color}", "the background is {color}",
    "surrounded by {color}", "with a {color} wall in the back", "and {color} around it",
)  # fmt: skip
DURATIONS = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0)  # seconds


class ScenePaths(Dataset[dict[str, torch.Tensor]]):
    """Motions of the training scenes, ``{"motion": (MOTION_DIM,), "text": (L, D), "seconds": ()}``.

    Item n is a pure function of (seed, n): a caption, and a path of any scene that the same words could tell, so that
    a caption seen often never stands for one path.

    Args:
        encode: captions to their token embeddings, (N, L, D).
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
        sampler = SceneSampler(names, seed=seed, transparent=_TRANSPARENT)
        scenes = [sampler(index) for index in range(captions)]
        self.seed, self.empty = seed, empty
        self.captions = [retold(scene, names[scene.subject], seed * 1_000_003 + n) for n, scene in enumerate(scenes)]
        text = encode([*self.captions, ""])
        longest = int(text.ne(0).any(-1).sum(1).max())  # tokens
        self.text, self.nothing = text[:-1, :longest], text[-1, :longest]
        waves = oscillations(scenes)
        lengths = [add_trends(waves, scenes, duration, fps=fps) for duration in DURATIONS]
        self.motions = torch.stack(lengths, dim=1).float()
        groups: dict[tuple[object, ...], list[int]] = {}
        for index, scene in enumerate(scenes):
            groups.setdefault(_words(scene), []).append(index)
        self.alike = [groups[_words(scene)] for scene in scenes]

    def __len__(self) -> int:
        return len(self.text)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng([self.seed, index, 0x9A7B])
        told, length = int(rng.integers(len(self.text))), int(rng.integers(len(DURATIONS)))
        alike = self.alike[told]
        shown = alike[int(rng.integers(len(alike)))]
        text = self.nothing if rng.random() < self.empty else self.text[told]
        return {"motion": self.motions[shown, length], "text": text, "seconds": torch.tensor(DURATIONS[length])}


def oscillations(scenes: list[Scene]) -> torch.Tensor:
    """What oscillates in scenes' paths, in real time and so however long a clip is: see `diffusion.motion`."""
    seconds = observed_seconds().numpy()
    duration = float(seconds[-1])
    return oscillation(torch.from_numpy(np.stack([trajectory(scene, seconds, duration) for scene in scenes])))


def add_trends(motions: torch.Tensor, scenes: list[Scene], duration: float, *, fps: float) -> torch.Tensor:
    """Scenes' motions in clips of some duration, float64, (N, MOTION_DIM)."""
    seconds = frame_seconds(np.arange(round(duration * fps)), fps)
    paths = np.stack([trajectory(scene, seconds, duration) for scene in scenes])
    return with_trend(motions, torch.from_numpy(paths), duration)


def retold(scene: Scene, names: list[str], seed: int) -> str:
    """What a user might say of a scene: its caption, the same in more words, or as users put it."""
    words, rng = vocabulary(), np.random.default_rng([seed, 0x7E11])

    def say(kind: str, key: str) -> str:
        more, own = more_words()[kind][key], words[kind][key]["words"]
        return pick(rng, more if more and rng.random() < 0.6 else own)

    if rng.random() < 0.2:
        return scene.caption
    names = [*names, *more_words()["subjects"].get(scene.subject, [])]
    pace = speed(scene) if rng.random() < 0.5 else None
    background = scene.background if rng.random() < 0.6 else ""
    told = pick(rng, _AS_USERS_SAY).format(
        size=say("sizes", scene.size), name=pick(rng, names), motion=say("motions", scene.motion),
        place=say("places", scene.place), pace=say("speeds", pace) if pace else "",
        behind=pick(rng, _BEHIND).format(color=background) if background else "",
    )  # fmt: skip
    return " ".join(told.split()).replace(" ,", ",").strip(", ")


def _words(scene: Scene) -> tuple[object, ...]:
    """All that a caption can tell of a scene's path."""
    return scene.motion, scene.place, scene.size, speed(scene)
