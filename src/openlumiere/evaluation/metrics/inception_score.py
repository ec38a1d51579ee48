"""The Inception Score of class probabilities, in parts, and how sure it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from openlumiere.errors import LumiereError


@dataclass(frozen=True)
class InceptionScore:
    """Mean and standard deviation over the parts (of the population, as papers print it), and the interval."""

    mean: float
    std: float
    interval_95: tuple[float, float]
    splits: int


def inception_score(
    probabilities: np.ndarray, *, splits: int = 10, replicates: int = 200, seed: int = 0
) -> InceptionScore:
    """exp of the mean divergence of each clip's classes from all clips' (Salimans et al. 2016, sec. 4).

        IS = exp( mean_x KL( p(y|x) || p(y) ) )

    Clips are shuffled, cut into equal parts (some one clip larger), and the parts' scores averaged: p(y) is a part's
    own, which makes the score of small parts too low.

    Args:
        probabilities: (N, classes), not negative, rows of sum 1.
        splits: parts.
        replicates: of the bootstrap, which draws each part's clips anew about the measured mean.

    Raises:
        LumiereError: rows that are no probabilities, or fewer than two clips a part.
    """
    p = np.asarray(probabilities, np.float64)
    check_probabilities(p)
    if splits < 1 or len(p) < 2 * splits:
        raise LumiereError(f"{len(p)} clips in {splits} splits: give at least 2 clips a split, or fewer --splits")
    rng = np.random.default_rng([seed, 0x15])
    order = rng.permutation(len(p))
    parts = [p[order[i * len(p) // splits : (i + 1) * len(p) // splits]] for i in range(splits)]
    # sum p log p of each clip, 0 log 0 = 0, does not depend on the part: said once.
    negative_entropies = [(part * np.log(np.where(part > 0, part, 1.0))).sum(1) for part in parts]
    scores = [_score(part, negative) for part, negative in zip(parts, negative_entropies, strict=True)]
    redrawn = []
    for _ in range(replicates):
        chosen = [rng.integers(len(part), size=len(part)) for part in parts]
        redrawn.append(
            np.mean([_score(q[at], h[at]) for q, h, at in zip(parts, negative_entropies, chosen, strict=True)])
        )
    mean = float(np.mean(scores))
    low, high = np.quantile(np.asarray(redrawn) - np.mean(redrawn), [0.025, 0.975]) if replicates else (0.0, 0.0)
    return InceptionScore(mean, float(np.std(scores)), (max(mean + float(low), 1.0), mean + float(high)), splits)


def _score(part: np.ndarray, negative_entropies: np.ndarray) -> float:
    together = part.mean(0)
    return float(np.exp(negative_entropies.mean() - together @ np.log(np.where(together > 0, together, 1.0))))


def check_probabilities(p: np.ndarray) -> None:
    """Refuse what a network without a softmax, or a broken one, returns."""
    if p.ndim != 2 or not np.isfinite(p).all():
        raise LumiereError("the class probabilities are not finite (NaN), or no table; look at the clips and the file")
    if (p < -1e-6).any() or np.abs(p.sum(1) - 1).max(initial=0) > 1e-3:
        raise LumiereError("the feature file gives no probabilities (0 to 1, of sum 1); IS needs a classifier's")
