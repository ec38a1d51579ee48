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

**One mark for each clip.** A key has eight patterns; the clip's identity chooses one of them and whether it is
mirrored, the picture where its tile begins: there where it agrees with the mark most by chance (informed embedding as
of Miller, Doerr and Cox, "Applying Informed Coding and Embedding to Design a Robust High-Capacity Watermark", 2004, in
its simplest form). The detector looks for all of these anyway, and the average over many clips tends to nothing.

**What an eye sees.** Busy places get up to a third more than still ones (a simple form of the masking in Podilchuk and
Zeng, "Image-Adaptive Watermarking Using Visual Models", 1998). The strength is set so that the clip, rounded and
clipped to 8 bits, reaches the PSNR. Where little of the frame is visible and the detector would hardly find the mark,
it is 3 dB stronger: that happens where the subject is busy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from openlumiere.errors import LumiereError

from . import carriers
from .analysis import Geometry, Seen, chosen_frames, details, unmixed_waves_at, waves_at
from .coding import encode
from .payload import Payload
from .search import agreement, correlations

PSNR = 42.1  # dB, over what is visible
SMALLEST_SIDE = 32  # pixels
SHORTEST_KEY = 16  # bytes
_LOOKED_AT = 16  # frames, evenly spread, that place and strength are chosen by
_MEASURED_SIDE = 128  # pixels, about, of the shorter side that the strength is measured on
_STRONGEST = 2.0  # times the strength that would do if nothing were clipped
_STILL, _BUSY, _ACTIVE = 1.0, 1.3, 8.0  # strength at rest and at most, and the activity (levels) between
_LITTLE, _ENOUGH, _LOUDER = 0.6, 15.0, 3.0  # share of the frame and agreement below which a mark is so many dB stronger
_DITHER = 0.06  # of a frame's evidence: half a level where a picture rests
_TAKEN = 10.0  # agreement above which a pattern is there already; by chance, the best of all places reaches about 5
_SHIFTS = 160  # places that the tile may begin at, each way


