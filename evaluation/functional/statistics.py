"""Intervals, tests and adjustments for figures whose rows come in clusters (patients). Knows no images or reports.

Rows of one patient are not independent: everything here resamples, deletes or flips whole clusters.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy import stats

from evaluation.functional.arrays import array
from synth.rng import numpy_rng

SMALLEST = 5
"""Below so many values a bootstrap says nothing."""
_OFFSETS = (1, 2, 3)


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


@dataclass(frozen=True)
class Jackknife:
    """What deleting clusters says of a statistic: its value, standard error, bias, degrees of freedom and interval.

    pairwise is the part of standard_error^2 that pairs of clusters add (V of grouped_jackknife); 0 unless `quadratic`.
    """

    value: float
    standard_error: float
    bias: float
    freedom: float
    interval: Interval
    pairwise: float = 0.0

    @property
    def mended(self) -> "Jackknife":
        """The same with the bias of order 1/n taken off value and interval."""
        moved = Interval(self.interval.low - self.bias, self.interval.high - self.bias)
        return replace(self, value=self.value - self.bias, bias=0.0, interval=moved)


def clopper_pearson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Return the exact interval of a binomial share, which covers at least at `level` for every n (Clopper 1934).

    low = Beta(a; s, n - s + 1), high = Beta(1 - a; s + 1, n - s), a = (1 - level) / 2.

    >>> clopper_pearson(0, 299).high < 0.0123
    True
    """
    _counts(successes, n, level)
    tail = (1.0 - level) / 2.0
    low = 0.0 if successes == 0 else float(stats.beta.ppf(tail, successes, n - successes + 1))
    high = 1.0 if successes == n else float(stats.beta.ppf(1.0 - tail, successes + 1, n - successes))
    return Interval(low, high)


