"""Frechet distance between feature sets: exact, extrapolated to endless samples, with an interval over patients.

Knows feature rows and whose they are; no images, extractors or reports.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from evaluation.functional.arrays import pair
from evaluation.functional.statistics import Interval, bias_of, codes_of, deal

Clusters = Sequence[Any] | np.ndarray | None
_OFFSETS = (1, 2, 3)


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
    return _Thinned(first, second, (clusters_x, clusters_y)).value


def frechet_interval(
    x: Any,
    y: Any,
    *,
    clusters_x: Clusters = None,
    clusters_y: Clusters = None,
    level: float = 0.95,
    groups: int = 20,
    seed: int = 0,
) -> FrechetInterval:
    """Return the Frechet distance of features x (n, d), y (m, d) without bias, and its interval over clusters.

    Clusters (patients; each row its own where None) of each side s are dealt into g_s <= `groups` groups. With
    theta_(s,j) the plain distance without group j of side s, which holds the share w_j of its rows, and theta_(s,ij)
    without two,

        value = theta - sum_s (sum_j (1 - w_j) theta_(s,j) - (g_s - 1) theta)                (Busing et al. 1999)
        J     = sum_s (g_s - 1) / g_s sum_j (theta_(s,j) - mean)^2                          (Arvesen 1969)
        V_s   = ((g_s - 2) / g_s)^2 / 2 var_(ij) (g_s theta - (g_s - 1)(theta_(s,i) + theta_(s,j))
                + (g_s - 2) theta_(s,ij)),   V = (sqrt V_x + sqrt V_y)^2
        SE^2  = max(J - 2 V, 0) + V

    The first line removes the terms in 1/n and 1/m together. J counts what is quadratic in the data twice (Efron &
    Stein 1981), and near equal distributions the distance is quadratic: V takes the surplus off. The interval is
    value +- t SE. A bootstrap would repeat the bias instead: its sets are worse than the set they are drawn from.
    Errors: ValueError for fewer than 4 clusters on a side, feature widths that differ, NaN.
    """
    first, second = pair(x, y)
    thinned = _Thinned(first, second, (clusters_x, clusters_y), groups=groups, seed=seed)
    linear, freedoms = thinned.linear()
    surplus = sum(thinned.quadratic(side) ** 0.5 for side in (0, 1)) ** 2
    variance = max(sum(linear) - 2.0 * surplus, 0.0) + surplus
    weight = sum(part**2 / free for part, free in zip(linear, freedoms, strict=True))
    freedom = sum(linear) ** 2 / weight if weight > 0 else float(min(freedoms))
    half = float(stats.t.ppf(0.5 + level / 2.0, freedom)) * variance**0.5
    value = thinned.value
    return FrechetInterval(value, Interval(value - half, value + half), variance**0.5, thinned.whole, thinned.clusters)


class _Thinned:
    """The plain distance of two sets, and of what is left of them without groups of their clusters."""

    def __init__(
        self, x: np.ndarray, y: np.ndarray, clusters: tuple[Clusters, Clusters], *, groups: int = 20, seed: int = 0
    ) -> None:
        codes = [codes_of(rows, own) for rows, own in zip((x, y), clusters, strict=True)]
        self.clusters = (int(codes[0].max()) + 1, int(codes[1].max()) + 1)
        if min(self.clusters) < 4 or groups < 4:
            raise ValueError(
                "extrapolation deletes groups of patients: it needs at least 4 groups and patients a side, got "
                f"{groups} groups of {self.clusters[0]} and {self.clusters[1]} patients"
            )
        self.whole = _plain(x, y)
        self.sides = [
            _Side(rows, other, deal(own, groups, seed, index))
            for index, (rows, other, own) in enumerate(zip((x, y), (y, x), codes, strict=True))
        ]
        self.single = [side.without(*((group,) for group in range(side.count))) for side in self.sides]

    @property
    def value(self) -> float:
        """The distance with 1/n and 1/m extrapolated to zero together."""
        return self.whole - sum(
            bias_of(self.whole, left, side.dealt) for left, side in zip(self.single, self.sides, strict=True)
        )

    def linear(self) -> tuple[list[float], list[int]]:
        """Return the jackknife variance of each side and its degrees of freedom."""
        parts = [(len(left) - 1) / len(left) * float(((left - left.mean()) ** 2).sum()) for left in self.single]
        return parts, [len(left) - 1 for left in self.single]

    def quadratic(self, index: int) -> float:
        """Return the variance that pairs of groups of one side add, from deleting two at a time."""
        side, left = self.sides[index], self.single[index]
        count, mixed = side.count, []
        for offset in (o for o in _OFFSETS if 2 * o < count):
            two = side.without(*((group, (group + offset) % count) for group in range(count)))
            mixed.append(count * self.whole - (count - 1) * (left + np.roll(left, -offset)) + (count - 2) * two)
        return ((count - 2) / count) ** 2 / 2.0 * float(np.var(mixed, ddof=1))


class _Side:
    """One set against the other: distances without some of its groups.

    sum sqrt(eig(L S L^T)), with L of the other set, is the cross term; rows are turned by L once, and each deletion
    then works on what is left of them. Good to 1e-7 of the spread, which a plain value does not rest on.
    """

    def __init__(self, rows: np.ndarray, other: np.ndarray, dealt: np.ndarray) -> None:
        self.dealt, self.count = dealt, int(dealt.max()) + 1
        factor = _factor(other)
        self.gap = rows.mean(axis=0) - other.mean(axis=0)
        self.centred = rows - rows.mean(axis=0)
        self.turned = self.centred @ factor.T
        self.rest = float((factor**2).sum())

    def without(self, *groups: tuple[int, ...]) -> np.ndarray:
        """Return the distance without each of these tuples of groups."""
        return np.array([self._distance(~np.isin(self.dealt, some)) for some in groups])

    def _distance(self, kept: np.ndarray) -> float:
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
