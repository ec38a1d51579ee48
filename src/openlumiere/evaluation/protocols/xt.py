"""X-T slices: one row, or column, of pixels over time, as the paper's Figure 2.

What moves along the row draws its path: a regular motion draws a clean wave, one that was pieced together a broken one.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from openlumiere import files
from openlumiere.errors import LumiereError

_GAP, _MARGIN, _TEXT = 16, 12, 14  # pixels


def xt_slice(clip: np.ndarray, at: float = 0.5, *, axis: str = "row") -> np.ndarray:
    """Return one line of pixels of every frame, stacked: time runs down.

    Args:
        clip: (F, H, W, 3), of any type.
        at: where the line is, a fraction of the height (or width), 0 = top (or left), 1 = bottom (or right).
        axis: "row" or "column".

    Returns:
        (F, W, 3), or (F, H, 3) of a column.
    """
    if axis not in ("row", "column") or not 0 <= at <= 1:
        raise LumiereError(f"a slice along {axis!r} at {at}: choose a row or a column, at 0 to 1")
    lines = clip if axis == "row" else clip.swapaxes(1, 2)
    return lines[:, min(int(at * lines.shape[1]), lines.shape[1] - 1)]


def liveliest(clip: np.ndarray, *, axis: str = "row") -> float:
    """Return the middle of the row, or column, whose pixels change most over time, as a fraction."""
    change = clip.astype(np.float64).std(0).sum(-1)
    lines = change.sum(1 if axis == "row" else 0)
    return (int(lines.argmax()) + 0.5) / len(lines)


def draw_slices(
    clips: Sequence[np.ndarray],
    labels: Sequence[str],
    path: Path,
    *,
    at: float | None = None,
    axis: str = "row",
    side: int = 256,
) -> None:
    """Draw slices of several clips side by side, each below its middle frame, on which the line is marked; a PNG.

    Args:
        clips: (F, H, W, 3) each, uint8 or float in [0, 1]; lengths and sizes may differ, a clip's slice is as high as
            it is long against the longest.
        at: as `xt_slice`; None = where most happens in the first clip.
        side: width of each column in pixels.

    Raises:
        LumiereError: no clips, or another number of labels.
    """
    if not clips or len(clips) != len(labels):
        raise LumiereError(f"{len(clips)} clips and {len(labels)} labels: give a label to each clip, and one clip")
    bytes_of = [clip if clip.dtype == np.uint8 else (clip.clip(0, 1) * 255).round().astype(np.uint8) for clip in clips]
    line = liveliest(bytes_of[0], axis=axis) if at is None else at
    longest = max(len(clip) for clip in bytes_of)
    font = ImageFont.load_default(_TEXT)
    titles = [textwrap.fill(label, max(side // 8, 8), max_lines=2, placeholder="…") for label in labels]
    top = _MARGIN + 2 * (_TEXT + 4) + 4
    frames = [_scaled(clip[len(clip) // 2], side) for clip in bytes_of]
    below = top + max(frame.height for frame in frames) + _GAP
    page = Image.new("RGB", (2 * _MARGIN + len(clips) * (side + _GAP) - _GAP, below + 2 * side + _MARGIN), "white")
    pen = ImageDraw.Draw(page)
    for index, (clip, frame, title) in enumerate(zip(bytes_of, frames, titles, strict=True)):
        left = _MARGIN + index * (side + _GAP)
        pen.multiline_text((left, _MARGIN), title, fill="black", font=font)
        page.paste(frame, (left, top))
        if axis == "row":
            y = top + line * frame.height
            pen.line([(left, y), (left + frame.width, y)], fill=(255, 0, 80), width=2)
        else:
            x = left + line * frame.width
            pen.line([(x, top), (x, top + frame.height)], fill=(255, 0, 80), width=2)
        lines = Image.fromarray(np.ascontiguousarray(xt_slice(clip, line, axis=axis)))
        height = round(2 * side * len(clip) / longest)
        page.paste(lines.resize((side, height), Image.Resampling.NEAREST), (left, below))
    with files.replacing(path) as partial:
        page.save(partial, "PNG")


def _scaled(frame: np.ndarray, width: int) -> Image.Image:
    picture = Image.fromarray(frame)
    return picture.resize((width, round(width * picture.height / picture.width)), Image.Resampling.NEAREST)
