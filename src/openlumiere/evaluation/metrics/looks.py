"""What an eye minds in a clip beside what it shows: grain, wobble, and motion that is too small or of another speed.

Read from the pixels alone, at the clip's own size. Clips are uint8 or float in [0, 1], (F, H, W, 3), or with straight
alpha as a fourth channel. Read each measure against that of real clips of the same scenes: only the two together
say anything, since subjects have animations of their own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from .pixels import as_clip, ground_color, lab, transparent

# CIELAB distance of a blurred pixel from the ground from which on it belongs to the subject. Blurred, as grain is none.
_SUBJECT_FROM = 8.0
_CELL, _NEAR = 4, 8  # pixels of 128: side of the blur, and how far beyond it from the subject the ground begins
_APART = (0.06, 0.2)  # distance in RGB from the ground at which a pixel begins to count as the subject, and in full
_ALIGNED = 64  # side of the aligned subject in pixels
_REACH = 2.4  # sides of the aligned square in radii of the subject's mass
_ANGLES, _RADII = 90, 8
_MOST_TURN = 40.0  # degrees a frame


@dataclass(frozen=True)
class Parts:
    """A clip taken apart.

    Attributes:
        color: premultiplied RGB in [0, 1], (F, 3, H, W); of an opaque clip the RGB itself.
        alpha: (F, H, W); ones in an opaque clip.
        subject: how much a pixel is the subject, (F, H, W) in [0, 1].
        ground: pixels that should be plain, bool (F, H, W).
        behind: the ground's own red, green, blue and alpha, (4,), premultiplied.
    """

    color: torch.Tensor
    alpha: torch.Tensor
    subject: torch.Tensor
    ground: torch.Tensor
    behind: torch.Tensor


def take_apart(frames: np.ndarray | torch.Tensor) -> Parts:
    """Find the subject and the ground of a clip, transparent or not."""
    clip = as_clip(frames, side=None, channels=None)
    scale = clip.shape[-1] / 128
    alpha = clip[:, 3] if clip.shape[1] == 4 else torch.ones_like(clip[:, 0])
    color = clip[:, :3] * alpha[:, None]
    if transparent(frames):
        behind = torch.zeros(4)
        subject = alpha
        solid = alpha > 0.04
    else:
        plain = ground_color(color)
        behind = torch.cat([plain, torch.ones(1)])
        # The blurred picture needs no full resolution, and CIELAB is slow.
        cell = max(round(_CELL * scale), 1)
        blurred = F.avg_pool2d(color, cell)
        tone = lab(plain[None])[0][None, :, None, None]
        solid = ((lab(blurred) - tone).norm(dim=1) > _SUBJECT_FROM).float()
        solid = F.max_pool2d(solid[:, None], 3, stride=1, padding=1)
        solid = F.interpolate(solid, size=color.shape[-2:])[:, 0] > 0
        apart = (color - plain[None, :, None, None]).norm(dim=1)
        subject = ((apart - _APART[0]) / (_APART[1] - _APART[0])).clamp(0, 1) * solid
    near = max(round(_NEAR * scale), 1)
    wide = F.max_pool2d(solid[:, None].float(), 2 * near + 1, stride=1, padding=near)[:, 0]
    return Parts(color, alpha, subject, wide == 0, behind)


def grain(parts: Parts) -> float:
    """Return the RMS distance of the ground's pixels from its colour, in 1/255 of a channel; nan without ground."""
    both = torch.cat([parts.color, parts.alpha[:, None]], dim=1).permute(0, 2, 3, 1)[parts.ground]
    if not len(both):
        return math.nan
    channels = 4 if bool((parts.behind[3] == 0) | (parts.alpha.min() < 1)) else 3
    off = (both - both.median(0).values)[:, :channels]
    return float(off.square().mean().sqrt() * 255)


