"""Pictures that a run draws of its progress: sheets of samples, paths, transparency over a checkerboard."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw


def sheet(pictures: np.ndarray, columns: int = 8, zoom: int = 3) -> Image.Image:
    """Draw pictures, (B, H, W, 3) in [0, 1], side by side, `zoom` times as large."""
    tiles = (pictures * 255).round().astype(np.uint8)
    height, width = tiles.shape[1:3]
    drawn = Image.new("RGB", (min(columns, len(tiles)) * width, -(-len(tiles) // columns) * height))
    for i, tile in enumerate(tiles):
        drawn.paste(Image.fromarray(tile), (i % columns * width, i // columns * height))
    return drawn.resize((drawn.width * zoom, drawn.height * zoom), Image.Resampling.NEAREST)


def path_sheet(paths: np.ndarray, titles: list[str], *, side: int = 128, shown: int = 6) -> Image.Image:
    """Draw paths, (rows, columns, F, 4) as in `diffusion.layout`: the subject's square at some times, dark to bright.

    Args:
        titles: one for each row.
        side: of a path's frame in pixels.
        shown: how often its square is drawn.
    """
    rows, columns = paths.shape[:2]
    picture = Image.new("RGB", (columns * side, rows * (side + 12)), "white")
    draw = ImageDraw.Draw(picture)
    for row, title in enumerate(titles):
        top = row * (side + 12)
        draw.text((2, top), title, fill="black")
        for column in range(columns):
            frame = Image.new("RGB", (side, side), (24, 24, 32))
            inside = ImageDraw.Draw(frame)
            path = paths[row, column]
            inside.line([tuple((xy + 1) / 2 * side) for xy in path[:, :2]], fill=(90, 90, 120))
            for i, index in enumerate(np.linspace(0, len(path) - 1, shown).round().astype(int)):
                x, y, size, angle = path[index]
                turn = angle + np.pi * (0.25 + 0.5 * np.arange(4))
                corners = np.stack([x + size * np.sqrt(2) * np.cos(turn), y + size * np.sqrt(2) * np.sin(turn)], axis=1)
                shade = 70 + 180 * i // max(shown - 1, 1)
                inside.polygon([tuple((corner + 1) / 2 * side) for corner in corners], outline=(shade, shade, 80))
            picture.paste(frame, (column * side, top + 12))
    return picture


def on_checkers(pictures: torch.Tensor) -> torch.Tensor:
    """Composite premultiplied RGBA in [-1, 1], (B, 4, H, W), over a checkerboard: (B, 3, H, W), about [0, 1]."""
    rgba = pictures / 2 + 0.5
    row = torch.arange(pictures.shape[-1], device=pictures.device) // 8
    board = 0.75 + 0.2 * ((row[:, None] + row[None]) % 2)
    return rgba[:, :3] + (1 - rgba[:, 3:]) * board
