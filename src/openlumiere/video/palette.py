"""Palettes with alpha, one for a whole clip, for animated PNGs of few bytes."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

_SAMPLE = 2**15  # pixels that a palette is learned from
_ROUNDS = 6
_WIDE_FROM = 12  # step from which pixels farther off are looked at
_KEPT_BITS = 6  # of each channel, by which equal colours are looked up together


def palette_of(frames: np.ndarray, colours: int) -> np.ndarray:
    """Choose the colours, with their alpha, that stand for a clip's with the least error: k-means.

    Distances are of premultiplied colours, so that a colour counts as far as it is seen. Fully transparent is always
    among them where the clip has it: ground that is nearly transparent would show.

    Args:
        frames: uint8, (frames, height, width, 3 or 4).
        colours: 2 to 256.

    Returns:
        uint8, (colours or fewer, 4), straight alpha, fully transparent first.
    """
    pixels = _with_alpha(frames).reshape(-1, 4)
    visible = pixels[pixels[:, 3] > 0]
    has_clear = len(visible) < len(pixels)
    if not len(visible):
        return np.zeros((1, 4), np.uint8)
    sample = visible[:: max(1, len(visible) // _SAMPLE)]
    points = _premultiplied(sample)
    count = colours - has_clear
    # Pillow's octree is quick and rough; rounds of k-means make up for it.
    start = Image.fromarray(points.round().astype(np.uint8)[None]).quantize(count, method=Image.Quantize.FASTOCTREE)
    centres = np.array(start.getpalette("RGBA"), np.float32).reshape(-1, 4)
    for _ in range(_ROUNDS):
        own, distance = _assign(points, centres)
        sizes = np.bincount(own, minlength=len(centres))
        sums = np.stack([np.bincount(own, points[:, c], len(centres)) for c in range(4)], 1)
        centres = (sums[sizes > 0] / sizes[sizes > 0, None]).astype(np.float32)
        if missing := count - len(centres):  # those too many for the octree, or that died out
            farthest = np.unique(points[np.argsort(distance)[-8 * missing :]], axis=0)[::-1][:missing]
            centres = np.vstack([centres, farthest[np.linspace(0, len(farthest) - 1, missing).astype(int)]])
    table = np.unique(_straight(centres), axis=0)
    table = table[table[:, 3] > 0]
    return np.vstack([np.zeros((1, 4), np.uint8), table]) if has_clear else table


def nearest(frames: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Look up the nearest colour of a palette for each pixel: uint8 (frames, height, width, ...) -> (f, h, w)."""
    pixels = _with_alpha(frames)
    low = 8 - _KEPT_BITS
    keys: np.ndarray = np.zeros(pixels.shape[:3], np.uint32)
    for c in range(4):
        keys = keys << _KEPT_BITS | pixels[..., c] >> low
    distinct, where = np.unique(keys, return_inverse=True)
    mask, half = 2**_KEPT_BITS - 1, 2**low // 2
    channels = [(distinct >> (_KEPT_BITS * (3 - c)) & mask) << low for c in range(4)]
    straight = np.stack(channels, 1)
    # The middle of what shares a key; but nothing and all of alpha stay so.
    straight = np.where((straight > 0) & (straight < mask << low), straight + half, straight)
    straight = np.where(straight == mask << low, 255, straight).astype(np.uint8)
    own, _ = _assign(_premultiplied(straight), _premultiplied(table))
    index = own.astype(np.uint8)[where].reshape(keys.shape)
    if (table[:, 3] == 0).any():
        index[pixels[..., 3] == 0] = np.argmin(table[:, 3])
    return index


def despeckle(index: np.ndarray, table: np.ndarray, step: int) -> np.ndarray:
    """Let each pixel take the commonest colour around it where that differs little from its own.

    Borders between colours of the palette become smooth, which compresses better and shows little.

    Args:
        index: uint8, (frames, height, width).
        table: uint8, (colours, 4).
        step: of 255: how far, in any channel, a pixel may depart.
    """
    if step <= 0:
        return index
    colours = _premultiplied(table)
    near = np.abs(colours[:, None] - colours[None]).max(-1) <= step
    common = ImageFilter.ModeFilter(3 if step < _WIDE_FROM else 5)
    cleared = np.empty_like(index)
    for out, frame in zip(cleared, index, strict=True):
        mode = np.asarray(Image.fromarray(frame).filter(common))
        out[:] = np.where(near[frame, mode], mode, frame)
    return cleared


def _with_alpha(frames: np.ndarray) -> np.ndarray:
    if frames.shape[-1] == 4:
        return frames
    return np.concatenate([frames, np.full_like(frames[..., :1], 255)], -1)


def _premultiplied(colours: np.ndarray) -> np.ndarray:
    values = colours.astype(np.float32)
    values[..., :3] *= values[..., 3:] / 255
    return values


def _straight(colours: np.ndarray) -> np.ndarray:
    alpha = colours[:, 3:]
    rgb = colours[:, :3] * 255 / np.maximum(alpha, 1)
    return np.concatenate([rgb, alpha], 1).round().clip(0, 255).astype(np.uint8)


def _assign(points: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest centre of each point, and the squared distance; in pieces that fit the cache."""
    own, distance = np.empty(len(points), np.intp), np.empty(len(points), np.float32)
    norms = np.square(centres).sum(1)
    for i in range(0, len(points), 4096):
        piece = points[i : i + 4096]
        far = norms - 2 * piece @ centres.T
        own[i : i + 4096] = best = far.argmin(1)
        distance[i : i + 4096] = far[np.arange(len(piece)), best] + np.square(piece).sum(1)
    return own, distance
