"""The search for a mark: under which geometry, pattern and shift, with the chance that it is a false alarm.

**Search.** A clip's evidence (`analysis`) is added up over its frames. The waves are read from its spectrum at each of
1462 scales, rotations and mirrorings; a small inverse Fourier transform correlates their known parts with a key's eight
patterns at all shifts at once (as Kalker and Janssen's spatial tiles, "Analysis of Watermark Detection Using SPOMF",
1999). The best are refined, the data parts read against the known ones, and the payload decoded. Upright waves, and
those of refined places, are freed from each other first; for each of the 1462 this would take too long.

**The chance of a false alarm** needs no model of pictures. Whatever a clip without a mark looks like, its waves met
with phases that are uniform and independent give a sum of c cos(phase): z, that sum over its standard deviation,
exceeds t with a probability of at most exp(-t^2 / 2), as the moments of a cosine, I_0(l) <= exp(l^2 / 4), are those of
a sub-Gaussian variable (Chernoff's bound). All that is tried is counted (Bonferroni): keys, patterns, shifts and
geometries; and, where a payload was decoded and the whole codeword is correlated, all 2^48 payloads.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .analysis import Geometry, ring_means, searched, unmixed_waves_at, waves_at, waves_everywhere
from .carriers import PATTERNS, TILE, WAVES, patterns
from .coding import decode, encode
from .payload import BITS, Payload

_UPRIGHT = (Geometry(), Geometry(mirrored=True))
_COARSE, _MIDDLE, _FINE = 32, 64, 160  # shifts each way that are tried: everywhere, upright, and in refining
_CANDIDATES = 3  # that are refined and decoded
_SCALE_STEP, _ANGLE_STEP = 0.0125, float(np.deg2rad(0.75))  # of refining, halved after each round
_ROUNDS, _MOVES = 3, 3
# Geometries that refining can reach from one: so many quarters of a step each way, in scale and angle.
_REACHED = (2 * _MOVES * (4 + 2 + 1) + 1) ** 2
_TESTS = 3  # upright, everywhere, codeword
_SURE = 1e-9  # an upright mark with a smaller chance needs no search
_FAINTEST = 0.05  # correlation that a ring is given at least
_CHUNK = 128  # geometries correlated at a time


class Plane:
    """A clip's evidence, and its waves, measured once for all keys.

    Args:
        image: evidence added up over frames, (h, w).
        weights: its weights, added up over frames, (h, w).
    """

    def __init__(self, image: np.ndarray, weights: np.ndarray) -> None:
        self.image, self.weights = image, weights
        self.upright = np.stack([unmixed_waves_at(image, weights, geometry) for geometry in _UPRIGHT])

    @cached_property
    def everywhere(self) -> np.ndarray:
        """The waves at all geometries of the search, (N, 216)."""
        return waves_everywhere(self.image)


@dataclass(frozen=True)
class Mark:
    """The likeliest mark under a key.

    Attributes:
        p_value: bound on the chance of evidence like this without a mark.
        payload: None where it can't be read.
        geometry: where it lies.
        expected: its waves, as far as they are known, at its place, (216,).
    """

    p_value: float
    payload: Payload | None
    geometry: Geometry
    expected: np.ndarray

    def chance_in(self, image: np.ndarray) -> float:
        """Return the chance of a part's evidence, (h, w), did it not hold this mark."""
        return chance(agreement(waves_at(image, self.geometry), self.expected))


@dataclass(frozen=True)
class _Candidate:
    score: float
    geometry: Geometry
    number: int  # of the pattern


def look(plane: Plane, key: bytes) -> Mark:
    """Return the likeliest mark under a key."""
    phases = np.stack([pattern.phases for pattern in patterns(key)])
    candidates = _best(plane.upright, _UPRIGHT, phases, _MIDDLE)
    least = chance(candidates[0].score, len(_UPRIGHT) * PATTERNS * _MIDDLE**2)
    found = _first_read(plane, candidates, key)
    if min(least, found.p_value) > _SURE:
        geometries = searched()[0]
        further = _best(plane.everywhere, geometries, phases, _COARSE)
        least = min(least, chance(further[0].score, len(geometries) * PATTERNS * _COARSE**2))
        elsewhere = _first_read(plane, further, key)
        both = [(found, candidates[0].score), (elsewhere, further[0].score)]
        found = min(both, key=lambda one: (one[0].p_value, one[0].payload is None, -one[1]))[0]
    return Mark(min(1.0, _TESTS * min(least, found.p_value)), found.payload, found.geometry, found.expected)


def _first_read(plane: Plane, candidates: list[_Candidate], key: bytes) -> Mark:
    """Return the first candidate's mark whose payload is read, or the first of all."""
    marks = (_read(plane, candidate, key) for candidate in candidates)
    first = next(marks)
    return first if first.payload is not None else next((mark for mark in marks if mark.payload is not None), first)


