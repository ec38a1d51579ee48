"""A clip's pixels brought to a sticker's canvas: cut to the subject, resized, outlined."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from openlumiere.errors import LumiereError

from .targets import StickerTarget

_VISIBLE = 8  # of 255: fainter alpha is no part of the subject
_MARGIN = 0.03  # of the canvas' side, around a subject that was cut out
MAX_OUTLINE = 0.1  # of the canvas' side


def subject_box(frames: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns in which anything is visible in any frame: uint8, (frames, height, width, 4).

    Raises:
        LumiereError: nothing is.
    """
    visible = frames[..., 3].max(0) >= _VISIBLE
    if not visible.any():
        raise LumiereError("the clip is transparent throughout: there is nothing to make a sticker of")
    rows, columns = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def shape(
    frames: np.ndarray, target: StickerTarget, *, crop: bool = False, outline: int = 0,
    outline_colour: tuple[int, int, int] = (255, 255, 255),
) -> np.ndarray:  # fmt: skip
    """Bring frames to the target's canvas; what they don't fill of it is transparent.

    Args:
        frames: uint8, (frames, height, width, 4), straight alpha.
        crop: cut to the subject: all that is visible in any frame, and a margin.
        outline: pixels of the finished sticker; room is made for it.

    Returns:
        uint8, (frames, height, width, 4).

    Raises:
        LumiereError: `crop` of a clip without transparency, an outline too wide, or nothing to see.
    """
    if outline > MAX_OUTLINE * target.side:
        most = int(MAX_OUTLINE * target.side)
        raise LumiereError(f"an outline of {outline} pixels is too wide for {target.name}: at most {most}")
    rows, columns = subject_box(frames)
    height, width = frames.shape[1:3]
    if crop:
        if (frames[..., 3] >= 255 - _VISIBLE).all():
            raise LumiereError("the clip has no transparency to find its subject by; leave out the crop to the subject")
        frames = frames[:, rows, columns]
        inset = round(_MARGIN * target.side) + outline
    else:
        gap = min(rows.start, columns.start, height - rows.stop, width - columns.stop)
        room = outline + 1 if outline else 0
        inset = 0 if gap * target.side / max(height, width) >= room else room
    height, width = frames.shape[1:3]
    inner = target.side - 2 * inset
    scale = inner / max(height, width)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    if target.square:
        canvas = target.side, target.side
    else:  # even, as video has one colour for two pixels
        canvas = tuple(min(math.ceil((side + 2 * inset) / 2) * 2, target.side) for side in size)
    shaped = np.zeros((len(frames), canvas[1], canvas[0], 4), np.uint8)
    top, left = (canvas[1] - size[1]) // 2, (canvas[0] - size[0]) // 2
    for picture, frame in zip(shaped, frames, strict=True):
        # Pillow weighs colours by alpha; bicubic, as Lanczos' second lobe would leave a ring of faint alpha around.
        resized = Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC)
        picture[top : top + size[1], left : left + size[0]] = np.asarray(resized)
    return add_outline(shaped, outline, outline_colour) if outline else shaped


def add_outline(frames: np.ndarray, radius: int, colour: tuple[int, int, int]) -> np.ndarray:
    """Lay a line of one colour around all that is visible, antialiased.

    Alpha is dilated by a disc whose rim is antialiased: each pixel takes the greatest alpha within the radius, less at
    the rim. Haze of less than a quarter gets no line.

    Args:
        frames: uint8, (frames, height, width, 4).
        radius: pixels.
    """
    reach = radius + 1
    offsets = [
        (dy, dx, round(256 * min(radius + 0.5 - math.hypot(dy, dx), 1)))
        for dy in range(-reach, reach + 1)
        for dx in range(-reach, reach + 1)
        if math.hypot(dy, dx) < radius + 0.5
    ]
    outlined = np.empty_like(frames)
    height, width = frames.shape[1:3]
    for out, frame in zip(outlined, frames, strict=True):
        alpha = frame[..., 3]
        firm = np.pad((alpha.astype(np.int16) * 2 - 128).clip(0, 255).astype(np.uint16), reach)
        line = np.zeros((height, width), np.uint16)
        for dy, dx, weight in offsets:
            part = firm[reach + dy : reach + dy + height, reach + dx : reach + dx + width]
            np.maximum(line, part if weight >= 256 else part * weight >> 8, out=line)
        own = alpha.astype(np.float32) / 255
        beneath = line / np.float32(255) * (1 - own)
        total = own + beneath
        mixed = frame[..., :3] * own[..., None] + np.array(colour, np.float32) * beneath[..., None]
        out[..., :3] = (mixed / np.maximum(total, 1e-6)[..., None]).round().clip(0, 255)
        out[..., 3] = (total * 255).round()
    return outlined
