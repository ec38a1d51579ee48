"""Scenes of the emoji data set: what is in a clip, how it moves, what is said of it, what is held out.

A scene is words and numbers only; `compose` draws it. Everything is a pure function of
``(seed, index)``, so data order needs no state: a resumed training run sees the same clips.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any, Literal

import numpy as np
import yaml

from openlumiere.errors import LumiereError

Split = Literal["train", "combinations", "paraphrases"]

# One subject x motion x background combination in ten, and the second half of the animation of one
# subject in eight, are never trained on.
_COMBINATIONS_HELD_OUT = 10
_ANIMATIONS_HELD_OUT = 8

# Motions that leave the centre of the subject free, so that a place can be asked for.
_PLACED_MOTIONS = ("still", "spin", "grow", "shrink")


@dataclass(frozen=True)
class Scene:
    """One clip's content. Words are keys of the vocabulary; numbers fix what the words leave open.

    `drift` in [0, 1]^3 chooses the path's extent, its offset across the path, and the start of the
    subject's own animation.
    """

    subject: str
    background: str
    size: str
    place: str
    motion: str
    caption: str
    drift: tuple[float, float, float]


@lru_cache(maxsize=1)
def vocabulary() -> dict[str, Any]:
    """The words of the data set, see `vocabulary.yaml`."""
    text = resources.files("openlumiere.data").joinpath("vocabulary.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


def _stable_hash(*words: str) -> int:
    return int.from_bytes(hashlib.blake2s("|".join(words).encode(), digest_size=8).digest(), "big")


def combination_held_out(subject: str, motion: str, background: str) -> bool:
    """Whether this subject x motion x background is held out of every training run, for good."""
    return _stable_hash(subject, motion, background) % _COMBINATIONS_HELD_OUT == 0


def animation_held_out(subject: str) -> bool:
    """Whether the second half of this subject's own animation is held out."""
    return _stable_hash("animation", subject) % _ANIMATIONS_HELD_OUT == 0


