"""Draws scenes: a subject's RGBA animation, placed and moved over a plain background."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from .scenes import Scene, animation_frames, trajectory, vocabulary

# Pictures are drawn this many times larger and averaged down, so that their edges are smooth.
_SUPERSAMPLING = 2
# Pixels of a picture that a drawn one may step over: above, every second one would be missed.
_LARGEST_STEP = 1.5


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


def render(pictures: torch.Tensor, poses: torch.Tensor, *, size: int) -> torch.Tensor:
    """Draw each picture in a frame of its own, on any device.

    Args:
        pictures: premultiplied RGBA, (N, 4, S, S), uint8 or float in [0, 1].
        poses: (N, 4): centre x, centre y (in [-1, 1] of the frame, y down), side of the picture as a fraction of the
            frame's, angle in radians (clockwise on screen).
        size: height and width of the frames in pixels.

    Returns:
        Premultiplied RGBA in [0, 1], float32, (N, 4, size, size); transparent around the picture.
    """
    fine = size * _SUPERSAMPLING
    step = pictures.shape[-1] / (poses[:, 2] * fine)
    # Small copies of large pictures are drawn of pictures averaged beforehand, or details would alias.
    halvings = (step / _LARGEST_STEP).log2().ceil().clamp(0, 4).long()
    frames = torch.empty(len(pictures), 4, size, size, device=pictures.device)
    for level in halvings.unique().tolist():
        chosen = (halvings == level).nonzero()[:, 0]
        source = pictures[chosen]
        source = source.float() / 255.0 if source.dtype == torch.uint8 else source.float()
        source = F.avg_pool2d(source, 2**level) if level else source
        grid = F.affine_grid(_from_frame(poses[chosen]), [len(chosen), 4, fine, fine], align_corners=False)
        frames[chosen] = F.avg_pool2d(F.grid_sample(source, grid, align_corners=False), _SUPERSAMPLING)
    return frames


def _from_frame(poses: torch.Tensor) -> torch.Tensor:
    """The affine maps, (N, 2, 3), from a frame's coordinates to its picture's: rotate back, then scale."""
    x, y, side, angle = poses.float().unbind(1)
    cos, sin = torch.cos(angle) / side, torch.sin(angle) / side
    across = torch.stack([cos, sin, -(cos * x + sin * y)], dim=1)
    down = torch.stack([-sin, cos, sin * x - cos * y], dim=1)
    return torch.stack([across, down], dim=1)


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

    source = atlas.frames[torch.from_numpy(chosen)]
    subject = render(source, torch.from_numpy(path).float(), size=size)

    color = torch.tensor(vocabulary()["backgrounds"][scene.background]) / 255.0
    rgb, alpha = subject[:, :3], subject[:, 3:]
    rgb = rgb + (1.0 - alpha) * color[None, :, None, None]
    return (rgb * 2.0 - 1.0).clamp(-1.0, 1.0).transpose(0, 1), alpha.clamp(0.0, 1.0).transpose(0, 1)
