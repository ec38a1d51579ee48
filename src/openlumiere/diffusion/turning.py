"""How far a subject is turned in each frame: registration in polar coordinates about its centroid.

A turn is a shift of a picture's polar coordinates, found by correlation (De Castro & Morandi 1987, Registration of
translated and rotated images using finite Fourier transforms); as one subject alone is seen, its centroid and its
extent, which turning does not change, take the place of their search for where it is and how large.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

_ANGLES, _RADII = 96, 16
_REACH = 2.0  # what is compared, in the subject's root mean square distance from its centroid
# A subject turns if some frame is turned by more than this, which what waves is not, and if so much less of the
# difference from the first frame is left then; else it is its own animation that moves.
_LEAST = math.radians(40)
_LEFT = 0.5


@dataclass(frozen=True)
class Turning:
    """Where a subject that turns is in N frames.

    Attributes:
        angle: from the first frame, in radians from -pi to pi, clockwise on screen, (N,).
        centroid: x and y in [-1, 1] of the frame, y down, (N, 2).
        extent: root mean square distance from there, (N,).
    """

    angle: torch.Tensor
    centroid: torch.Tensor
    extent: torch.Tensor


def turning(pictures: torch.Tensor, subject: torch.Tensor) -> Turning | None:
    """Return how a subject turns; None where it doesn't.

    Args:
        pictures: of the subject alone, zero around it, (C, N, H, W).
        subject: where it is, in [0, 1], (N, H, W), somewhere in each frame.
    """
    _, _, height, width = pictures.shape
    y, x = ((torch.arange(side) + 0.5) * 2 / side - 1 for side in (height, width))
    share = subject / subject.sum((1, 2), keepdim=True)
    centre = torch.stack([(share * x).sum((1, 2)), (share * y[:, None]).sum((1, 2))], dim=1)
    away = (x - centre[:, 0, None, None]).square() + (y[:, None] - centre[:, 1, None, None]).square()
    extent = (share * away).sum((1, 2)).sqrt().clamp(min=2 / width)

    around = torch.arange(_ANGLES) * 2 * math.pi / _ANGLES
    radius = (torch.arange(_RADII) + 0.5) * _REACH / _RADII
    circles = radius[:, None, None] * torch.stack([around.cos(), around.sin()], dim=-1)  # (R, A, 2)
    grid = centre[:, None, None] + extent[:, None, None, None] * circles
    polar = F.grid_sample(pictures.transpose(0, 1), grid, align_corners=False) * radius.sqrt()[:, None]
    spectrum = torch.fft.rfft(polar)
    together = torch.fft.irfft((spectrum * spectrum[:1].conj()).sum((1, 2)), n=_ANGLES)  # (N, A)
    power = polar.square().sum((1, 2, 3))
    difference = (power + power[0])[:, None] - 2 * together
    best = difference.argmin(1)
    before, at, after = (difference.gather(1, (best + i)[:, None] % _ANGLES)[:, 0] for i in (-1, 0, 1))
    beside = 0.5 * (before - after) / (before + after - 2 * at).clamp(min=1e-12)  # a parabola's least
    angle = (best + beside.clamp(-0.5, 0.5)) * 2 * math.pi / _ANGLES
    angle = torch.remainder(angle + math.pi, 2 * math.pi) - math.pi
    far = angle.abs() > _LEAST
    if not far.any() or at[far].sum() > _LEFT * difference[far, 0].sum():
        return None
    return Turning(angle, centre, extent)
