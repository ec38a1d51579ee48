"""Finding marks in files, of clips and pictures of any size and length: what is held of them stays bounded.

Of a clip at most 64 frames, or four a second, are looked at, spread over its length. One of more than 20 seconds is
looked at as a whole and in parts of ten, so that a short marked clip within a long film is found; what is tried more
counts against it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from openlumiere.errors import LumiereError
from openlumiere.video import ClipInfo, probe, read_picture, sample_frames
from openlumiere.video.metadata import FOLDER_NOTE
from openlumiere.video.opening import PICTURE_SUFFIXES, VIDEO_SUFFIXES

from .analysis import MOST_FRAMES, chosen_frames
from .carriers import SIDE
from .detect import FALSE_POSITIVES, Detection, detect
from .marking import release_of
from .model_numbers import model_name

STILL_SUFFIXES = frozenset({".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})  # that hold no clip, but may hold a frame of one
SUFFIXES = VIDEO_SUFFIXES | PICTURE_SUFFIXES | STILL_SUFFIXES
_WHOLE_SECONDS, _PART_SECONDS = 20.0, 10  # longest clip that is looked at as a whole only, and of a part


def files_in(path: Path) -> list[Path]:
    """Return a file, or the clips and pictures below a folder in alphabetical order; a folder of frames is one clip.

    Raises:
        LumiereError: there is none.
    """
    if not path.exists():
        raise LumiereError(f"{path} does not exist; check the name")
    if not path.is_dir() or _is_clip(path):
        return [path]
    found: list[Path] = []
    for entry in sorted(path.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            found += _below(entry)
        elif entry.suffix.lower() in SUFFIXES:
            found.append(entry)
    if not found:
        raise LumiereError(f"{path} holds no clips or pictures; give one of {', '.join(sorted(SUFFIXES))}")
    return found


def _below(folder: Path) -> list[Path]:
    try:
        return files_in(folder)
    except LumiereError:  # none there: no reason to stop
        return []


def _is_clip(folder: Path) -> bool:
    if (folder / FOLDER_NOTE).exists():
        return True
    names = [path for path in folder.iterdir() if not path.name.startswith(".")]
    return bool(names) and all(path.suffix == ".png" and path.stem.isdigit() for path in names)


def detect_in_file(
    path: str | Path,
    keys: Sequence[bytes],
    *,
    false_positives: float = FALSE_POSITIVES,
    progress: Callable[[float], None] | None = None,
) -> Detection:
    """Look for a mark in a video, an animated or a still picture, or a folder of frames.

    Args:
        keys: as of `detect`.
        false_positives: chance that a file without a mark is told as marked, of all that is tried together.
        progress: told of the seconds that are done.

    Returns:
        What was found; of a long clip where it is surest, `seconds` being those of the whole clip.

    Raises:
        LumiereError: it can't be read, or is smaller than 32 pixels.
    """
    path = Path(path)
    if path.is_file() and path.suffix.lower() in STILL_SUFFIXES:
        picture = _shrunk(np.asarray(read_picture(path, background=None)))
        return detect(picture[None], keys, false_positives=false_positives)
    shape = probe(path)
    count = max(round(shape.duration * shape.fps), 1)
    if shape.duration <= _WHOLE_SECONDS:
        chosen = min(count, max(MOST_FRAMES, math.ceil(4 * shape.duration)))
        frames = [_shrunk(frame) for frame in sample_frames(path, _times(0, shape.duration, chosen))]
        return detect(_clip(path, frames), keys, fps=chosen / shape.duration, false_positives=false_positives)
    return _detect_in_parts(path, shape, keys, false_positives, progress or (lambda _: None))


def _detect_in_parts(
    path: Path, shape: ClipInfo, keys: Sequence[bytes], false_positives: float, progress: Callable[[float], None]
) -> Detection:
    starts = np.arange(0, shape.duration, _PART_SECONDS)
    ends = np.append(starts[1:], shape.duration)
    counts = [
        min(MOST_FRAMES, max(round((end - start) * shape.fps), 1)) for start, end in zip(starts, ends, strict=True)
    ]
    times = [time for start, end, count in zip(starts, ends, counts, strict=True) for time in _times(start, end, count)]
    some = set(chosen_frames(len(times)).tolist())  # of the whole
    tries = len(starts) + 1
    every = zip(itertools.count(), sample_frames(path, times), strict=False)

    def look(frames: list[np.ndarray], lasts: float) -> Detection:
        return detect(_clip(path, frames), keys, fps=len(frames) / lasts, false_positives=false_positives / tries)

    whole: list[np.ndarray] = []
    best, seconds = Detection(present=False, p_value=1.0), [False] * math.ceil(shape.duration)
    for start, end, count in zip(starts.tolist(), ends.tolist(), counts, strict=True):
        part = []
        for index, frame in itertools.islice(every, count):
            part.append(_shrunk(frame))
            if index in some:
                whole.append(part[-1])
        found = look(part, end - start)
        for second, marked in enumerate(found.seconds, int(start)):
            seconds[second] = marked
        best = min(best, found, key=lambda one: one.p_value)
        progress(end)
    found = look(whole, shape.duration)
    if not any(seconds):  # too faint in each part
        seconds = list(found.seconds)
    best = min(best, found, key=lambda one: one.p_value)
    return replace(best, p_value=min(1.0, tries * best.p_value), seconds=tuple(seconds))


def _clip(path: Path, frames: list[np.ndarray]) -> np.ndarray:
    if len({frame.shape for frame in frames}) != 1:
        raise LumiereError(f"{path} holds frames of different sizes; make them equal")
    return np.stack(frames)


def _times(start: float, end: float, count: int) -> list[float]:
    """In the middle of each of so many equal stretches."""
    return [start + (end - start) * (index + 0.5) / count for index in range(count)]


def _shrunk(frame: np.ndarray) -> np.ndarray:
    """A frame of at least twice the plane's size, and less than four times, if it was larger: it sees no more."""
    factor = min(frame.shape[:2]) // (2 * SIDE)
    if factor < 2:
        return frame
    picture = Image.fromarray(frame)
    if picture.mode == "RGBA":  # without the colours that transparency hides
        return np.asarray(picture.convert("RGBa").reduce(factor).convert("RGBA"))
    return np.asarray(picture.reduce(factor))


