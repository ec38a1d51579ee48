"""What a detector sees of a clip: the waves of the plane, each frame's own shading and outlines held down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from .carriers import RINGS, SIDE, TILE, WAVES, blur, plane_size, resize

MOST_FRAMES = 64  # that are looked at, evenly spread
_NEAR, _AROUND = 1.8, 1.5  # pixels of the plane: what is shading, and over how far activity is measured
_QUIET = 8.0  # variance, in squared levels, below which a place is as good as still
_PADDED = 512  # of the spectrum that is interpolated
_LUMA = (0.299, 0.587, 0.114)
_LOUDEST = 1.5  # a wave above so many times its ring's root mean square is the picture's own
_RIDGE = 1.5  # of unmixing, in the mean power with which a wave is seen
_RING = np.eye(RINGS.max() + 1)[RINGS] / np.bincount(RINGS)  # (216, rings): means over rings


@dataclass(frozen=True)
class Geometry:
    """How a clip lies on the plane, against what was marked.

    Attributes:
        scale: pixels of the plane now, for one then; above 1 where the clip was cropped.
        angle: of its rotation, radians, counter-clockwise.
        mirrored: left for right.
    """

    scale: float = 1.0
    angle: float = 0.0
    mirrored: bool = False

    def frequencies(self, waves: np.ndarray = WAVES) -> np.ndarray:
        """Return waves' frequencies as they are now, waves per pixel of the plane, (216, 2) unless others are given."""
        down, across = (waves * [1, -1 if self.mirrored else 1] / (TILE * self.scale)).T
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return np.stack([cos * down - sin * across, sin * down + cos * across], axis=1)


def chosen_frames(count: int, most: int = MOST_FRAMES) -> np.ndarray:
    """Return the indices of at most so many frames, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


@dataclass(frozen=True)
class Seen:
    """What stands out from the shading around it, on the plane, in levels of 8 bits; float32 (F, h, w) each.

    Attributes:
        details: luma less its mean around each pixel.
        activity: mean squares of the details around each pixel.
        alpha: of transparent clips.
    """

    details: np.ndarray
    activity: np.ndarray
    alpha: np.ndarray | None = None

    def weights(self) -> np.ndarray:
        """Return how much is given on each place: float32 (F, h, w).

        Where a picture is busy, it says little of a faint mark; weights by the inverse of the variance are those of
        maximum likelihood.
        """
        weights = 1 / (np.maximum(self.activity, 0) + _QUIET)
        return weights if self.alpha is None else weights * self.alpha

    def evidence(self) -> np.ndarray:
        """Return each frame's details, weighted: float32 (F, h, w)."""
        return self.details * self.weights()


def details(frames: Sequence[np.ndarray] | np.ndarray) -> Seen:
    """Measure frames of (H, W, 3 or 4) each, uint8 or float in [0, 1]."""
    luma, alpha = (np.stack(planes) for planes in zip(*map(_on_plane, frames), strict=True))
    if frames[0].shape[-1] == 3:
        found = luma - blur(luma, _NEAR)
        return Seen(found, blur(found * found, _AROUND))
    found = np.where(alpha > 0.5, luma - blur(luma, _NEAR, alpha), 0)
    return Seen(found, blur(found * found, _AROUND, alpha), alpha)


