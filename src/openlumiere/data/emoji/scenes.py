"""Scenes of the emoji data set drawn at random, and the split into what is trained on and what tests.

A scene is words and numbers only; `drawing` draws it. Everything is a pure function of ``(seed, index)``, so data order
needs no state: a resumed training run sees the same clips. The vocabulary and the motions are handed on from here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Literal

import numpy as np

from openlumiere.errors import LumiereError

from .captions import caption, pick
from .motions import PATHS, PERIOD_FACTOR, SECONDS, check_sampling, shortest_period, speed, trajectory
from .vocabulary import TRANSPARENT, Scene, subject_set, vocabulary

__all__ = [
    "PATHS", "PERIOD_FACTOR", "SECONDS", "TRANSPARENT", "Scene", "SceneSampler", "Split", "animation_frames",
    "check_sampling", "has_test_animation", "is_test_artwork", "is_test_combination", "shortest_period", "speed",
    "stable_hash", "subject_set", "trajectory", "vocabulary",
]  # fmt: skip

Split = Literal["train", "combinations", "paraphrases"]

# The test split, for good: models that were published would else be judged by what they were trained on.
_TEST_COMBINATIONS = 10  # one subject x motion x background combination in so many
_TEST_ANIMATIONS = 8  # the second half of the animation of one subject in so many
_TEST_ARTWORK = 16  # one piece of artwork in so many

# Motions that leave the centre of the subject free, so that a place can be asked for.
_PLACED_MOTIONS = ("still", "spin", "grow", "shrink")


def stable_hash(*words: str) -> int:
    """Hash words to 64 bits, the same on every machine: it decides what is in the test split."""
    return int.from_bytes(hashlib.blake2s("|".join(words).encode(), digest_size=8).digest(), "big")


def is_test_combination(subject: str, motion: str, background: str) -> bool:
    """Return whether this subject x motion x background is in the test split, never trained on."""
    return stable_hash(subject, motion, background) % _TEST_COMBINATIONS == 0


def is_test_artwork(key: str) -> bool:
    """Return whether artwork of these code points, or of this name, is in the test split, never trained on."""
    return stable_hash("picture", key.replace("-fe0f", "")) % _TEST_ARTWORK == 0


def has_test_animation(subject: str) -> bool:
    """Return whether the second half of this subject's own animation is in the test split."""
    return stable_hash("animation", subject) % _TEST_ANIMATIONS == 0


