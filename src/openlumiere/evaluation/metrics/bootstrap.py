"""How sure a mean or a median over clips is: intervals by drawing the clips anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

_REPLICATES = 2000


def percentile_interval(
    values: Sequence[float] | np.ndarray, statistic: Callable[..., np.ndarray] = np.mean, *, seed: int = 0
) -> list[float] | None:
    """Return the 95 % bootstrap interval of a statistic, by percentiles (Efron 1979); None of fewer than two values.

    Args:
        values: independent ones, such as one a clip or one a prompt.
        statistic: takes an array and an `axis`, as `np.mean` and `np.median` do.
    """
    listed = np.asarray(values, dtype=np.float64)
    if len(listed) < 2:
        return None
    drawn = np.random.default_rng(seed).integers(len(listed), size=(_REPLICATES, len(listed)))
    return [float(bound) for bound in np.quantile(statistic(listed[drawn], axis=1), [0.025, 0.975])]
