"""Draws scenes: a subject's RGBA animation, placed and moved over a plain background."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from .scenes import Scene, animation_frames, trajectory, vocabulary

# The subject is drawn this many times larger and averaged down, so that its edges are smooth.
_SUPERSAMPLING = 2


@dataclass(frozen=True)
class Atlas:
    """One subject's animation loop.

    Attributes:
        key: the subject's key.
        names: what captions may call it.
        frames: uint8, shape (loop, 4, side, side): premultiplied RGB and alpha, at 16 fps.
    """

    key: str
    names: list[str]
    frames: torch.Tensor


def draw(
    scene: Scene,
    atlas: Atlas,
    *,
    size: int,
    num_frames: int = 80,
    frames: list[int] | None = None,
    held_out_animation: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw a scene's clip, or some of its frames.

    Args:
        size: height and width in pixels.
        num_frames: length of the whole clip; motions spread over it.
        frames: indices of the frames to draw; all when None.
        held_out_animation: draw the held-out half of the subject's animation, where there is one.

    Returns:
        RGB in [-1, 1], shape (3, frames, size, size), and the subject's alpha in [0, 1],
        shape (1, frames, size, size).
    """
    wanted = np.arange(num_frames) if frames is None else np.asarray(frames)
    path = trajectory(scene, wanted / max(num_frames - 1, 1))
    loop = animation_frames(scene.subject, len(atlas.frames), held_out=held_out_animation)
    if not len(loop):
        loop = animation_frames(scene.subject, len(atlas.frames))
    chosen = loop[(wanted + int(scene.drift[2] * len(loop))) % len(loop)]

    x, y, side, angle = (torch.from_numpy(column).float() for column in path.T)
    cos, sin = torch.cos(angle) / side, torch.sin(angle) / side
    # Inverse map, frame -> subject: rotate back and scale about the subject's centre.
    theta = torch.stack(
        [
            torch.stack([cos, sin, -(cos * x + sin * y)], dim=1),
            torch.stack([-sin, cos, sin * x - cos * y], dim=1),
        ],
        dim=1,
    )
    fine = size * _SUPERSAMPLING
    grid = F.affine_grid(theta, [len(wanted), 4, fine, fine], align_corners=False)
    source = atlas.frames[torch.from_numpy(chosen)].float() / 255.0
    subject = F.avg_pool2d(F.grid_sample(source, grid, align_corners=False), _SUPERSAMPLING)

    color = torch.tensor(vocabulary()["backgrounds"][scene.background]) / 255.0
    rgb, alpha = subject[:, :3], subject[:, 3:]
    rgb = rgb + (1.0 - alpha) * color[None, :, None, None]
    return (rgb * 2.0 - 1.0).clamp(-1.0, 1.0).transpose(0, 1), alpha.clamp(0.0, 1.0).transpose(0, 1)
