"""The words of the emoji data set, and scenes: what a clip shows, as a choice of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

import yaml

from openlumiere.errors import LumiereError

TRANSPARENT = "transparent"  # the background that is none


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
    """Return the words of the data set, see `vocabulary.yaml`."""
    return _words("vocabulary.yaml")


@lru_cache(maxsize=1)
def more_words() -> dict[str, dict[str, list[str]]]:
    """Return further words for what the vocabulary names, see `more_words.yaml`."""
    return _words("more_words.yaml")


def subject_set(name: str) -> list[str]:
    """Return the subjects of a named set of the vocabulary.

    Raises:
        LumiereError: no set of this name.
    """
    sets = vocabulary()["sets"]
    if name not in sets:
        raise LumiereError(f"no set of subjects is called {name!r}: list subjects, or use one of {', '.join(sets)}")
    return list(sets[name])


def _words(name: str) -> dict[str, Any]:
    text = resources.files("openlumiere.data.emoji").joinpath(name).read_text(encoding="utf-8")
    words: dict[str, Any] = yaml.safe_load(text)
    return words