def _on_plane(frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a frame's luma (levels) and alpha on the plane, (h, w) each."""
    size = plane_size(*frame.shape[:2])
    unit = np.float32(1 if frame.dtype == np.uint8 else 255)
    red, green, blue = (unit * np.float32(part) * frame[..., channel] for channel, part in enumerate(_LUMA))
    luma = red + green + blue
    if frame.shape[-1] == 3:
        return resize(luma, *size), np.ones(size, np.float32)
    alpha = frame[..., 3] * (unit / np.float32(255))
    seen = resize(alpha, *size)
    return resize(luma * alpha, *size) / np.maximum(seen, 1e-3), seen


def evidence(frames: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """Return what each frame tells of a mark, see `Seen.evidence`: float32 (F, h, w)."""
    return details(frames).evidence()


def whitened(waves: np.ndarray) -> np.ndarray:
    """Return waves with a mean square of about 1 in each ring, and none that stands far out: complex (..., 216)."""
    power = np.abs(waves) ** 2 @ _RING
    waves = waves / np.sqrt(power[..., RINGS] + 1e-20)
    return waves * np.minimum(1, _LOUDEST / np.maximum(np.abs(waves), 1e-9))


def ring_means(values: np.ndarray) -> np.ndarray:
    """Return for each wave the mean over its ring, (216,)."""
    return (values @ _RING)[RINGS]


def waves_at(image: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Measure the whitened waves of an image on the plane, exactly, phases from its middle: complex (216,)."""
    return whitened(_spectrum(image, geometry.frequencies()))


def unmixed_waves_at(image: np.ndarray, weights: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Measure the whitened waves of weighted details, freed from each other: complex (216,).

    Weights w that differ from place to place mix the waves a of a mark: their sum, weighted, is seen as
    A a + C conj(a), with half the spectrum of w at the differences and at the sums of their frequencies. This is the
    least-squares estimate of a with a penalty for its size (ridge regression, or Wiener's filter), as noise would
    otherwise be amplified.

    Args:
        image: details times weights, added up over frames, (h, w).
        weights: added up over frames, (h, w).
        geometry: how the clip lies.
    """
    mixing = _mixing(weights, geometry)
    ridge = _RIDGE * np.trace(mixing) / len(mixing) + 1e-12
    seen = _spectrum(image, geometry.frequencies())
    real, imaginary = np.split(
        np.linalg.solve(mixing + ridge * np.eye(len(mixing), dtype=np.float32), np.concatenate([seen.real, seen.imag])),
        2,
    )
    return whitened(real + 1j * imaginary)


def _mixing(weights: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Return how weights mix the waves' real and imaginary parts, (432, 432)."""
    reach = 2 * int(np.abs(WAVES).max())
    down, across = np.meshgrid(np.arange(reach + 1), np.arange(-reach, reach + 1), indexing="ij")
    lattice = np.stack([down.ravel(), across.ravel()], axis=1)  # of sums and differences, in waves per tile
    half = _spectrum(weights, geometry.frequencies(lattice)).reshape(down.shape) / 2
    whole = np.concatenate([half[:0:-1, ::-1].conj(), half])
    difference, total = (WAVES[:, None] + sign * WAVES + reach for sign in (-1, 1))
    a, c = (whole[index[..., 0], index[..., 1]] for index in (difference, total))
    return np.block([[a.real + c.real, c.imag - a.imag], [a.imag + c.imag, a.real - c.real]])


def _spectrum(image: np.ndarray, frequencies: np.ndarray) -> np.ndarray:
    """Return an image's Fourier transform at any frequencies (N, 2), phases from its middle: complex64 (N,)."""
    down, across = (
        np.exp(np.complex64(-2j * np.pi) * np.outer(frequencies[:, axis], np.arange(n) - n // 2).astype(np.float32))
        for axis, n in enumerate(image.shape)
    )
    return ((down @ image) * across).sum(axis=1)


@cache
def searched() -> tuple[tuple[Geometry, ...], np.ndarray]:
    """Return all geometries of the search, and their waves' frequencies, (N, 216, 2).

    A step changes a wave's phase at the edge of the plane by about half a turn: what lies between is refined.
    """
    scales, angles = 0.75 * 1.025 ** np.arange(43), np.deg2rad(np.arange(-12, 12.1, 1.5))
    found = tuple(Geometry(s, a, m) for s in scales.tolist() for a in angles.tolist() for m in (False, True))
    return found, np.stack([geometry.frequencies() for geometry in found]).astype(np.float32)


def waves_everywhere(image: np.ndarray) -> np.ndarray:
    """Measure the whitened waves at all geometries of the search, (N, 216), from one interpolated spectrum."""
    part = image[tuple(slice(max(0, (n - 2 * SIDE) // 2), max(0, (n - 2 * SIDE) // 2) + 2 * SIDE) for n in image.shape)]
    padded = np.zeros((_PADDED, _PADDED), np.float32)
    padded[: part.shape[0], : part.shape[1]] = part
    spectrum = np.fft.fft2(np.roll(padded, [-(n // 2) for n in part.shape], axis=(0, 1))).astype(np.complex64)
    places = searched()[1] * _PADDED
    corner = np.floor(places).astype(np.int32)
    y, x = (places - corner)[..., 0], (places - corner)[..., 1]
    waves = np.zeros(y.shape, np.complex64)
    for down, across, weight in ((0, 0, (1 - y) * (1 - x)), (1, 0, y * (1 - x)), (0, 1, (1 - y) * x), (1, 1, y * x)):
        waves += weight * spectrum[(corner[..., 0] + down) % _PADDED, (corner[..., 1] + across) % _PADDED]
    return whitened(waves)
