"""The best file that is small enough: first quality is given up, then frame rate, then colours."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from openlumiere.errors import LumiereError

from .encoding import PALETTED, Settings

# Down to here first, one after the other; only if all of these together don't do it, farther.
_QUALITY = (40, 0)
_FPS = (15.0, 4.0)
_COLOURS: tuple[list[int], ...] = ([192, 128, 96, 64, 48, 32], [24, 16, 12, 8, 6, 4])
_DETAIL: tuple[list[float], ...] = ([], [0.75, 0.5, 0.35, 0.25, 0.18, 0.12])
_ENOUGH, _AIM = 0.97, 0.985  # shares of the limit at which a search ends, and that it aims at
_WASTED = 0.9  # share of the limit below which it is worth taking back some of what was given up before


@dataclass(frozen=True)
class Attempt:
    """A file that was tried."""

    settings: Settings
    data: bytes


def search(
    encode: Callable[[Settings], bytes], top: Settings, duration: float, suffix: str, limit: int,
    progress: Callable[[Settings, int], None] | None = None,
) -> Attempt:  # fmt: skip
    """Give up as little as a limit of bytes asks for, by bisection.

    Args:
        encode: an attempt.
        top: what is tried first.
        duration: seconds.
        limit: bytes.
        progress: called with each attempt and its bytes.

    Raises:
        LumiereError: nothing is small enough.
    """

    def attempt(settings: Settings) -> Attempt:
        data = encode(settings)
        if progress is not None:
            progress(settings, len(data))
        return Attempt(settings, data)

    tried = attempt(top)
    if len(tried.data) <= limit:
        return tried
    settings, size, smallest = top, len(tried.data), len(tried.data)
    given_up: dict[str, list[Any]] = {}  # each knob's values that were better than now, falling
    for knob, values in _stages(top, duration, suffix):
        if not values:
            continue
        worst = attempt(replace(settings, **{knob: values[-1]}))
        smallest = min(smallest, len(worst.data))
        if len(worst.data) > limit:
            # The last knob that was turned is the first to be turned back.
            given_up[knob] = [*given_up.pop(knob, []), getattr(settings, knob), *values[:-1]]
            settings, size = worst.settings, len(worst.data)
            continue
        best = _bisect(attempt, worst, knob, values[:-1], limit, size)
        for earlier, better in reversed(given_up.items()):
            if earlier != knob and len(best.data) < _WASTED * limit:
                best = _bisect(attempt, best, earlier, better, limit)
        return best
    raise LumiereError(
        f"the clip doesn't get below {math.ceil(smallest / 1000)} KB, and {limit // 1000} KB are allowed; "
        "cut it shorter, or take one with less in it"
    )


def _stages(top: Settings, duration: float, suffix: str) -> Iterator[tuple[str, list[Any]]]:
    """What is given up in turn, and its values from the best that is worse than before to the worst."""
    quality, num_frames = top.quality, top.num_frames
    step = 5 if suffix in PALETTED else 2  # less makes no difference to the bytes
    for hard in (0, 1):
        yield "quality", list(range(quality - step, _QUALITY[hard] - 1, -step))
        quality = _QUALITY[hard]
        fewest = min(max(math.ceil(_FPS[hard] * duration), 2), num_frames)
        yield "num_frames", list(range(num_frames - 1, fewest - 1, -1))
        num_frames = fewest
        yield "colours", _COLOURS[hard] if suffix in PALETTED else []
        yield "detail", _DETAIL[hard]


def _bisect(
    attempt: Callable[[Settings], Attempt], fits: Attempt, knob: str, better: list[Any], limit: int,
    too_large: float = math.inf,
) -> Attempt:  # fmt: skip
    """The best of `better`, which falls, that is small enough, or nearly as large as it may be; `fits` if none is.

    Every second guess is by the bytes of both ends, whose logarithm is nearly linear in most knobs: half as many
    attempts as halving takes.

    Args:
        too_large: bytes of the value before the first of `better`, where they are known.
    """
    low, high, guess = -1, len(better), True
    while high - low > 1 and len(fits.data) < _ENOUGH * limit:
        share = 0.5
        if guess and too_large < math.inf:
            share = math.log(_AIM * limit / len(fits.data)) / math.log(too_large / len(fits.data))
        middle = min(max(round(high - share * (high - low)), low + 1), high - 1)
        tried = attempt(replace(fits.settings, **{knob: better[middle]}))
        if len(tried.data) <= limit:
            fits, high = tried, middle
        else:
            too_large, low = len(tried.data), middle
        guess = not guess
    return fits
