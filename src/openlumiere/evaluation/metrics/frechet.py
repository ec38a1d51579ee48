"""The Fréchet distance between two sets of features, how sure it is, and how it depends on their number.

Plain NumPy in double precision. Features are arrays of shape (clips, dimensions), which may be memory maps: they are
gone through in blocks, so that memory does not grow with the number of clips.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from openlumiere.errors import LumiereError

BLOCK = 4096  # rows converted to double precision at a time
_PARTS = 8  # disjoint parts that a point of the extrapolation is the mean of, at most


class Moments:
    """Count, mean and covariance of features that come a few at a time.

    Each addition merges two sets by the pairwise update of Chan, Golub and LeVeque (1979), which subtracts means before
    it squares, so that nothing is lost where features lie far from zero.

    Args:
        dimensions: length of a feature vector.
    """

    def __init__(self, dimensions: int) -> None:
        self.count = 0.0
        self.mean = np.zeros(dimensions)
        self._scatter = np.zeros((dimensions, dimensions))

    @classmethod
    def of(cls, features: np.ndarray, weights: np.ndarray | None = None) -> Moments:
        """Return the moments of all rows of (N, D), each counted `weights` times, shape (N,); once each when None."""
        if features.ndim != 2:
            raise LumiereError(f"features must have the shape (clips, dimensions), not {features.shape}")
        moments = cls(features.shape[1])
        for start in range(0, len(features), BLOCK):
            part = slice(start, start + BLOCK)
            moments.add(features[part], None if weights is None else weights[part])
        return moments

    def add(self, features: np.ndarray, weights: np.ndarray | None = None) -> None:
        """Add rows (n, D), each counted `weights` times.

        Raises:
            LumiereError: a feature that is not finite.
        """
        if weights is not None:
            features, weights = features[weights > 0], weights[weights > 0]
        rows = np.asarray(features, np.float64)
        if not np.isfinite(rows).all():
            first = int(np.flatnonzero(~np.isfinite(rows).all(1))[0])
            raise LumiereError(f"the features of clip {first} are not finite (NaN); look at that clip, then replace it")
        if weights is None:
            count, mean = float(len(rows)), rows.mean(0) if len(rows) else 0.0
            centred = rows - mean
            scatter = centred.T @ centred
        else:
            count = float(weights.sum())
            if not count:
                return
            mean = weights @ rows / count
            centred = rows - mean
            scatter = (centred * weights[:, None]).T @ centred
        self._merge(count, mean, scatter)

    def merge(self, other: Moments) -> None:
        """Add what other moments were made of."""
        self._merge(other.count, other.mean, other._scatter)

    def _merge(self, count: float, mean: np.ndarray | float, scatter: np.ndarray) -> None:
        if not count:
            return
        total = self.count + count
        apart = mean - self.mean
        self._scatter += scatter + np.outer(apart, apart) * (self.count * count / total)
        self.mean = self.mean + apart * (count / total)
        self.count = total

    def covariance(self, *, ddof: int = 0) -> np.ndarray:
        """Return the covariance (D, D), divided by count - `ddof`: 0 as StyleGAN-V's FVD, 1 as torch-fidelity's FID.

        Raises:
            LumiereError: fewer than two clips.
        """
        if self.count < 2:
            raise LumiereError(f"a distribution needs at least 2 clips, not {self.count:g}; give more")
        return self._scatter / (self.count - ddof)


def frechet_distance(ours: Moments, theirs: Moments, *, ddof: int = 0) -> float:
    """Return the squared Fréchet distance of two Gaussians (Dowson and Landau 1982; Heusel et al. 2017, eq. 6).

        |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2)

    The last trace is the sum of singular values of S1^(1/2) S2^(1/2), both from eigendecompositions of symmetric
    matrices. Nothing complex can come of it, and singular matrices (fewer clips than dimensions) need no help: their
    zero eigenvalues are left out. The usual way, the square root of the product S1 S2, is neither symmetric nor
    stable there.

    Args:
        ddof: see `Moments.covariance`.

    Raises:
        LumiereError: other dimensions, or fewer than two clips.
    """
    if ours.mean.shape != theirs.mean.shape:
        raise LumiereError(
            f"features of {len(ours.mean)} and {len(theirs.mean)} dimensions do not compare; use one feature network"
        )
    first, second = ours.covariance(ddof=ddof), theirs.covariance(ddof=ddof)
    shared = np.linalg.svd(_root(first).T @ _root(second), compute_uv=False).sum()
    apart = ours.mean - theirs.mean
    distance = float(apart @ apart + np.trace(first) + np.trace(second) - 2.0 * shared)
    return max(distance, 0.0)  # equal sets differ by rounding, to either side


def _root(covariance: np.ndarray) -> np.ndarray:
    """R, (D, rank), with R R^T the covariance."""
    values, vectors = np.linalg.eigh(covariance)
    # What is below rounding is no direction in which the features vary.
    kept = values > values[-1] * len(values) * np.finfo(np.float64).eps
    return vectors[:, kept] * np.sqrt(values[kept])


def frechet(ours: np.ndarray, theirs: np.ndarray, *, ddof: int = 0) -> float:
    """`frechet_distance` of features (N, D) and (M, D)."""
    return frechet_distance(Moments.of(ours), Moments.of(theirs), ddof=ddof)


def within_span(sets: list[np.ndarray]) -> list[np.ndarray]:
    """Return features in a basis of the space that they span, where that is smaller; no distance changes."""
    everything = np.concatenate(sets).astype(np.float64)
    if len(everything) >= everything.shape[1]:
        return sets
    middle = everything.mean(0)
    basis = np.linalg.svd(everything - middle, full_matrices=False)[2]
    return [(features - middle) @ basis.T for features in sets]


def bootstrap_interval(
    ours: np.ndarray,
    theirs: np.ndarray,
    *,
    replicates: int = 100,
    level: float = 0.95,
    seed: int = 0,
    ddof: int = 0,
) -> tuple[float, float]:
    """Return the confidence interval of `frechet` at these numbers of clips, both sets drawn anew with replacement.

    A set drawn anew holds fewer different clips, which moves every replicate up by the distance's bias; so the
    replicates give the spread about their own mean, and the interval is laid about the distance that was measured. It
    says how the score of this many clips would vary, not where that of infinitely many lies: see `extrapolate`.

    Raises:
        LumiereError: fewer than two clips, or less than two replicates.
    """
    if replicates < 2 or not 0 < level < 1:
        raise LumiereError(f"{replicates} replicates at level {level}: give 2 or more, and a level between 0 and 1")
    rng = np.random.default_rng([seed, 0xB007])
    found = [
        frechet_distance(Moments.of(ours, _redrawn(rng, ours)), Moments.of(theirs, _redrawn(rng, theirs)), ddof=ddof)
        for _ in range(replicates)
    ]
    value = frechet(ours, theirs, ddof=ddof)
    low, high = np.quantile(np.asarray(found) - np.mean(found), [(1 - level) / 2, (1 + level) / 2])
    return max(value + float(low), 0.0), value + float(high)


def _redrawn(rng: np.random.Generator, features: np.ndarray) -> np.ndarray:
    return np.bincount(rng.integers(len(features), size=len(features)), minlength=len(features)).astype(np.float64)


@dataclass(frozen=True)
class Extrapolation:
    """The distance against the number of clips, and where a line through it meets infinitely many.

    Attributes:
        value: the line's height at 1/N = 0.
        standard_error: of `value`, from how far the points are from the line.
        points: (clips of ours, clips of theirs, distance), from few clips to all.
        linear: whether the smallest sets still have five times as many clips as dimensions. Below that the points
            bend, and the line's end is a guess.
    """

    value: float
    standard_error: float
    points: list[tuple[int, int, float]]
    linear: bool


def extrapolate(
    ours: np.ndarray, theirs: np.ndarray, *, sizes: int = 15, seed: int = 0, ddof: int = 0
) -> Extrapolation:
    """Return FVD-infinity: a line through distances of parts of the sets over 1/N (Chong and Forsyth 2020, sec. 3.2).

    The distance of finite samples is too large by c/N to first order, with a c that depends on the generator, so that
    even equal numbers of clips do not make scores comparable. Here both sets are thinned together, to the same share
    of each, and the line removes the bias of both.

    Args:
        sizes: points, evenly spaced from a tenth of the clips (or five times the dimensions, where that is more, but no
            more than half) to all of them; each is the mean over up to eight random parts that share no clip.

    Raises:
        LumiereError: too few clips for as many sizes.
    """
    fewest, dimensions = min(len(ours), len(theirs)), ours.shape[1]
    least = min(max(fewest // 10, 5 * dimensions), fewest // 2)
    if least < 2 or sizes < 3:
        raise LumiereError(f"{fewest} clips are too few to extrapolate from; give at least 4, and 3 sizes or more")
    rng = np.random.default_rng([seed, 0x1F1])
    points = []
    for size in np.linspace(least, fewest, sizes).round().astype(int).tolist():
        counts = [round(size / fewest * len(features)) for features in (ours, theirs)]
        orders = [rng.permutation(len(features)) for features in (ours, theirs)]
        distances = [
            frechet_distance(
                *(
                    Moments.of(features, _only(order[part * count : (part + 1) * count], len(features)))
                    for features, order, count in zip((ours, theirs), orders, counts, strict=True)
                ),
                ddof=ddof,
            )
            for part in range(min(fewest // size, _PARTS))
        ]
        points.append((counts[0], counts[1], float(np.mean(distances))))
    inverse = np.array([fewest / min(n, m) for n, m, _ in points])
    design = np.stack([np.ones_like(inverse), inverse / fewest], axis=1)
    heights = np.array([distance for *_, distance in points])
    line = np.linalg.lstsq(design, heights)[0]
    residual = heights - design @ line
    spread = np.linalg.inv(design.T @ design)[0, 0] * (residual @ residual) / (sizes - 2)
    return Extrapolation(float(line[0]), float(np.sqrt(spread)), points, bool(least >= 5 * dimensions))


def _only(rows: np.ndarray, count: int) -> np.ndarray:
    """Weights that count these rows once and the others not at all; shape (count,)."""
    weights = np.zeros(count)
    weights[rows] = 1.0
    return weights
