"""One generator's measured evidence, and the tests over one or over several fold-wise generators together.

Pooled folds: p-values compare samples of every fold with the hold-out volumes of all folds, each patient held out
once (cross-conformal: Vovk 2015; its level is near the nominal one, and proven at twice that).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from evaluation.evidence import Evidence, Features, Judged
from evaluation.functional.blind_gate import BlindGate, LeftOut, blind_gate, left_out_test
from evaluation.functional.membership import (
    Membership,
    density_ratio_scores,
    loss_scores,
    membership_test,
)
from evaluation.functional.privacy import (
    CopyTest,
    combined_p_values,
    conformal_p_values,
    copy_test_of_distances,
    leaning,
)
from evaluation.functional.set_level import SetLevelTest, pooled_set_level_test, set_level_test_of_distances
from evaluation.privacy.embeddings import DIMS, Distances
from evaluation.privacy.plants import Planted
from synth.rng import numpy_rng


@dataclass(frozen=True, eq=False)
class Fold:
    """A generator's evidence with what was measured of it; losses (t, times), (h, times) where weights are judged.

    Their h volumes are `evidence.outsiders`.
    """

    evidence: Evidence
    features: Features
    plants: Sequence[Planted]
    distances: dict[str, Distances]
    losses: tuple[np.ndarray, np.ndarray] | None = None


Kept = Sequence[np.ndarray]
"""For each fold which of its samples are looked at (n_k,)."""


def everything(folds: Sequence[Fold]) -> Kept:
    """Return that all samples are looked at."""
    return [np.ones(len(fold.evidence.synthetic), dtype=bool) for fold in folds]


def whose(items: Sequence[Judged]) -> list[str]:
    """Return the patient of each volume."""
    return [item.whose for item in items]


def holdout_patients(folds: Sequence[Fold]) -> list[str]:
    """Return the patient of each hold-out volume of all folds, in order."""
    return [one for fold in folds for one in whose(fold.evidence.holdout)]


def leanings(folds: Sequence[Fold], name: str, of: Literal["found", "control", "planted"]) -> np.ndarray:
    """Return how much nearer to training than to hold-out volumes each is: what copies are told by, `leaning`."""
    both = [(getattr(one.distances[name], of), getattr(one.distances[name], f"{of}_beside")) for one in folds]
    return np.concatenate([leaning(near, beside) for near, beside in both])


def controls(folds: Sequence[Fold], name: str) -> np.ndarray:
    """Return the distances of all hold-out volumes to their fold's training volumes."""
    return np.concatenate([fold.distances[name].control for fold in folds])


def copies(folds: Sequence[Fold], names: Sequence[str], kept: Kept, *, q: float) -> CopyTest:
    """Return the copy test of the samples kept, over the embeddings `names` together."""
    found = [leanings(folds, name, "found")[np.concatenate(kept)] for name in names]
    control = [leanings(folds, name, "control") for name in names]
    return copy_test_of_distances(np.stack(found), np.stack(control), q=q, patients=holdout_patients(folds))


def planted_p_values(folds: Sequence[Fold], names: Sequence[str]) -> np.ndarray:
    """Return the p-values that planted copies get, over the embeddings `names` together."""
    planted, control = (np.stack([leanings(folds, name, of) for name in names]) for of in ("planted", "control"))
    return combined_p_values(planted, control, patients=holdout_patients(folds))


def set_level(
    folds: Sequence[Fold], rows: Sequence[tuple[np.ndarray, np.ndarray]], *, permutations: int, seed: int
) -> SetLevelTest:
    """Return the set-level test on distances `rows`, one (to training, to hold-out) a fold.

    One fold keeps all its training patients: permutations keep the sizes, and copies of every patient are seen.
    Errors: ValueError for too few patients, or folds that do not hold each patient out once.
    """
    if len(folds) == 1:
        evidence = folds[0].evidence
        return set_level_test_of_distances(
            *rows[0],
            training_patients=whose(evidence.training),
            holdout_patients=whose(evidence.holdout),
            permutations=permutations,
            matched=False,
            seed=seed,
        )
    return pooled_set_level_test(
        [np.concatenate(pair, axis=1) for pair in rows],
        [whose([*fold.evidence.training, *fold.evidence.holdout]) for fold in folds],
        [sorted(set(whose(fold.evidence.holdout))) for fold in folds],
        permutations=permutations,
        seed=seed,
    )


def rows_of(folds: Sequence[Fold], name: str, kept: Kept) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return each fold's distances of the samples kept, to training and to hold-out volumes."""
    return [
        (fold.distances[name].to_training[keep], fold.distances[name].to_holdout[keep])
        for fold, keep in zip(folds, kept, strict=True)
    ]


