"""A user's own captioned clips: a folder of videos and their captions.

Captions come from ``metadata.jsonl`` or ``metadata.csv``, in the layout of Hugging Face's videofolder (columns
``file_name``, relative to the table, and ``text`` or ``caption``), or from a text file of the clip's name
(``wave.mp4``, ``wave.txt``). ``metadata.jsonl`` may also say where a clip's subject is, see `boxes`. Videos are decoded
by PyAV: it is kept up, ships FFmpeg in its wheels, seeks to the frame, and hands frames over one at a time, where
torchvision's reader is deprecated and decord is abandoned.
"""

from __future__ import annotations

import csv
import json
import statistics
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from openlumiere.diffusion.layout import LAYOUT_DIM
from openlumiere.errors import LumiereError
from openlumiere.video import VIDEO_SUFFIXES, ClipInfo, opaque, probe, sample_frames

from .boxes import Boxes, layout_in_square

SUFFIXES = VIDEO_SUFFIXES | {".gif", ".webp"}
_TABLES = ("metadata.jsonl", "metadata.csv")
CAPTION_COLUMNS = ("text", "caption")


@dataclass(frozen=True)
class ClipEntry:
    """One usable clip: its file, one caption or several, what its headers say, and boxes around its subject."""

    path: Path
    captions: tuple[str, ...]
    info: ClipInfo
    boxes: Boxes | None = None


@dataclass(frozen=True)
class FolderReport:
    """What `scan` found: usable clips in the order of their names, and the others by name with the reason."""

    folder: Path
    clips: list[ClipEntry]
    skipped: dict[str, str]


def scan(folder: str | Path, *, num_frames: int = 80, fps: float = 16.0) -> FolderReport:
    """List the captioned clips of a folder and its subfolders, without decoding whole videos.

    Args:
        folder: holds the clips and their captions.
        num_frames, fps: clips shorter than this many frames at this rate are skipped.

    Raises:
        LumiereError: the folder is missing, or a table of captions is malformed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise LumiereError(f"{folder} is not a folder; give the one that holds your clips")
    _check_window(num_frames, fps)
    captions, boxes = _tables(folder)
    found = {path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()}
    hidden = {path for path in found if any(part.startswith(".") for part in path.relative_to(folder).parts)}
    clips, skipped = [], {}
    for path in sorted((found - hidden) | set(captions)):
        name = str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)
        try:
            entry = _entry(path, captions.get(path), num_frames=num_frames, fps=fps)
            clips.append(replace(entry, boxes=boxes.get(path)))
        except LumiereError as error:
            skipped[name] = str(error).removeprefix(f"{path} ")
    return FolderReport(folder, clips, skipped)


def _check_window(num_frames: int, fps: float) -> None:
    if num_frames < 1 or not 0 < fps <= 1000:
        raise LumiereError(f"{num_frames} frames at {fps} per second: give at least 1 frame and a rate up to 1000")


def _entry(path: Path, captions: list[str] | None, *, num_frames: int, fps: float) -> ClipEntry:
    """Return one clip, or raise a LumiereError that says why it cannot be used."""
    if not path.exists():
        raise LumiereError("listed in the table of captions, but missing")
    if path.suffix.lower() not in SUFFIXES:
        raise LumiereError(f"of unknown format; convert it to one of {', '.join(sorted(SUFFIXES))}")
    texts = [text for text in captions or _sidecar(path) if text]
    if not texts:
        raise LumiereError(f"no caption; add one to metadata.jsonl, or write it to {path.with_suffix('.txt').name}")
    info = probe(path)
    if info.duration < needed_seconds(num_frames, fps):
        raise LumiereError(f"too short: {info.duration:.2f} s of {num_frames / fps:.2f} s")
    return ClipEntry(path, tuple(texts), info)


def needed_seconds(num_frames: int, fps: float) -> float:
    """Return the seconds that a window spans, from its start to the middle of its last frame."""
    return (num_frames - 0.5) / fps


def _sidecar(path: Path) -> list[str]:
    file = path.with_suffix(".txt")
    return [_clean(_read_text(file))] if file.is_file() else []


def _clean(text: str) -> str:
    return " ".join(text.split())


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise LumiereError(f"cannot read {file}: {error}; save it as UTF-8") from error


def _tables(folder: Path) -> tuple[dict[Path, list[str]], dict[Path, Boxes]]:
    """Read the captions, and boxes, in all tables of a folder and its subfolders, by clip."""
    captions: dict[Path, list[str]] = {}
    boxes: dict[Path, Boxes] = {}
    for table in sorted(path for name in _TABLES for path in folder.rglob(name)):
        for where, row in _rows(table):
            column = next((column for column in CAPTION_COLUMNS if column in row), None)
            if not isinstance(row.get("file_name"), str) or column is None:
                raise LumiereError(f"{where} lacks file_name, or text (or caption); add the column")
            caption = row[column]
            if not isinstance(caption, str | None):
                raise LumiereError(f"{where} has a caption that is no text; put it in quotes")
            path = table.parent / row["file_name"]
            captions.setdefault(path, []).append(_clean(caption or ""))
            if table.suffix == ".jsonl":
                try:
                    found = Boxes.read(row)
                except LumiereError as error:
                    raise LumiereError(f"{where} {error}") from error
                if found is not None:
                    boxes[path] = found
    return captions, boxes


def _rows(table: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read a table's rows, each with the line that an error should name."""
    lines = _read_text(table).splitlines(keepends=True)
    if table.suffix == ".csv":
        reader = csv.DictReader(lines)
        try:
            for row in reader:
                yield f"line {reader.line_num} of {table}", row
        except csv.Error as error:
            raise LumiereError(f"line {reader.line_num} of {table} is not CSV ({error}); correct it") from error
        return
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise LumiereError(f"line {number} of {table} is not JSON ({error}); correct it") from error
        if not isinstance(row, dict):
            raise LumiereError(f"line {number} of {table} is not a JSON object; correct it")
        yield f"line {number} of {table}", row


