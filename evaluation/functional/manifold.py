"""Fidelity and coverage by nearest-neighbour balls: precision, recall, density and coverage. Knows feature rows only.

All four are calibrated: about 1 for sets of one distribution, falling linearly with the share of bad samples or of
what is missed, so that 0.8 reads as "as good as a set of which 8 in 10 are right". Balls are closed (distance <=
radius), so that identical sets give 1 even where all rows are equal.
"""

from typing import Any, NamedTuple

import numpy as np
from scipy import stats
from scipy.spatial.distance import cdist

from evaluation.functional.arrays import pair


class PrecisionRecall(NamedTuple):
    """How much of the synthetic set lies among real volumes, and how much of the real set among synthetic ones."""

    precision: float
    recall: float


class DensityCoverage(NamedTuple):
    """How densely real volumes surround synthetic ones, and the share of real neighbourhoods that are filled."""

    density: float
    coverage: float


def precision_recall(synthetic: Any, real: Any, *, k: int = 5) -> PrecisionRecall:
    """Return precision and recall of synthetic (n, d) against real (m, d) features, robust to outliers of both.

    A(S, R) = share of S within any ball of R: radius of r = its distance to the k-th nearest other row of R, at most
    the median of these radii.  precision = min(1, A(S, R) / A'(R)),  recall = min(1, A(R, S) / A'(S))

    with A'(R) the share of R within the ball of another row of R. The balls are those of Kynkaanniemi et al. 2019;
    clipping them at the median and dividing by what the set itself reaches are taken over from Clipped Density
    (Salvy et al. 2025, arXiv 2507.01761), as one far row otherwise makes a ball that holds everything, and the plain
    figures have no fixed value for equal distributions.
    Errors: ValueError for k rows or fewer on a side, feature widths that differ, NaN.

    >>> x = np.random.default_rng(0).normal(size=(60, 3))
    >>> precision_recall(x, x)
    PrecisionRecall(precision=1.0, recall=1.0)
    """
    made, held = _sets(synthetic, real, k)
    between = cdist(made, held)
    return PrecisionRecall(_within(between, held, k), _within(between.T, made, k))


def density_coverage(synthetic: Any, real: Any, *, k: int = 5) -> DensityCoverage:
    """Return Clipped Density and Clipped Coverage of synthetic (n, d) against real (m, d) features.

    density  = min(1, D(synthetic) / D'(real)),  D(S) = mean_s min(1, #{balls of real that hold s} / k), radii clipped
               at their median; D'(real) counts for each real row the balls of the others
    coverage = g(mean_r min(k, #{synthetic rows in the whole ball of r}) / k), with g the inverse of its expectation
               when m' of n samples are good: f(m') = E min(J, k) / k, J ~ BetaBinomial(m', k, m - k), at m' / n

    (Salvy, Talbot & Thirion 2025, arXiv 2507.01761.) Differences to their code: closed balls, all rows in a ball count
    where distances tie, and g is interpolated instead of stepped.
    Errors: ValueError for k rows or fewer on a side, feature widths that differ, NaN.

    >>> x = np.random.default_rng(0).normal(size=(60, 3))
    >>> density_coverage(x, x)
    DensityCoverage(density=1.0, coverage=1.0)
    """
    made, held = _sets(synthetic, real, k)
    between = cdist(made, held)
    inner, radii = _balls(held, k)
    clipped = np.minimum(radii, np.median(radii))
    found = np.minimum(1.0, (between <= clipped).sum(axis=1) / k).mean()
    own = np.minimum(1.0, (inner <= clipped).sum(axis=1) / k).mean()
    filled = float((np.minimum(k, (between <= radii).sum(axis=0)) / k).mean())
    good = np.arange(len(made) + 1)
    expected = 1.0 - sum((k - j) * stats.betabinom.pmf(j, good, k, len(held) - k) for j in range(k)) / k
    coverage = float(np.interp(filled, expected, good / len(made)))
    return DensityCoverage(min(1.0, float(found / own)), coverage)


def _sets(synthetic: Any, real: Any, k: int) -> tuple[np.ndarray, np.ndarray]:
    if k < 1:
        raise ValueError(f"k is at least 1, got {k}")
    return pair(synthetic, real, least=k + 1)


def _balls(rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return distances among rows (infinite to themselves) and the distance to the k-th nearest other."""
    inner = cdist(rows, rows)
    np.fill_diagonal(inner, np.inf)
    return inner, np.partition(inner, k - 1, axis=1)[:, k - 1]


def _within(between: np.ndarray, rows: np.ndarray, k: int) -> float:
    inner, radii = _balls(rows, k)
    clipped = np.minimum(radii, np.median(radii))
    own = (inner <= clipped).any(axis=1).mean()
    return min(1.0, float((between <= clipped).any(axis=1).mean() / own))
