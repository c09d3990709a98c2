"""Whether a set as a whole lies nearer to training patients than to hold-out patients. Knows distances only."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist

from evaluation.functional.arrays import array
from evaluation.functional.privacy import patient_index
from synth.rng import numpy_rng

LEAST_PATIENTS = 4
_TOP = 0.01
_NEAREST = 24
_AT_ONCE = 20_000_000


@dataclass(frozen=True)
class SetLevelTest:
    """What label permutations say.

    p_value   of both statistics together (twice the smaller)
    share     of samples nearer to training than to hold-out, and its own p
    margin    how much further the nearest 1 % lean to training than to hold-out, and its own p
    patients  on the training and the hold-out side
    """

    p_value: float
    share: float
    share_p: float
    margin: float
    margin_p: float
    permutations: int
    patients: tuple[int, int]


def set_level_test(
    synthetic: Any,
    training: Any,
    holdout: Any,
    *,
    training_patients: Sequence[Hashable] | None = None,
    holdout_patients: Sequence[Hashable] | None = None,
    permutations: int = 999,
    matched: bool = True,
    seed: int = 0,
) -> SetLevelTest:
    """Test whether samples (n, d) lean to `training` (t, d) more than to `holdout` (h, d); see `..._of_distances`.

    >>> rng = np.random.default_rng(0)
    >>> training, holdout = rng.normal(size=(30, 6)), rng.normal(size=(30, 6))
    >>> set_level_test(np.concatenate([training[:20] + 0.05, rng.normal(size=(80, 6))]), training, holdout).p_value
    0.002
    """
    rows, train, held = array(synthetic), array(training), array(holdout)
    return set_level_test_of_distances(
        cdist(rows, train),
        cdist(rows, held),
        training_patients=training_patients,
        holdout_patients=holdout_patients,
        permutations=permutations,
        matched=matched,
        seed=seed,
    )


def set_level_test_of_distances(
    to_training: Any,
    to_holdout: Any,
    *,
    training_patients: Sequence[Hashable] | None = None,
    holdout_patients: Sequence[Hashable] | None = None,
    permutations: int = 999,
    matched: bool = True,
    seed: int = 0,
) -> SetLevelTest:
    """Test by distances (n, t) and (n, h) whether samples lean to training; exact, by permuting patients' labels.

    m_i = (d(S_i, H') - d(S_i, T')) / (d(S_i, H') + d(S_i, T')), d to the nearest. Two statistics: the share of m_i > 0,
    and the mean of the top 1 % of m less that of the top 1 % of -m: a copy of a training patient would lean as
    strongly to hold-out had the labels been swapped, so that only the difference of both tails tells. A binomial test
    of the share is anti-conservative, as samples share their neighbours. k copies of different patients reach
    p = (t / (t + h))^k at best, whatever the embedding.
    matched   T' and H' of as many patients each (drawn from the larger side); False keeps all, which sees copies of
              every training patient; permutations keep the sizes either way
    Errors: ValueError for fewer than 4 patients on a side, no sample, values that are no numbers.
    """
    near, far = array(to_training), array(to_holdout)
    if near.ndim != 2 or far.ndim != 2 or len(near) != len(far) or not len(near):
        raise ValueError(f"distances are (n, t) and (n, h) with n > 0, got {near.shape} and {far.shape}")
    if not (np.isfinite(near).all() and np.isfinite(far).all()):
        raise ValueError("distances hold NaN or infinity; drop those volumes first")
    rng = numpy_rng(seed, "set level")
    groups = [
        patient_index(range(side.shape[1]) if names is None else names)
        for side, names in ((near, training_patients), (far, holdout_patients))
    ]
    if [len(group) for group in groups] != [near.shape[1], far.shape[1]]:
        raise ValueError("name one patient for each volume")
    kept = _matched(groups, rng) if matched else [np.ones(len(group), dtype=bool) for group in groups]
    groups = [np.unique(group[keep], return_inverse=True)[1] for group, keep in zip(groups, kept, strict=True)]
    counts = tuple(int(group.max(initial=-1)) + 1 for group in groups)
    if min(counts) < LEAST_PATIENTS:
        raise ValueError(f"{counts[0]} training and {counts[1]} hold-out patients; a set-level test needs 4 of each")
    margins = Margins.of(np.concatenate([near[:, kept[0]], far[:, kept[1]]], axis=1))
    whose = np.concatenate([groups[0], groups[1] + counts[0]])
    labels = np.arange(sum(counts)) < counts[0]
    drawn = np.stack([labels, *(rng.permutation(labels) for _ in range(permutations))])
    values = [statistics(margins.at(part[:, whose])) for part in _chunked(drawn, margins)]
    return _test(np.concatenate(values), (counts[0], counts[1]))


def _chunked(labels: np.ndarray, margins: "Margins") -> list[np.ndarray]:
    """Return label rows in parts whose margins fit a few dozen MB."""
    return np.array_split(labels, 1 + len(labels) * margins.order.size // _AT_ONCE)


def _test(values: np.ndarray, patients: tuple[int, int]) -> SetLevelTest:
    """Return the test of statistics (1 + permutations, 2), the observed ones first."""
    observed, null = values[0], values[1:]
    share_p, margin_p = ((1 + (null >= observed - 1e-12).sum(axis=0)) / len(values)).tolist()
    return SetLevelTest(
        p_value=min(1.0, 2 * min(share_p, margin_p)),
        share=float(observed[0]),
        share_p=share_p,
        margin=float(observed[1]),
        margin_p=margin_p,
        permutations=len(null),
        patients=patients,
    )


def _matched(groups: Sequence[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """Return which volumes stay so that both sides have as many patients."""
    fewest = min(int(group.max(initial=-1)) + 1 for group in groups)
    return [np.isin(group, rng.permutation(int(group.max(initial=-1)) + 1)[:fewest]) for group in groups]


@dataclass(frozen=True, eq=False)
class Margins:
    """Distances (n, m) with the nearest columns in order, so that margins under other labels cost little."""

    whole: np.ndarray
    order: np.ndarray
    nearest: np.ndarray

    @classmethod
    def of(cls, distances: np.ndarray) -> "Margins":
        """Sort once."""
        order = np.argsort(distances, axis=1, kind="stable")[:, :_NEAREST]
        return cls(distances, order, np.take_along_axis(distances, order, axis=1))

    def at(self, training: np.ndarray) -> np.ndarray:
        """Return the relative margins (b, n) of the samples where each row of `training` (b, m) marks the training
        volumes."""
        marked = training[:, self.order]
        rows = np.arange(len(self.order))
        near, far = (self.nearest[rows, side.argmax(axis=2)] for side in (marked, ~marked))
        count = marked.sum(axis=2)
        for label, row in np.argwhere((count == 0) | (count == marked.shape[2])):  # one side lies beyond the nearest
            near[label, row] = self.whole[row, training[label]].min()
            far[label, row] = self.whole[row, ~training[label]].min()
        return (far - near) / np.maximum(far + near, 1e-300)


def statistics(margins: np.ndarray) -> np.ndarray:
    """Return (b, 2) of margins (b, n): the share of positive ones, and the mean of the top 1 % less that of the top
    1 % of the negated."""
    top = max(1, int(np.ceil(_TOP * margins.shape[1])))
    ordered = np.sort(margins, axis=1)
    share = (margins > 0).mean(axis=1) + 0.5 * (margins == 0).mean(axis=1)
    return np.stack([share, ordered[:, -top:].mean(axis=1) + ordered[:, :top].mean(axis=1)], axis=1)


def pooled_set_level_test(
    distances: Sequence[np.ndarray],
    patients: Sequence[Sequence[Hashable]],
    holdout: Sequence[Sequence[Hashable]],
    *,
    permutations: int = 999,
    seed: int = 0,
) -> SetLevelTest:
    """Test K fold-wise generators together: do samples of fold k lean away from the patients held out of it?

    distances   (n_k, m_k) of fold k's samples to all its real volumes; `patients` whose those are
    holdout     the patients held out of each fold; each patient of one fold
    Patients' folds are permuted jointly, so that the dependence between folds, which share patients, is in the null.
    Statistics as in `set_level_test_of_distances`, averaged over samples.
    Errors: ValueError unless every fold has the same patients and each is held out of one fold.
    """
    everyone = sorted({one for names in patients for one in names}, key=str)
    number = {one: index for index, one in enumerate(everyone)}
    held = [one for names in holdout for one in names]
    if any(set(names) != set(everyone) for names in patients) or sorted(held, key=str) != everyone:
        raise ValueError("pooled folds need the same patients in each, every one held out of exactly one")
    fold = np.empty(len(everyone), dtype=np.int64)
    for index, names in enumerate(holdout):
        fold[[number[one] for one in names]] = index
    margins = [Margins.of(np.asarray(one, dtype=np.float64)) for one in distances]
    whose = [np.array([number[one] for one in names]) for names in patients]
    rng = numpy_rng(seed, "pooled set level")

    drawn = np.stack([fold, *(rng.permutation(fold) for _ in range(permutations))])
    values = []
    for part in np.array_split(drawn, 1 + len(drawn) * sum(m.order.size for m in margins) // _AT_ONCE):
        found = [m.at(part[:, w] != index) for index, (m, w) in enumerate(zip(margins, whose, strict=True))]
        values.append(statistics(np.concatenate(found, axis=1)))
    return _test(np.concatenate(values), (len(everyone), len(everyone)))