def spans(seconds: Sequence[bool]) -> list[tuple[int, int]]:
    """Return the stretches of seconds that are marked, from and to."""
    runs, second = [], 0
    for marked, run in itertools.groupby(seconds):
        length = len(list(run))
        if marked:
            runs.append((second, second + length))
        second += length
    return runs


def to_json(detection: Detection, keys: Sequence[str]) -> dict[str, Any]:
    """Return what was found as plain JSON.

    ``marked`` and ``p_value``; and of a mark its ``payload`` (null where it can't be read), the ``key``, the marked
    ``seconds`` as [from, to], the ``parts`` of the frame as rows of 0 and 1, and how the clip was changed: ``scale``
    (above 1: cropped) and ``degrees`` (counter-clockwise).

    Args:
        keys: names of those that were looked with.
    """
    data: dict[str, Any] = {"marked": detection.present, "p_value": detection.p_value}
    if not detection.present:
        return data
    assert detection.key is not None
    payload, place = detection.payload, detection.geometry
    assert place is not None
    return data | {
        "payload": None if payload is None else {
            "model": model_name(payload.model), "model_number": payload.model, "release": release_of(payload.version),
            "month": f"{payload.made:%Y-%m}", "key_id": payload.key_id,
        },
        "key": keys[detection.key],
        "seconds": spans(detection.seconds),
        "parts": [list(map(int, row)) for row in detection.regions],
        "scale": round(place.scale, 3),
        "degrees": round(math.degrees(place.angle), 1),
    }  # fmt: skip
