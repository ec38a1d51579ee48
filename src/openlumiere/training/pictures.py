"""What a run shows of itself as it goes."""

from __future__ import annotations

import numpy as np
from PIL import Image


def sheet(pictures: np.ndarray, columns: int = 8, zoom: int = 3) -> Image.Image:
    """Pictures (B, H, W, 3) in [0, 1] side by side, enlarged."""
    tiles = (pictures * 255).round().astype(np.uint8)
    height, width = tiles.shape[1:3]
    sheet = Image.new("RGB", (min(columns, len(tiles)) * width, -(-len(tiles) // columns) * height))
    for i, tile in enumerate(tiles):
        sheet.paste(Image.fromarray(tile), (i % columns * width, i // columns * height))
    return sheet.resize((sheet.width * zoom, sheet.height * zoom), Image.Resampling.NEAREST)