def chance(score: float, tries: float = 1) -> float:
    """Return Chernoff's bound on the chance of a score among so many."""
    return min(1.0, tries * float(np.exp(-(max(score, 0.0) ** 2) / 2)))


def agreement(waves: np.ndarray, expected: np.ndarray) -> float:
    """Return how far waves agree with those expected, in standard deviations of the sum at random phases."""
    power = np.sum(np.abs(waves * expected) ** 2)
    return float((waves * expected.conj()).real.sum() * np.sqrt(2 / max(power, 1e-20)))


def correlations(waves: np.ndarray, phases: np.ndarray, shifts: int) -> np.ndarray:
    """Correlate waves (N, 216) with patterns (P, 216) at all shifts across and down: (N, P, shifts, shifts)."""
    products = waves[:, None] * phases.conj().astype(np.complex64)
    spectrum = np.zeros((*products.shape[:2], shifts, shifts // 2 + 1), np.complex64)
    # Of a half-plane of waves: those along its edge have no twin that the transform would add.
    spectrum[..., WAVES[:, 1] % shifts, WAVES[:, 0]] = products * np.where(WAVES[:, 0] == 0, 2, 1).astype(np.float32)
    summed = np.fft.irfft2(spectrum, s=(shifts, shifts)) * np.float32(shifts**2 / 2)
    power = np.sum(np.abs(waves) ** 2, axis=-1)
    return summed * np.sqrt(2 / np.maximum(power, 1e-20)).astype(np.float32)[:, None, None, None]


def _best(waves: np.ndarray, geometries: tuple[Geometry, ...], phases: np.ndarray, shifts: int) -> list[_Candidate]:
    """Return the geometries and patterns that agree best."""
    parts = range(0, len(waves), _CHUNK)
    scores = np.concatenate([correlations(waves[i : i + _CHUNK], phases, shifts).max(axis=(2, 3)) for i in parts])
    order = np.argsort(scores, axis=None)[::-1][:_CANDIDATES]
    return [
        _Candidate(float(scores[index, number]), geometries[index], int(number))
        for index, number in zip(*np.unravel_index(order, scores.shape), strict=True)
    ]


def _read(plane: Plane, candidate: _Candidate, key: bytes) -> Mark:
    """Refine a candidate, and decode its payload."""
    pattern = patterns(key)[candidate.number]
    geometry = _refine(plane.image, candidate.geometry, pattern.phases)
    waves = unmixed_waves_at(plane.image, plane.weights, geometry)
    shift = _best_shift(waves, pattern.phases)[1]
    there = np.exp(-2j * np.pi / TILE * (WAVES @ shift))
    products = waves * (pattern.phases * there).conj()
    reliability = np.maximum(ring_means(products.real), _FAINTEST)  # that of the known parts is that of the data
    soft = np.empty(len(WAVES))
    soft[pattern.order] = products.imag * reliability
    bits = decode(soft)
    if bits is None:
        return Mark(1.0, None, geometry, pattern.phases * there)
    expected = pattern.amplitudes(encode(bits)) * there
    tries = len(searched()[0]) * _REACHED * PATTERNS * _FINE**2 * 2.0**BITS
    return Mark(chance(agreement(waves, expected), tries), Payload.from_bits(bits), geometry, expected)


def _best_shift(waves: np.ndarray, phases: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the highest correlation of all shifts, and the shift, in pixels of the plane down and across."""
    scores = correlations(waves[None], phases[None], _FINE)[0, 0]
    across, down = np.unravel_index(int(scores.argmax()), scores.shape)
    return float(scores[across, down]), np.array([down, across]) * (TILE / _FINE)


def _refine(image: np.ndarray, geometry: Geometry, phases: np.ndarray) -> Geometry:
    """Climb to the scale and angle nearby that agree best."""

    def at(scale: float, angle: float) -> tuple[float, Geometry]:
        there = Geometry(scale, angle, geometry.mirrored)
        return _best_shift(waves_at(image, there), phases)[0], there

    best = at(geometry.scale, geometry.angle)
    for halved in range(_ROUNDS):
        scale_step, angle_step = _SCALE_STEP / 2**halved, _ANGLE_STEP / 2**halved
        for _ in range(_MOVES):
            scale, angle = best[1].scale, best[1].angle
            nearby = [at(scale + scale_step, angle), at(scale - scale_step, angle),
                      at(scale, angle + angle_step), at(scale, angle - angle_step)]  # fmt: skip
            further = max(nearby, key=lambda one: one[0])
            if further[0] <= best[0]:
                break
            best = further
    return best[1]