def wilson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Return the score interval of a binomial share (Wilson 1927): shorter than the exact one, right on average.

    (s + z^2 / 2 +- z sqrt(s (n - s) / n + z^2 / 4)) / (n + z^2)

    >>> low, high = wilson(5, 10); round(low, 3), round(high, 3)
    (0.237, 0.763)
    """
    _counts(successes, n, level)
    z = float(stats.norm.ppf(0.5 + level / 2.0))
    middle = (successes + z * z / 2.0) / (n + z * z)
    half = z * np.sqrt(successes * (n - successes) / n + z * z / 4.0) / (n + z * z)
    return Interval(max(0.0, float(middle - half)), min(1.0, float(middle + half)))


def cluster_bootstrap(
    values: Any,
    clusters: Sequence[Any] | np.ndarray | None = None,
    *,
    seed: int,
    level: float = 0.95,
    resamples: int = 1000,
    statistic: Callable[[np.ndarray], Any] = np.mean,
) -> Interval:
    """Return the bootstrap interval of `statistic` of the rows of `values` (n, ...), drawing whole clusters.

    Quantiles are the expanded ones (`expanded_tail`) of k clusters, since plain percentile intervals are too short
    for few of them. For smooth statistics such as
    means; medians are poorly served, and distances between sets (Frechet) are biased under it: see grouped_jackknife.
    Errors: ValueError for fewer than 2 clusters, NaN, or clusters that are not one per row.

    >>> low, high = cluster_bootstrap(np.arange(20.0), seed=0); low < 9.5 < high
    True
    """
    rows = array(values)
    codes = codes_of(rows, clusters)
    count = int(codes.max()) + 1
    if count < 2:
        raise ValueError("an interval over clusters needs at least 2 of them; one patient says nothing of others")
    rng = numpy_rng(seed, "cluster bootstrap")
    if statistic is np.mean and rows.ndim == 1:
        sums, sizes = np.bincount(codes, rows), np.bincount(codes)
        drawn = rng.multinomial(count, np.full(count, 1.0 / count), size=resamples)
        found = (drawn @ sums) / (drawn @ sizes)
    else:
        members = _members(codes)
        found = np.array(
            [
                statistic(rows[np.concatenate([members[i] for i in rng.integers(count, size=count)])])
                for _ in range(resamples)
            ],
            dtype=np.float64,
        )
    tail = expanded_tail(0.5 - level / 2.0, count)
    low, high = np.quantile(found, [tail, 1.0 - tail])
    return Interval(float(low), float(high))


def expanded_tail(alpha: float, n: int) -> float:
    """Return the quantile of bootstrap draws that leaves `alpha` outside, of n values (Hesterberg 2015).

    alpha' = Phi(-sqrt(n / (n - 1)) t_{alpha, n-1}): resampled means spread by a factor sqrt((n - 1) / n) too
    little, and know nothing of how uncertain that spread is.

    >>> round(expanded_tail(0.025, 8), 4), round(expanded_tail(0.025, 10000), 4)
    (0.0057, 0.025)
    """
    return float(stats.norm.sf(np.sqrt(n / (n - 1)) * stats.t.ppf(1.0 - alpha, n - 1)))


def mean_interval(values: Any, clusters: Sequence[Any] | np.ndarray | None = None, *, seed: int) -> Interval | None:
    """Return the 95 % interval of the mean of values (n,) by cluster_bootstrap; None below 5 values or clusters."""
    rows = array(values)
    known = len(rows) if clusters is None else len(set(clusters))
    return cluster_bootstrap(rows, clusters, seed=seed, resamples=2000) if known >= SMALLEST else None


def simultaneous_gap(groups: Sequence[np.ndarray], pair: tuple[int, int]) -> Interval:
    """Return the interval of mean(groups[a]) - mean(groups[b]) that holds at 95 % for all pairs at once.

    Of several groups the best and the worst lie apart by chance: Bonferroni over the pairs keeps an interval of the
    pair that was picked for being furthest apart honest. Welch's t (1947), d +- t_{1 - 0.025 / pairs, f} SE, since a
    bootstrap of few values has no tails that far out.

    >>> low, high = simultaneous_gap([np.arange(5.0), np.arange(5.0) + 1.0, np.arange(5.0)], (1, 0)); low < 0 < high
    True
    """
    a, b = (np.asarray(groups[place], dtype=np.float64) for place in pair)
    parts = [float(side.var(ddof=1)) / len(side) for side in (a, b)]
    gap, error = float(a.mean() - b.mean()), sum(parts) ** 0.5
    if error == 0.0:
        return Interval(gap, gap)
    freedom = sum(parts) ** 2 / sum(part**2 / (len(side) - 1) for part, side in zip(parts, (a, b), strict=True))
    pairs = len(groups) * (len(groups) - 1) / 2
    half = float(stats.t.ppf(1.0 - 0.025 / pairs, freedom)) * error
    return Interval(gap - half, gap + half)


def grouped_jackknife(
    statistic: Callable[..., float],
    arrays: Sequence[Any],
    clusters: Sequence[Sequence[Any] | np.ndarray | None],
    *,
    groups: int = 20,
    level: float = 0.95,
    quadratic: bool = False,
    seed: int = 0,
) -> Jackknife:
    """Return value, standard error and interval of statistic(*arrays) by deleting groups of whole clusters.

    Each array is an independent sample (rows first) with its own clusters (None: each row is its own). The clusters
    of a sample are dealt at random into at most `groups` groups g, and with theta_(s,j) the value without group j of
    sample s, which holds the share w_j of its rows, and theta_(s,ij) without two,

        bias = sum_s (sum_j (1 - w_j) theta_(s,j) - (g_s - 1) theta)    (Quenouille 1956; Busing et al. 1999)
        J    = sum_s (g_s - 1) / g_s sum_j (theta_(s,j) - mean_j theta_(s,j))^2    (Arvesen 1969; Shao & Wu 1989)
        V_s  = ((g_s - 2) / (g_s - 1))^2 / 2 var_(ij) (g_s theta - (g_s - 1) (theta_(s,i) + theta_(s,j))
               + (g_s - 2) theta_(s,ij)),    V = (sum_s sqrt V_s)^2
        SE^2 = J, or max(J - 2 V, 0) + V where `quadratic`

    J counts what is quadratic in the data twice (Efron & Stein 1981). Distances between like distributions are
    quadratic: `quadratic` takes the surplus off, with V_s estimated from three pairings of groups. The interval is
    value +- t SE, with Satterthwaite's degrees of freedom; it is not corrected for bias: see `mended`.
    Errors: ValueError for a sample of fewer than 2 clusters (4 where `quadratic`).

    >>> x = np.arange(12.0)
    >>> found = grouped_jackknife(np.mean, [x], [None])
    >>> bool(np.isclose(found.standard_error, x.std(ddof=1) / np.sqrt(12)))
    True
    """
    samples = [array(values) for values in arrays]
    sides = []
    for index, (sample, own) in enumerate(zip(samples, clusters, strict=True)):
        dealt = deal(codes_of(sample, own), groups, seed, index)

        def without(some: Sequence[int], index: int = index, dealt: np.ndarray = dealt) -> float:
            kept = samples[index][~np.isin(dealt, some)]
            return float(statistic(*samples[:index], kept, *samples[index + 1 :]))

        sides.append(Side(dealt, without))
    return jackknife(float(statistic(*samples)), sides, level=level, quadratic=quadratic)


class Side(NamedTuple):
    """One sample of a statistic: the group of each row, and the value without some groups."""

    dealt: np.ndarray
    without: Callable[[Sequence[int]], float]


def jackknife(whole: float, sides: Sequence[Side], *, level: float = 0.95, quadratic: bool = False) -> Jackknife:
    """Return what grouped_jackknife does, of a value and of samples that know how to do without groups."""
    parts, freedoms, roots, bias = [], [], [], 0.0
    for index, side in enumerate(sides):
        count = int(side.dealt.max()) + 1
        if count < (4 if quadratic else 2):
            raise ValueError(
                f"sample {index} holds {count} patients or groups of them; this needs at least {4 if quadratic else 2}"
            )
        left = np.array([side.without((group,)) for group in range(count)])
        share = np.bincount(side.dealt) / len(side.dealt)
        bias += float(((1.0 - share) * left).sum()) - (count - 1) * whole
        parts.append((count - 1) / count * float(((left - left.mean()) ** 2).sum()))
        freedoms.append(count - 1)
        roots.append(_pairwise(whole, side, left) ** 0.5 if quadratic else 0.0)
    linear, surplus = sum(parts), sum(roots) ** 2
    weight = sum(part**2 / free for part, free in zip(parts, freedoms, strict=True))
    freedom = linear**2 / weight if weight > 0 else float(min(freedoms))
    error = (max(linear - 2.0 * surplus, 0.0) + surplus) ** 0.5
    half = float(stats.t.ppf(0.5 + level / 2.0, freedom)) * error
    return Jackknife(whole, error, bias, freedom, Interval(whole - half, whole + half), surplus)


def _pairwise(whole: float, side: Side, left: np.ndarray) -> float:
    """Return the variance that pairs of groups of one side add, from deleting two at a time."""
    count, mixed = len(left), []
    for offset in (o for o in _OFFSETS if 2 * o < count):
        two = np.array([side.without((group, (group + offset) % count)) for group in range(count)])
        mixed.append(count * whole - (count - 1) * (left + np.roll(left, -offset)) + (count - 2) * two)
    return ((count - 2) / (count - 1)) ** 2 / 2.0 * float(np.var(mixed, ddof=1))


def paired_permutation(
    differences: Any,
    clusters: Sequence[Any] | np.ndarray | None = None,
    *,
    seed: int,
    resamples: int = 9999,
    alternative: Literal["two-sided", "greater", "less"] = "two-sided",
) -> float:
    """Return the p-value of mean(differences) = 0 by flipping the signs of whole clusters of (n,) paired differences.

    p = (1 + #{flipped mean at least as extreme}) / (1 + resamples), exact size at any n if differences are symmetric
    about 0 under the null (Fisher 1935; Phipson & Smyth 2010 for the 1). All 2^k flips of k clusters are listed
    where they are no more than `resamples`, and p is then exact.

    >>> paired_permutation([1.0, 2.0, 3.0, 4.0], seed=0)
    0.125
    """
    rows = array(differences)
    if rows.ndim != 1:
        raise ValueError(f"differences are (n,), got {rows.shape}")
    codes = codes_of(rows, clusters)
    sums = np.bincount(codes, rows)
    if alternative == "less":
        sums = -sums
    count = len(sums)
    exact = 2.0**count <= resamples
    if exact:
        bits = (np.arange(2**count)[:, None] >> np.arange(count)) & 1
    else:
        bits = numpy_rng(seed, "sign flips").integers(2, size=(resamples, count))
    flipped, seen = (1.0 - 2.0 * bits) @ sums, float(sums.sum())
    if alternative == "two-sided":
        flipped, seen = np.abs(flipped), abs(seen)
    # sums in another order differ in their last digits: ties count
    extreme = int((flipped >= seen - 1e-12 * np.abs(sums).sum()).sum())
    return extreme / 2**count if exact else (1 + extreme) / (1 + resamples)


def holm(p_values: Any) -> np.ndarray:
    """Return Holm's adjusted p-values (n,) in the order given: the family-wise error rate is held (Holm 1979).

    p~_(i) = max_{j <= i} min(1, (n - j + 1) p_(j)) for sorted p_(1) <= ... <= p_(n)

    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    p = array(p_values)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError("p-values are (n,) between 0 and 1")
    order = np.argsort(p, kind="stable")
    out = np.empty_like(p)
    out[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return out


def codes_of(rows: np.ndarray, clusters: Sequence[Any] | np.ndarray | None) -> np.ndarray:
    """Return the cluster of each row as whole numbers 0..k-1 in order of first appearance; None: each row its own.

    Errors: ValueError for no rows, NaN or infinity, or clusters that are not one per row.
    """
    if rows.ndim < 1 or not len(rows):
        raise ValueError("there are no rows")
    if not np.isfinite(rows).all():
        raise ValueError("rows hold NaN or infinity; drop those cases first, and say so")
    if clusters is None:
        return np.arange(len(rows))
    names = list(clusters)
    if len(names) != len(rows):
        raise ValueError(f"{len(names)} cluster names for {len(rows)} rows; give one per row")
    known: dict[Any, int] = {}
    return np.array([known.setdefault(name, len(known)) for name in names])


def deal(codes: np.ndarray, groups: int, seed: int, index: int = 0) -> np.ndarray:
    """Return for each row the group (0..) that its cluster was dealt into: at most `groups`, as even as can be."""
    count = int(codes.max()) + 1
    if count <= groups:
        return codes
    order = numpy_rng(seed, "groups", index).permutation(count)
    group = np.empty(count, dtype=np.int64)
    group[order] = np.arange(count) % groups
    return group[codes]


def _members(codes: np.ndarray) -> list[np.ndarray]:
    order = np.argsort(codes, kind="stable")
    return np.split(order, np.cumsum(np.bincount(codes))[:-1])


def _counts(successes: int, n: int, level: float) -> None:
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"successes are 0..n of n >= 1, got {successes} of {n}")
    if not 0.0 < level < 1.0:
        raise ValueError(f"level is between 0 and 1, got {level}")
