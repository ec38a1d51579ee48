"""Captions of scenes, by many paraphrases; some templates and words are for the test split alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from .vocabulary import TRANSPARENT, more_words, vocabulary

_TEMPLATES = (
    "{subject} {place} {motion} on {background} background",
    "{subject} {motion} {place} on {background} background",
    "{subject} {motion} {place} in front of {background} background",
    "{subject} {motion} {place}, {color} background",
    "on {background} background, {subject} {motion} {place}",
    "an animation of {subject} {motion} {place} on {background} background",
    "{subject} {motion} {place} against {background} backdrop",
)
_TEST_TEMPLATES = (
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
_TEST_CUT_TEMPLATES = (
    "an isolated clip of {subject} {motion} {place} {cut}",
    "only {subject} {motion} {place}, {cut}",
)


def _article(noun: str) -> str:
    if noun.endswith("hands"):  # the one plural
        return ""
    sounds_so = noun[0].lower() in "aeio" or (noun[0] == "u" and not noun.startswith("uni"))
    return "an" if sounds_so else "a"


def pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    """Draw one of some words, all equally likely."""
    return options[int(rng.integers(len(options)))]


def caption(
    rng: np.random.Generator,
    *,
    names: list[str],
    background: str,
    size: str,
    place: str,
    motion: str,
    test_names: list[str] | None = None,
    test_words: bool = False,
    with_motion: bool = True,
    adverb: str = "",
) -> str:
    """Caption a scene, by one of many paraphrases.

    Args:
        names: what the subject may be called.
        test_names: names of the subject that training captions never use; used with `test_words` where there are any.
        test_words: use the templates and words of the test split.
        with_motion: leave the motion out if false, as for a single frame.
        adverb: of the motion's speed, see `motions.speed`.
    """
    words = vocabulary()
    transparent = background == TRANSPARENT

    def say(kind: str, key: str) -> str:
        entry = words[kind][key]
        return pick(rng, (test_words and entry.get("unseen")) or entry["words"])

    noun = " ".join(f"{say('sizes', size)} {pick(rng, (test_words and test_names) or names)}".split())
    if transparent:
        template = pick(rng, _TEST_CUT_TEMPLATES if test_words else _CUT_TEMPLATES)
    else:
        template = pick(rng, _TEST_TEMPLATES if test_words else _TEMPLATES)
    motion_words = say("motions", motion) if with_motion else ""
    if motion_words and adverb:
        behind, ahead = f"{motion_words} {adverb}", f"{adverb} {motion_words}"
        motion_words = pick(rng, [behind, behind, ahead])
    text = template.format(
        subject=f"{_article(noun)} {noun}",
        motion=motion_words,
        place=say("places", place),
        cut=pick(rng, words[TRANSPARENT]["unseen" if test_words else "words"]) if transparent else "",
        background=f"{_article(background)} {background}",
        color=background,
    )
    return " ".join(text.split()).replace(" ,", ",")


def renamed(caption: str, share: float) -> str:
    """Return a caption, or, of a share of all captions, one that calls its subject by another name.

    What a caption becomes depends on itself alone, so that its embedding can be kept.
    """
    pattern, others = _other_names()
    rng = np.random.default_rng(list(caption.encode()))
    found = pattern.search(caption)
    if found is None or rng.random() >= share:
        return caption
    name = pick(rng, others[found["name"]])
    article = f"{_article(name)} " if found["article"] else ""
    return caption[: found.start()] + article + name + caption[found.end() :]


@lru_cache(maxsize=1)
def _other_names() -> tuple[re.Pattern[str], dict[str, list[str]]]:
    """Return what finds a subject's name in a caption, with the article before it, and its further names."""
    subjects, more = vocabulary()["subjects"], more_words()["subjects"]
    others = {name: more[key] for key in more for name in subjects[key]["names"]}
    longest_first = sorted(others, key=len, reverse=True)
    names = "|".join(re.escape(name) for name in longest_first)
    return re.compile(rf"\b(?P<article>an? )?(?P<name>{names})\b"), others


def every_phrase() -> list[str]:
    """Return all that captions are put together from: templates, and the vocabulary's words."""
    parts: list[Any] = [vocabulary(), *_TEMPLATES, *_TEST_TEMPLATES, *_CUT_TEMPLATES, *_TEST_CUT_TEMPLATES]
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
