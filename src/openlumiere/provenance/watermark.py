"""Marking clips: 48 bits, spread over all of a clip's frames and pixels, that an eye doesn't see and a key finds again.

**What is added.** A mark is a sum of 216 plane waves of luma that repeats every 80 pixels of a plane on which a clip's
shorter side has 128 (`carriers`). Each carries one bit of a code (`coding`) across a phase that only the key tells:
spread spectrum as of Cox, Kilian, Leighton and Shamoon, "Secure Spread Spectrum Watermarking for Multimedia" (1997),
whose lesson is to put it where a picture can't lose it. Here that is 0.06 to 0.16 waves per pixel of the plane: slow
enough to outlive quantisation, and sizes down to a third; fast enough to stand out from shading. Since the plane
follows the clip's size, scaling changes nothing.

**How much it can hold.** 42.1 dB are a root mean square of 2.0 levels of 255. On 128 x 128 pixels that is an energy of
65 000 squared levels in each frame, 150 for each of the tile's 432 real dimensions. A photograph holds about 1000 in
each of them, but most of it in a few busy places, which the detector weighs down; drawn clips hold far less, and in
clips that move the mark adds up while the picture doesn't. A third of the energy is a pilot that finds the place, the
rest the code, which reads its 48 bits and checksum from a third of the noise's energy in each dimension.

**Time.** The wave pattern rests while a clip plays: frames may be dropped, repeated or shown at another rate, one frame
may be enough, and nothing flickers. The price: who averages a moving clip's own frames sees it.

**One mark for each clip.** A key has eight patterns; the clip's identity chooses one of them, where its tile begins,
and whether it is mirrored. The detector looks for all of these anyway, and the average over many clips tends to
nothing.

**What an eye sees.** Busy places get up to a third more than still ones (a simple form of the masking in Podilchuk and
Zeng, "Image-Adaptive Watermarking Using Visual Models", 1998). The strength is set so that the clip, rounded and
clipped to 8 bits, reaches the PSNR.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from openlumiere.errors import LumiereError

from . import carriers
from .analysis import chosen_frames, details
from .coding import encode
from .payload import Payload

PSNR = 42.1  # dB, over what is visible
SMALLEST_SIDE = 32  # pixels
SHORTEST_KEY = 16  # bytes
_MEASURED_FRAMES = 8
_STRONGEST = 2.0  # times the strength that would do if nothing were clipped
_STILL, _BUSY, _ACTIVE = 1.0, 1.3, 8.0  # strength at rest and at most, and the activity (levels) between


def embed(frames: np.ndarray, payload: Payload, key: bytes, *, clip_id: str, psnr: float = PSNR) -> np.ndarray:
    """Return a marked copy of a clip.

    Args:
        frames: (F, H, W, 3 or 4), uint8 or float in [0, 1]; alpha is straight, and stays as it is.
        payload: what the mark says.
        key: at least 16 secret bytes.
        clip_id: of this clip alone: chooses how its mark lies.
        psnr: likeness to the clip (dB) where it is visible, mean over its frames.

    Raises:
        LumiereError: frames of another shape or kind, or smaller than 32 pixels; a short key.
    """
    check_frames(frames)
    check_keys([key])
    height, width = frames.shape[1:3]
    chosen = carriers.keyed(key, b"clip", clip_id.encode(), count=4)
    pattern = carriers.patterns(key)[int(chosen[0] * carriers.PATTERNS)]
    waves = pattern.amplitudes(encode(payload.to_bits()))
    drawn = carriers.draw(waves, height, width, chosen[1:3] * carriers.TILE, bool(chosen[3] < 0.5))
    few = frames[chosen_frames(len(frames), _MEASURED_FRAMES)]
    drawn *= _masking(few)
    change = _strength(few, drawn, psnr) * drawn
    marked = np.empty_like(frames)
    for before, after in zip(frames, marked, strict=True):
        after[...] = before
        after[..., :3] = _changed(before, change)
    return marked


def check_frames(frames: np.ndarray) -> None:
    """Refuse what is no clip, or too small to hold a mark."""
    if frames.ndim != 4 or frames.shape[-1] not in (3, 4) or not len(frames):
        raise LumiereError(f"frames of shape {frames.shape}; give (frames, height, width, 3 or 4)")
    if frames.dtype != np.uint8 and frames.dtype.kind != "f":
        raise LumiereError(f"frames of {frames.dtype}; give uint8, or floats in [0, 1]")
    if frames.dtype != np.uint8 and not np.isfinite(frames).all():
        raise LumiereError("frames that are not finite (NaN) hold no watermark; make them anew")
    if min(frames.shape[1:3]) < SMALLEST_SIDE:
        raise LumiereError(
            f"{frames.shape[2]} x {frames.shape[1]} pixels hold no watermark; give {SMALLEST_SIDE} or more"
        )


def check_keys(keys: Sequence[bytes]) -> None:
    """Refuse keys that could be guessed, and none at all."""
    if not keys:
        raise LumiereError("no key to look for; give at least one")
    if min(map(len, keys)) < SHORTEST_KEY:
        raise LumiereError(
            f"a watermark's key has at least {SHORTEST_KEY} bytes; make one with secrets.token_bytes(32)"
        )


def _masking(frames: np.ndarray) -> np.ndarray:
    """Return how much a place hides, from 1 to 1.3: the same in all frames, so that nothing flickers; (H, W)."""
    activity = np.sqrt(np.maximum(details(frames)[1].mean(axis=0, keepdims=True), 0))
    return carriers.resize(_BUSY - (_BUSY - _STILL) * np.exp(-activity / _ACTIVE), *frames.shape[1:3])[0]


def _strength(frames: np.ndarray, drawn: np.ndarray, psnr: float) -> float:
    """Return what to multiply a drawing with, in levels, for a PSNR after rounding and clipping."""
    unit = 1.0 if frames.dtype == np.uint8 else 255.0
    visible = frames[..., 3] > 0 if frames.shape[-1] == 4 else np.ones(frames.shape[:-1], bool)
    if not visible.any():
        return 0.0
    aim = 255 / 10 ** (psnr / 20)
    simple = strength = aim / float(np.sqrt(np.broadcast_to(drawn**2, visible.shape)[visible].mean()))
    for _ in range(3):
        errors = [
            (unit * (_changed(frame, strength * drawn).astype(np.float32) - frame[..., :3]))[seen].ravel()
            for frame, seen in zip(frames, visible, strict=True)
        ]
        reached = float(np.sqrt(np.mean(np.concatenate(errors) ** 2)))
        strength = min(strength * aim / max(reached, 1e-3), _STRONGEST * simple)
    return strength


def _changed(frame: np.ndarray, change: np.ndarray) -> np.ndarray:
    """Return a frame's colours with so many levels more where anything is visible: (H, W, 3)."""
    if frame.shape[-1] == 4:
        change = change * (frame[..., 3] > 0)
    if frame.dtype == np.uint8:
        whole = np.rint(change).astype(np.int16)
        return (frame[..., :3] + whole[..., None]).clip(0, 255).astype(np.uint8)
    return (frame[..., :3] + (change / 255)[..., None]).clip(0, 1).astype(frame.dtype)
