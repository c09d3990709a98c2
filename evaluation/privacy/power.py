"""What the tests could have seen: planted copies at several rates, hold-out volumes passed off as samples."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.functional.privacy import Mixtures, conformal_p_values, copies_needed, patient_index
from evaluation.privacy.embeddings import Distances
from evaluation.privacy.folds import Fold, Kept, controls, holdout_patients, planted_p_values, rows_of, set_level
from synth.rng import numpy_rng

RATES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
_REPEATS = 40
_PERMUTATIONS = 199
_SPLITS = 200
_CAUGHT = 0.05


@dataclass(frozen=True)
class Control:
    """False-positive rate of the copy test at 5 % on hold-out volumes passed off as samples.

    interval   what a single split of these few volumes gives in 95 % of cases
    """

    rate: float
    interval: tuple[float, float]
    patients: int

    @property
    def ok(self) -> bool:
        """True within 3 to 7 %."""
        return 0.03 <= self.rate <= 0.07


def negative_control(folds: Sequence[Fold], name: str, *, seed: int) -> Control:
    """Return how often half of the hold-out patients, taken as samples, are told from the other half at 5 %.

    Averaged over random halvings by patient, ties randomised: 5 % where volumes are exchangeable and treated alike.
    """
    distances, patients = controls(folds, name), patient_index(holdout_patients(folds))
    count = int(patients.max(initial=-1)) + 1
    rng = numpy_rng(seed, "negative control")
    rates = []
    for split in range(_SPLITS):
        tested = (rng.permutation(count) < count // 2)[patients]
        p = conformal_p_values(
            distances[tested], distances[~tested], patients=patients[~tested].tolist(), ties="randomised", seed=split
        )
        weights = 1.0 / np.bincount(patients)[patients[tested]]
        rates.append(float(np.average(p <= 0.05, weights=weights)))
    low, high = (float(v) for v in np.quantile(rates, [0.025, 0.975]))
    return Control(float(np.mean(rates)), (low, high), count)


@dataclass(frozen=True)
class Power:
    """What a set-level test sees: the smallest rates of copies found with 80 % and with 95 % power; None: none."""

    at_80: float | None
    at_95: float | None
    by_rate: dict[float, float]


def set_level_power(folds: Sequence[Fold], name: str, kept: Kept, clean: Kept, *, level: float, seed: int) -> Power:
    """Return at which rates the set-level test finds planted copies, taken for drawn samples.

    clean   of the samples kept those that no test flagged: copies that are there must not pass for power. They are
            drawn again until there are as many as are kept.

    level   that its p must not exceed; `power` counts the test with both statistics, as the audit runs it
    """
    by_rate: dict[float, float] = {}
    rows = [
        pair if len(pair[0]) else whole
        for pair, whole in zip(rows_of(folds, name, clean), rows_of(folds, name, kept), strict=True)
    ]
    counts = [int(keep.sum()) for keep in kept]
    n = sum(counts)
    training = sum(len({item.whose for item in fold.evidence.training}) for fold in folds)
    held = len(set(holdout_patients(folds)))
    for rate in RATES:
        lean = training / (training + held)
        if 2 * lean ** max(round(1.5 * rate * n), 1) > level and rate < 0.5:
            continue  # so few copies cannot reach the level, whatever the embedding
        rng = numpy_rng(seed, "set-level power", round(1e4 * rate))
        hits = 0
        for repeat in range(_REPEATS):
            sides = zip(folds, rows, counts, strict=True)
            mixed = [_planted(fold.distances[name], pair, rate, count, rng) for fold, pair, count in sides]
            hits += set_level(folds, mixed, permutations=_PERMUTATIONS, seed=seed + repeat).p_value <= level
        by_rate[rate] = hits / _REPEATS
        if by_rate[rate] >= 0.95:
            break
    at_80, at_95 = (next((r for r, power in by_rate.items() if power >= wanted), None) for wanted in (0.8, 0.95))
    return Power(at_80, at_95, by_rate)


def _planted(
    distances: Distances, rows: tuple[np.ndarray, np.ndarray], rate: float, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return distances of `count` samples, each a planted copy with probability `rate`."""
    chosen = np.concatenate([np.arange(len(rows[0])), rng.integers(len(rows[0]), size=count - len(rows[0]))])
    near, far = (side[chosen] for side in rows)
    swapped = np.flatnonzero(rng.random(count) < rate)
    drawn = rng.choice(len(distances.planted), size=len(swapped), replace=len(swapped) > len(distances.planted))
    near[swapped], far[swapped] = distances.planted_to_training[drawn], distances.planted_to_holdout[drawn]
    return near, far


@dataclass(frozen=True)
class Reach:
    """What copy tests of one embedding see.

    seen     share of planted copies nearer to training than all but 5 % of hold-out patients
    by_kind  the same for each disguise
    at_80    smallest rate found with 80 % power, at_95 with 95 %
    needed   how many copies must be there at once
    """

    seen: float
    by_kind: dict[str, float]
    at_80: float | None
    at_95: float | None
    needed: int


def reach(folds: Sequence[Fold], name: str, n: int, *, q: float, seed: int) -> Reach:
    """Return what the copy test of n samples sees of planted copies."""
    p = planted_p_values(folds, name)
    kinds = np.array([one.kind for fold in folds for one in fold.plants])
    holdout = len(set(holdout_patients(folds)))
    drawn = Mixtures.draw(p, n=n, holdout=holdout, seed=seed)
    rates = [drawn.least(power, q=q) for power in (0.8, 0.95)]
    by_kind = {str(kind): float((p[kinds == kind] <= _CAUGHT).mean()) for kind in dict.fromkeys(kinds.tolist())}
    return Reach(float((p <= _CAUGHT).mean()), by_kind, rates[0], rates[1], copies_needed(n, holdout, q=q))
