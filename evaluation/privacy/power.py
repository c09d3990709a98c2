"""What the tests could have seen, and at which n: planted copies at several rates, hold-out volumes passed off as
samples."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from evaluation.functional.privacy import Mixtures, conformal_p_values, patient_index
from evaluation.privacy.embeddings import Distances
from evaluation.privacy.folds import Fold, Kept, controls, holdout_patients, planted_p_values, rows_of, set_level
from synth.rng import numpy_rng

RATES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
_REPEATS = 40
_PERMUTATIONS = 199
_SPLITS = 200
_CAUGHT = 0.05
_MOST_TIMES = 16


@dataclass(frozen=True)
class Control:
    """False-positive rate of the p-values at 5 % on hold-out volumes passed off as samples.

    Halves of the hold-out are exchangeable by construction, so that it tries the p-values (ties, several volumes of a
    patient) and not the design: that is the left-out control's.
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


def set_level_power(folds: Sequence[Fold], name: str, kept: Kept, clean: Kept, *, level: float, seed: int) -> Power:
    """Return at which rates the set-level test finds planted copies, taken for drawn samples.

    clean   of the samples kept those that no test flagged: copies that are there must not pass for power. They are
            drawn again until there are as many as are kept.

    level   that its p must not exceed; `power` counts the test with both statistics, as the audit runs it
    """
    by_rate: dict[float, float] = {}
    planted = _Planting.of(folds, name, kept, clean)
    for rate in RATES:
        if not planted.can_reach(rate, level) and rate < 0.5:
            continue
        hits = planted.hits(rate, level=level, seed=seed)
        by_rate[rate] = hits / _REPEATS
        if by_rate[rate] >= 0.95:
            break
    at_80, at_95 = (next((r for r, power in by_rate.items() if power >= wanted), None) for wanted in (0.8, 0.95))
    return Power(at_80, at_95)


def samples_needed(
    folds: Sequence[Fold], name: str, kept: Kept, clean: Kept, *, rate: float, level: float, seed: int
) -> int | None:
    """Return how many samples let the set-level test see copies at `rate` with 80 % power, about; None: not even 16
    times as many as are kept do.

    Simulated as in `set_level_power`, samples and planted copies drawn again: more copies of the same patients, so that
    the number is rather too large than too small.
    """
    planted = _Planting.of(folds, name, kept, clean)

    def enough(times: float) -> bool:
        more = planted.times(times)
        wanted = int(np.ceil(0.8 * _REPEATS))
        return more.can_reach(rate, level) and more.hits(rate, level=level, seed=seed, wanted=wanted) >= wanted

    low, high = 0.0, 1.0
    while not enough(high):
        low, high = high, 2 * high
        if high > _MOST_TIMES:
            return None
    for _ in range(2 if low else 0):
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return sum(planted.times(high).counts)


@dataclass(frozen=True, eq=False)
class _Planting:
    """Sets with planted copies for the set-level test: distances of samples that are none, and how many are drawn."""

    folds: Sequence[Fold]
    name: str
    rows: list[tuple[np.ndarray, np.ndarray]]
    counts: list[int]

    @classmethod
    def of(cls, folds: Sequence[Fold], name: str, kept: Kept, clean: Kept) -> "_Planting":
        pairs = zip(rows_of(folds, name, clean), rows_of(folds, name, kept), strict=True)
        rows = [pair if len(pair[0]) else whole for pair, whole in pairs]
        return cls(folds, name, rows, [int(keep.sum()) for keep in kept])

    def times(self, times: float) -> "_Planting":
        return replace(self, counts=[round(count * times) for count in self.counts])

    def can_reach(self, rate: float, level: float) -> bool:
        """False where so few copies cannot reach the level, whatever the embedding."""
        training = sum(len({item.whose for item in fold.evidence.training}) for fold in self.folds)
        lean = training / (training + len(set(holdout_patients(self.folds))))
        return 2 * lean ** max(round(1.5 * rate * sum(self.counts)), 1) <= level

    def hits(self, rate: float, *, level: float, seed: int, wanted: int | None = None) -> int:
        """Return in how many of the repeats the test finds copies at `rate`.

        wanted   ends as soon as so many are found or can no longer be
        """
        rng = numpy_rng(seed, "set-level power", round(1e4 * rate))
        found = 0
        for repeat in range(_REPEATS):
            sides = zip(self.folds, self.rows, self.counts, strict=True)
            mixed = [_planted(fold.distances[self.name], pair, rate, count, rng) for fold, pair, count in sides]
            test = set_level(self.folds, mixed, permutations=_PERMUTATIONS, seed=seed + repeat)
            found += test.p_value <= level
            if wanted is not None and (found >= wanted or found + _REPEATS - 1 - repeat < wanted):
                break
        return found


def _planted(
    distances: Distances, rows: tuple[np.ndarray, np.ndarray], rate: float, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return distances of `count` samples, each a planted copy with probability `rate`."""
    more = rng.integers(len(rows[0]), size=max(0, count - len(rows[0])))
    chosen = np.concatenate([np.arange(len(rows[0])), more])[:count]
    near, far = (side[chosen] for side in rows)
    swapped = np.flatnonzero(rng.random(count) < rate)
    drawn = rng.choice(len(distances.planted), size=len(swapped), replace=len(swapped) > len(distances.planted))
    near[swapped], far[swapped] = distances.planted_to_training[drawn], distances.planted_to_holdout[drawn]
    return near, far


@dataclass(frozen=True)
class Reach:
    """What the copy test sees.

    seen      share of planted copies nearer to training than all but 5 % of hold-out patients
    at_80     smallest rate found with 80 % power, at_95 with 95 %
    p_values  of the planted copies
    """

    seen: float
    at_80: float | None
    at_95: float | None
    p_values: np.ndarray


def reach(folds: Sequence[Fold], names: Sequence[str], n: int, *, q: float, seed: int) -> Reach:
    """Return what the copy test of n samples, over the embeddings `names`, sees of planted copies."""
    p = planted_p_values(folds, names)
    drawn = Mixtures.draw(p, n=n, holdout=len(set(holdout_patients(folds))), seed=seed)
    rates = [drawn.least(power, q=q) for power in (0.8, 0.95)]
    return Reach(float((p <= _CAUGHT).mean()), rates[0], rates[1], p)
