"""A path in few numbers: a trend over the clip, and an oscillation in real time.

Each of a path's four columns (x, y, log side, angle; see `diffusion.layout`) is a cubic over the clip plus the first
four harmonics of one frequency, which all columns share. Trends stretch with the clip, as a walk across the frame does;
oscillations keep their period, as a bouncing ball does. So 49 numbers hold a path of any length: for each column the
coefficients of Legendre polynomials over the clip, then cosines and sines, and at last the logarithm of the frequency
in hertz. Of the angle's trend the first is the angle half-way, in [-pi, pi), and the second the speed, in radians a
second.
"""

from __future__ import annotations

import math

import torch

from openlumiere.clock import frame_position, swing

COLUMNS, TRENDS, HARMONICS = 4, 4, 4
MOTION_DIM = COLUMNS * (TRENDS + 2 * HARMONICS) + 1
_ANGLE = 3
TURN = slice(_ANGLE * TRENDS, _ANGLE * TRENDS + 2)  # of the numbers: the angle half-way, and the speed
# Hertz. A clip of five seconds shows half a period of the slowest, 16 frames a second five frames of the fastest.
_SLOWEST, _FASTEST = 0.1, 3.0
_OBSERVED, _RATE = 10.0, 32.0  # seconds, and samples a second, that `oscillation` looks at; enough for all harmonics
_STEADY = 1e-4  # mean square of what a trend leaves over, below which nothing oscillates
_USUAL = 1.0  # hertz, where nothing does
_A_TILT = 0.25  # radians, and radians a second: up to a fifth of the slowest spin
_A_TURN = math.pi / 2  # a loop that turns by more does not swing back, but goes round
_NEGLIGIBLE = 0.02  # amplitude of oscillations that are noise of the network that made the numbers


def trace(motion: torch.Tensor, num_frames: int, seconds: float, *, loop: bool = False) -> torch.Tensor:
    """The paths that such numbers stand for, (B, MOTION_DIM) -> (B, F, 4), as `diffusion.layout` has them.

    Args:
        seconds: how long the clip is; frame n of F shows its moment n / F.
        loop: make the end flow into the start: trends lead there and back again, turns and periods become whole.
    """
    trends, waves, log_frequency = _split(motion)
    frequency = log_frequency.exp().clamp(_SLOWEST, _FASTEST)
    at = frame_position(torch.arange(num_frames, device=motion.device, dtype=motion.dtype), num_frames)
    speed = trends[:, _ANGLE, 1] * seconds  # radians a clip
    trends = trends.clone()
    trends[:, _ANGLE, 1] = speed / 2  # the polynomial goes from -1 to 1
    turning = torch.zeros_like(speed)
    position = at
    if loop:
        frequency = (frequency * seconds).round().clamp(min=1) / seconds
        position = swing(at)
        turns = (speed / (2 * math.pi)).round()
        turns = torch.where((turns == 0) & (speed.abs() > _A_TURN), speed.sign(), turns)
        turning = 2 * math.pi * turns
        trends[:, _ANGLE, 1] *= turns == 0
    path = (trends @ _legendre(position)).transpose(1, 2)
    path[..., _ANGLE] += turning[:, None] * (at - 0.5)
    quiet = waves.square().sum((1, 2)) < _NEGLIGIBLE**2
    waves = waves * ~quiet[:, None, None]
    path = path + (waves @ _waves(frequency, at * seconds)).transpose(1, 2)
    path[..., 2] = path[..., 2].exp()
    return path


