"""How far what a clip shows moves from frame to frame, by block matching: any content, no network."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

_SIDE, _BLOCK, _REACH = 64, 8, 6  # longer side that is looked at, blocks, and how far one is looked for, pixels
_TEXTURE = 2e-4  # variance of luma below which a block is plain, and its motion cannot be seen
_GAIN = 0.9  # a block has moved if it matches so much better elsewhere: grain and codecs move nothing
_STILL = 1e-5  # mean squared difference that codecs leave in a still block


def displacement(frames: np.ndarray) -> float:
    """Return the mean path of blocks from frame to frame, in widths of the longer side; 0 for a still clip.

    Plain blocks count as still. Faster than about a tenth of the frame a frame is not followed.

    Args:
        frames: (F, H, W, 3), float in [0, 1].
    """
    luma = torch.from_numpy(frames.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32))[:, None]
    scale = _SIDE / max(luma.shape[-2:])
    size = [max(round(side * scale / _BLOCK), 1) * _BLOCK for side in luma.shape[-2:]]
    luma = F.interpolate(luma, size=size, mode="bilinear", antialias=True, align_corners=False)
    before, after = luma[:-1], F.pad(luma[1:], (_REACH,) * 4, mode="replicate")
    if not len(before):
        return 0.0
    shifts = [(y, x) for y in range(-_REACH, _REACH + 1) for x in range(-_REACH, _REACH + 1)]
    shifts.sort(key=lambda shift: shift[0] ** 2 + shift[1] ** 2)  # of equal matches the nearest counts
    height, width = size
    costs = torch.stack([
        F.avg_pool2d((after[..., _REACH + y :, _REACH + x :][..., :height, :width] - before).square(), _BLOCK)
        for y, x in shifts
    ])  # fmt: skip
    best, index = costs.min(0)
    texture = F.avg_pool2d(before.square(), _BLOCK) - F.avg_pool2d(before, _BLOCK).square()
    moved = (best < _GAIN * costs[0]) & (costs[0] > _STILL) & (texture > _TEXTURE)
    lengths = torch.tensor(shifts, dtype=torch.float32).norm(dim=1)[index]
    return float((lengths * moved).mean()) / _SIDE
