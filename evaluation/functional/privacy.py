"""Whether single samples lie nearer to training volumes than volumes never trained on do, and what could be seen.

Knows embeddings and distances only. Sets as wholes: `set_level`; members: `membership`; the design: `blind_gate`.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.spatial.distance import cdist

from evaluation.functional.arrays import array
from evaluation.functional.statistics import clopper_pearson
from synth.rng import numpy_rng
from synth.statistics import benjamini_hochberg

Ties = Literal["conservative", "randomised"]
_SHARE = 0.1
_CHUNK = 256
_MOST_HOLDOUT = 10_000
_THRESHOLDS = (1, 4, 16)


@dataclass(frozen=True, eq=False)
class CopyTest:
    """Conformal p-values (n,), indices flagged at false-discovery rate q, whether this data can flag, and why."""

    p_values: np.ndarray
    flagged: np.ndarray
    decidable: bool
    note: str


def copy_test(
    synthetic: Any,
    training: Any,
    holdout: Any,
    *,
    q: float = 0.10,
    patients: Sequence[Hashable] | None = None,
    ties: Ties = "conservative",
    seed: int = 0,
) -> CopyTest:
    """Test each sample of embeddings (n, d) for being a copy of `training` (t, d), against `holdout` (h, d).

    s_i, c_j say how much nearer sample i and hold-out j lie to training than to hold-out rows of other patients, by
    Euclidean distance (`leaning`). p_i by `conformal_p_values`, then Benjamini-Hochberg at q, whose rate holds for
    conformal p-values (Bates et al. 2023).
    patients   whose each hold-out row is; without it each is its own patient's
    Decidable when a tenth of the set being copies can be flagged at all: the smallest p is 1 / (g + 1) for g hold-out
    patients, so k copies must be found at once, k >= n / (q (g + 1)); how often they are is `Mixtures`'.
    Errors: ValueError for an empty set, values that are no numbers, or q outside 0..1.

    >>> rng = np.random.default_rng(0)
    >>> training, holdout = rng.normal(size=(50, 8)), rng.normal(size=(200, 8))
    >>> copy_test(np.concatenate([training[:3] + 0.01, rng.normal(size=(17, 8))]), training, holdout).flagged.tolist()
    [0, 1, 2]
    """
    if min(len(synthetic), len(training), len(holdout)) < 1:
        raise ValueError("a copy test needs synthetic, training and hold-out rows")
    others = nearest_others(cdist(array(holdout), array(holdout)), patients)
    found = leaning(nearest_distances(synthetic, training), nearest_distances(synthetic, holdout))
    control = leaning(nearest_distances(holdout, training), others)
    return copy_test_of_distances(found, control, q=q, patients=patients, ties=ties, seed=seed)


def copy_test_of_distances(
    found: Any,
    control: Any,
    *,
    q: float = 0.10,
    patients: Sequence[Hashable] | None = None,
    ties: Ties = "conservative",
    seed: int = 0,
) -> CopyTest:
    """Test samples by their distances to training (n,) against those of hold-out volumes (h,).

    Several embeddings at once: (e, n) against (e, h), by `combined_p_values`, with one Benjamini-Hochberg.
    """
    if not 0 < q < 1:
        raise ValueError(f"q is a rate between 0 and 1, got {q}")
    if np.ndim(found) == 2:
        p = combined_p_values(found, control, patients=patients)
    else:
        p = conformal_p_values(found, control, patients=patients, ties=ties, seed=seed)
    whose = np.shape(control)[-1] if patients is None else len(set(patients))
    needed = copies_needed(len(p), whose, q=q)
    decidable = needed <= max(1, _SHARE * len(p))
    note = (
        f"{whose} hold-out {'volumes' if patients is None else 'patients'}: at q = {q:g} at least {needed} of {len(p)} "
        f"samples must be copies at once to be flagged"
        f"{'' if decidable else f'; a tenth of copies needs {patients_needed(_SHARE, q=q)} patients at least'}"
    )
    return CopyTest(p, benjamini_hochberg(p, q=q), decidable, note)


def leaning(to_training: Any, beside: Any) -> np.ndarray:
    """Return d_T / d_H: the distance to the nearest training volume over that to the nearest hold-out one.

    Samples that vary less than patients do lie nearer to everybody: by d_T alone they would be flagged, copying nobody.
    d_H is of another patient than the volume's own; infinite where there is none, which flags nobody.
    """
    return array(to_training) / np.maximum(array(beside), 1e-12)


def nearest_others(distances: np.ndarray, patients: Sequence[Hashable] | None = None) -> np.ndarray:
    """Return the least of each row's distances (h, h) to rows of other patients: (h,), infinite where there is none.

    >>> nearest_others(np.array([[0.0, 1.0, 2.0], [1.0, 0.0, 3.0], [2.0, 3.0, 0.0]]), ["a", "a", "b"]).tolist()
    [2.0, 3.0, 2.0]
    """
    index = patient_index(range(len(distances)) if patients is None else patients)
    return np.where(index[:, None] == index, np.inf, distances).min(axis=1)


def nearest_distances(x: Any, y: Any) -> np.ndarray:
    """Return for each row of x (n, d) the Euclidean distance to its nearest row of y (m, d): (n,)."""
    first, second = array(x), array(y)
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise ValueError(f"embeddings are (n, d) and (m, d), got {first.shape} and {second.shape}")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("embeddings hold NaN or infinity; drop those volumes first")
    parts = [cdist(first[at : at + _CHUNK], second).min(axis=1) for at in range(0, len(first), _CHUNK)]
    return np.concatenate(parts) if parts else np.zeros(0)


def conformal_p_values(
    found: Any,
    control: Any,
    *,
    patients: Sequence[Hashable] | None = None,
    ties: Ties = "conservative",
    seed: int = 0,
) -> np.ndarray:
    """Return how rarely hold-out volumes lie as near as each sample does: (n,).

    p_i = (1 + sum_g mean_{j in g} 1[c_j <= s_i]) / (G + 1) over G hold-out patients (Vovk et al. 2005; several volumes
    of a patient as in hierarchical conformal prediction, Lee, Barber & Willett 2023). Volumes of one patient are not
    exchangeable with one another's, so that a patient counts once however often he was scanned.
    ties   conservative: an equal hold-out counts as nearer, P(p <= a) <= a; randomised: by a drawn share of the ties,
           P(p <= a) = a exactly
    Errors: ValueError for an empty control, values that are no numbers, or patients of another number.

    >>> conformal_p_values([0.5, 3.0], [1.0, 2.0, 4.0]).tolist()
    [0.25, 0.75]
    >>> conformal_p_values([3.0], [1.0, 2.0, 4.0], patients=["a", "a", "b"]).tolist()
    [0.6666666666666666]
    """
    s, c = array(found), array(control)
    if s.ndim != 1 or c.ndim != 1 or not len(c):
        raise ValueError(f"distances are (n,) and (h,) with h > 0, got {s.shape} and {c.shape}")
    if not (np.isfinite(s).all() and np.isfinite(c).all()):
        raise ValueError("distances hold NaN or infinity; drop those volumes first")
    weights, count = patient_weights(len(c), patients)
    order = np.argsort(c, kind="stable")
    total = np.concatenate([[0.0], np.cumsum(weights[order])])
    nearer, as_near = (total[np.searchsorted(c[order], s, side=side)] for side in ("left", "right"))
    if ties == "conservative":
        return (1.0 + as_near) / (count + 1)
    drawn = numpy_rng(seed, "conformal ties").random(len(s))
    return (nearer + drawn * (1.0 + as_near - nearer)) / (count + 1)


def combined_p_values(found: Any, control: Any, *, patients: Sequence[Hashable] | None = None) -> np.ndarray:
    """Return one conformal p-value a sample over several embeddings: (n,).

    Distances are (e, n) and (e, h). Sample and hold-out volumes are one pool; each is ranked in every embedding, its
    score is its best rank, ties by its distance there over the pool's median:
    p_i = (1 + sum_g mean_{j in g} 1[score_j <= score_i]) / (G + 1). The score is symmetric in the pool, so that
    P(p <= a) <= a holds for one volume a patient whatever the embeddings share; a copy that any embedding sets apart
    can reach 1 / (G + 1), where Bonferroni would leave e / (G + 1). A patient's own volumes count as one in his rank.
    Errors: as `conformal_p_values`.

    >>> combined_p_values([[0.1, 3.0], [2.0, 0.1]], [[1.0, 2.0, 4.0], [3.0, 1.0, 2.5]]).tolist()
    [0.25, 0.25]
    """
    s, c = array(found), array(control)
    if s.ndim != 2 or c.ndim != 2 or len(s) != len(c) or not c.size:
        raise ValueError(f"distances are (e, n) and (e, h) with h > 0, got {s.shape} and {c.shape}")
    if not (np.isfinite(s).all() and np.isfinite(c).all()):
        raise ValueError("distances hold NaN or infinity; drop those volumes first")
    weights, count = patient_weights(c.shape[1], patients)
    index = np.arange(c.shape[1]) if patients is None else patient_index(patients)
    others = np.stack([_as_near(row, row, weights) - _own_as_near(row, index, weights) for row in c])
    p = np.empty(s.shape[1])
    for at in range(0, s.shape[1], _CHUNK):
        part = s[:, at : at + _CHUNK]
        own = np.round(1.0 + np.stack([_as_near(a, b, weights) for a, b in zip(part, c, strict=True)]), 9)
        pool = np.round(1.0 + others[:, None] + (part[:, :, None] <= c[:, None]), 9)
        scale = _pool_medians(part, c)
        best, score = own.min(axis=0), pool.min(axis=0)
        tie = np.where(own == best, part / scale, np.inf).min(axis=0)
        ties = np.where(pool == score, c[:, None] / scale[:, :, None], np.inf).min(axis=0)
        nearer = (score < best[:, None]) | ((score == best[:, None]) & (ties <= tie[:, None]))
        p[at : at + _CHUNK] = (1.0 + nearer @ weights) / (count + 1)
    return p


def _as_near(values: np.ndarray, control: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the weight of the controls that lie as near as each value or nearer."""
    order = np.argsort(control, kind="stable")
    total = np.concatenate([[0.0], np.cumsum(weights[order])])
    return total[np.searchsorted(control[order], values, side="right")]