def gates(folds: Sequence[Fold], *, seed: int) -> list[BlindGate]:
    """Return the blind gate of each fold. Errors: ValueError for too few patients."""
    return [
        blind_gate(
            fold.features.training,
            fold.features.holdout,
            training_patients=whose(fold.evidence.training),
            holdout_patients=whose(fold.evidence.holdout),
            seed=seed,
        )
        for fold in folds
    ]


def left_outs(folds: Sequence[Fold], names: Sequence[str]) -> list[tuple[str, LeftOut]]:
    """Return the left-out controls of each fold, by each embedding and by all together; ValueError for too few."""
    if not all(len(fold.distances[name].left) for fold in folds for name in names):
        raise ValueError("fewer than 8 training or 8 hold-out patients: nobody can be left out as a control")
    sets = [[name] for name in names] + ([list(names)] if len(names) > 1 else [])
    return [
        (
            some[0] if len(some) == 1 else "all embeddings",
            left_out_test(
                np.stack([fold.distances[name].left for name in some]),
                np.stack([fold.distances[name].left_control for name in some]),
            ),
        )
        for fold in folds
        for some in sets
    ]


def black_box(folds: Sequence[Fold], kept: Kept, *, seed: int) -> Membership:
    """Return what the density-ratio attack reaches. Errors: ValueError for too few patients or samples."""
    pairs = []
    for index, (fold, keep) in enumerate(zip(folds, kept, strict=True)):
        rows = fold.features
        pairs.append(
            density_ratio_scores(
                rows.synthetic[keep],
                rows.training,
                rows.holdout,
                training_patients=whose(fold.evidence.training),
                holdout_patients=whose(fold.evidence.holdout),
                dims=DIMS,
                rng=numpy_rng(seed, "density ratio", index),
            )
        )
    return _members(folds, pairs, holdout_patients(folds), seed=seed)


def white_box(folds: Sequence[Fold], *, seed: int) -> Membership:
    """Return what an attack on the denoising losses reaches, non-members being patients with no part in training."""
    pairs = [loss_scores(*fold.losses) for fold in folds if fold.losses is not None]
    return _members(folds, pairs, [one for fold in folds for one in whose(fold.evidence.outsiders)], seed=seed)


def _members(
    folds: Sequence[Fold], pairs: Sequence[tuple[np.ndarray, np.ndarray]], others: Sequence[str], *, seed: int
) -> Membership:
    """Return the membership test over folds: each patient once a non-member, and once a member of one drawn fold."""
    inside, inside_whose, outside = [], [], []
    drawn: dict[str, int] = {}
    rng = numpy_rng(seed, "members' folds")
    trained: dict[str, list[int]] = {}
    for index, fold in enumerate(folds):
        for one in dict.fromkeys(whose(fold.evidence.training)):
            trained.setdefault(one, []).append(index)
    for one, where in trained.items():
        drawn[one] = where[int(rng.integers(len(where)))]
    for index, (fold, (members, unseen)) in enumerate(zip(folds, pairs, strict=True)):
        for one, score in zip(whose(fold.evidence.training), members, strict=True):
            if drawn[one] == index:
                inside.append(score)
                inside_whose.append(one)
        outside.append(unseen)
    return membership_test(
        np.array(inside),
        np.concatenate(outside),
        member_patients=inside_whose,
        non_member_patients=others,
    )


@dataclass(frozen=True)
class Exposure:
    """How near a set comes to one training patient: his nearest sample, its distance, and how rarely a hold-out
    patient's is as near (p). For the owner of the data alone."""

    patient: str
    sample: str
    distance: float
    p_value: float


def exposures(folds: Sequence[Fold], name: str) -> list[Exposure]:
    """Return every training patient's exposure, the most exposed first.

    e_v = distance of the sample nearest to volume v; p by `conformal_p_values` against those of hold-out volumes,
    times the patient's volumes, over which it is the least. No `leaning`: patients are compared with patients here, and
    samples that vary less lie nearer to both alike.
    """
    found: dict[str, list[tuple[float, float, str]]] = {}
    for fold in folds:
        distances, names = fold.distances[name], [item.case for item in fold.evidence.synthetic]
        p = conformal_p_values(
            distances.to_training.min(axis=0),
            distances.to_holdout.min(axis=0),
            patients=whose(fold.evidence.holdout),
        )
        nearest = distances.to_training.argmin(axis=0)
        for volume, one in enumerate(whose(fold.evidence.training)):
            sample = int(nearest[volume])
            row = (float(p[volume]), float(distances.to_training[sample, volume]), names[sample])
            found.setdefault(one, []).append(row)
    table = []
    for one, volumes in found.items():
        p, distance, sample = min(volumes)
        table.append(Exposure(one, sample, distance, min(1.0, p * len(volumes))))
    return sorted(table, key=lambda row: (row.p_value, row.distance, row.patient))
