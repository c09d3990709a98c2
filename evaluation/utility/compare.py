"""Arms against arms: paired differences per case, intervals and tests over patients. Knows tables of scores alone.

Seeds of one arm are averaged case by case first, so that a case counts once; a patient's cases are resampled and
flipped together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from evaluation.functional import cluster_bootstrap, holm, paired_permutation
from evaluation.functional.statistics import SMALLEST, mean_interval
from synth.errors import DataError

LEAST_PATIENTS = SMALLEST
"""Below, a 95 % interval over patients says nothing, and no sign-flip test can reach 5 %."""
LEVEL = 0.05
_POWER = 2.8
Kind = Literal["gain", "ratio"]


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of one arm: rows (seed, case), NaN nowhere; cases and whose they are in the same order for all arms."""

    values: np.ndarray
    cases: tuple[str, ...]
    patients: tuple[str, ...]

    def __post_init__(self) -> None:
        """Errors: DataError for scores that are no numbers or not one a case."""
        if self.values.ndim != 2 or self.values.shape[1] != len(self.cases) or len(self.cases) != len(self.patients):
            raise DataError(f"scores of shape {self.values.shape} are not (seed, case) of {len(self.cases)} cases")
        if not np.isfinite(self.values).all():
            raise DataError("scores hold NaN or infinite values; score every case")

    @property
    def by_case(self) -> np.ndarray:
        """Mean over seeds (case,)."""
        return self.values.mean(axis=0)

    @property
    def count(self) -> int:
        """How many patients."""
        return len(set(self.patients))

    def interval(self, *, seed: int = 0) -> tuple[float, float] | None:
        """Return the 95 % interval over patients of the mean; None below 5 patients."""
        return mean_interval(self.by_case, self.patients, seed=seed)


@dataclass(frozen=True)
class Comparison:
    """One arm against another on the same cases.

    kind        gain: mean paired difference; ratio: mean of one over mean of the other
    value       the gain or ratio, `interval` its 95 % bootstrap interval over patients
    p           paired sign-flip test over patients; of a ratio: of the difference to `margin` times the other
    p_holm      p adjusted for all comparisons made together; NaN before `adjusted`
    detectable  the gain that this many patients would show with 80 % power at 5 %
    seeds       in how many seeds of how many the gain is above 0 (the ratio above the margin)
    """

    name: str
    kind: Kind
    value: float
    interval: tuple[float, float]
    p: float
    n: int
    patients: int
    detectable: float
    seeds: tuple[int, int]
    margin: float = 0.0
    p_holm: float = float("nan")

    @property
    def found(self) -> bool | None:
        """True: gain shown (ratio shown to reach its margin); False: the contrary shown; None: undecidable here.

        Shown: the interval lies on one side, the adjusted p is below 5 %, and every seed says the same.
        """
        low, high = self.interval
        if not self.p_holm < LEVEL:
            return None
        if low > self.margin and self.seeds[0] == self.seeds[1]:
            return True
        return False if high < self.margin and self.seeds[0] == 0 else None


def gain(
    name: str, arm: Scores, other: Scores, *, seed: int = 0, better: Literal["higher", "lower"] = "higher"
) -> Comparison:
    """Return the mean paired difference of `arm` to `other`, positive where `arm` is better.

    Errors: DataError for arms of different cases or fewer than 5 patients.

    >>> rng, names = np.random.default_rng(0), tuple("abcdefgh")
    >>> plain = Scores(rng.random((1, 8)), names, names)
    >>> found = gain("RS-R", Scores(plain.values + 0.1, names, names), plain)
    >>> round(found.value, 3), found.seeds
    (0.1, (1, 1))
    """
    _require_same(name, arm, other)
    sign = 1.0 if better == "higher" else -1.0
    differences = sign * (arm.by_case - other.by_case)
    spread = _by_patient(differences, arm.patients).std(ddof=1)
    each = sign * (_seed_means(arm, other) - _seed_means(other, arm))
    return Comparison(
        name=name,
        kind="gain",
        value=float(differences.mean()),
        interval=cluster_bootstrap(differences, arm.patients, seed=seed),
        p=paired_permutation(differences, arm.patients, seed=seed),
        n=len(differences),
        patients=arm.count,
        detectable=float(_POWER * spread / np.sqrt(arm.count)),
        seeds=(int((each > 0).sum()), len(each)),
    )


