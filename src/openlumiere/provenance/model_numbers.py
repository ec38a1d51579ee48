"""Which number stands for which model in a watermark.

A number once given keeps its meaning, since marks outlive releases: add at the end of a block, never change or reuse.
"""

from __future__ import annotations

OTHER = 0  # a model of which nothing better is known

# Bundled models, by name. Weights of a later release have its version in the mark.
_BUNDLED = {"emoji-nano": 16, "emoji": 17}
# All other models, by the module of `generation.backends` that drives them.
_FAMILIES = {
    "stunet": 256,  # trained or inflated with openlumiere
    "animatediff": 257,
    "zeroscope": 258,
    "svd": 259,
    "wan": 260,
    "ltx": 261,
    "cogvideox": 262,
    "remote": 263,  # of another server that leaves clips unmarked
}
_WORDS = {OTHER: "another model", 256: "a model of one's own"}
_NAMES = {number: name for name, number in (_FAMILIES | _BUNDLED).items()} | _WORDS


def model_number(name: str, family: str = "") -> int:
    """Return the number of a model.

    Args:
        name: as users give it; of several parts joined by ``+``, the first counts.
        family: of those that are not bundled.
    """
    return _BUNDLED.get(name.partition("+")[0]) or _FAMILIES.get(family, OTHER)


def model_name(number: int) -> str:
    """Return the name of a model, or of its family; of a number that a later release gave: ``model 400``."""
    return _NAMES.get(number, f"model {number}")
