"""How well members of the training set are told from others, and what may be claimed of it. Knows scores only."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import logsumexp
from scipy.stats import betabinom, binom, norm, rankdata

from evaluation.functional.arrays import array
from evaluation.functional.blind_gate import whitened
from evaluation.functional.privacy import patient_index
from evaluation.functional.statistics import clopper_pearson

RATES = (0.01, 0.001)
_FEW = 8
_MOST_MEMBERS = 100_000


@dataclass(frozen=True)
class Claim:
    """The share of members found while `fpr` of non-members are taken for members, and the ends of its interval, which
    hold at 95 % each: the threshold is not known, but drawn with the non-members."""

    fpr: float
    tpr: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Membership:
    """What a membership attack reaches.

    auc, interval   of telling members from non-members, 95 %
    claims          by false-positive rate, those that this many non-members carry
    refused         by false-positive rate, why there is no claim and what can be claimed instead
    """

    auc: float
    interval: tuple[float, float]
    members: int
    non_members: int
    claims: dict[float, Claim]
    refused: dict[float, str]


def non_members_needed(fpr: float, confidence: float = 0.95) -> int:
    """Return how many non-members certify a false-positive rate when none is taken for a member.

    (1 - fpr)^n <= 1 - confidence.

    >>> non_members_needed(0.01), non_members_needed(0.001)
    (299, 2995)
    """
    return int(np.ceil(np.log(1 - confidence) / np.log1p(-fpr)))


def membership_test(
    members: Any,
    non_members: Any,
    *,
    member_patients: Sequence[Hashable] | None = None,
    non_member_patients: Sequence[Hashable] | None = None,
    rates: Sequence[float] = RATES,
) -> Membership:
    """Return how scores (m,), (n,), higher for likelier members, tell members from non-members.

    A patient's score is the mean of his volumes'. TPR at FPR a: the share of members above all but floor(a n)
    non-members (Carlini et al. 2022); refused where n non-members cannot certify a at 95 %. Its interval is joint: the
    share above the r-th largest non-member has the law Beta(r, n - r + 1), so that the loosest threshold whose true
    rate is at least a, and the strictest whose rate is at most a, are certain to 97.5 %; the ends are Clopper-Pearson's
    (97.5 %) of the members there. The lower end is 0 where even the largest non-member certifies no rate that low.
    AUC with the interval of Newcombe 2006 (method 5), which keeps its width at 0 and 1.
    Errors: ValueError for an empty side or scores that are no numbers.
    """
    inside = _by_patient(members, member_patients)
    outside = _by_patient(non_members, non_member_patients)
    auc = _auc(inside, outside)
    claims: dict[float, Claim] = {}
    refused: dict[float, str] = {}
    for rate in rates:
        least = non_members_needed(rate)
        if len(outside) >= least:
            claims[rate] = _claim(inside, outside, rate)
            continue
        found = _claim(inside, outside, rate)
        refused[rate] = (
            f"{len(outside)} non-members cannot certify a false-positive rate of {100 * rate:g} %, {least} can; of "
            f"{len(inside)} members at most {100 * found.interval[1]:.3g} % are found at it (95 %)"
        )
    return Membership(auc, auc_interval(auc, len(inside), len(outside)), len(inside), len(outside), claims, refused)


def _claim(inside: np.ndarray, outside: np.ndarray, rate: float) -> Claim:
    falling, n, m = np.sort(outside)[::-1], len(outside), len(inside)
    hits = int((inside > falling[int(np.floor(rate * n + 1e-9))]).sum())
    low, high = 0, m
    strict, loose = _ranks(n, rate)
    if strict:
        low = int((inside > falling[strict - 1]).sum())
    if loose <= n:
        high = int((inside >= falling[loose - 1]).sum())  # a tie may lie above a threshold between
    return Claim(rate, hits / m, (clopper_pearson(low, m).low, clopper_pearson(high, m).high))


def _ranks(n: int, rate: float) -> tuple[int, int]:
    """Return the largest r whose r-th largest of n scores has a true rate of at most `rate` above it with 97.5 %, and
    the smallest r with a rate of at least that; 0, or more than n, where there is none.

    P(Beta(r, n - r + 1) <= a) = P(Binomial(n, a) >= r).
    """
    return int(binom.ppf(0.025, n, rate)), int(binom.ppf(0.975, n, rate)) + 1


@lru_cache
def members_needed(rate: float, at_most: float, power: float = 0.8) -> int | None:
    """Return how many members, with as many non-members, bound what an attack that only guesses finds at false-positive
    rate `rate` by `at_most`, with `power`, about; None where no number up to 100,000 does.

    Of n members the hits above the r-th largest of n others follow a beta-binomial law (n, r, n - r + 1).

    >>> members_needed(0.01, 0.03) > non_members_needed(0.01)
    True
    """

    def enough(n: int) -> bool:
        loose = _ranks(n, rate)[1]
        most = int(np.searchsorted([clopper_pearson(k, n).high for k in range(int(at_most * n) + 1)], at_most, "right"))
        return loose <= n and most > 0 and float(betabinom.cdf(most - 1, n, loose, n - loose + 1)) >= power

    low, high = 0, non_members_needed(rate)
    while not enough(high):
        low, high = high, 2 * high
        if high > _MOST_MEMBERS:
            return None
    while high - low > max(1, high // 50):
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _by_patient(scores: Any, patients: Sequence[Hashable] | None) -> np.ndarray:
    values = array(scores)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ValueError(f"scores are finite numbers (n,) with n > 0, got shape {values.shape}")
    if patients is None:
        return values
    if len(patients) != len(values):
        raise ValueError(f"{len(patients)} patients for {len(values)} volumes; name one for each")
    index = patient_index(patients)
    return np.bincount(index, values) / np.bincount(index)


def _auc(inside: np.ndarray, outside: np.ndarray) -> float:
    ranks = rankdata(np.concatenate([inside, outside]))[: len(inside)]
    return float((ranks.sum() - len(inside) * (len(inside) + 1) / 2) / (len(inside) * len(outside)))


def auc_interval(auc: float, m: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return the interval of an AUC of m members against n others: all A with (auc - A)^2 <= z^2 V(A).

    V(A) = A (1 - A) [1 + (N - 1) ((1 - A) / (2 - A) + A / (1 + A))] / (m n), N = (m + n) / 2   (Newcombe 2006)

    >>> [round(v, 2) for v in (*auc_interval(0.5, 50, 50), *auc_interval(1.0, 50, 50))]
    [0.39, 0.61, 0.96, 1.0]
    """
    z = float(norm.ppf((1 + level) / 2))
    half = (m + n) / 2

    def excess(a: float) -> float:
        spread = a * (1 - a) * (1 + (half - 1) * ((1 - a) / (2 - a) + a / (1 + a))) / (m * n)
        return (auc - a) ** 2 - z * z * spread

    # at 0 and 1 the variance vanishes too: the other root is what is asked for
    low = 0.0 if auc <= 0 else float(brentq(excess, 0.0, min(auc, 1 - 1e-9)))  # pyright: ignore[reportArgumentType]
    high = 1.0 if auc >= 1 else float(brentq(excess, max(auc, 1e-9), 1.0))  # pyright: ignore[reportArgumentType]
    return low, high


