"""What an audit found: the design, and the tests on the samples looked at. Numbers; the words are `verdict`'s."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from evaluation.functional.blind_gate import BlindGate
from evaluation.functional.membership import Membership
from evaluation.functional.privacy import CopyTest
from evaluation.functional.set_level import SetLevelTest
from evaluation.functional.statistics import clopper_pearson
from evaluation.privacy import checks
from evaluation.privacy.folds import (
    Fold,
    Kept,
    black_box,
    controls,
    copies,
    gates,
    holdout_patients,
    rows_of,
    set_level,
    white_box,
    whose,
)
from evaluation.privacy.power import Control, Power, Reach, negative_control, reach, set_level_power


@dataclass(frozen=True, kw_only=True)
class Options:
    """How an audit tests.

    q             false-discovery rate of the copy test
    level         of the set-level test, over all embeddings together
    permutations  of patients' labels
    plants        planted copies, over all folds
    decide_at     copy rate that must be seen with 80 % power before a set can pass
    tpr_at_most   upper end of the interval of membership found at 1 % false positives, for a pass
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
    """

    training: int
    holdout: int
    folds: int
    twins: int
    control: Control
    gates: tuple[BlindGate, ...]
    no_gate: str
    weights: Membership | None
    no_weights: str

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


@dataclass(frozen=True)
class View:
    """The tests on the samples looked at, by embedding.

    same       samples with the voxels of a training volume
    real       samples with the mask of a real patient
    absent     why a test is not there, by its name
    """

    kept: Kept
    n: int
    copies: dict[str, CopyTest]
    sets: dict[str, SetLevelTest]
    reach: dict[str, Reach]
    power: Power | None
    membership: Membership | None
    same: tuple[int, ...]
    real: tuple[int, ...]
    lag: float
    absent: dict[str, str] = field(default_factory=dict)

    @property
    def flagged(self) -> np.ndarray:
        """The samples flagged in any embedding, numbered among those looked at."""
        return np.unique(
            np.concatenate([np.array(self.same, dtype=np.int64), *(t.flagged for t in self.copies.values())])
        )

    @property
    def set_p(self) -> float | None:
        """The set-level p over all embeddings (Bonferroni)."""
        return min(1.0, len(self.sets) * min(t.p_value for t in self.sets.values())) if self.sets else None

    def detectable(self, *, power: int) -> float | None:
        """Return the smallest copy rate that some test sees with 80 or 95 % power; None: none does."""
        rates = [one.at_80 if power == 80 else one.at_95 for one in self.reach.values()]
        rates += [] if self.power is None else [self.power.at_80 if power == 80 else self.power.at_95]
        return min((rate for rate in rates if rate is not None), default=None)

    @property
    def bound(self) -> float | None:
        """Upper 95 % bound of the rate of copies no better disguised than those planted; None: nothing bounds it.

        Clopper-Pearson of what was flagged, over the share of planted copies that are seen, and never below the
        rate that a test would have found with 95 % power: fewer copies than Benjamini-Hochberg needs are not flagged.
        """
        least = self.detectable(power=95)
        seen = max((one.seen for one in self.reach.values()), default=0.0)
        if seen == 0.0 or (least is None and not len(self.flagged)):
            return None
        upper = clopper_pearson(len(self.flagged), self.n, level=0.90)[1] / seen
        return min(1.0, max(upper, least if least is not None else 0.0))


Found = TypeVar("Found")


def _tried(act: Callable[[], Found]) -> tuple[Found | None, str]:
    """Return what `act` gives, or why it cannot."""
    try:
        return act(), ""
    except ValueError as error:
        return None, str(error)


def design_of(folds: Sequence[Fold], first: str, *, seed: int) -> Design:
    """Return what holds whatever the samples are; `first` is the embedding that drops."""
    twins = 0
    for fold in folds:
        same = checks.same_voxels(fold.evidence.holdout, fold.evidence.training)
        near = checks.near_duplicates(fold.distances[first].control, fold.distances[first].planted)
        twins += len({*same, *near})
    found, no_gate = _tried(lambda: gates(folds, seed=seed))
    has_losses = all(fold.losses is not None for fold in folds)
    weights, no_weights = None, "denoising losses were not handed over (give the model)"
    if has_losses:
        weights, no_weights = _tried(lambda: white_box(folds, seed=seed))
    return Design(
        training=len({one for fold in folds for one in whose(fold.evidence.training)}),
        holdout=len(set(holdout_patients(folds))),
        folds=len(folds),
        twins=twins,
        control=negative_control(folds, first, seed=seed),
        gates=tuple(found or ()),
        no_gate=no_gate,
        weights=weights,
        no_weights=no_weights,
    )


def view_of(folds: Sequence[Fold], names: Sequence[str], kept: Kept, options: Options, *, seed: int) -> View:
    """Return the tests in the embeddings `names`, the first leading, on the samples kept."""
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
    tests = {name: copies(folds, name, kept, q=options.q) for name in names}
    power = None
    if sets:
        clean = _unflagged(kept, tests)
        power = set_level_power(folds, names[0], kept, clean, level=options.level / len(sets), seed=seed)
    membership, why = _tried(lambda: black_box(folds, kept, seed=seed))
    if membership is None:
        absent["membership"] = why
    return View(
        kept=kept,
        n=n,
        copies=tests,
        sets=sets,
        reach={name: reach(folds, name, n, q=options.q, seed=seed) for name in names},
        power=power,
        membership=membership,
        same=_among(folds, kept, lambda fold: checks.same_voxels(fold.evidence.synthetic, fold.evidence.training)),
        real=_among(folds, kept, lambda fold: checks.real_masks(fold.evidence)),
        lag=float(np.median(tests[names[0]].p_values)),
        absent=absent,
    )


def _unflagged(kept: Kept, tests: dict[str, CopyTest]) -> Kept:
    """Return the samples kept that no copy test flags."""
    flagged = np.zeros(int(sum(keep.sum() for keep in kept)), dtype=bool)
    for test in tests.values():
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
