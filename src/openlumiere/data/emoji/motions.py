"""Motions of the emoji data set: a scene's trajectory, its speed, and the frame rate that shows it."""

from __future__ import annotations

import numpy as np

from openlumiere.clock import FPS, clip_seconds
from openlumiere.errors import LumiereError

from .vocabulary import Scene, vocabulary

SECONDS = clip_seconds(80, FPS)  # how long clips last that don't say otherwise

PATHS = 2  # raised when `trajectory` changes: what was trained on other paths is trained anew

# Motions that cross the frame once a clip.
_CROSSING_MOTIONS = ("left", "right", "up", "down")
# Periods are drawn from half to twice the vocabulary's.
PERIOD_FACTOR = 2.0
# Fewer samples a period than this don't show a motion, but another one.
SAMPLES_A_PERIOD = 3.0


def trajectory(scene: Scene, seconds: np.ndarray, duration: float = SECONDS) -> np.ndarray:
    """Return where the subject is at each time.

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
    """Return how far from the centre a path across the frame starts and ends; the further, the faster."""
    return 0.25 + 0.35 * scene.drift[0]


def speed(scene: Scene) -> str | None:
    """Return what a caption may say of a motion's speed, a key of the vocabulary's `speeds`; None in the middle."""
    usual = vocabulary()["motions"][scene.motion].get("period")
    if usual:
        slowness = 0.5 + np.log((scene.period or usual) / usual) / (2 * np.log(PERIOD_FACTOR))
    elif scene.motion in _CROSSING_MOTIONS:
        slowness = 1.0 - scene.drift[0]
    else:
        return None
    return "fast" if slowness < 1 / 3 else "slow" if slowness > 2 / 3 else None


def shortest_period() -> float:
    """Return the shortest period that any scene's motion has, in seconds."""
    usual = (entry.get("period") for entry in vocabulary()["motions"].values())
    return min(period for period in usual if period) / PERIOD_FACTOR


def check_sampling(fps: float, shortest: float | None = None) -> None:
    """Refuse frame rates that alias the fastest motions.

    Args:
        fps: of the frames that are shown.
        shortest: period, in seconds; `shortest_period` when None.

    Raises:
        LumiereError: fewer than `SAMPLES_A_PERIOD` frames show a period.
    """
    shortest = shortest or shortest_period()
    shown, needed = fps * shortest, SAMPLES_A_PERIOD / shortest
    if shown < SAMPLES_A_PERIOD * (1 - 1e-9):
        raise LumiereError(
            f"{fps:g} frames a second show {shown:.2g} frames of a motion with a period of {shortest:g} "
            f"seconds, at least {SAMPLES_A_PERIOD:g} are needed: "
            f"show {needed:.3g} a second (data.fps / data.frame_stride)"
        )
