"""Scenes of the emoji data set: what is in a clip, how it moves, what is said of it, what is held out.

A scene is words and numbers only; `compose` draws it. Everything is a pure function of
``(seed, index)``, so data order needs no state: a resumed training run sees the same clips.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources
from typing import Any, Literal

import numpy as np
import yaml

from openlumiere.clock import FPS, clip_seconds
from openlumiere.errors import LumiereError

Split = Literal["train", "combinations", "paraphrases"]

# One subject x motion x background combination in ten, and the second half of the animation of one
# subject in eight, are never trained on.
_COMBINATIONS_HELD_OUT = 10
_ANIMATIONS_HELD_OUT = 8

TRANSPARENT = "transparent"  # the background that is none
SECONDS = clip_seconds(80, FPS)  # how long clips last that don't say otherwise

PATHS = 2  # raised when `trajectory` changes: what was trained on other paths is trained anew

# Motions that leave the centre of the subject free, so that a place can be asked for.
_PLACED_MOTIONS = ("still", "spin", "grow", "shrink")
# Motions that cross the frame once a clip.
_CROSSING_MOTIONS = ("left", "right", "up", "down")
# Periods are drawn from half to twice the vocabulary's.
PERIOD_FACTOR = 2.0
# Fewer samples a period than this don't show a motion, but another one.
SAMPLES_A_PERIOD = 3.0


@dataclass(frozen=True)
class Scene:
    """One clip's content. Words are keys of the vocabulary; numbers fix what the words leave open.

    Attributes:
        drift: in [0, 1]^3, chooses the path's extent, its offset across the path, and the start of the subject's own
            animation.
        period: of motions that repeat themselves, in seconds; None = the vocabulary's.
        phase: where in its period such a motion starts, in [0, 1).
    """

    subject: str
    background: str
    size: str
    place: str
    motion: str
    caption: str
    drift: tuple[float, float, float]
    period: float | None = None
    phase: float = 0.0


@lru_cache(maxsize=1)
def vocabulary() -> dict[str, Any]:
    """The words of the data set, see `vocabulary.yaml`."""
    text = resources.files("openlumiere.data.emoji").joinpath("vocabulary.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


def stable_hash(*words: str) -> int:
    """Hash words to 64 bits, the same on every machine: what is held out is decided by it."""
    return int.from_bytes(hashlib.blake2s("|".join(words).encode(), digest_size=8).digest(), "big")


def combination_held_out(subject: str, motion: str, background: str) -> bool:
    """Whether this subject x motion x background is held out of every training run, for good."""
    return stable_hash(subject, motion, background) % _COMBINATIONS_HELD_OUT == 0


def animation_held_out(subject: str) -> bool:
    """Whether the second half of this subject's own animation is held out."""
    return stable_hash("animation", subject) % _ANIMATIONS_HELD_OUT == 0


