"""What all writers take: frames as 8-bit pixels."""

from __future__ import annotations

import numpy as np

from openlumiere.errors import LumiereError


def as_uint8(frames: np.ndarray) -> np.ndarray:
    """Round frames to 8 bits: (frames, height, width, 3 or 4), float in [0, 1] (clamped) or uint8 -> uint8.

    Raises:
        LumiereError: another shape or type, or values that are not numbers.
    """
    frames = np.asarray(frames)
    if frames.ndim != 4 or frames.shape[-1] not in (3, 4) or 0 in frames.shape:
        raise LumiereError(f"frames of shape {frames.shape}: give (frames, height, width, 3 or 4), none of them 0")
    if frames.dtype == np.uint8:
        return frames
    if not np.issubdtype(frames.dtype, np.floating):
        raise LumiereError(f"frames of type {frames.dtype}: give floats in [0, 1] or uint8")
    if not np.isfinite(frames).all():
        raise LumiereError("frames hold values that are not numbers; sample again in float32 (--dtype float32)")
    return (frames.astype(np.float32) * 255.0).round().clip(0, 255).astype(np.uint8)
