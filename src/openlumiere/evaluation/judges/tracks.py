"""What can be read from a clip's pixels alone: background colour, the subject's track, how much of it moves.

All measures look at the clip averaged down to `SIDE` pixels, so that models of any size are judged alike.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F

from openlumiere.data.emoji.scenes import vocabulary
from openlumiere.errors import LumiereError

SIDE = 32

# A pair of frames differs if at least this share of the pixels changes by more than this much in some channel
# (of 1): a still picture through H.264 stays below both, and real clips stay above (measured in the report).
CHANGED_BY = 3.0 / 255.0
CHANGED_PIXELS = 0.004

# CIELAB distance from the background at which a pixel begins to count as the subject, and counts in full. A
# just noticeable difference is 2.3.
_SUBJECT_FROM, _SUBJECT_FULL = 5.0, 20.0

# Time points that tracks are read at. 48 intervals: a sixteenth of a clip is 3 of them, a quarter 12.
TRACK_POINTS = 49
_LAGS = (3, 12)
_ANGLES, _RADII = 24, 6
_CYCLES = (1, 2, 3, 4, 5)
_OSCILLATIONS = tuple(range(1, 11))  # cycles a clip; the fastest bounce has eight


def as_clip(
    frames: np.ndarray | torch.Tensor,
    at: np.ndarray | None = None,
    *,
    side: int | None = SIDE,
    channels: int | None = 3,
) -> torch.Tensor:
    """Frames as the judges see them.

    Args:
        frames: (F, H, W, 3), uint8 or float in [0, 1].
        at: indices of the frames to take; all when None.
        side: height and width to give them; None = as they are.
        channels: None = 3, or 4 with alpha.

    Returns:
        float32 (F, channels, side, side) in [0, 1].
    """
    # Copied, as torch takes no array that is read-only or runs backwards.
    clip = frames if isinstance(frames, torch.Tensor) else torch.from_numpy(np.array(frames))
    if clip.ndim != 4 or clip.shape[-1] not in ([channels] if channels else (3, 4)):
        wanted = channels or "3 or 4"
        raise LumiereError(f"a clip must have the shape (frames, height, width, {wanted}), not {tuple(clip.shape)}")
    if at is not None:
        clip = clip[torch.from_numpy(at)]
    clip = clip.float() / 255.0 if clip.dtype == torch.uint8 else clip.float().clamp(0.0, 1.0)
    clip = clip.permute(0, 3, 1, 2)
    if side is None or clip.shape[-2:] == (side, side):
        return clip
    return F.interpolate(clip, size=(side, side), mode="bilinear", antialias=True, align_corners=False)


def lab(rgb: torch.Tensor) -> torch.Tensor:
    """sRGB in [0, 1] to CIELAB (D65), over dimension 1 of (N, 3, ...)."""
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    matrix = torch.tensor(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    )
    matrix = matrix / matrix.sum(1, keepdim=True)  # white becomes (1, 1, 1)
    xyz = torch.einsum("ij,nj...->ni...", matrix, linear)
    f = torch.where(xyz > (6 / 29) ** 3, xyz.clamp(min=1e-8) ** (1 / 3), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = f.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


@lru_cache(maxsize=1)
def _named_colors() -> tuple[list[str], torch.Tensor]:
    colors = vocabulary()["backgrounds"]
    return list(colors), lab(torch.tensor(list(colors.values())).float() / 255.0)


def background(clip: torch.Tensor) -> tuple[str, torch.Tensor]:
    """The background's name, by vote of all border pixels, and its colour.

    Each pixel votes for the vocabulary's nearest colour in CIELAB, so a subject that crosses the border is outvoted.

    Args:
        clip: (F, 3, SIDE, SIDE) in [0, 1].

    Returns:
        Name, and CIELAB colour of shape (3,): the median of the winner's voters.
    """
    name, pixels = _winners(clip)
    return name, lab(pixels).median(0).values


def ground_color(clip: torch.Tensor) -> torch.Tensor:
    """The red, green and blue of a clip's background, (3,): as `background`'s, in sRGB, at any size."""
    return _winners(clip)[1].median(0).values


def _winners(clip: torch.Tensor) -> tuple[str, torch.Tensor]:
    """The colour that most border pixels are nearest to, and those pixels, (N, 3)."""
    ring = torch.cat([clip[..., 0, :], clip[..., -1, :], clip[..., 1:-1, 0], clip[..., 1:-1, -1]], dim=-1)
    pixels = ring.transpose(1, 2).reshape(-1, 3)
    names, colors = _named_colors()
    votes = torch.cdist(lab(pixels), colors).argmin(1)
    winner = int(votes.bincount(minlength=len(names)).argmax())
    return names[winner], pixels[votes == winner]


def transparent(frames: np.ndarray | torch.Tensor) -> bool:
    """Whether most pixels at a clip's border, over all frames, are transparent."""
    clip = as_clip(frames, side=None, channels=None)
    if clip.shape[1] == 3:
        return False
    alpha = clip[:, 3]
    ring = torch.cat([alpha[:, 0], alpha[:, -1], alpha[:, 1:-1, 0], alpha[:, 1:-1, -1]], dim=-1)
    return bool((ring < 0.5).float().mean() > 0.5)


