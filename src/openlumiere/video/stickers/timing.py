"""A clip's time brought to a sticker's: whole loops, or cut, or sped up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image

_SIDE = 32  # pixels that frames are compared at
_LEAST_MOTION = 0.5  # of 255, mean over a small frame: a clip that changes less stands still
_SAME = 0.15  # frames a period apart differ by less than this share of what frames in between do


@dataclass(frozen=True)
class Timed:
    """Frames, their rate, and what became of the clip's length, as a part of a sentence ("" if nothing did)."""

    frames: np.ndarray
    fps: float
    change: str


def find_period(frames: np.ndarray) -> int | None:
    """Find after how many frames a clip repeats itself; None if it doesn't within its length.

    At least a quarter of the clip must be seen again.

    Args:
        frames: uint8, (frames, height, width, 4).
    """
    small = np.stack([_small(frame) for frame in frames])
    count = len(small)
    farthest = 0.0
    for lag in range(1, count - max(count // 4, 1) + 1):
        apart = _apart(small, lag)
        if lag > 2 and farthest > _LEAST_MOTION and apart < _SAME * farthest:
            return _nearest_seam(small, range(lag, min(lag + 3, count - 1) + 1))
        farthest = max(farthest, apart)
    return None


def _small(frame: np.ndarray) -> np.ndarray:
    picture = Image.fromarray(frame).resize((_SIDE, _SIDE), Image.Resampling.BOX)
    pixels = np.asarray(picture, np.float32)
    return np.concatenate([pixels[..., :3] * pixels[..., 3:] / 255, pixels[..., 3:]], -1)


def _apart(small: np.ndarray, lag: int) -> float:
    return float(np.abs(small[lag:] - small[:-lag]).mean())


def _nearest_seam(small: np.ndarray, lags: Iterable[int]) -> int:
    """Return the lag after which frames are most alike."""
    return min(lags, key=lambda lag: _apart(small, lag))


def fit_time(
    frames: np.ndarray, fps: float, max_seconds: float | None, *, period: float | None = None, speed_up: bool = False
) -> Timed:
    """Make a clip last no longer than a limit, and end where it began, if it ever does.

    Whole loops are kept where the clip repeats itself; else it is cut, or with `speed_up` played faster.

    Args:
        frames: uint8, (frames, height, width, 4).
        fps: their rate.
        max_seconds: None for no limit.
        period: seconds after which the clip repeats itself, if that is known; else it is looked for.
    """
    count = len(frames)
    most = count if max_seconds is None else max(int(max_seconds * fps + 1e-6), 1)
    loop = min(period * fps, count) if period is not None else find_period(frames)
    if period is not None and loop and loop > most:  # the whole is too long a loop, but may hold shorter ones
        loop = find_period(frames) or loop
    length = count / fps
    if loop and loop <= most:
        loops = int(min(count, most) / loop + 1e-6)
        kept = round(loops * loop)
        if period is None and kept < count:  # a period need not be whole frames: its multiples tell it better
            around = range(max(kept - loops, 1), min(kept + loops, most, count - 1) + 1)
            kept = _nearest_seam(np.stack([_small(frame) for frame in frames]), around)
        if kept == count:
            return Timed(frames, fps, "")
        which = "one whole loop" if loops == 1 else f"{loops} whole loops"
        return Timed(frames[:kept], fps, f"{which}, {kept / fps:.2f} of {length:.2f} s")
    if count <= most:
        return Timed(frames, fps, "")
    if not speed_up or max_seconds is None:
        return Timed(frames[:most], fps, f"cut at {most / fps:.2f} of {length:.2f} s")
    kept = round(loop) if loop else count
    rate = kept / max_seconds
    return Timed(frames[:kept], rate, f"played {rate / fps:.2f} times as fast")


def resample(frames: np.ndarray, num_frames: int) -> np.ndarray:
    """Return so many frames, evenly over the same time."""
    if num_frames == len(frames):
        return frames
    middles = (np.arange(num_frames) + 0.5) * len(frames) / num_frames
    return frames[middles.astype(int)]