def describe(report: FolderReport) -> str:
    """Format a report for people: counts, lengths, sizes and rates, and what was skipped and why."""
    clips, skipped = report.clips, report.skipped
    lines = [f"{report.folder}: {len(clips)} usable clips, {len(skipped)} skipped"]
    if clips:
        durations = sorted(clip.info.duration for clip in clips)
        captions = sum(len(clip.captions) for clip in clips)
        lines += [
            f"  length   {_span(durations, '.2f')} s, {_hours(sum(durations))} in all",
            f"  rate     {_span(sorted(clip.info.fps for clip in clips), '.4g')} frames per second",
            f"  sizes    {_common(Counter(f'{clip.info.width}x{clip.info.height}' for clip in clips))}",
            f"  formats  {_common(Counter(clip.path.suffix.lower().lstrip('.') for clip in clips))}",
            f"  captions {captions}, of {statistics.median(len(t.split()) for c in clips for t in c.captions):g} words",
        ]
    if skipped:
        lines.append("skipped:")
        lines += [f"  {name}: {reason}" for name, reason in skipped.items()]
    return "\n".join(lines)


def _span(values: list[float], form: str) -> str:
    low, middle, high = values[0], statistics.median(values), values[-1]
    return f"{low:{form}}" if low == high else f"{low:{form}} to {high:{form}} (median {middle:{form}})"


def _common(counts: Counter[str], shown: int = 5) -> str:
    parts = [f"{name} ({count})" for name, count in counts.most_common(shown)]
    return ", ".join(parts) + (f" and {len(counts) - shown} more" if len(counts) > shown else "")


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


