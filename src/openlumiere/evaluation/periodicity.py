"""Does a motion that repeats itself really do so, over the whole of a clip? The paper's Figure 2, as a number."""

from __future__ import annotations

import numpy as np
import torch

from .judges.tracks import SIDE, centres

# Periods of the vocabulary's periodic motions, as fractions of a clip (data/scenes.py: sin 4 pi t, and its magnitude).
PERIODS = {"sway": 1 / 2, "bounce": 1 / 4}
_TOLERANCE = 0.15  # a clip's own period may be so much shorter or longer
_LEAST_SPREAD = 1.0  # pixels of the judges' frame: what moves less has no motion to repeat


def periodicity_error(frames: np.ndarray | torch.Tensor, period: float) -> float:
    """How far the subject's path departs from repeating itself after its own period.

    The mean squared distance between where the subject is and where it is a period later, over twice the variance of
    where it is: 0 = it repeats itself exactly, 1 = one has nothing to do with the other. The clip's own period is the
    one near `period` at which the error is least.

    Args:
        frames: (F, H, W, 3), uint8 or float in [0, 1].
        period: the motion's, as a fraction of the clip's length, at most a half; see `PERIODS`.

    Returns:
        1 where the subject hardly moves: a motion that is not there does not repeat.
    """
    track = centres(frames)
    spread = float(np.square(track - track.mean(0)).sum(1).mean())
    if np.sqrt(spread) < _LEAST_SPREAD * 2 / SIDE:
        return 1.0
    last = len(track) - 1
    lags = np.linspace(1 - _TOLERANCE, 1 + _TOLERANCE, 31) * period * last
    return min(_departure(track, lag, spread) for lag in lags)


def _departure(track: np.ndarray, lag: float, spread: float) -> float:
    """The error at a lag in frames, which need not be whole."""
    at = np.arange(len(track))
    start = at[at + lag <= at[-1]]
    later = np.stack([np.interp(start + lag, at, axis) for axis in track.T], 1)
    return float(np.square(later - track[start]).sum(1).mean() / (2 * spread))