def oscillation(paths: torch.Tensor) -> torch.Tensor:
    """Find what oscillates in paths, by least squares: (N, F, 4) -> (N, MOTION_DIM), their trends left at zero.

    Args:
        paths: over ten seconds, at the times that `observed_seconds` says.
    """
    y = _with_log_side(paths)
    at = observed_seconds().to(y)
    trend = torch.linalg.qr(_legendre(at / _OBSERVED).T)[0]
    rest = y - trend @ (trend.T @ y)
    motion = y.new_zeros(len(y), MOTION_DIM)
    motion[:, -1] = math.log(_USUAL)
    moving = (rest.square().mean(1).amax(1) > _STEADY).nonzero()[:, 0]
    if not len(moving):
        return motion
    y, rest = y[moving], rest[moving]
    grid = torch.arange(_SLOWEST, _FASTEST, 0.05 / _OBSERVED, dtype=y.dtype, device=y.device)
    energy = rest.square().sum((1, 2))
    left = torch.empty(len(grid), len(y), dtype=y.dtype, device=y.device)
    for i, frequency in enumerate(grid):
        waves = _waves(frequency[None], at)[0].T
        basis = torch.linalg.qr(waves - trend @ (trend.T @ waves))[0]
        left[i] = energy - (basis.T @ rest).square().sum((1, 2))
    # A period's multiples fit as well: the shortest of those that fit is meant.
    padded = torch.cat([left[:1] + 1, left, left[-1:] + 1])
    lowest = (left <= padded[:-2]) & (left <= padded[2:]) & (left <= left.amin(0) + 0.03 * energy)
    index = torch.where(lowest, torch.arange(len(grid), device=y.device)[:, None], -1).amax(0)
    frequency = grid[index] + 0.05 / _OBSERVED * _vertex(padded, index + 1)
    basis = torch.cat([_legendre(at / _OBSERVED).expand(len(y), -1, -1), _waves(frequency, at)], dim=1).mT
    solution = torch.linalg.lstsq(basis, y).solution  # (N, terms, columns)
    motion[moving, COLUMNS * TRENDS : -1] = solution[:, TRENDS:].mT.flatten(1)
    motion[moving, -1] = frequency.log()
    return motion


def with_trend(motion: torch.Tensor, paths: torch.Tensor, seconds: float) -> torch.Tensor:
    """Add the trend that paths have over a whole clip beside their oscillation: (N, MOTION_DIM) -> (N, MOTION_DIM).

    Args:
        paths: (N, F, 4), frame n of F at n / F of the clip.
    """
    _, waves, log_frequency = _split(motion)
    at = torch.arange(paths.shape[1], device=paths.device, dtype=paths.dtype) / paths.shape[1]
    rest = _with_log_side(paths) - (waves @ _waves(log_frequency.exp(), at * seconds)).mT
    trends = torch.linalg.lstsq(_legendre(at).T.expand(len(paths), -1, -1), rest).solution.mT  # (N, columns, terms)
    angle = trends[:, _ANGLE]
    angle[:, 0] = torch.remainder(angle[:, 0] + math.pi, 2 * math.pi) - math.pi
    angle[:, 1] *= 2 / seconds
    return torch.cat([trends.flatten(1), motion[:, COLUMNS * TRENDS :]], dim=1)


def observed_seconds() -> torch.Tensor:
    """When `oscillation` looks at paths, float64, (320,)."""
    return torch.arange(round(_OBSERVED * _RATE), dtype=torch.float64) / _RATE


def upright(motion: torch.Tensor) -> torch.Tensor:
    """Take what little subjects are turned, a network's error, out of their motions: (B, MOTION_DIM) -> the same."""
    little = (motion[:, TURN].abs() < _A_TILT).all(1)
    upright = motion.clone()
    upright[:, _ANGLE * TRENDS : (_ANGLE + 1) * TRENDS] *= ~little[:, None]
    return upright


def _split(motion: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Trends (B, columns, terms), waves (B, columns, 2 x harmonics), log frequency (B,)."""
    trends, waves, log_frequency = motion.split([COLUMNS * TRENDS, COLUMNS * 2 * HARMONICS, 1], dim=1)
    return trends.unflatten(1, (COLUMNS, -1)), waves.unflatten(1, (COLUMNS, -1)), log_frequency[:, 0]


def _with_log_side(paths: torch.Tensor) -> torch.Tensor:
    return torch.cat([paths[..., :2], paths[..., 2:3].log(), paths[..., 3:]], dim=-1)


def _legendre(at: torch.Tensor) -> torch.Tensor:
    """Polynomials of degree 0 to 3 at places in [0, 1] of a clip: (F,) -> (4, F)."""
    x = 2 * at - 1
    return torch.stack([torch.ones_like(x), x, (3 * x**2 - 1) / 2, (5 * x**3 - 3 * x) / 2])


def _waves(frequency: torch.Tensor, seconds: torch.Tensor) -> torch.Tensor:
    """Cosines, then sines, of each harmonic: (B,), (F,) -> (B, 2 x harmonics, F)."""
    order = torch.arange(1, HARMONICS + 1, device=seconds.device, dtype=seconds.dtype)
    angles = 2 * math.pi * frequency[:, None, None] * order[:, None] * seconds
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def _vertex(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """How far from `index` the parabola through a minimum and its neighbours is lowest, in steps."""
    before, here, after = (values.gather(0, (index + i)[None])[0] for i in (-1, 0, 1))
    curvature = (before - 2 * here + after).clamp(min=1e-12)
    return (0.5 * (before - after) / curvature).clamp(-0.5, 0.5)
