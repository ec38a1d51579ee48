"""When a frame is shown: one definition that drawing, training and sampling share.

Frame n of a clip is on screen from n / fps seconds on, and a clip of F frames lasts F / fps seconds. So frame n of F
and frame k n of k F, which show the same moment, are at the same place, and a clip's end flows into its start.
"""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
import torch

Numbers = TypeVar("Numbers", float, np.ndarray, torch.Tensor)

FPS = 16.0  # of clips that don't say otherwise


def frame_seconds(frames: Numbers, fps: float = FPS) -> Numbers:
    """When frames appear, in seconds from the clip's start; `frames` are indices, any shape."""
    return frames / fps


def clip_seconds(num_frames: int, fps: float = FPS) -> float:
    """How long a clip lasts."""
    return num_frames / fps


def frame_position(frames: Numbers, num_frames: int) -> Numbers:
    """Where in their clip frames are: their time over the clip's duration, in [0, 1), 0 = start."""
    return frames / num_frames


def swing(position: torch.Tensor) -> torch.Tensor:
    """Swing positions as a pendulum does, from the start at 0 to the end at 1/2 and back, so that a path leads home."""
    return (1 - (2 * math.pi * position).cos()) / 2
