"""Whether training and hold-out volumes could be told apart without any generator. Knows features and distances.

Where they can, a member is recognised by how its scan looks, and no privacy figure says anything about a generator
(blind baselines: Das, Zhang & Tramer 2024, arXiv 2406.16201).
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import betabinom, mannwhitneyu, rankdata

from evaluation.functional.arrays import array
from evaluation.functional.privacy import patient_index
from synth.rng import numpy_rng

LEAST_PATIENTS = 8
LEAST_LEFT_OUT = 4
_RIDGE = 0.3


@dataclass(frozen=True)
class BlindGate:
    """AUC of telling training from hold-out, its 95 % interval, and whether that holds 0.5 (the design is valid)."""

    auc: float
    interval: tuple[float, float]
    ok: bool
    p_value: float
    patients: tuple[int, int]


def blind_gate(
    training: Any,
    holdout: Any,
    *,
    training_patients: Sequence[Hashable] | None = None,
    holdout_patients: Sequence[Hashable] | None = None,
    folds: int = 5,
    dims: int = 32,
    permutations: int = 399,
    seed: int = 0,
) -> BlindGate:
    """Return how well a classifier tells features (t, d) from (h, d), cross-validated by patient.

    Ridge regression on up to `dims` whitened principal components and their squares (so that a change of spread is
    seen too); AUC within each fold, of patients' mean scores, averaged over folds. The interval is the AUC less what
    permuted patient labels reach, about 0.5: cross-validated AUCs fall below 0.5 by chance and theory knows no
    variance of them, the permutations have both. It holds 0.5 in 95 % of valid designs.
    Errors: ValueError for fewer than 8 patients on a side, widths that differ, values that are no numbers.
    """
    first, second = array(training), array(holdout)
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise ValueError(f"features are (n, d) and (m, d), got {first.shape} and {second.shape}")
    rows = np.concatenate([first, second])
    if not np.isfinite(rows).all():
        raise ValueError("features hold NaN or infinity; drop those volumes first")
    whose = [
        patient_index(range(len(side)) if names is None else names)
        for side, names in ((first, training_patients), (second, holdout_patients))
    ]
    counts = tuple(int(side.max(initial=-1)) + 1 for side in whose)
    if min(counts) < LEAST_PATIENTS:
        raise ValueError(f"{counts[0]} training and {counts[1]} hold-out patients; a blind gate needs 8 of each")
    rng = numpy_rng(seed, "blind gate")
    patient = np.concatenate([whose[0], whose[1] + counts[0]])
    total = sum(counts)
    fold = rng.permutation(np.arange(total) % folds)
    scores = _scores_of_labels(_design(rows, dims), patient, fold)
    labels = np.zeros((total, permutations + 1), dtype=bool)
    labels[: counts[0], 0] = True
    for column in range(1, permutations + 1):
        labels[:, column] = rng.permutation(labels[:, 0])
    aucs = _fold_aucs(scores @ np.where(labels, 1.0, -1.0), labels, fold)
    auc, null = float(aucs[0]), aucs[1:]
    low, high = (float(v) for v in np.quantile(null, [0.025, 0.975]))
    interval = (max(0.0, auc - high + 0.5), min(1.0, auc - low + 0.5))
    p = (1 + (null >= auc - 1e-12).sum()) / (permutations + 1)
    return BlindGate(auc, interval, interval[0] <= 0.5 <= interval[1], float(p), (counts[0], counts[1]))


@dataclass(frozen=True)
class LeftOut:
    """How many training patients left out lie nearer to the other ones than hold-out patients do, and whether chance
    explains how near they lie.

    rate, expected   of those left out below the threshold, and what exchangeable patients give
    interval         the rates that 95 % of exchangeable cohorts of this size give
    patients         left out, and held out
    """

    rate: float
    expected: float
    interval: tuple[float, float]
    p_value: float
    patients: tuple[int, int]


def left_out_test(left: Any, held: Any, *, share: float = 0.05) -> LeftOut:
    """Test whether training patients left out (e, a) and hold-out patients (e, h) are equally far from the rest of
    training, by their distances in e embeddings, one volume a patient.

    Both sides are ranked in one pool, in every embedding; a volume's score is its best rank, ties by its distance there
    over the pool's median. N of those left out lie below the m-th score of hold-out patients, m = share (h + 1): where
    patients are exchangeable N is beta-binomial (a, m, h - m + 1) whatever the distances are. The p-value is twice the
    smaller of that tail's and the rank sum's (Mann & Whitney 1947), which sees more of small cohorts; both two-sided.
    Errors: ValueError for fewer than 4 patients left out or 8 held out, shapes that differ, values that are no numbers.

    >>> rng = np.random.default_rng(0)
    >>> left_out_test(rng.random((2, 40)), rng.random((2, 60))).p_value > 0.05
    True
    >>> left_out_test(rng.random((1, 40)), 1 + rng.random((1, 60))).p_value < 0.001
    True
    """
    near, far = array(left), array(held)
    if near.ndim != 2 or far.ndim != 2 or len(near) != len(far):
        raise ValueError(f"distances are (e, a) and (e, h), got {near.shape} and {far.shape}")
    count, others = near.shape[1], far.shape[1]
    if count < LEAST_LEFT_OUT or others < LEAST_PATIENTS:
        raise ValueError(f"{count} patients left out and {others} held out; a left-out control needs 4 and 8")
    pool = np.concatenate([near, far], axis=1)
    if not np.isfinite(pool).all():
        raise ValueError("distances hold NaN or infinity; drop those volumes first")
    ranks = rankdata(pool, method="max", axis=1)
    best = ranks.min(axis=0)
    ties = np.where(ranks == best, pool / np.maximum(np.median(pool, axis=1, keepdims=True), 1e-12), np.inf).min(axis=0)
    score = np.empty(pool.shape[1])
    score[np.lexsort((ties, best))] = np.arange(pool.shape[1])
    m = max(1, int(share * (others + 1)))
    hits = int((score[:count] < np.sort(score[count:])[m - 1]).sum())
    law = betabinom(count, m, others - m + 1)
    tail = min(1.0, 2 * min(float(law.cdf(hits)), float(law.sf(hits - 1))))
    p = min(1.0, 2 * min(tail, float(mannwhitneyu(score[:count], score[count:]).pvalue)))
    low, high = (float(law.ppf(tail)) / count for tail in (0.025, 0.975))
    return LeftOut(hits / count, m / (others + 1), (low, high), p, (count, others))


def whitened(rows: np.ndarray, dims: int, of: np.ndarray | None = None) -> np.ndarray:
    """Return rows (n, d) in the whitened principal components of `of` (m, d; the rows themselves): (n, <= dims).

    Columns are scaled to unit spread first; components weaker than a thousandth of the strongest are left out, so
    that rounding is not blown up. Whiten on training and hold-out together: neither side may shape the space alone.
    """
    base = rows if of is None else of
    spread = base.std(axis=0)
    kept = spread > 1e-9 * np.maximum(1.0, np.abs(base.mean(axis=0)))
    centred, scaled = ((x[:, kept] - base[:, kept].mean(axis=0)) / spread[kept] for x in (base, rows))
    _, strength, axes = np.linalg.svd(centred, full_matrices=False)
    use = int((strength > 1e-3 * strength[:1].max(initial=0.0)).sum())
    use = max(0, min(use, dims, len(base) - 1))
    return scaled @ axes[:use].T / (strength[:use] / np.sqrt(max(len(base) - 1, 1)))


def _design(rows: np.ndarray, dims: int) -> np.ndarray:
    parts = whitened(rows, max(2, min(dims, len(rows) // 5)))
    squares = parts**2 - 1.0
    return np.concatenate([np.ones((len(rows), 1)), parts, squares / np.maximum(squares.std(axis=0), 1e-9)], axis=1)


def _scores_of_labels(design: np.ndarray, patient: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Return the matrix (patients, patients) that turns labels into out-of-fold scores: ridge is linear in them."""
    total = len(fold)
    member = np.zeros((total, len(design)))
    member[patient, np.arange(len(design))] = 1.0
    average = member / member.sum(axis=1, keepdims=True)
    out = np.zeros((total, total))
    penalty = np.full(design.shape[1], _RIDGE)
    penalty[0] = 1e-9  # the intercept is free
    for number in np.unique(fold):
        test = fold[patient] == number
        train = design[~test]
        gram = train.T @ train + np.diag(penalty * len(train))
        fitted = np.linalg.solve(gram, train.T)
        out[fold == number] = average[fold == number][:, test] @ design[test] @ fitted @ member[:, ~test].T
    return out


def _fold_aucs(scores: np.ndarray, labels: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Return for each column of scores (patients, b) the AUC within folds, weighted by their pairs: (b,)."""
    wins, pairs = np.zeros(scores.shape[1]), np.zeros(scores.shape[1])
    for number in np.unique(fold):
        here, marked = scores[fold == number], labels[fold == number]
        ranks = rankdata(here, axis=0)
        positive = marked.sum(axis=0)
        wins += (ranks * marked).sum(axis=0) - positive * (positive + 1) / 2
        pairs += positive * (len(here) - positive)
    return np.where(pairs > 0, wins / np.maximum(pairs, 1), 0.5)
