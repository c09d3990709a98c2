"""Intervals of means and shares that hold at small n. Knows no report and no evidence."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import beta, norm, t

from synth.rng import numpy_rng

SMALLEST = 5
"""Below so many values a bootstrap says nothing."""


def expanded_tail(alpha: float, n: int) -> float:
    """Return the quantile of bootstrap draws that leaves `alpha` outside, of n values (Hesterberg 2015).

    alpha' = Phi(-sqrt(n / (n - 1)) t_{alpha, n-1}): resampled means spread by a factor sqrt((n - 1) / n) too
    little, and know nothing of how uncertain that spread is.

    >>> round(expanded_tail(0.025, 8), 4), round(expanded_tail(0.025, 10000), 4)
    (0.0057, 0.025)
    """
    return float(norm.sf(np.sqrt(n / (n - 1)) * t.ppf(1 - alpha, n - 1)))


def bootstrap_interval(values: np.ndarray, seed: int, name: str, *, draws: int = 2000) -> tuple[float, float] | None:
    """Return the 95 % interval of the mean of values (n,): expanded percentile bootstrap; None below 5 values."""
    if len(values) < SMALLEST:
        return None
    picked = numpy_rng(seed, "interval", name).integers(len(values), size=(draws, len(values)))
    tail = expanded_tail(0.025, len(values))
    low, high = np.quantile(values[picked].mean(axis=1), (tail, 1 - tail))
    return float(low), float(high)


def proportion_interval(hits: int, n: int) -> tuple[float, float]:
    """Return the exact 95 % interval of a share of n (Clopper & Pearson 1934).

    >>> [round(bound, 3) for bound in proportion_interval(8, 8)]
    [0.631, 1.0]
    """
    low = float(beta.ppf(0.025, hits, n - hits + 1)) if hits else 0.0
    high = float(beta.ppf(0.975, hits + 1, n - hits)) if hits < n else 1.0
    return low, high


def simultaneous_gap(
    groups: Sequence[np.ndarray], pair: tuple[int, int], rng: np.random.Generator, *, draws: int = 2000
) -> tuple[float, float]:
    """Return the interval of mean(groups[a]) - mean(groups[b]) that holds at 95 % for all pairs at once.

    Of several groups the best and the worst lie apart by chance: Bonferroni over the pairs keeps an interval of the
    pair that was picked for being furthest apart honest. Expanded percentile bootstrap within each group.
    """
    alpha = 0.025 / (len(groups) * (len(groups) - 1) / 2)
    a, b = (groups[place] for place in pair)
    means = [side[rng.integers(len(side), size=(draws, len(side)))].mean(axis=1) for side in (a, b)]
    tail = expanded_tail(alpha, min(len(a), len(b)))
    low, high = np.quantile(means[0] - means[1], (tail, 1 - tail))
    return float(low), float(high)