def log_density(x: Any, sample: Any) -> np.ndarray:
    """Return the log density at x (n, d) of a Gaussian kernel estimate from `sample` (m, d): (n,).

    Bandwidths of Scott 1992: m^(-1 / (d + 4)) times each axis's spread, which never falls below a tenth of the widest,
    so that none is singular however few rows there are.
    """
    points, rows = array(x), array(sample)
    spread = rows.std(axis=0)
    width = len(rows) ** (-1.0 / (rows.shape[1] + 4)) * np.maximum(spread, 0.1 * max(float(spread.max()), 1e-9))
    scaled, centres = points / width, rows / width
    out = np.empty(len(points))
    for index, point in enumerate(scaled):
        out[index] = logsumexp(-0.5 * ((centres - point) ** 2).sum(axis=1))
    return out - np.log(len(rows)) - np.log(width).sum() - 0.5 * rows.shape[1] * np.log(2 * np.pi)


def density_ratio_test(
    synthetic: Any,
    training: Any,
    holdout: Any,
    *,
    training_patients: Sequence[Hashable] | None = None,
    holdout_patients: Sequence[Hashable] | None = None,
    dims: int = 32,
    rng: np.random.Generator,
) -> Membership:
    """Return what a black-box attack by density ratio reaches, from features (n, d), (t, d), (h, d).

    score(x) = log p_S(x) - log p_R(x) (DOMIAS, van Breugel et al. 2023) on up to `dims` principal components of
    training and hold-out together. Hold-out patients are halved: one half is the reference R, the other the
    non-members, then the other way round, half of the training patients scored each time; so R never holds who is
    scored and every patient counts once.
    Errors: ValueError for fewer than 8 patients on a side.
    """
    inside, outside = density_ratio_scores(
        synthetic,
        training,
        holdout,
        training_patients=training_patients,
        holdout_patients=holdout_patients,
        dims=dims,
        rng=rng,
    )
    return membership_test(inside, outside, member_patients=training_patients, non_member_patients=holdout_patients)


def density_ratio_scores(
    synthetic: Any,
    training: Any,
    holdout: Any,
    *,
    training_patients: Sequence[Hashable] | None = None,
    holdout_patients: Sequence[Hashable] | None = None,
    dims: int = 32,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of training (t,) and hold-out (h,) rows of `density_ratio_test`."""
    made, train, held = array(synthetic), array(training), array(holdout)
    sides = [
        patient_index(range(len(rows)) if names is None else names)
        for rows, names in ((train, training_patients), (held, holdout_patients))
    ]
    counts = [int(side.max(initial=-1)) + 1 for side in sides]
    if min(counts) < _FEW or len(made) < _FEW:
        raise ValueError(f"{len(made)} samples, {counts[0]} and {counts[1]} patients; a density ratio needs 8 of each")
    both = np.concatenate([train, held])
    use = min(dims, max(2, min(len(made), len(held)) // 8))
    made, train, held = (whitened(rows, use, of=both) for rows in (made, train, held))
    halves = [rng.permutation(np.arange(count) % 2)[side] for count, side in zip(counts, sides, strict=True)]
    inside, outside = np.empty(len(train)), np.empty(len(held))
    for half in (0, 1):
        reference = held[halves[1] != half]
        for rows, which, out in ((train, halves[0], inside), (held, halves[1], outside)):
            points = rows[which == half]
            out[which == half] = log_density(points, made) - log_density(points, reference)
    return inside, outside


def loss_scores(training: Any, holdout: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return scores (t,), (h,) of denoising losses (t,) or (t, times), (h, times): members have lower losses.

    score = - mean over times of the loss, centred and scaled at each time by those of both sides together, so that no
    time outweighs the others (loss attack of Yeom et al. 2018 at several noise levels).
    """
    first, second = (array(side).reshape(len(side), -1) for side in (training, holdout))
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"losses are at {first.shape[1]} and {second.shape[1]} times; measure both sides alike")
    both = np.concatenate([first, second])
    centre, spread = both.mean(axis=0), np.maximum(both.std(axis=0), 1e-12)
    inside, outside = (-((side - centre) / spread).mean(axis=1) for side in (first, second))
    return inside, outside