def animation_frames(subject: str, loop: int, *, held_out: bool = False) -> np.ndarray:
    """Indices into a subject's loop of `loop` frames that a split may show, as a loop themselves.

    A subject whose animation is held out is trained on its first half, played forth and back;
    `held_out=True` gives the second half likewise. For the other subjects the held-out split is empty.
    """
    if loop < 2 or not animation_held_out(subject):  # a still picture has no halves
        return np.arange(0) if held_out else np.arange(loop)
    half = np.arange(loop // 2, loop) if held_out else np.arange(loop // 2)
    return np.concatenate([half, half[-2:0:-1]])


def trajectory(scene: Scene, times: np.ndarray) -> np.ndarray:
    """Where the subject is, at each time.

    Args:
        times: shape (T,), 0 = the clip's start, 1 = its end.

    Returns:
        Shape (T, 4): centre x, centre y (in [-1, 1] of the frame, y down), side of the subject's square
        as a fraction of the frame's, angle in radians (clockwise on screen).
    """
    words = vocabulary()
    extent, across = 0.35 + 0.25 * scene.drift[0], 0.3 * (scene.drift[1] - 0.5)
    x0, y0 = words["places"][scene.place]["at"]
    scale = words["sizes"][scene.size]["scale"]
    x, y = np.full(times.shape, x0 + across * 0.3), np.full(times.shape, y0 + across * 0.3)
    side, angle = np.full(times.shape, scale), np.zeros(times.shape)
    ramp = 1.0 - 2.0 * times
    match scene.motion:
        case "still":
            pass
        case "left":
            x, y = extent * ramp, np.full(times.shape, across)
        case "right":
            x, y = -extent * ramp, np.full(times.shape, across)
        case "up":
            x, y = np.full(times.shape, across), extent * ramp
        case "down":
            x, y = np.full(times.shape, across), -extent * ramp
        case "grow":
            side = scale * (0.55 + 0.6 * times)
        case "shrink":
            side = scale * (1.15 - 0.6 * times)
        case "spin":
            angle = 2 * np.pi * 2 * times
        case "bounce":
            x = np.full(times.shape, across)
            y = 0.25 - (0.4 + 0.2 * scene.drift[0]) * np.abs(np.sin(4 * np.pi * times))
        case "sway":
            x, y = extent * np.sin(4 * np.pi * times), np.full(times.shape, across)
        case _:
            raise LumiereError(f"unknown motion {scene.motion!r}; known: {', '.join(words['motions'])}")
    return np.stack([x, y, side, angle], axis=1)


def _article(noun: str) -> str:
    return "an" if noun[0].lower() in "aeio" or noun.startswith("um") else "a"


def _pick(rng: np.random.Generator, options: list[str]) -> str:
    return options[int(rng.integers(len(options)))]


_TEMPLATES = (
    "{subject} {place} {motion} on {background} background",
    "{subject} {motion} {place} on {background} background",
    "{subject} {motion} {place} in front of {background} background",
    "{subject} {motion} {place}, {color} background",
    "on {background} background, {subject} {motion} {place}",
    "an animation of {subject} {motion} {place} on {background} background",
    "{subject} {motion} {place} against {background} backdrop",
)
_UNSEEN_TEMPLATES = (
    "a short clip showing {subject} {motion} {place}, everything behind it is {color}",
    "against plain {color}, there is {subject} {motion} {place}",
    "{color} backdrop with {subject} {motion} {place}",
)


def caption(
    rng: np.random.Generator,
    *,
    names: list[str],
    background: str,
    size: str,
    place: str,
    motion: str,
    unseen_names: list[str] | None = None,
    held_out: bool = False,
    with_motion: bool = True,
) -> str:
    """Say a scene in words, by one of many paraphrases.

    Args:
        names: what the subject may be called.
        unseen_names: held-out names of the subject, used with `held_out` where there are any.
        held_out: use the paraphrases that training never sees.
        with_motion: leave the motion unsaid if false, as for a single picture.
    """
    words = vocabulary()

    def say(kind: str, key: str) -> str:
        entry = words[kind][key]
        return _pick(rng, (held_out and entry.get("unseen")) or entry["words"])

    noun = " ".join(f"{say('sizes', size)} {_pick(rng, (held_out and unseen_names) or names)}".split())
    template = _pick(rng, list(_UNSEEN_TEMPLATES if held_out else _TEMPLATES))
    text = template.format(
        subject=f"{_article(noun)} {noun}",
        motion=say("motions", motion) if with_motion else "",
        place=say("places", place),
        background=f"{_article(background)} {background}",
        color=background,
    )
    return " ".join(text.split()).replace(" ,", ",")


class SceneSampler:
    """Draws scenes with their captions; the same ``(seed, index)`` always gives the same scene.

    Args:
        names: subject key -> names that captions may use.
        split: "train" leaves held-out combinations out; "combinations" draws only those; "paraphrases"
            draws training combinations told in held-out words.
        pool: number of distinct scenes per seed, so that text embeddings can be cached; index wraps
            around it in a new random order each time. 0 = unbounded.
        with_motion: fraction of captions that tell the motion (1 for clips, less for pictures).
    """

    def __init__(
        self,
        names: dict[str, list[str]],
        *,
        split: Split = "train",
        seed: int = 0,
        pool: int = 0,
        with_motion: float = 1.0,
    ) -> None:
        if split not in ("train", "combinations", "paraphrases"):
            raise LumiereError(f"unknown split {split!r}; use train, combinations or paraphrases")
        if not names:
            raise LumiereError("no subjects to draw scenes of; check the data folder and data.subjects")
        self.names, self.split, self.seed, self.pool, self.with_motion = names, split, seed, pool, with_motion
        self._subjects = sorted(names)

    def __call__(self, index: int) -> Scene:
        if not self.pool:
            return self._draw(index)
        round_, place = divmod(index, self.pool)
        return self._draw(int(_order(self.seed, round_, self.pool)[place]))

    def _draw(self, index: int) -> Scene:
        words = vocabulary()
        rng = np.random.default_rng([self.seed, index, _stable_hash(self.split) % 2**31])
        want_held_out = self.split == "combinations"
        while True:
            # Subjects go round in turn, so that each is seen equally often.
            subject = self._subjects[index % len(self._subjects)]
            motion = _pick(rng, list(words["motions"]))
            background = _pick(rng, list(words["backgrounds"]))
            if combination_held_out(subject, motion, background) == want_held_out:
                break
        size = _pick(rng, ["small", "medium", "medium", "large", "large"])
        place = "center"
        if motion in _PLACED_MOTIONS and size != "large" and rng.random() < 0.4:
            place = _pick(rng, ["left", "right", "top", "bottom"])
        text = caption(
            rng,
            names=self.names[subject],
            unseen_names=words["subjects"].get(subject, {}).get("unseen"),
            background=background,
            size=size,
            place=place,
            motion=motion,
            held_out=self.split == "paraphrases",
            with_motion=bool(rng.random() < self.with_motion),
        )
        a, b, c = rng.random(3)
        return Scene(subject, background, size, place, motion, text, (float(a), float(b), float(c)))


@lru_cache(maxsize=2)
def _order(seed: int, round_: int, n: int) -> np.ndarray:
    return np.random.default_rng([seed, round_, 0x5CE9E]).permutation(n)
