"""Kernel distance between feature sets and its two-sample test. Knows feature rows and whose they are, nothing else."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.distance import pdist, squareform

from evaluation.functional.arrays import pair
from evaluation.functional.statistics import Jackknife, Side, codes_of, deal, jackknife
from synth.rng import numpy_rng

Clusters = Sequence[Any] | np.ndarray | None


@dataclass(frozen=True)
class KernelTest:
    """A squared kernel distance and how it stands among permutations of its two sets.

    value        unbiased; below 0 at times
    p_value      of equal distributions, one-sided
    null_sd      standard deviation of value where the two sets are exchangeable
    clusters     how many were permuted on each side
    """

    value: float
    p_value: float
    null_sd: float
    clusters: tuple[int, int]


def kernel_distance(x: Any, y: Any, *, clusters_x: Clusters = None, clusters_y: Clusters = None) -> float:
    """Return the unbiased squared maximum mean discrepancy of features x (n, d) and y (m, d), n != m allowed.

    MMD^2 = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean k(x_i, y_j), k(a, b) = (a.b / d + 1)^3
    (Gretton et al. 2012; kernel of Binkowski et al. 2018, "KID"). Unbiased, so it is at times below 0. Rows of one
    cluster (patient) are averaged in k before, and no pair within a cluster counts, which keeps it unbiased. The
    kernel rests on where 0 is: centre features that have no zero of their own.
    Errors: ValueError for fewer than 2 samples or clusters, feature widths that differ, NaN.

    >>> x = np.random.default_rng(0).normal(size=(50, 4))
    >>> kernel_distance(x, x[:30]) < kernel_distance(x, 3 * x[:30])
    True
    """
    first, second = pair(x, y)
    gram, count = _gram(first, second, codes_of(first, clusters_x), codes_of(second, clusters_y), _cubic)
    sides = np.zeros((1, len(gram)))
    sides[0, :count] = 1.0
    return float(_distances(gram, sides, count)[0])


def kernel_interval(
    x: Any,
    y: Any,
    *,
    clusters_x: Clusters = None,
    clusters_y: Clusters = None,
    level: float = 0.95,
    groups: int = 20,
    seed: int = 0,
) -> Jackknife:
    """Return the kernel distance of x (n, d) and y (m, d) with standard error and interval over clusters.

    By the grouped jackknife (statistics.grouped_jackknife, quadratic) over clusters. Not exact: benchmarks/frechet.py
    finds its coverage above the level at equal distributions and below it at three times the spread, where the cubic
    kernel is skewed. For "do they differ" see kernel_test, which is exact.
    Errors: ValueError as kernel_distance, and for fewer than 4 clusters a side.

    >>> rng = np.random.default_rng(0)
    >>> kernel_interval(3 * rng.normal(size=(40, 4)), rng.normal(size=(30, 4))).interval.high > 0
    True
    """
    first, second = pair(x, y)
    gram, count = _gram(first, second, codes_of(first, clusters_x), codes_of(second, clusters_y), _cubic)
    off = gram - np.diag(np.diag(gram))
    dealt = deal(np.arange(count), groups, seed, 0), deal(np.arange(len(gram) - count), groups, seed, 1)

    def kept(side: int, some: Sequence[int]) -> np.ndarray:
        return ~np.isin(dealt[side], some)

    def distance(one: np.ndarray, other: np.ndarray) -> float:
        a, b = one.astype(np.float64), other.astype(np.float64)
        n, m = a.sum(), b.sum()
        within = a @ off[:count, :count] @ a / (n * (n - 1)) + b @ off[count:, count:] @ b / (m * (m - 1))
        return float(within - 2.0 * (a @ off[:count, count:] @ b) / (n * m))

    every = kept(0, ()), kept(1, ())
    sides = [
        Side(dealt[0], lambda some: distance(kept(0, some), every[1])),
        Side(dealt[1], lambda some: distance(every[0], kept(1, some))),
    ]
    return jackknife(distance(*every), sides, level=level, quadratic=True)


def kernel_test(
    x: Any,
    y: Any,
    *,
    clusters_x: Clusters = None,
    clusters_y: Clusters = None,
    resamples: int = 999,
    seed: int = 0,
) -> KernelTest:
    """Return the kernel distance of x (n, d) and y (m, d) with a permutation p-value, whole clusters permuted.

    p = (1 + #{permuted T >= T}) / (1 + resamples)    (Gretton et al. 2012; Phipson & Smyth 2010)

    T is the larger of two MMD^2, each in standard deviations of its permutations: of the cubic kernel, whose value is
    given, and of exp(-|a - b|^2 / (2 h^2)) with h the median distance between pooled rows, since the cubic one alone is
    weak where few rows lie far out. Exact at any n, m, d: under equal distributions clusters of both sides are
    exchangeable, provided that they hold equally many rows. Where they do not, one row is drawn of each cluster
    (seeded) and the test is of those, exact again. Features must be scaled by what treats both sides alike (pooled,
    or a third set), or exactness is lost.
    Errors: ValueError as kernel_distance.

    >>> rng = np.random.default_rng(0)
    >>> kernel_test(3 * rng.normal(size=(40, 4)), rng.normal(size=(30, 4))).p_value
    0.001
    """
    first, second = pair(x, y)
    codes = [codes_of(first, clusters_x), codes_of(second, clusters_y)]
    if len({int(size) for own in codes for size in np.bincount(own)}) > 1:
        first, codes[0] = _one_each(first, codes[0], seed, "x")
        second, codes[1] = _one_each(second, codes[1], seed, "y")
    grams = [_gram(first, second, codes[0], codes[1], kernel) for kernel in (_cubic, _gaussian)]
    total, count = len(grams[0][0]), grams[0][1]
    rng = numpy_rng(seed, "kernel test")
    sides = np.zeros((resamples + 1, total))
    sides[0, :count] = 1.0
    for row in sides[1:]:
        row[rng.permutation(total)[:count]] = 1.0
    found = np.stack([_distances(gram, sides, count) for gram, _ in grams])
    # the observed labelling is one of the set that scales, so that all labellings are treated alike
    spread = found.std(axis=1, keepdims=True)
    scaled = ((found - found.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1.0)).max(axis=0)
    p_value = (1 + int((scaled[1:] >= scaled[0] - 1e-9).sum())) / (1 + resamples)
    return KernelTest(float(found[0, 0]), p_value, float(found[0, 1:].std()), (count, total - count))


def _cubic(rows: np.ndarray) -> np.ndarray:
    return (rows @ rows.T / rows.shape[1] + 1.0) ** 3


def _gaussian(rows: np.ndarray) -> np.ndarray:
    squares = squareform(pdist(rows, "sqeuclidean"))
    middle = float(np.median(squares[np.triu_indices(len(rows), 1)]))
    return np.exp(-squares / (2.0 * middle)) if middle > 0 else (squares == 0.0).astype(np.float64)


def _gram(
    x: np.ndarray, y: np.ndarray, own_x: np.ndarray, own_y: np.ndarray, kernel: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, int]:
    """Return the kernel between all clusters, x first, averaged over their rows; and how many are of x."""
    count = int(own_x.max()) + 1
    total = count + int(own_y.max()) + 1
    if min(count, total - count) < 2:
        raise ValueError("a kernel distance needs at least 2 patients on each side")
    rows = np.concatenate([x, y])
    gram = kernel(rows)
    if total == len(rows):
        return gram, count
    share = np.zeros((total, len(rows)))
    share[np.concatenate([own_x, count + own_y]), np.arange(len(rows))] = 1.0
    share /= share.sum(axis=1, keepdims=True)
    return share @ gram @ share.T, count


def _distances(gram: np.ndarray, sides: np.ndarray, count: int) -> np.ndarray:
    """Return the unbiased distance for each row of sides (trials, clusters): 1 where a cluster is on x's side."""
    rest = len(gram) - count
    off = gram - np.diag(np.diag(gram))
    turned = sides @ off
    both = (turned * sides).sum(axis=1)
    one = turned.sum(axis=1)
    cross = one - both
    other = off.sum() - one - cross
    return both / (count * (count - 1)) + other / (rest * (rest - 1)) - 2.0 * cross / (count * rest)


def _one_each(rows: np.ndarray, codes: np.ndarray, seed: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    order = numpy_rng(seed, "one of each", name).permutation(len(rows))
    first = np.unique(codes[order], return_index=True)[1]
    kept = np.sort(order[first])
    return rows[kept], np.arange(len(kept))