def embed(
    frames: np.ndarray, payload: Payload, key: bytes, *, clip_id: str, psnr: float = PSNR,
    where: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """Return a marked copy of a clip.

    Args:
        frames: (F, H, W, 3 or 4), uint8 or float in [0, 1]; alpha is straight, and stays as it is.
        payload: what the mark says.
        key: at least 16 secret bytes.
        clip_id: of this clip alone: chooses how its mark lies.
        psnr: likeness to the clip (dB) where it is visible and may change, mean over its frames; 3 dB less for busy
            clips of which that is less than 60 %.
        where: how far each pixel may change, (F, H, W) in [0, 1] or bool; what is 0 stays to the bit. None = all.

    Raises:
        LumiereError: frames of another shape or kind, or smaller than 32 pixels; a short key; `where` of another shape.
    """
    check_frames(frames)
    check_keys([key])
    if where is not None and where.shape != frames.shape[:3]:
        raise LumiereError(f"where has shape {where.shape}; give one value for each pixel, {frames.shape[:3]}")
    looked_at = chosen_frames(len(frames), _LOOKED_AT)
    few, few_where = frames[looked_at], None if where is None else where[looked_at]
    seen = details(few)
    place = _place(seen, payload, key, clip_id)
    drawn = place.draw(*frames.shape[1:3]) * _masking(seen, frames.shape[1:3])
    strength, share = _strength(few, few_where, drawn, psnr)
    if share < _LITTLE and place.agreement(_marked(few, few_where, strength * drawn)[::2]) < _ENOUGH:
        strength, _ = _strength(few, few_where, drawn, psnr - _LOUDER)
    return _marked(frames, where, strength * drawn)


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


@dataclass(frozen=True)
class _Place:
    """A mark, and where it lies on the plane: begun so many pixels down and across from where phases are counted."""

    amplitudes: np.ndarray
    geometry: Geometry
    begun: np.ndarray
    middle: np.ndarray

    def draw(self, height: int, width: int) -> np.ndarray:
        """Draw it at a frame's own size: (H, W), root mean square 1."""
        shift = self.middle + self.begun * [1, -1 if self.geometry.mirrored else 1]
        return carriers.draw(self.amplitudes, height, width, shift, self.geometry.mirrored)

    def agreement(self, frames: np.ndarray) -> float:
        """Return how far frames agree with it, as the detector counts."""
        seen = details(frames)
        waves = unmixed_waves_at(seen.evidence().sum(axis=0), seen.weights().sum(axis=0), self.geometry)
        return agreement(waves, self.amplitudes * np.exp(-2j * np.pi / carriers.TILE * (carriers.WAVES @ self.begun)))


def _place(seen: Seen, payload: Payload, key: bytes, clip_id: str) -> _Place:
    """Choose the place where the picture, by chance, agrees with the mark most."""
    identity = carriers.keyed(key, b"clip", clip_id.encode(), count=4)
    code, geometry = encode(payload.to_bits()), Geometry(mirrored=bool(identity[1] < 0.5))
    image = seen.evidence().sum(axis=0)
    # Faint noise that only the key tells: plain clips, which agree with nothing, differ as well.
    noise = np.random.default_rng((identity[2:] * 2**32).astype(np.int64)).normal(size=image.shape)
    waves = waves_at(image + _DITHER * len(seen.details) * noise.astype(np.float32), geometry)
    first = int(identity[0] * carriers.PATTERNS)
    # A clip made of a marked one agrees most where the older mark lies, which the newer one would garble there.
    for number in range(first, first + carriers.PATTERNS):
        amplitudes = carriers.patterns(key)[number % carriers.PATTERNS].amplitudes(code)
        scores = correlations(waves[None], amplitudes[None], _SHIFTS)[0, 0]
        if scores.max() < _TAKEN:
            break
    across, down = np.unravel_index(int(scores.argmax()), scores.shape)
    begun = np.array([down, across]) * (carriers.TILE / _SHIFTS)
    return _Place(amplitudes, geometry, begun, np.array(image.shape) // 2 + 0.5)


def _masking(seen: Seen, size: tuple[int, int]) -> np.ndarray:
    """Return how much a place hides, from 1 to 1.3: the same in all frames, so that nothing flickers; (H, W)."""
    activity = np.sqrt(np.maximum(seen.activity.mean(axis=0, keepdims=True), 0))
    return carriers.resize(_BUSY - (_BUSY - _STILL) * np.exp(-activity / _ACTIVE), *size)[0]


def _strength(frames: np.ndarray, where: np.ndarray | None, drawn: np.ndarray, psnr: float) -> tuple[float, float]:
    """Return what to multiply a drawing with, in levels, for a PSNR after rounding and clipping, and the share of the
    frames' pixels that it changes.
    """
    step = max(1, min(drawn.shape) // _MEASURED_SIDE)
    frames, drawn = frames[:, ::step, ::step], drawn[::step, ::step]
    allowed = np.stack([
        _allowed(frame, None if where is None else where[index, ::step, ::step]) for index, frame in enumerate(frames)
    ])  # fmt: skip
    share = float((allowed > 0).mean())
    if not share:
        return 0.0, share
    aim = 255**2 / 10 ** (psnr / 10) * share  # mean square over all of the frames
    simple = strength = float(np.sqrt(aim / np.mean((drawn * allowed) ** 2)))
    before = np.float32(1 if frames.dtype == np.uint8 else 255) * frames[..., :3]
    for _ in range(3):
        levels = strength * drawn * allowed
        levels = np.rint(levels) if frames.dtype == np.uint8 else levels
        reached = float(np.mean(((before + levels[..., None]).clip(0, 255) - before) ** 2))
        strength = min(strength * (aim / max(reached, 1e-6)) ** 0.5, _STRONGEST * simple)
    return strength, share


def _marked(frames: np.ndarray, where: np.ndarray | None, change: np.ndarray) -> np.ndarray:
    """Return frames with so many levels more, (H, W), wherever they may change."""
    marked = np.empty(frames.shape, frames.dtype)
    added = _in_colours(change, frames)
    for index, before in enumerate(frames):
        if where is not None:
            added = _in_colours(change * where[index].astype(np.float32), frames)
        marked[index] = _sum(before, added)
        if frames.shape[-1] == 4 or where is not None:
            kept = _allowed(before, None if where is None else where[index]) == 0
            np.copyto(_pixels(marked[index]), _pixels(before), where=kept)
    return marked


def _pixels(frame: np.ndarray) -> np.ndarray:
    """View each pixel's channels as one value, (H, W): several times faster to copy."""
    return np.ascontiguousarray(frame).view(f"V{frame.itemsize * frame.shape[-1]}")[..., 0]


def _allowed(frame: np.ndarray, where: np.ndarray | None) -> np.ndarray:
    """Return how far each pixel of a frame may change: float32 (H, W)."""
    visible = frame[..., 3] > 0 if frame.shape[-1] == 4 else np.ones(frame.shape[:2], bool)
    return visible.astype(np.float32) if where is None else visible * where.astype(np.float32)


def _in_colours(change: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Return levels (H, W) as what to add to each channel of frames, 0 for alpha: (H, W, channels)."""
    change = np.rint(change).astype(np.int16) if frames.dtype == np.uint8 else (change / 255).astype(frames.dtype)
    added = np.zeros((*change.shape, frames.shape[-1]), change.dtype)
    for channel in range(3):  # several times faster than repeating each value
        added[..., channel] = change
    return added


def _sum(frame: np.ndarray, added: np.ndarray) -> np.ndarray:
    """Return frame and change together, within the range."""
    if frame.dtype == np.uint8:
        return np.add(frame, added, dtype=np.int16).clip(0, 255).astype(np.uint8)
    return (frame + added).clip(0, 1)
