"""What an audit found: the design, and the tests on the samples looked at. Numbers; the words are `verdict`'s."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from evaluation.functional.blind_gate import BlindGate, LeftOut
from evaluation.functional.membership import Membership
from evaluation.functional.privacy import CopyTest, copy_rate_bound, holdout_needed
from evaluation.functional.set_level import SetLevelTest
from evaluation.privacy import checks
from evaluation.privacy.folds import (
    Fold,
    Kept,
    black_box,
    controls,
    copies,
    gates,
    holdout_patients,
    left_outs,
    rows_of,
    set_level,
    white_box,
    whose,
)
from evaluation.privacy.power import Control, Power, Reach, negative_control, reach, samples_needed, set_level_power


@dataclass(frozen=True, kw_only=True)
class Options:
    """How an audit tests.

    q             false-discovery rate of the copy test, over all embeddings together
    level         of the set-level test, over all embeddings together
    permutations  of patients' labels
    plants        planted copies, over all folds
    decide_at     copy rate that must be seen with 80 % power before a set can pass
    tpr_at_most   upper end of the interval of members found at 1 % false positives, for a pass of images or weights
    """

    q: float = 0.10
    level: float = 0.05
    permutations: int = 999
    plants: int = 24
    decide_at: float = 0.05
    tpr_at_most: float = 0.03


@dataclass(frozen=True)
class Design:
    """What holds whatever the samples are.

    twins      hold-out volumes that are training volumes: the same voxels, or as near as planted copies
    control    negative control of the first embedding
    gates      one a fold; empty where they could not be computed, and why
    left       left-out controls, by what each is near; likewise
    chosen     why planted copies tell nothing of those among the samples; empty where they do
    """

    training: int
    holdout: int
    folds: int
    twins: int
    control: Control
    gates: tuple[BlindGate, ...]
    no_gate: str
    left: tuple[tuple[str, LeftOut], ...]
    no_left: str
    weights: Membership | None
    no_weights: str
    chosen: str = ""

    @property
    def gate(self) -> BlindGate | None:
        """The gate of the fold that is told apart best."""
        return max(self.gates, key=lambda one: one.auc, default=None)

    @property
    def apart(self) -> bool:
        """True where training and hold-out are told apart without a generator; over folds by Bonferroni."""
        if len(self.gates) == 1:
            return not self.gates[0].ok
        return any(gate.p_value * len(self.gates) <= 0.025 for gate in self.gates)

    @property
    def left_out(self) -> tuple[str, LeftOut] | None:
        """The left-out control that chance explains least."""
        return min(self.left, key=lambda one: one[1].p_value, default=None)

    @property
    def uneven(self) -> bool:
        """True where training patients left out and hold-out patients are not equally near to the rest of training, at
        5 % over all controls (Bonferroni)."""
        return any(one.p_value * len(self.left) <= 0.05 for _, one in self.left)


@dataclass(frozen=True)
class Needed:
    """At which n, all else as here, copies at the rate asked for would be seen with 80 % power, by simulation with this
    run's planted copies: hold-out patients of the copy test, samples of the set-level test; None: no n in reach."""

    holdout: int | None
    samples: int | None


@dataclass(frozen=True)
class View:
    """The tests on the samples looked at.

    test       for copies, over all embeddings together: the one that counts
    copies     for copies in each embedding alone: detail
    bound      upper 95 % bound of the rate of copies no better disguised than those planted; None: nothing bounds it
    needed     where too little would be seen
    same       samples with the voxels of a training volume
    real       samples with the mask of a real patient
    edits      samples that are edits of images of patients
    absent     why a test is not there, by its name
    """

    kept: Kept
    n: int
    test: CopyTest
    copies: dict[str, CopyTest]
    sets: dict[str, SetLevelTest]
    reach: Reach
    bound: float | None
    needed: Needed | None
    power: Power | None
    membership: Membership | None
    same: tuple[int, ...]
    real: tuple[int, ...]
    edits: tuple[int, ...]
    lag: float
    absent: dict[str, str] = field(default_factory=dict)

    @property
    def by(self) -> dict[str, int]:
        """See `found_by`."""
        return found_by(self.test, self.copies)

    @property
    def set_p(self) -> float | None:
        """The set-level p over all embeddings (Bonferroni)."""
        return min(1.0, len(self.sets) * min(t.p_value for t in self.sets.values())) if self.sets else None

    def detectable(self, *, power: int) -> float | None:
        """Return the smallest copy rate that some test sees with 80 or 95 % power; None: none does."""
        return detectable(self.reach, self.power, power)


def found_by(test: CopyTest, alone: Mapping[str, CopyTest]) -> dict[str, int]:
    """Return the embeddings that find flagged samples, and how many each: those with most first.

    One finds a sample where it flags it alone, or gives it a p as small as the largest that `test` flagged; several
    can find the same.
    """
    largest = float(test.p_values[test.flagged].max(initial=0.0)) + 1e-12
    counts = {
        name: int(((one.p_values[test.flagged] <= largest) | np.isin(test.flagged, one.flagged)).sum())
        for name, one in alone.items()
    }
    return dict(sorted(((name, count) for name, count in counts.items() if count), key=lambda row: -row[1]))


def detectable(seen: Reach, sets: Power | None, power: int) -> float | None:
    """Return the smallest copy rate that a test sees with 80 or 95 % power; None: none does."""
    rates = [one.at_80 if power == 80 else one.at_95 for one in (seen, sets) if one is not None]
    return min((rate for rate in rates if rate is not None), default=None)


