"""Clips in the canonical frame of their subject: it stays upright in the middle, and moves there by itself alone.

A network that has to draw a subject turned, small or half outside draws a worse one, and another in each frame. But
where a path is known, only what the subject does by itself is left to be drawn: the network is told that it stays, and
each frame is then moved to where the path has it. Models of scenes that deform make the same split, between a canonical
frame and the way from there (Park et al. 2021, Nerfies). The paper does not.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .ground import ground_of
from .layout import layout_of
from .transport import transported

# Sides of a subject's square that leave room for what it does by itself; what is to be smaller is drawn no smaller than
# the first, and made smaller when it is moved: small subjects are drawn worse.
_SMALLEST, _LARGEST = 0.75, 0.85
# Of 2: what differs by less from the ground is ground, what differs by more than the second stays as it is. In between
# are grain and the soft rim of a subject. At the frame's edge, which would show where it is moved to, both are larger:
# a ground that was meant to be plain may be some 30 / 255 off in places.
_GRAIN, _SUBJECT = 2 * 6 / 255, 2 * 20 / 255
_AT_EDGE = 2 * 30 / 255
_NEAR = 0.15  # of the side: so far from the edge it is as if there was none
_FRAMES_AT_ONCE = 64  # so that a long clip's intermediate values take no more memory than a short one's


@dataclass(frozen=True)
class CanonicalFrame:
    """Where subjects are drawn, and where they belong.

    Attributes:
        layout: what the network is told, (B, F, 6), see `diffusion.layout`: upright in the middle, as large as the path
            ever has them, but 0.75 to 0.85 of the frame's side.
        path: where they are to be, (B, F, 6).
    """

    layout: torch.Tensor
    path: torch.Tensor

    @classmethod
    def of(cls, path: torch.Tensor) -> CanonicalFrame:
        """Return that of paths which are told in all frames."""
        return cls(layout_of(canonical_poses(path[..., 2].exp())), path)

    def moved(self, clips: torch.Tensor, frames: list[int] | None = None) -> torch.Tensor:
        """Return clips, (B, C, F, H, W) in [-1, 1], with subjects where they belong, on a ground made even; float32.

        Args:
            frames: which of the clip's these are; all when None.
        """
        at = torch.arange(self.path.shape[1]) if frames is None else torch.tensor(frames)
        layouts = self.layout[:, at], self.path[:, at]
        return torch.stack([self._moved(*each) for each in zip(clips, *layouts, strict=False)])

    @staticmethod
    def _moved(clip: torch.Tensor, layout: torch.Tensor, path: torch.Tensor) -> torch.Tensor:
        clip = clip.float().clamp(-1, 1)  # half precision places a pixel by a sixteenth
        grounds = ground_of(clip)
        ground = grounds.median(1, keepdim=True).values
        least = _GRAIN + _AT_EDGE * _near_edge(clip)
        parts = []
        for at in torch.arange(clip.shape[1], device=clip.device).split(_FRAMES_AT_ONCE):
            differs = clip[:, at] - grounds[:, at]
            share = ((differs.abs().amax(0) - least) / (_SUBJECT - _GRAIN)).clamp(0, 1)
            subject = (differs * (share * share * (3 - 2 * share))).transpose(0, 1)
            rows = at.to(layout.device)
            moved = transported(subject, layout[rows], path[rows], interpolation="bicubic")
            parts.append(moved.transpose(0, 1) + ground)
        return torch.cat(parts, dim=1)


def canonical_poses(sides: torch.Tensor) -> torch.Tensor:
    """Return where a `CanonicalFrame` has subjects of these sides, (..., F): x, y, side and angle, (..., F, 4)."""
    poses = torch.zeros(*sides.shape, 4, dtype=sides.dtype)
    poses[..., 2] = sides.amax(-1, keepdim=True).clamp(_SMALLEST, _LARGEST)
    return poses


def _near_edge(clip: torch.Tensor) -> torch.Tensor:
    """Return how near pixels are to the edge of their frame, (H, W): 1 at it, 0 from `_NEAR` of the side on."""
    height, width = clip.shape[-2:]
    y, x = (
        (torch.arange(side, device=clip.device, dtype=clip.dtype) + 0.5).div(side).sub(0.5).abs().sub(0.5 - _NEAR)
        for side in (height, width)
    )
    return torch.maximum(y[:, None], x).clamp(min=0) / _NEAR