def animation_frames(subject: str, loop: int, *, test: bool = False) -> np.ndarray:
    """Return the frames of a subject's loop of `loop` frames that a split may show, as a loop themselves.

    A subject with a test animation is trained on the first half, played forth and back; `test=True` gives the second
    half likewise. Of the other subjects the test split shows nothing.
    """
    if loop < 2 or not has_test_animation(subject):  # a single frame has no halves
        return np.arange(0) if test else np.arange(loop)
    half = np.arange(loop // 2, loop) if test else np.arange(loop // 2)
    return np.concatenate([half, half[-2:0:-1]])


class SceneSampler:
    """Draw scenes with their captions; the same ``(seed, index)`` always gives the same scene.

    Args:
        names: subject key -> names that captions may use.
        split: "train" leaves the test combinations out; "combinations" draws only those; "paraphrases"
            draws training combinations and captions them in the words of the test split.
        pool: number of distinct scenes per seed, so that text embeddings can be cached; index wraps
            around it in a new random order each time. 0 = unbounded.
        with_motion: fraction of captions that say the motion (1 for clips, less for single frames).
        transparent: fraction of scenes without a background, for data with an alpha channel.
        motions: draw these alone, keys of the vocabulary; None = all.
        periods: shortest and longest of the motions that repeat themselves, in seconds, drawn evenly in their
            logarithm; None = from half to twice each motion's own.
    """

    def __init__(
        self,
        names: dict[str, list[str]],
        *,
        split: Split = "train",
        seed: int = 0,
        pool: int = 0,
        with_motion: float = 1.0,
        transparent: float = 0.0,
        motions: Sequence[str] | None = None,
        periods: tuple[float, float] | None = None,
    ) -> None:
        if split not in ("train", "combinations", "paraphrases"):
            raise LumiereError(f"unknown split {split!r}; use train, combinations or paraphrases")
        if not names:
            raise LumiereError("no subjects to draw scenes of; check the data folder and data.subjects")
        if not 0 <= transparent <= 1:
            raise LumiereError(f"a fraction of {transparent:g} of transparent scenes: choose 0 to 1")
        self.names, self.split, self.seed, self.pool, self.with_motion = names, split, seed, pool, with_motion
        self.transparent = transparent
        known = vocabulary()["motions"]
        unknown = [motion for motion in motions or () if motion not in known]
        if unknown or motions == []:
            raise LumiereError(f"no motions called {', '.join(unknown) or 'nothing'}; known: {', '.join(known)}")
        if periods is not None and not 0 < periods[0] <= periods[1]:
            raise LumiereError(f"periods of {periods[0]:g} to {periods[1]:g} s: give two above 0, the shorter first")
        self._motions, self._periods = list(motions or known), periods
        self._subjects = sorted(names)
        self._drawn: dict[int, Scene] = {}

    def __call__(self, index: int) -> Scene:
        if not self.pool:
            return self._draw(index)
        round_, position = divmod(index, self.pool)
        number = int(_order(self.seed, round_, self.pool)[position])
        # Drawing one takes longer than a GPU takes to train on it.
        if number not in self._drawn:
            self._drawn[number] = self._draw(number)
        return self._drawn[number]

    def _draw(self, index: int) -> Scene:
        words = vocabulary()
        rng = np.random.default_rng([self.seed, index, stable_hash(self.split) % 2**31])
        want_test = self.split == "combinations"
        while True:
            # Subjects go round in turn, so that each is seen equally often.
            subject = self._subjects[index % len(self._subjects)]
            motion = pick(rng, self._motions)
            background = pick(rng, list(words["backgrounds"]))
            if self.transparent and rng.random() < self.transparent:
                background = TRANSPARENT
            if is_test_combination(subject, motion, background) == want_test:
                break
        size = pick(rng, ["small", "medium", "medium", "large", "large"])
        place = "center"
        if motion in _PLACED_MOTIONS and size != "large" and rng.random() < 0.4:
            place = pick(rng, ["left", "right", "top", "bottom"])
        a, b, c = (float(number) for number in rng.random(3))
        usual = words["motions"][motion].get("period")
        period = usual and usual * PERIOD_FACTOR ** float(rng.uniform(-1.0, 1.0))
        if period and self._periods:
            shortest, longest = self._periods
            period = shortest * (longest / shortest) ** float(rng.random())
        phase = float(rng.random()) if usual else 0.0
        scene = Scene(subject, background, size, place, motion, "", (a, b, c), period, phase)
        return replace(scene, caption=self._caption(scene, rng))

    def _caption(self, scene: Scene, rng: np.random.Generator) -> str:
        words, test_words = vocabulary(), self.split == "paraphrases"
        pace = speed(scene) if rng.random() < 0.5 else None  # speeds are the exception in prompts too
        return caption(
            rng,
            names=self.names[scene.subject],
            test_names=words["subjects"].get(scene.subject, {}).get("unseen"),
            background=scene.background,
            size=scene.size,
            place=scene.place,
            motion=scene.motion,
            test_words=test_words,
            with_motion=bool(rng.random() < self.with_motion),
            adverb=pick(rng, words["speeds"][pace]["unseen" if test_words else "words"]) if pace else "",
        )


@lru_cache(maxsize=2)
def _order(seed: int, round_: int, n: int) -> np.ndarray:
    return np.random.default_rng([seed, round_, 0x5CE9E]).permutation(n)
