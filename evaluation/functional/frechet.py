"""Frechet distance between feature sets: exact, extrapolated to endless samples, with an interval over patients.

Knows feature rows and whose they are; no images, extractors or reports.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from evaluation.functional.arrays import pair
from evaluation.functional.statistics import Interval, Jackknife, Side, codes_of, deal, jackknife

Clusters = Sequence[Any] | np.ndarray | None
_GROUPS, _FEWEST = 20, 4
_STEEPEST = 3.0
"""Most that the variance rises with the distance, in slopes of a noncentral chi-square; see frechet_interval."""


@dataclass(frozen=True)
class FrechetInterval:
    """A Frechet distance free of the bias of small samples, and what is known of it.

    value            extrapolated to endless samples; below 0 at times, as every unbiased distance is
    interval         at the asked level
    standard_error   of value
    plain            the distance of the samples as they are, which shrinks as 1/n
    clusters         patients on each side
    """

    value: float
    interval: Interval
    standard_error: float
    plain: float
    clusters: tuple[int, int]


def frechet_distance(
    x: Any,
    y: Any,
    *,
    debias: bool = False,
    clusters_x: Clusters = None,
    clusters_y: Clusters = None,
) -> float:
    """Return the Frechet distance between Gaussians fitted to features x (n, d) and y (m, d).

    d^2 = |mu_x - mu_y|^2 + tr(S_x + S_y - 2 (S_x S_y)^(1/2))    (Dowson & Landau 1982)

    The cross term is the nuclear norm of X Y^T / sqrt((n - 1)(m - 1)) for centred X, Y, exact for any n and d; where
    n > d, X is replaced by the R of its QR decomposition, so that no more than (d, d) is ever decomposed.
    debias extrapolates 1/n and 1/m to zero together by deleting groups of clusters (one per row unless told), since
    plain values shrink as 1/n; see frechet_interval.
    Errors: ValueError for fewer than 2 samples, feature widths that differ, NaN.

    >>> x = np.random.default_rng(0).normal(size=(50, 4))
    >>> bool(abs(frechet_distance(x, x)) < 1e-9)
    True
    """
    first, second = pair(x, y)
    if not debias:
        return _plain(first, second)
    whole, sides = _sides(first, second, (clusters_x, clusters_y), groups=_GROUPS, seed=0)
    return jackknife(whole, sides).mended.value


def frechet_interval(
    x: Any,
    y: Any,
    *,
    clusters_x: Clusters = None,
    clusters_y: Clusters = None,
    level: float = 0.95,
    groups: int = _GROUPS,
    seed: int = 0,
) -> FrechetInterval:
    """Return the Frechet distance of features x (n, d), y (m, d) without bias, and its interval over clusters.

    The plain distance is mended by the grouped jackknife (statistics.grouped_jackknife, quadratic) over clusters
    (patients; each row its own where None), in at most `groups` groups a side: it takes off the bias B, which holds the
    terms in 1/n and 1/m together, and gives the standard error, right near equal distributions too, where the distance
    is quadratic in the data. A bootstrap would repeat the bias instead: its sets are worse than the set that they are
    drawn from. The standard error grows with the distance, so that value +- t SE would miss far ones from below and
    equal sets never. The interval is a score interval, as Wilson's (1927) of a share is: all D with

        (value - D)^2 <= t^2 (V + a + b max(D, 0)),    a = max(L - b v, 0),    v = max(value, 0)
        b = min((L + b0 sqrt V) / (v + sqrt V), 3 b0),    b0 = 2 V / max(B, sqrt(V / 2))

    V is the part of SE^2 that pairs of clusters add and L = SE^2 - V the rest; at the value itself the variance is SE^2
    or a little more. b0 is the slope of a scaled noncentral chi-square (Patnaik 1949) whose central one has mean B and
    variance V (Satterthwaite 1946), of one degree of freedom or more: what the variance rises by where V is all that
    is known. L / v takes its place as the value leaves sqrt V behind; a steeper rise than 3 b0 is taken for the work
    of long tails, and counts at all D as a.

    Coverage is claimed where benchmarks/frechet.py simulates it: Gaussian features with equal or falling variances, 16
    features and 50 to 200 patients of 1 to 4 rows, 64 features and 100 to 400 patients of 2, at equal distributions and
    at two distances. It errs to the wide side close to equal distributions where variances fall or features are skewed,
    and a little to the narrow side far from them. With fewer patients than features the bias is no longer of order 1/n:
    equal sets of 50 patients and 112 features are taken for unlike without fail. From 3 patients a feature on (see
    sections.distribution.directions_of, and the part `directions` of that benchmark) it covers log-normal features too,
    equal sets of them a little below the level.
    Deletions cost 4 `groups` decompositions a side.
    Errors: ValueError for fewer than 4 clusters on a side, feature widths that differ, NaN.
    """
    first, second = pair(x, y)
    whole, sides = _sides(first, second, (clusters_x, clusters_y), groups=groups, seed=seed)
    found = jackknife(whole, sides, level=level, quadratic=True)
    counts = [int(codes_of(rows, own).max()) + 1 for rows, own in ((first, clusters_x), (second, clusters_y))]
    interval, value = _score_interval(found, level), found.mended.value
    return FrechetInterval(value, interval, found.standard_error, whole, (counts[0], counts[1]))


def _score_interval(found: Jackknife, level: float) -> Interval:
    """Return all distances no more than t of their own standard errors from the value; see frechet_interval."""
    t = float(stats.t.ppf(0.5 + level / 2.0, found.freedom))
    value, pairs = found.value - found.bias, found.pairwise
    linear, far, root = max(found.standard_error**2 - pairs, 0.0), max(value, 0.0), pairs**0.5
    near = 2.0 * pairs / max(found.bias, (pairs / 2.0) ** 0.5) if pairs > 0.0 else 0.0
    slope = min((linear + near * root) / (far + root), _STEEPEST * near) if far + root > 0.0 else 0.0
    least = pairs + max(linear - slope * far, 0.0)
    half, middle = t * least**0.5, t * t * slope / 2.0
    wide = max(least + slope * value + (t * slope / 2.0) ** 2, 0.0) ** 0.5 * t
    low = value + middle - wide if value > half else value - half
    high = value + middle + wide if value > -half else value + half
    return Interval(low, high)


def _sides(
    x: np.ndarray, y: np.ndarray, clusters: tuple[Clusters, Clusters], *, groups: int, seed: int
) -> tuple[float, list[Side]]:
    """Return the plain distance, and each set as one that knows the distance without some of its groups."""
    codes = [codes_of(rows, own) for rows, own in zip((x, y), clusters, strict=True)]
    counts = [int(own.max()) + 1 for own in codes]
    if min(counts) < _FEWEST or groups < _FEWEST:
        raise ValueError(
            f"extrapolation deletes groups of patients: it needs at least {_FEWEST} groups and patients a side, got "
            f"{groups} groups of {counts[0]} and {counts[1]} patients"
        )
    dealt = [deal(own, groups, seed, index) for index, own in enumerate(codes)]
    return _plain(x, y), [Side(dealt[0], _Thinned(x, y, dealt[0])), Side(dealt[1], _Thinned(y, x, dealt[1]))]


class _Thinned:
    """One set against the other: distances without some of its groups.

    sum sqrt(eig(L S L^T)), with L of the other set, is the cross term; rows are turned by L once, and each deletion
    then works on what is left of them. Good to 1e-7 of the spread, which a plain value does not rest on.
    """

    def __init__(self, rows: np.ndarray, other: np.ndarray, dealt: np.ndarray) -> None:
        self.dealt = dealt
        factor = _factor(other)
        self.gap = rows.mean(axis=0) - other.mean(axis=0)
        self.centred = rows - rows.mean(axis=0)
        self.turned = self.centred @ factor.T
        self.rest = float((factor**2).sum())

    def __call__(self, some: Sequence[int]) -> float:
        """Return the distance without these groups."""
        kept = ~np.isin(self.dealt, some)
        rows, size = self.centred[kept], int(kept.sum())
        mean = rows.mean(axis=0)
        spread = (float((rows**2).sum()) - size * float(mean @ mean)) / (size - 1)
        image = self.turned[kept]
        image = image - image.mean(axis=0)
        gram = image.T @ image if size > image.shape[1] else image @ image.T
        cross = np.sqrt(np.clip(np.linalg.eigvalsh(gram / (size - 1)), 0.0, None)).sum()
        gap = mean + self.gap
        return float(gap @ gap) + spread + self.rest - 2.0 * float(cross)


def _plain(x: np.ndarray, y: np.ndarray) -> float:
    mean = x.mean(axis=0) - y.mean(axis=0)
    left, right = _factor(x), _factor(y)
    cross = np.linalg.svd(left @ right.T, compute_uv=False).sum()
    return float(mean @ mean + (left**2).sum() + (right**2).sum() - 2.0 * cross)


def _factor(x: np.ndarray) -> np.ndarray:
    """Return L with L^T L = cov(x), of no more rows than columns."""
    centred = (x - x.mean(axis=0)) / np.sqrt(len(x) - 1)
    return np.asarray(np.linalg.qr(centred, mode="r")) if len(x) > x.shape[1] else centred