def wobble(parts: Parts) -> float:
    """Return the mean absolute second difference in time of the subject, aligned in position and size, in 1/255.

    Steady motion has little, an animation of the subject's own some, and details that come and go have much.
    """
    if len(parts.subject) < 3:
        return math.nan
    x, y, radius = _centre_of(parts.subject)
    # The size is smoothed: a subject that pulsates from frame to frame should count.
    kernel = torch.ones(1, 1, 9) / 9
    radius = F.conv1d(F.pad(radius[None, None], (4, 4), mode="replicate"), kernel)[0, 0]
    zoom = _REACH * radius / 2
    zero = torch.zeros_like(x)
    maps = torch.stack([torch.stack([zoom, zero, x], 1), torch.stack([zero, zoom, y], 1)], dim=1)
    grid = F.affine_grid(maps, [len(x), 1, _ALIGNED, _ALIGNED], align_corners=False)
    cut = torch.cat([parts.color, parts.subject[:, None]], dim=1)
    seen = F.grid_sample(cut, grid, padding_mode="border", align_corners=False)
    weight = seen[1:-1, 3]
    change = (seen[2:, :3] - 2 * seen[1:-1, :3] + seen[:-2, :3]).abs().mean(1)
    return float((change * weight).sum() / weight.sum().clamp(min=1e-6) * 255)


def amplitude(parts: Parts) -> float:
    """Return the extent of the subject's path in frame widths: the diagonal of the box that holds 90 % of it."""
    x, y, _ = _centre_of(parts.subject)
    path = torch.stack([x, y]).numpy() / 2
    low, high = np.quantile(path, [0.05, 0.95], axis=1)
    return float(np.hypot(*(high - low)))


def turn(parts: Parts) -> float:
    """Return by how much the subject turns over the clip, in degrees, clockwise on screen.

    The sum over pairs of frames of the angle at which the subject, in polar coordinates about its centre, matches the
    one before best.
    """
    x, y, radius = _centre_of(parts.subject)
    angles = torch.arange(_ANGLES) * (2 * torch.pi / _ANGLES)
    radii = torch.linspace(0.25, 1.3, _RADII)
    ring = torch.stack([torch.cos(angles), torch.sin(angles)], -1)[None] * radii[:, None, None]
    grid = ring[None] * radius[:, None, None, None] + torch.stack([x, y], -1)[:, None, None]
    cut = torch.cat([(parts.color - parts.behind[None, :3, None, None]), parts.subject[:, None]], dim=1)
    polar = F.grid_sample(cut, grid, align_corners=False)
    polar = polar - polar.mean(-1, keepdim=True)  # what does not depend on the angle says nothing of turning
    spectrum = torch.fft.rfft(polar)
    match = torch.fft.irfft((spectrum[:-1].conj() * spectrum[1:]).sum((1, 2)), n=_ANGLES)
    step = 360 / _ANGLES
    most = int(_MOST_TURN / step)
    offsets = torch.arange(-most, most + 1)
    near = match[:, offsets % _ANGLES]
    best = near.argmax(1)
    total = 0.0
    for row, index in zip(match, offsets[best].tolist(), strict=True):
        before, at, after = (float(row[(index + shift) % _ANGLES]) for shift in (-1, 0, 1))
        bend = before - 2 * at + after
        total += step * (index + (0.5 * (before - after) / bend if bend < -1e-9 else 0.0))
    return total


def _centre_of(subject: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the centre x, y in [-1, 1] of the frame, and the radius of a disc of as much mass, (F,) each."""
    side = subject.shape[-1]
    axis = (torch.arange(side) + 0.5) / side * 2 - 1
    mass = subject.sum((1, 2)) + 1e-3
    x, y = (subject.sum(1) * axis).sum(1) / mass, (subject.sum(2) * axis).sum(1) / mass
    return x, y, (mass * 4 / side**2 / torch.pi).sqrt().clamp(min=4 / side)


def measure(frames: np.ndarray | torch.Tensor) -> dict[str, float]:
    """Return all of the above by name."""
    parts = take_apart(frames)
    return {
        "grain": grain(parts), "wobble": wobble(parts), "amplitude": amplitude(parts), "turn": turn(parts),
    }  # fmt: skip
