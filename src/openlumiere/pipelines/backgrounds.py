"""What prompts say of the background, for models that draw some colours and none.

Asked for a subject alone, such a model takes a colour at random, and in each part of the clip another.
"""

from __future__ import annotations

import re

from PIL import ImageColor

_WORDS = re.compile(r"\b(back(ground|drop)s?|behind|in front of|against|surrounded by|wall|cut ?out)\b", re.IGNORECASE)
_ON = re.compile(r"\b(?:on|over|before) (?:a |an |the )?(?:plain |solid )?(\w+)", re.IGNORECASE)


def names_background(prompt: str) -> bool:
    """Return whether a prompt says what is behind its subject: by such a word, or as "on blue"."""
    return _WORDS.search(prompt) is not None or any(
        found.lower() in ImageColor.colormap for found in _ON.findall(prompt)
    )


def without_background(prompt: str, words: str) -> str:
    """Add the words that ask for no background to a prompt that names none."""
    return prompt if names_background(prompt) or not prompt.strip() else f"{prompt.rstrip(' .,!')} {words}"