class ClipFolder(Dataset[dict[str, Any]]):
    """Windows of a folder's clips: ``{"pixels": (3, num_frames, size, size) in [-1, 1], "caption": str}``.

    Where any of its clips has boxes, there is ``"layout": (num_frames, 6)`` too, see `diffusion.layout`: the subject in
    the frames as they are shown, zeros where it is unknown.

    Item n is a pure function of ``(seed, n)``, for any n >= 0: epoch ``n // len`` goes through all clips in an
    order of its own, and takes from each a window at a random time. A window shows, at each of its frames'
    middles, the frame on screen then; frames are cropped to the central square, resized with antialiasing, and
    laid over white where they are transparent.

    Args:
        clips: a folder, which is scanned, or a report of `scan` for the same num_frames and fps.
        size: height and width of the frames in pixels.
        num_frames, fps: length and rate of the windows.

    Raises:
        LumiereError: no usable clip; on reading, a clip that proves corrupt, by name.
    """

    def __init__(
        self,
        clips: str | Path | FolderReport,
        *,
        size: int,
        num_frames: int = 80,
        fps: float = 16.0,
        seed: int = 0,
    ) -> None:
        if size < 1:
            raise LumiereError(f"frames of {size} pixels: give at least 1")
        _check_window(num_frames, fps)
        report = clips if isinstance(clips, FolderReport) else scan(clips, num_frames=num_frames, fps=fps)
        if not report.clips:
            reason = next((f": {name} is {why}" for name, why in report.skipped.items()), "")
            raise LumiereError(f"no usable clip in {report.folder}{reason}; see lumiere data folder {report.folder}")
        self.clips, self.size, self.num_frames, self.fps, self.seed = report.clips, size, num_frames, fps, seed
        self.with_layout = any(clip.boxes is not None for clip in self.clips)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index < 0:
            raise IndexError(f"item {index}: items count from 0")
        epoch, position = divmod(index, len(self.clips))
        clip = self.clips[int(_order(self.seed, epoch, len(self.clips))[position])]
        rng = np.random.default_rng([self.seed, index, 0xC119])
        start = float(rng.uniform(0.0, max(clip.info.duration - self.num_frames / self.fps, 0.0)))
        caption = clip.captions[int(rng.integers(len(clip.captions)))]
        times = start + (np.arange(self.num_frames) + 0.5) / self.fps
        pixels = torch.empty(3, self.num_frames, self.size, self.size)
        shown = None
        with self._file(clip) as path:
            for i, frame in enumerate(sample_frames(path, times.tolist())):
                if frame is not shown:
                    shown, small = frame, self._square(frame)
                pixels[:, i] = small
        sample: dict[str, Any] = {"pixels": pixels, "caption": caption}
        if self.with_layout:
            sample["layout"] = self._layout(clip, times)
        return sample

    @contextmanager
    def _file(self, clip: ClipEntry) -> Iterator[Path]:
        """Yield the clip's file, for as long as it is read."""
        yield clip.path

    def _layout(self, clip: ClipEntry, times: np.ndarray) -> torch.Tensor:
        if clip.boxes is None:
            return torch.zeros(len(times), LAYOUT_DIM)
        left, top, side = _central_square(clip.info.height, clip.info.width)
        return layout_in_square(clip.boxes.at(times, clip.info.duration), left, top, side)

    def _square(self, frame: np.ndarray) -> torch.Tensor:
        """Crop one frame, uint8 (H, W, 3 or 4), to its central square and resize it: (3, size, size) in [-1, 1]."""
        left, top, side = _central_square(*frame.shape[:2])
        # Cropped first: resizing a box would let pixels from outside it in at the edges.
        square = Image.fromarray(opaque(frame[top : top + side, left : left + side]))
        small = square.resize((self.size, self.size), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(small)).permute(2, 0, 1).float() / 127.5 - 1.0


def _central_square(height: int, width: int) -> tuple[int, int, int]:
    """Return left, top and side of the square that frames are cropped to, in pixels."""
    side = min(height, width)
    return (width - side) // 2, (height - side) // 2, side


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch, 0xF01D]).permutation(count)
