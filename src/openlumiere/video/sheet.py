"""Contact sheets: a clip at a glance."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from openlumiere.errors import LumiereError

from .alpha import opaque
from .pixels import as_uint8

_CELL = (128, 256)


def contact_sheet(
    frames: np.ndarray, columns: int = 10, *, rows: int = 2, fps: float = 16, gap: int = 4, background: str = "white"
) -> Image.Image:
    """Rows of evenly spaced frames, each with its time in seconds beneath.

    Args:
        frames: as for `write_clip`. Small ones are enlarged by a whole factor, large ones shrunk to 256 pixels.
        columns: frames in a row, fewer if the clip is shorter.
        rows: rows at most.
        gap: pixels between frames.
        background: what transparency is laid over.

    Returns:
        An RGB picture on a light grey, from which white frames stand out.
    """
    if columns < 1 or rows < 1 or gap < 0 or fps <= 0:
        raise LumiereError(f"a contact sheet of {rows} rows, {columns} columns, gap {gap}, {fps} fps: too small")
    pixels = as_uint8(frames)
    shown = min(len(pixels), columns * rows)
    columns = min(columns, shown)
    height, width = pixels.shape[1:3]
    scale = max(1, _CELL[0] // max(height, width)) if max(height, width) <= _CELL[1] else _CELL[1] / max(height, width)
    cell = (max(round(width * scale), 1), max(round(height * scale), 1))
    text = max(11, min(cell[0] // 9, 20))
    font = ImageFont.load_default(text)
    pitch = (cell[0] + gap, cell[1] + round(1.7 * text) + gap)
    margin = 2 * gap
    size = (columns * pitch[0] - gap + 2 * margin, math.ceil(shown / columns) * pitch[1] - gap + 2 * margin)
    sheet = Image.new("RGB", size, (240, 240, 242))
    pen = ImageDraw.Draw(sheet)
    for k in range(shown):
        index = k * len(pixels) // shown
        picture = Image.fromarray(opaque(pixels[index], background))
        picture = picture.resize(cell, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS)
        x, y = margin + k % columns * pitch[0], margin + k // columns * pitch[1]
        sheet.paste(picture, (x, y))
        label = f"{index / fps:.2f} s"
        pen.text((x + cell[0] / 2, y + cell[1] + 0.3 * text), label, font=font, fill=(96, 96, 96), anchor="ma")
    return sheet
