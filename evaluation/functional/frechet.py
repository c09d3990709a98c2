"""Frechet distance between feature sets: exact, extrapolated to endless samples, with an interval over patients.

Knows feature rows and whose they are; no images, extractors or reports.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from evaluation.functional.arrays import pair
from evaluation.functional.statistics import Interval, codes_of, deal

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
    if debias:
        return frechet_interval(x, y, clusters_x=clusters_x, clusters_y=clusters_y).value
    return _plain(*pair(x, y))


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
    theta_(s,j) the plain distance without group j of side s, and theta_(s,ij) without two,

        value = theta - sum_s (g_s - 1) (mean_j theta_(s,j) - theta)                        (Quenouille 1956)
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
    codes = [codes_of(first, clusters_x), codes_of(second, clusters_y)]
    counts = (int(codes[0].max()) + 1, int(codes[1].max()) + 1)
    if min(counts) < 4:
        raise ValueError(
            f"extrapolation deletes groups of patients: it needs at least 4 a side, got {counts[0]} and {counts[1]}"
        )
    whole = _plain(first, second)
    value, linear, freedoms, surplus = whole, [], [], 0.0
    for index, (sample, other) in enumerate(((first, second), (second, first))):
        dealt = deal(codes[index], groups, seed, index)
        count = int(dealt.max()) + 1
        single, double = _deleted(sample, other, dealt)
        value -= (count - 1) * (float(single.mean()) - whole)
        linear.append((count - 1) / count * float(((single - single.mean()) ** 2).sum()))
        freedoms.append(count - 1)
        mixed = [
            count * whole - (count - 1) * (single + np.roll(single, -offset)) + (count - 2) * row
            for offset, row in zip(_OFFSETS, double, strict=False)
        ]
        surplus += (((count - 2) / count) ** 2 / 2.0 * float(np.var(mixed, ddof=1))) ** 0.5
    surplus = surplus**2
    variance = max(sum(linear) - 2.0 * surplus, 0.0) + surplus
    weight = sum(part**2 / free for part, free in zip(linear, freedoms, strict=True))
    freedom = sum(linear) ** 2 / weight if weight > 0 else float(min(freedoms))
    half = float(stats.t.ppf(0.5 + level / 2.0, freedom)) * variance**0.5
    return FrechetInterval(value, Interval(value - half, value + half), variance**0.5, whole, counts)


def _plain(x: np.ndarray, y: np.ndarray) -> float:
    mean = x.mean(axis=0) - y.mean(axis=0)
    left, right = _factor(x), _factor(y)
    cross = np.linalg.svd(left @ right.T, compute_uv=False).sum()
    return float(mean @ mean + (left**2).sum() + (right**2).sum() - 2.0 * cross)


def _factor(x: np.ndarray) -> np.ndarray:
    """Return L with L^T L = cov(x), of no more rows than columns."""
    centred = (x - x.mean(axis=0)) / np.sqrt(len(x) - 1)
    return np.asarray(np.linalg.qr(centred, mode="r")) if len(x) > x.shape[1] else centred


def _deleted(x: np.ndarray, y: np.ndarray, dealt: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the plain distance without each group of x, and without groups (j, j + o) for each offset o.

    sum sqrt(eig(L S_x L^T)), with L of y, is the cross term; rows of x are turned by L once, and a deletion then only
    takes its rows' share off a sum. Good to 1e-7 of the spread, which a plain value does not rest on.
    """
    count = int(dealt.max()) + 1
    factor = _factor(y)
    shift, middle = x.mean(axis=0), y.mean(axis=0)
    centred = x - shift
    turned = centred @ factor.T
    rest = float((factor**2).sum())

    def distance(groups: Sequence[int]) -> float:
        kept = ~np.isin(dealt, groups)
        rows, size = centred[kept], int(kept.sum())
        mean = rows.mean(axis=0)
        spread = (float((rows**2).sum()) - size * float(mean @ mean)) / (size - 1)
        image = turned[kept] - turned[kept].mean(axis=0)
        gram = image.T @ image if size > image.shape[1] else image @ image.T
        cross = np.sqrt(np.clip(np.linalg.eigvalsh(gram / (size - 1)), 0.0, None)).sum()
        gap = mean + shift - middle
        return float(gap @ gap) + spread + rest - 2.0 * float(cross)

    single = np.array([distance([group]) for group in range(count)])
    double = [
        np.array([distance([group, (group + offset) % count]) for group in range(count)])
        for offset in _OFFSETS
        if 2 * offset < count
    ]
    return single, double