def animation_frames(subject: str, loop: int, *, held_out: bool = False) -> np.ndarray:
    """Indices into a subject's loop of `loop` frames that a split may show, as a loop themselves.

    A subject whose animation is held out is trained on its first half, played forth and back;
    `held_out=True` gives the second half likewise. For the other subjects the held-out split is empty.
    """
    if loop < 2 or not animation_held_out(subject):  # a still picture has no halves
        return np.arange(0) if held_out else np.arange(loop)
    half = np.arange(loop // 2, loop) if held_out else np.arange(loop // 2)
    return np.concatenate([half, half[-2:0:-1]])


def trajectory(scene: Scene, seconds: np.ndarray, duration: float = SECONDS) -> np.ndarray:
    """Where the subject is, at each time.

    Motions that lead anywhere take the whole clip to get there; those that repeat themselves have a period in seconds,
    however long the clip is.

    Args:
        seconds: from the clip's start, shape (T,).
        duration: of the clip, in seconds.

    Returns:
        Shape (T, 4): centre x, centre y (in [-1, 1] of the frame, y down), side of the subject's square
        as a fraction of the frame's, angle in radians (clockwise on screen).
    """
    words = vocabulary()
    extent, across = 0.35 + 0.25 * scene.drift[0], 0.3 * (scene.drift[1] - 0.5)
    x0, y0 = words["places"][scene.place]["at"]
    scale = words["sizes"][scene.size]["scale"]
    x, y = np.full(seconds.shape, x0 + across * 0.3), np.full(seconds.shape, y0 + across * 0.3)
    side, angle = np.full(seconds.shape, scale), np.zeros(seconds.shape)
    share = seconds / duration  # of a motion that leads anywhere
    ramp = _reach(scene) * (1.0 - 2.0 * share)
    usual = words["motions"].get(scene.motion, {}).get("period")
    periods = seconds / (scene.period or usual) + scene.phase if usual else share
    match scene.motion:
        case "still":
            pass
        case "left":
            x, y = ramp, np.full(seconds.shape, across)
        case "right":
            x, y = -ramp, np.full(seconds.shape, across)
        case "up":
            x, y = np.full(seconds.shape, across), ramp
        case "down":
            x, y = np.full(seconds.shape, across), -ramp
        case "grow":
            side = scale * (0.55 + 0.6 * share)
        case "shrink":
            side = scale * (1.15 - 0.6 * share)
        case "spin":
            angle = 2 * np.pi * periods
        case "bounce":
            x = np.full(seconds.shape, across)
            y = 0.25 - (0.4 + 0.2 * scene.drift[0]) * np.abs(np.sin(np.pi * periods))
        case "sway":
            x, y = extent * np.sin(2 * np.pi * periods), np.full(seconds.shape, across)
        case _:
            raise LumiereError(f"unknown motion {scene.motion!r}; known: {', '.join(words['motions'])}")
    return np.stack([x, y, side, angle], axis=1)


def _reach(scene: Scene) -> float:
    """How far from the centre a path across the frame starts and ends; the further, the faster."""
    return 0.25 + 0.35 * scene.drift[0]


def speed(scene: Scene) -> str | None:
    """What may be said of a motion's speed, a key of the vocabulary's `speeds`: nothing of the middle third."""
    usual = vocabulary()["motions"][scene.motion].get("period")
    if usual:
        slowness = 0.5 + np.log((scene.period or usual) / usual) / (2 * np.log(PERIOD_FACTOR))
    elif scene.motion in _CROSSING_MOTIONS:
        slowness = 1.0 - scene.drift[0]
    else:
        return None
    return "fast" if slowness < 1 / 3 else "slow" if slowness > 2 / 3 else None


def shortest_period() -> float:
    """The shortest period that any scene's motion has, in seconds."""
    usual = (entry.get("period") for entry in vocabulary()["motions"].values())
    return min(period for period in usual if period) / PERIOD_FACTOR


def check_sampling(fps: float) -> None:
    """Refuse frame rates that show too little of the fastest motions to tell them from others.

    Args:
        fps: of the frames that are shown.
    """
    shown, needed = fps * shortest_period(), SAMPLES_A_PERIOD / shortest_period()
    if shown < SAMPLES_A_PERIOD * (1 - 1e-9):
        raise LumiereError(
            f"{fps:g} frames a second show {shown:.2g} frames of a motion with a period of {shortest_period():g} "
            f"seconds, at least {SAMPLES_A_PERIOD:g} are needed: show {needed:.3g} a second (data.fps / data.every)"
        )


def subject_set(name: str) -> list[str]:
    """The subjects of a named set of the vocabulary."""
    sets = vocabulary()["sets"]
    if name not in sets:
        raise LumiereError(f"no set of subjects is called {name!r}: list subjects, or use one of {', '.join(sets)}")
    return list(sets[name])


def _article(noun: str) -> str:
    if noun.endswith("hands"):  # the one plural
        return ""
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
# Where there is no background. {cut} is one of the vocabulary's words for it.
_CUT_TEMPLATES = (
    "{subject} {place} {motion} {cut}",
    "{subject} {motion} {place} {cut}",
    "{subject} {motion} {place}, {cut}",
    "a sticker of {subject} {motion} {place}, {cut}",
    "an animation of {subject} {motion} {place} {cut}",
)
_UNSEEN_CUT_TEMPLATES = (
    "an isolated clip of {subject} {motion} {place} {cut}",
    "only {subject} {motion} {place}, {cut}",
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
    adverb: str = "",
) -> str:
    """Say a scene in words, by one of many paraphrases.

    Args:
        names: what the subject may be called.
        unseen_names: held-out names of the subject, used with `held_out` where there are any.
        held_out: use the paraphrases that training never sees.
        with_motion: leave the motion unsaid if false, as for a single picture.
        adverb: said of the motion, see `speed`.
    """
    words = vocabulary()
    transparent = background == TRANSPARENT

    def say(kind: str, key: str) -> str:
        entry = words[kind][key]
        return _pick(rng, (held_out and entry.get("unseen")) or entry["words"])

    noun = " ".join(f"{say('sizes', size)} {_pick(rng, (held_out and unseen_names) or names)}".split())
    if transparent:
        template = _pick(rng, list(_UNSEEN_CUT_TEMPLATES if held_out else _CUT_TEMPLATES))
    else:
        template = _pick(rng, list(_UNSEEN_TEMPLATES if held_out else _TEMPLATES))
    told = say("motions", motion) if with_motion else ""
    if told and adverb:
        told = _pick(rng, [f"{told} {adverb}", f"{told} {adverb}", f"{adverb} {told}"])
    text = template.format(
        subject=f"{_article(noun)} {noun}",
        motion=told,
        place=say("places", place),
        cut=_pick(rng, words[TRANSPARENT]["unseen" if held_out else "words"]) if transparent else "",
        background=f"{_article(background)} {background}",
        color=background,
    )
    return " ".join(text.split()).replace(" ,", ",")


def every_phrase() -> list[str]:
    """All that captions are put together from: templates, and the vocabulary's words."""
    parts: list[Any] = [vocabulary(), *_TEMPLATES, *_UNSEEN_TEMPLATES, *_CUT_TEMPLATES, *_UNSEEN_CUT_TEMPLATES]
    found = ["a", "an"]
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            parts += [*part, *part.values()]
        elif isinstance(part, list):
            parts += part
        elif isinstance(part, str):
            found.append(part)
    return found


class SceneSampler:
    """Draws scenes with their captions; the same ``(seed, index)`` always gives the same scene.

    Args:
        names: subject key -> names that captions may use.
        split: "train" leaves held-out combinations out; "combinations" draws only those; "paraphrases"
            draws training combinations told in held-out words.
        pool: number of distinct scenes per seed, so that text embeddings can be cached; index wraps
            around it in a new random order each time. 0 = unbounded.
        with_motion: fraction of captions that tell the motion (1 for clips, less for pictures).
        transparent: fraction of scenes without a background, for data with an alpha channel.
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
    ) -> None:
        if split not in ("train", "combinations", "paraphrases"):
            raise LumiereError(f"unknown split {split!r}; use train, combinations or paraphrases")
        if not names:
            raise LumiereError("no subjects to draw scenes of; check the data folder and data.subjects")
        if not 0 <= transparent <= 1:
            raise LumiereError(f"a fraction of {transparent:g} of transparent scenes: choose 0 to 1")
        self.names, self.split, self.seed, self.pool, self.with_motion = names, split, seed, pool, with_motion
        self.transparent = transparent
        self._subjects = sorted(names)
        self._drawn: dict[int, Scene] = {}

    def __call__(self, index: int) -> Scene:
        if not self.pool:
            return self._draw(index)
        round_, place = divmod(index, self.pool)
        number = int(_order(self.seed, round_, self.pool)[place])
        # Drawing one takes longer than a GPU takes to train on it.
        if number not in self._drawn:
            self._drawn[number] = self._draw(number)
        return self._drawn[number]

    def _draw(self, index: int) -> Scene:
        words = vocabulary()
        rng = np.random.default_rng([self.seed, index, stable_hash(self.split) % 2**31])
        want_held_out = self.split == "combinations"
        while True:
            # Subjects go round in turn, so that each is seen equally often.
            subject = self._subjects[index % len(self._subjects)]
            motion = _pick(rng, list(words["motions"]))
            background = _pick(rng, list(words["backgrounds"]))
            if self.transparent and rng.random() < self.transparent:
                background = TRANSPARENT
            if combination_held_out(subject, motion, background) == want_held_out:
                break
        size = _pick(rng, ["small", "medium", "medium", "large", "large"])
        place = "center"
        if motion in _PLACED_MOTIONS and size != "large" and rng.random() < 0.4:
            place = _pick(rng, ["left", "right", "top", "bottom"])
        a, b, c = (float(number) for number in rng.random(3))
        usual = words["motions"][motion].get("period")
        period = usual and usual * PERIOD_FACTOR ** float(rng.uniform(-1.0, 1.0))
        phase = float(rng.random()) if usual else 0.0
        scene = Scene(subject, background, size, place, motion, "", (a, b, c), period, phase)
        return replace(scene, caption=self._told(scene, rng))

    def _told(self, scene: Scene, rng: np.random.Generator) -> str:
        words, held_out = vocabulary(), self.split == "paraphrases"
        pace = speed(scene) if rng.random() < 0.5 else None  # speeds are the exception in prompts too
        return caption(
            rng,
            names=self.names[scene.subject],
            unseen_names=words["subjects"].get(scene.subject, {}).get("unseen"),
            background=scene.background,
            size=scene.size,
            place=scene.place,
            motion=scene.motion,
            held_out=held_out,
            with_motion=bool(rng.random() < self.with_motion),
            adverb=_pick(rng, words["speeds"][pace]["unseen" if held_out else "words"]) if pace else "",
        )


@lru_cache(maxsize=2)
def _order(seed: int, round_: int, n: int) -> np.ndarray:
    return np.random.default_rng([seed, round_, 0x5CE9E]).permutation(n)