def on_contrast(frames: np.ndarray | torch.Tensor) -> np.ndarray | torch.Tensor:
    """A clip with straight alpha over the vocabulary's colour that is furthest from its subject's; others as they are.

    Args:
        frames: (F, H, W, 3 or 4), uint8 or float in [0, 1].

    Returns:
        (F, H, W, 3); float in [0, 1] where there was alpha.
    """
    if frames.shape[-1] == 3:
        return frames
    clip = as_clip(frames, side=None, channels=4)
    alpha = clip[:, 3:]
    own = (clip[:, :3] * alpha).sum((0, 2, 3)) / alpha.sum().clamp(min=1e-6)
    _, colors = _named_colors()
    furthest = int((colors - lab(own[None])).norm(dim=1).argmax())
    behind = torch.tensor(list(vocabulary()["backgrounds"].values())[furthest])[None, :, None, None] / 255
    return (clip[:, :3] * alpha + behind * (1 - alpha)).permute(0, 2, 3, 1)


def moving_fraction(frames: np.ndarray | torch.Tensor) -> float:
    """Fraction of adjacent pairs of frames that differ by more than codec noise; 0 for a still picture.

    Args:
        frames: (F, H, W, 3), uint8 or float in [0, 1].
    """
    clip = as_clip(frames)
    if len(clip) < 2:
        return 0.0
    changed = (clip[1:] - clip[:-1]).abs().amax(1) > CHANGED_BY
    return float((changed.float().mean((1, 2)) >= CHANGED_PIXELS).float().mean())


def track_indices(num_frames: int) -> np.ndarray:
    """Frames that `track_features` looks at, spread evenly; shape (TRACK_POINTS,)."""
    return np.linspace(0, num_frames - 1, TRACK_POINTS).round().astype(int)


def track_features(clip: torch.Tensor) -> torch.Tensor:
    """How the subject moves, in numbers that a small classifier can weigh; shape (FEATURES,).

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
    """The subject's centre in each frame, (F, 2): x and y in [-1, 1] of the frame, y down.

    Args:
        frames: (F, H, W, 3), uint8 or float in [0, 1].
    """
    _, _, x, y = _centre(_subject(as_clip(frames))[1])
    return torch.stack([x, y], 1).numpy()


def _subject(clip: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Difference from the background in CIELAB, (F, 3, SIDE, SIDE), and how much a pixel is the subject."""
    _, color = background(clip)
    difference = lab(clip) - color[None, :, None, None]
    return difference, ((difference.norm(dim=1) - _SUBJECT_FROM) / (_SUBJECT_FULL - _SUBJECT_FROM)).clamp(0.0, 1.0)


def _centre(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pixels' places along an axis, and in each frame the subject's mass and its centre's x and y."""
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
    """Sine and cosine of each rate, (2, rates, TRACK_POINTS)."""
    angle = 2 * torch.pi * torch.tensor(_OSCILLATIONS)[:, None] * torch.linspace(0, 1, TRACK_POINTS)
    return torch.stack([torch.sin(angle), torch.cos(angle)])


def _turning(difference: torch.Tensor, x: torch.Tensor, y: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:
    """Mean correlation of the subject with itself some time later, for each angle turned by.

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