def ratio(name: str, arm: Scores, other: Scores, *, margin: float, seed: int = 0) -> Comparison:
    """Return mean(arm) / mean(other), tested against `margin`; both means are over the same resampled patients.

    Errors: DataError for arms of different cases, fewer than 5 patients, or an `other` that scores 0.
    """
    _require_same(name, arm, other)
    if other.by_case.mean() <= 0:
        raise DataError(f"{name}: the arm that is divided by scores 0; train it for longer")
    rows = np.stack([arm.by_case, other.by_case], axis=1)
    excess = rows[:, 0] - margin * rows[:, 1]
    spread = _by_patient(excess, arm.patients).std(ddof=1)
    each = _seed_means(arm, other) / np.maximum(_seed_means(other, arm), 1e-12)
    return Comparison(
        name=name,
        kind="ratio",
        value=_quotient(rows),
        interval=cluster_bootstrap(rows, arm.patients, seed=seed, statistic=_quotient),
        p=paired_permutation(excess, arm.patients, seed=seed),
        n=len(rows),
        patients=arm.count,
        detectable=float(_POWER * spread / np.sqrt(arm.count) / rows[:, 1].mean()),
        seeds=(int((each > margin).sum()), len(each)),
        margin=margin,
    )


def adjusted(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Return the comparisons with p adjusted over all of them (Holm 1979)."""
    p = holm([one.p for one in comparisons])
    return [replace(one, p_holm=float(value)) for one, value in zip(comparisons, p, strict=True)]


def in_words(one: Comparison) -> str:
    """Return what a comparison says, with its interval, p and the gain it could have shown."""
    low, high = one.interval
    form = "+.4f" if one.kind == "gain" else ".3f"
    tested = f"p {one.p:.2g}, {one.p_holm:.2g} after Holm"
    seeds = f"{one.seeds[0]} of {one.seeds[1]} seeds"
    return f"{one.value:{form}} [{low:{form}}, {high:{form}}] ({tested}; {one.patients} patients; {seeds})"


def _require_same(name: str, arm: Scores, other: Scores) -> None:
    if arm.cases != other.cases or arm.patients != other.patients:
        # stands in reports, where no case is named
        strange = len(set(arm.cases) ^ set(other.cases))
        raise DataError(
            f"{name}: the arms were scored on different cases ({f'{strange} differ' if strange else 'another order'}); "
            "score all on the same"
        )
    if arm.count < LEAST_PATIENTS:
        raise DataError(f"{name}: {arm.count} test patients; {LEAST_PATIENTS} at least are needed")


def _seed_means(arm: Scores, other: Scores) -> np.ndarray:
    """Return the mean of each seed that both arms have, by place; of one mean where their numbers differ."""
    same = len(arm.values) == len(other.values)
    return arm.values.mean(axis=1) if same else arm.values.mean(keepdims=True).ravel()


def _quotient(rows: np.ndarray) -> float:
    return float(rows[:, 0].mean() / max(rows[:, 1].mean(), 1e-12))


def _by_patient(values: np.ndarray, patients: Sequence[str]) -> np.ndarray:
    """Return the mean of each patient's values (patient,)."""
    _, number = np.unique(np.array(patients), return_inverse=True)
    return np.bincount(number, values) / np.bincount(number)


def by_case(rows: Mapping[int, Mapping[str, float]], patients: Mapping[str, str]) -> Scores:
    """Return the scores of an arm from seed -> case -> score. Errors: DataError where seeds scored other cases."""
    names = tuple(sorted(patients))
    for seed, row in rows.items():
        if set(row) != set(names):
            strange = len(set(row) ^ set(names))
            raise DataError(f"seed {seed} was scored on other cases ({strange} differ); score all on the same")
    values = np.array([[row[name] for name in names] for _, row in sorted(rows.items())], dtype=np.float64)
    return Scores(values.reshape(len(rows), len(names)), names, tuple(patients[name] for name in names))
