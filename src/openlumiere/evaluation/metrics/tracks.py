"""The track of a clip's subject: where it is, how large, and how it turns, read from pixels alone."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F

from .pixels import SIDE, as_clip, background, lab

# CIELAB distance from the background at which a pixel begins to count as the subject, and counts in full. A
# just noticeable difference is 2.3.
_SUBJECT_FROM, _SUBJECT_FULL = 5.0, 20.0

# Time points that tracks are read at. 48 intervals: a sixteenth of a clip is 3 of them, a quarter 12.
TRACK_POINTS = 49
_LAGS = (3, 12)
_ANGLES, _RADII = 24, 6
_CYCLES = (1, 2, 3, 4, 5)
_OSCILLATIONS = tuple(range(1, 11))  # cycles a clip; the fastest bounce has eight


def track_indices(num_frames: int) -> np.ndarray:
    """Return the frames that `track_features` looks at, spread evenly; shape (TRACK_POINTS,)."""
    return np.linspace(0, num_frames - 1, TRACK_POINTS).round().astype(int)


def track_features(clip: torch.Tensor) -> torch.Tensor:
    """Return how the subject moves, in numbers for a small classifier; shape (FEATURES,).

    The subject is what differs from the background. Of its centre, log area and second moments over the clip: level,
    trend, waves of 1 to 5 cycles, and how much of each rate there is whatever the phase. Of its appearance: how well
    the subject, seen in polar coordinates about its centre, matches itself a sixteenth and a quarter of the clip later,
    for each angle turned by.

    Args:
        clip: (TRACK_POINTS, 3, SIDE, SIDE) in [0, 1]: the frames at `track_indices`.
    """
    difference, weight = _subject(clip)
    axis, mass, x, y = _centre(weight)
    dx, dy = axis[None] - x[:, None], axis[None] - y[:, None]
    sxx, syy = (weight.sum(1) * dx**2).sum(1) / mass, (weight.sum(2) * dy**2).sum(1) / mass
    sxy = torch.einsum("thw,th,tw->t", weight, dy, dx) / mass
    size = (sxx + syy).clamp(min=1e-4)
    log_area = (mass / SIDE**2).clamp(min=1e-3).log()
    tracks = torch.stack([x, y, log_area, size.log(), (sxx - syy) / size, 2 * sxy / size])
    waves = tracks @ _basis().T / TRACK_POINTS
    rates = torch.linalg.vector_norm(tracks @ _oscillations().transpose(1, 2), dim=0) / TRACK_POINTS
    residual = tracks - tracks.mean(1, keepdim=True)
    spread = (residual.square().mean(1) + 1e-6).log()
    turned = _turning(difference * weight[:, None], x, y, (mass * 4 / SIDE**2 / np.pi).sqrt())
    return torch.cat([waves.flatten(), rates.flatten(), spread, turned.flatten()])


def centres(frames: np.ndarray | torch.Tensor) -> np.ndarray:
    """Return the subject's centre in each frame, (F, 2): x and y in [-1, 1] of the frame, y down.

    Args:
        frames: (F, H, W, 3), uint8 or float in [0, 1].
    """
    _, _, x, y = _centre(_subject(as_clip(frames))[1])
    return torch.stack([x, y], 1).numpy()


def _subject(clip: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the difference from the background in CIELAB, (F, 3, SIDE, SIDE), and how much a pixel is the subject."""
    _, color = background(clip)
    difference = lab(clip) - color[None, :, None, None]
    return difference, ((difference.norm(dim=1) - _SUBJECT_FROM) / (_SUBJECT_FULL - _SUBJECT_FROM)).clamp(0.0, 1.0)


def _centre(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return pixels' positions along an axis, and in each frame the subject's mass and its centre's x and y."""
    axis = (torch.arange(SIDE) + 0.5) / SIDE * 2.0 - 1.0
    mass = weight.sum((1, 2)) + 1e-3
    return axis, mass, (weight.sum(1) * axis).sum(1) / mass, (weight.sum(2) * axis).sum(1) / mass


FEATURES = 6 * (2 + 2 * len(_CYCLES) + len(_OSCILLATIONS)) + 6 + len(_LAGS) * _ANGLES


@lru_cache(maxsize=1)
def _basis() -> torch.Tensor:
    t = torch.linspace(0, 1, TRACK_POINTS)
    rows = [torch.ones_like(t), 2 * t - 1]
    for k in _CYCLES:
        rows += [torch.sin(2 * torch.pi * k * t), torch.cos(2 * torch.pi * k * t)]
    return torch.stack(rows)


@lru_cache(maxsize=1)
def _oscillations() -> torch.Tensor:
    """Return the sine and cosine of each rate, (2, rates, TRACK_POINTS)."""
    angle = 2 * torch.pi * torch.tensor(_OSCILLATIONS)[:, None] * torch.linspace(0, 1, TRACK_POINTS)
    return torch.stack([torch.sin(angle), torch.cos(angle)])


def _turning(difference: torch.Tensor, x: torch.Tensor, y: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:
    """Return the mean correlation of the subject with itself some time later, for each angle turned by.

    Args:
        difference: (T, 3, SIDE, SIDE), the subject's difference from the background.
        x, y, radius: (T,), its centre and radius in [-1, 1] of the frame.

    Returns:
        (lags, angles), in [-1, 1].
    """
    angles = torch.arange(_ANGLES) * (2 * torch.pi / _ANGLES)
    radii = torch.linspace(0.3, 1.4, _RADII)
    ring = torch.stack([torch.cos(angles), torch.sin(angles)], -1)[None] * radii[:, None, None]
    grid = ring[None] * radius[:, None, None, None] + torch.stack([x, y], -1)[:, None, None]
    polar = F.grid_sample(difference, grid, align_corners=False)
    polar = polar - polar.mean(-1, keepdim=True)  # what does not depend on the angle says nothing of turning
    polar = polar / polar.flatten(1).norm(dim=1).clamp(min=1e-6)[:, None, None, None]
    spectrum = torch.fft.rfft(polar)
    found = []
    for lag in _LAGS:
        cross = (spectrum[:-lag].conj() * spectrum[lag:]).sum((1, 2))
        found.append(torch.fft.irfft(cross, n=_ANGLES).mean(0))
    return torch.stack(found)
