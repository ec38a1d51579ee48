"""Does a motion that repeats itself really do so, over the whole of a clip? The paper's Figure 2, as a number."""

from __future__ import annotations

import numpy as np
import torch

from openlumiere.data.emoji.scenes import PERIOD_FACTOR, SECONDS, vocabulary

from .pixels import SIDE
from .tracks import centres

# The usual periods of the vocabulary's motions of the subject's centre, as fractions of a clip.
PERIODS = {motion: vocabulary()["motions"][motion]["period"] / SECONDS for motion in ("sway", "bounce")}
AXES = {"sway": 0, "bounce": 1}  # along which they go: x, y
_TOLERANCE = 0.15  # a clip's own period may be so much shorter or longer than any that scenes have
_LONGEST = 0.6  # of a clip: of longer periods too little is seen again
_LEAST_SPREAD = 1.0  # pixels of a frame of `SIDE`: what moves less has no motion to repeat


def periodicity_error(frames: np.ndarray | torch.Tensor, period: float) -> float:
    """Return how far the subject's path departs from repeating itself after its own period.

    The mean squared distance between where the subject is and where it is a period later, over twice the variance of
    where it is: 0 = it repeats itself exactly, 1 = one has nothing to do with the other. The clip's own period is the
    one at which the error is least, of those that scenes of the motion have and after which the path has been
    elsewhere: any path is much the same a moment later.

    Args:
        frames: (F, H, W, 3), uint8 or float in [0, 1].
        period: the motion's usual one, as a fraction of the clip's length; see `PERIODS`.

    Returns:
        1 where the subject `is_still`: a motion that is not there does not repeat. Read it beside `swing`: the variance
        is the path's own, so a small motion whose rest is noise counts as incoherent, whatever its period.
    """
    track = centres(frames)
    spread = _spread(track)
    if is_still(np.sqrt(spread) / 2):
        return 1.0
    last = len(track) - 1
    lags = np.geomspace(0.5, max(0.5, last * min(period * PERIOD_FACTOR * (1 + _TOLERANCE), _LONGEST)), 120)
    errors = np.array([_departure(track, lag, spread) for lag in lags])
    been_elsewhere = np.maximum.accumulate(errors) >= 1
    found = errors[been_elsewhere & (lags >= last * period / PERIOD_FACTOR * (1 - _TOLERANCE))]
    return float(found.min()) if len(found) else 1.0


def swing(frames: np.ndarray | torch.Tensor) -> float:
    """Return how far the subject's centre is from the middle of its path, in frame widths: the root of the mean square.

    Args:
        frames: (F, H, W, 3), uint8 or float in [0, 1].
    """
    return float(np.sqrt(_spread(centres(frames)))) / 2


def is_still(swing: float) -> bool:
    """Return whether a `swing` is too small to be seen as a motion."""
    return swing < _LEAST_SPREAD / SIDE


def keeps_to_axis(frames: np.ndarray | torch.Tensor, motion: str) -> bool:
    """Return whether the subject's centre goes further along the motion's axis than across it.

    By chance every other clip does. A classifier of motions may take any trembling for a fast bounce.

    Args:
        frames: (F, H, W, 3), uint8 or float in [0, 1].
        motion: one of `PERIODS`.
    """
    variances = centres(frames).var(0)
    return bool(variances[AXES[motion]] > variances[1 - AXES[motion]])


def _spread(track: np.ndarray) -> float:
    """Return the variance of a track, (F, 2), about its mean."""
    return float(np.square(track - track.mean(0)).sum(1).mean())


def _departure(track: np.ndarray, lag: float, spread: float) -> float:
    """Return the error at a lag in frames, which need not be whole."""
    at = np.arange(len(track))
    start = at[at + lag <= at[-1]]
    later = np.stack([np.interp(start + lag, at, axis) for axis in track.T], 1)
    return float(np.square(later - track[start]).sum(1).mean() / (2 * spread))