Found = TypeVar("Found")


def _tried(act: Callable[[], Found]) -> tuple[Found | None, str]:
    """Return what `act` gives, or why it cannot."""
    try:
        return act(), ""
    except ValueError as error:
        return None, str(error)


def design_of(folds: Sequence[Fold], names: Sequence[str], *, seed: int) -> Design:
    """Return what holds whatever the samples are, twins and the negative control by the first of the embeddings."""
    first, twins = names[0], 0
    for fold in folds:
        same = checks.same_voxels(fold.evidence.holdout, fold.evidence.training)
        near = checks.near_duplicates(fold.distances[first].control, fold.distances[first].planted)
        twins += len({*same, *near})
    found, no_gate = _tried(lambda: gates(folds, seed=seed))
    left, no_left = _tried(lambda: left_outs(folds, names))
    weights, no_weights = None, "denoising losses were not handed over (give the model)"
    if all(fold.losses is not None for fold in folds):
        weights, no_weights = _tried(lambda: white_box(folds, seed=seed))
    elif all(fold.evidence.loss is not None for fold in folds):
        no_weights = (
            "all hold-out patients chose the checkpoint, so that the weights saw them and nobody is a non-member; "
            "prepare with test patients (--test)"
        )
    return Design(
        training=len({one for fold in folds for one in whose(fold.evidence.training)}),
        holdout=len(set(holdout_patients(folds))),
        folds=len(folds),
        twins=twins,
        control=negative_control(folds, first, seed=seed),
        gates=tuple(found or ()),
        no_gate=no_gate,
        left=tuple(left or ()),
        no_left=no_left,
        weights=weights,
        no_weights=no_weights,
        chosen=next((fold.evidence.chosen for fold in folds if fold.evidence.chosen), ""),
    )


def view_of(folds: Sequence[Fold], names: Sequence[str], kept: Kept, options: Options, *, seed: int) -> View:
    """Return the tests in the embeddings `names`, the first one's set-level power, on the samples kept."""
    absent: dict[str, str] = {}
    n = int(sum(keep.sum() for keep in kept))
    sets: dict[str, SetLevelTest] = {}
    for name in names:
        rows = rows_of(folds, name, kept)
        found, why = _tried(lambda rows=rows: set_level(folds, rows, permutations=options.permutations, seed=seed))
        if found is None:
            absent["set_level"] = why
        else:
            sets[name] = found
    test = copies(folds, names, kept, q=options.q)
    alone = {name: copies(folds, [name], kept, q=options.q) for name in names}
    clean = _unflagged(kept, [test, *alone.values()])
    seen, power = reach(folds, names, n, q=options.q, seed=seed), None
    level = options.level / max(len(sets), 1)
    if sets:
        power = set_level_power(folds, names[0], kept, clean, level=level, seed=seed)
    needed, least = None, detectable(seen, power, 80)
    holdout = len(set(holdout_patients(folds)))
    if least is None or least > options.decide_at:
        more, rate = None, options.decide_at
        if sets:
            more = samples_needed(folds, names[0], kept, clean, rate=rate, level=level, seed=seed)
        needed = Needed(holdout_needed(seen.p_values, rate, n=n, holdout=holdout, q=options.q, seed=seed), more)
    membership, why = _tried(lambda: black_box(folds, kept, seed=seed))
    if membership is None:
        absent["membership"] = why
    return View(
        kept=kept,
        n=n,
        test=test,
        copies=alone,
        sets=sets,
        reach=seen,
        bound=copy_rate_bound(test.p_values, seen.p_values, holdout=holdout, flagged=len(test.flagged)),
        needed=needed,
        power=power,
        membership=membership,
        same=_among(folds, kept, lambda fold: checks.same_voxels(fold.evidence.synthetic, fold.evidence.training)),
        real=_among(folds, kept, lambda fold: checks.real_masks(fold.evidence)),
        edits=_among(folds, kept, lambda fold: checks.patient_edits(fold.evidence)),
        lag=float(np.median(alone[names[0]].p_values)),
        absent=absent,
    )


def _unflagged(kept: Kept, tests: Sequence[CopyTest]) -> Kept:
    """Return the samples kept that no copy test flags."""
    flagged = np.zeros(int(sum(keep.sum() for keep in kept)), dtype=bool)
    for test in tests:
        flagged[test.flagged] = True
    out = [keep.copy() for keep in kept]
    for keep, part in zip(out, np.split(flagged, np.cumsum([int(keep.sum()) for keep in kept])[:-1]), strict=True):
        keep[np.flatnonzero(keep)[part]] = False
    return out


def _among(folds: Sequence[Fold], kept: Kept, find: Callable[[Fold], list[int]]) -> tuple[int, ...]:
    """Return which of the samples kept, in order over folds, `find` names in each fold."""
    marks = []
    for fold, keep in zip(folds, kept, strict=True):
        marked = np.zeros(len(keep), dtype=bool)
        marked[find(fold)] = True
        marks.append(marked[keep])
    return tuple(np.flatnonzero(np.concatenate(marks)).tolist())


def nearest_of(folds: Sequence[Fold], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the distances of all samples, and of all hold-out volumes, to their nearest training volume."""
    return np.concatenate([fold.distances[name].found for fold in folds]), controls(folds, name)