def _own_as_near(control: np.ndarray, index: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return for each control the weight of its own patient's volumes that lie as near, which count as 1 elsewhere."""
    order = np.lexsort((control, index))
    owner, values = index[order], control[order]
    out = np.empty(len(control))
    for rows in np.split(np.arange(len(order)), np.flatnonzero(np.diff(owner)) + 1):
        out[order[rows]] = weights[order[rows]] * np.searchsorted(values[rows], values[rows], side="right")
    return out


def _pool_medians(found: np.ndarray, control: np.ndarray) -> np.ndarray:
    """Return (e, n) the median of the controls (e, h) and one sample of (e, n)."""
    ordered, half = np.sort(control, axis=1), control.shape[1] // 2
    above = ordered[:, [half]] if half < control.shape[1] else np.inf
    below = ordered[:, [half - 1]] if half else np.zeros((len(control), 1))
    return np.maximum(np.clip(found, below, above), 1e-12)


def copy_rate_bound(p_values: Any, planted: Any, *, holdout: int, flagged: int = 0) -> float | None:
    """Return an upper 95 % bound of the rate of copies among the samples with `p_values` (n,); None: nothing bounds it.

    planted   p-values (k,) of planted copies against the same hold-out: copies no better disguised than these
    At a threshold t, P(p <= t) >= rate * seen, seen = P(p <= t | copy). Given the hold-out both are binomial, so that
    rate <= upper(#{p <= t}, n) / lower(#{planted <= t}, k), Clopper-Pearson at 97.5 % each, holds at 95 % whatever is
    flagged. t is the best of three for a set without copies, chosen before samples are looked at: m / (g + 1) with
    m = 1, 4, 16 times what about one sample that is no copy falls below; the planted ones pay for it (Bonferroni).
    Nothing is taken off for samples that are no copies: how many those are is not known.
    flagged   samples that a test took for copies: where they are more than the bound, they are better disguised than
              the planted ones, and nothing bounds them

    >>> copy_rate_bound(np.full(200, 0.5), np.full(24, 1 / 201), holdout=200) < 0.025
    True
    """
    p, own = array(p_values), array(planted)
    if not (len(p) and len(own)):
        return None
    least = max(1, (holdout + 1) // len(p))
    limits = [m * least / (holdout + 1) + 1e-12 for m in _THRESHOLDS]
    found = []
    for limit in limits:
        seen = clopper_pearson(int((own <= limit).sum()), len(own), 1 - 0.05 / len(limits)).low
        clean = clopper_pearson(min(len(p), round(limit * len(p))), len(p)).high
        found.append((clean / max(seen, 1e-12), limit, seen))
    _, limit, seen = min(found)
    if seen == 0.0:
        return None
    bound = clopper_pearson(int((p <= limit).sum()), len(p)).high / seen
    return bound if flagged / len(p) <= bound < 1 else None


def patient_weights(count: int, patients: Sequence[Hashable] | None) -> tuple[np.ndarray, int]:
    """Return weights (count,) that sum to 1 within each patient, and how many patients there are."""
    if patients is None:
        return np.ones(count), count
    if len(patients) != count:
        raise ValueError(f"{len(patients)} patients for {count} volumes; name one for each")
    _, index, sizes = np.unique(patient_index(patients), return_inverse=True, return_counts=True)
    return 1.0 / sizes[index], len(sizes)


def patient_index(patients: Sequence[Hashable]) -> np.ndarray:
    """Return the number of each row's patient, in order of first appearance.

    >>> patient_index(["b", "a", "b"]).tolist()
    [0, 1, 0]
    """
    known: dict[Hashable, int] = {}
    return np.array([known.setdefault(one, len(known)) for one in patients], dtype=np.int64)


def copies_needed(n: int, holdout: int, *, q: float = 0.10) -> int:
    """Return how many of n samples must be copies at once so that Benjamini-Hochberg can flag any.

    >>> copies_needed(904, 120), copies_needed(400, 400)
    (75, 10)
    """
    return max(1, int(np.ceil(n / (q * (holdout + 1)) - 1e-9)))


def patients_needed(share: float, *, q: float = 0.10) -> int:
    """Return how many hold-out patients a copy test needs at least to flag when `share` of a set are copies.

    With so many, all copies must have the smallest p at once; for power see `holdout_needed`.

    >>> patients_needed(0.05), patients_needed(0.01)
    (199, 999)
    """
    return int(np.ceil(1.0 / (share * q) - 1e-9)) - 1


@dataclass(frozen=True)
class Detection:
    """How a copy test fares on sets with planted copies: probability of any flagged, mean share of them flagged."""

    power: float
    recall: float


@dataclass(frozen=True, eq=False)
class Mixtures:
    """Sets drawn to try the copy test on: `repeats` of n samples, each a copy or not; the same draws at every rate, so
    that power grows with it.

    null, copied   the p-value (repeats, n) of each sample if it is none, and if it is one
    chance         (repeats, n): a sample is a copy where it is below the rate
    """

    null: np.ndarray
    copied: np.ndarray
    chance: np.ndarray

    @classmethod
    def draw(cls, planted: Any, *, n: int, holdout: int, repeats: int = 200, seed: int = 0) -> "Mixtures":
        """Draw copies from `planted` (k,), the p-values that planted copies got; others are exchangeable with the
        `holdout` patients."""
        p_copies = array(planted)
        if p_copies.ndim != 1 or not len(p_copies):
            raise ValueError("detection needs p-values (k,) of at least one planted copy")
        rng = numpy_rng(seed, "detection")
        row = np.arange(repeats)[:, None]
        control = np.sort(rng.random((repeats, holdout)), axis=1) + row
        below = np.searchsorted(control.ravel(), (rng.random((repeats, n)) + row).ravel()).reshape(repeats, n)
        null = (1 + below - row * holdout) / (holdout + 1)
        return cls(null, rng.choice(p_copies, size=(repeats, n)), rng.random((repeats, n)))

    def at(self, rate: float, *, q: float = 0.10) -> Detection:
        """Return how the copy test fares where each sample is a copy with probability `rate`."""
        is_copy = self.chance < rate
        p = np.where(is_copy, self.copied, self.null)
        ordered = np.sort(p, axis=1)
        n = p.shape[1]
        passing = np.where(ordered <= q * np.arange(1, n + 1) / n + 1e-12, ordered, -1.0).max(axis=1)
        hits = (is_copy & (p <= passing[:, None])).sum(axis=1)
        some = is_copy.any(axis=1)
        recall = hits[some] / is_copy[some].sum(axis=1)
        return Detection(float((hits > 0).mean()), float(recall.mean()) if some.any() else 0.0)

    def least(self, power: float, *, q: float = 0.10) -> float | None:
        """Return the smallest rate k / n at which a copy is flagged with probability `power`; None: no rate."""
        n = self.null.shape[1]
        if self.at(1.0, q=q).power < power:
            return None
        low, high = 0, n
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.at(middle / n, q=q).power >= power else (middle, high)
        return high / n


def minimum_detectable_rate(
    planted: Any, *, n: int, holdout: int, q: float = 0.10, power: float = 0.8, repeats: int = 200, seed: int = 0
) -> float | None:
    """Return the smallest copy rate k / n at which a copy test flags a copy with probability `power`; None: no rate.

    planted   p-values of planted near-copies, see `Mixtures`

    >>> minimum_detectable_rate(np.full(8, 1 / 401), n=400, holdout=400) < 0.05
    True
    >>> minimum_detectable_rate(np.full(8, 0.5), n=400, holdout=400) is None
    True
    """
    return Mixtures.draw(planted, n=n, holdout=holdout, repeats=repeats, seed=seed).least(power, q=q)


def holdout_needed(
    planted: Any, rate: float, *, n: int, holdout: int, q: float = 0.10, power: float = 0.8, seed: int = 0
) -> int | None:
    """Return how many hold-out patients let a copy test of n samples see copies at `rate` with `power`, about; None: no
    number up to 10,000.

    planted   p-values (k,) against `holdout` patients: of k copies that c of them are nearer than, c of as many others
              are taken to be, so that p = (1 + Binomial(G, c / holdout)) / (G + 1) with G of them

    >>> holdout_needed(np.full(8, 1 / 21), 0.05, n=100, holdout=20) > patients_needed(0.05)
    True
    >>> holdout_needed(np.full(8, 0.5), 0.05, n=100, holdout=20) is None
    True
    """
    tails = np.clip((array(planted) * (holdout + 1) - 1) / holdout, 0.0, 1.0)

    def enough(count: int) -> bool:
        nearer = numpy_rng(seed, "more hold-out", count).binomial(count, np.tile(tails, 16))
        drawn = Mixtures.draw((1 + nearer) / (count + 1), n=n, holdout=count, repeats=100, seed=seed)
        return drawn.at(rate, q=q).power >= power

    low, high = 0, max(holdout, patients_needed(rate, q=q))
    while not enough(high):
        low, high = high, 2 * high
        if high > _MOST_HOLDOUT:
            return None
    while low and high - low > max(1, high // 20):
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
