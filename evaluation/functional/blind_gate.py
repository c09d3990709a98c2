"""Whether training and hold-out volumes could be told apart without any generator. Knows features only.

Where they can, a member is recognised by how its scan looks, and no privacy figure says anything about a generator
(blind baselines: Das, Zhang & Tramer 2024, arXiv 2406.16201).
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata

from evaluation.functional.arrays import array
from evaluation.functional.privacy import patient_index
from synth.rng import numpy_rng

LEAST_PATIENTS = 8
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
