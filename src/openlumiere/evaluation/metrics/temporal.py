"""Differences between frames: flicker, seams between windows, the jump where a clip starts again."""

from __future__ import annotations

import numpy as np
import torch

from openlumiere.diffusion.windows import plan_windows


def flicker(clip: np.ndarray) -> float:
    """Return the mean absolute second difference in time of a clip (F, H, W, 3) in [0, 1].

    Steady motion changes a pixel much the same from frame to frame; what comes and goes does not.
    """
    return float(np.abs(np.diff(clip.astype(np.float64), n=2, axis=0)).mean())


def adjacent_differences(clip: np.ndarray) -> np.ndarray:
    """Return the mean squared difference between adjacent frames: (F, H, W, C) in [0, 1] -> (F - 1,)."""
    return np.square(np.diff(clip.astype(np.float64), axis=0)).mean(axis=(1, 2, 3))


def window_borders(num_frames: int, length: int, overlap: int) -> np.ndarray:
    """Return which pairs of adjacent frames are not seen by the same set of windows; bool (F - 1,)."""
    plan = plan_windows(num_frames, length, overlap)
    seen = torch.zeros(len(plan), num_frames, dtype=torch.bool)
    seen.scatter_(1, plan.frames, True)
    return (seen[:, 1:] != seen[:, :-1]).any(0).numpy()


def border_ratio(differences: np.ndarray, borders: np.ndarray) -> float:
    """Return the mean difference at the borders over the mean elsewhere, of clips (N, F - 1) or of one."""
    differences = np.atleast_2d(differences)
    return float(differences[:, borders].mean() / max(differences[:, ~borders].mean(), 1e-12))


def wrap_ratio(clip: np.ndarray) -> float:
    """Return the last frame's difference to the first, over the mean between adjacent ones: 1 = a seamless loop."""
    around = np.concatenate([clip, clip[:1]])
    *between, wrap = adjacent_differences(around)
    return float(wrap / max(np.mean(between), 1e-12))
