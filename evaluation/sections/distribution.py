"""The distribution part of fidelity: distances between the sets, and how far real patients are from one another.

One row is one volume, in features that are scaled by the real volumes' own spread. Volumes of one patient are never
taken for independent: they are deleted, split and drawn together. A floor is what real volumes reach in the place of
the synthetic ones: as many training patients where there are enough, else one half of the held-out patients against
the other.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.evidence import Evidence, Tell
from evaluation.functional import (
    density_coverage,
    frechet_distance,
    frechet_interval,
    kernel_distance,
    kernel_interval,
    kernel_test,
    precision_recall,
    sliced_wasserstein,
)
from evaluation.report import Figure, Report
from synth.rng import numpy_rng

SMALLEST_FRECHET = 50
SMALLEST_TEST = 10
SMALLEST_NEIGHBOURS = 20
_SPLITS = 4
_NEIGHBOURS = 5
_CONSTANT = 1e-6
_TRAINING = "Floors of distances between sets are those of training patients, who stand in for synthetic ones."
_HALVES = (
    "Floors of distances between sets are those of one half of the held-out patients against the other, for want of "
    "training patients. With fewer patients in a half than features, the floor of the Frechet distance is too high."
)


@dataclass(frozen=True, eq=False)
class Sides:
    """Feature rows (n, d) of two sets, and whose each row is; None: each is its own."""

    first: np.ndarray
    second: np.ndarray
    whose_first: np.ndarray | None = None
    whose_second: np.ndarray | None = None

    def scaled(self, scale: np.ndarray, middle: np.ndarray | float = 0.0) -> "Sides":
        """Return both sets less `middle`, divided by `scale`."""
        first, second = ((rows - middle) / scale for rows in (self.first, self.second))
        return Sides(first, second, self.whose_first, self.whose_second)


def distribution(evidence: Evidence, report: Report, tell: Tell) -> None:
    """Compare synthetic with held-out features: Frechet, kernel, neighbours, sliced Wasserstein."""
    made, held = evidence.features(tell).synthetic, evidence.features(tell).holdout
    whose = np.array([item.whose for item in evidence.holdout])
    patients = len(set(whose.tolist()))
    few = "{} synthetic volumes and {} held-out patients; below {} of either it says little"
    for names, least, measure in (
        (("frechet",), SMALLEST_FRECHET, _frechet),
        (("kernel",), SMALLEST_TEST, _kernel),
        (("precision", "recall", "density", "coverage", "sliced_wasserstein"), SMALLEST_NEIGHBOURS, _single),
    ):
        if min(len(made), patients) >= least:
            sets = Sides(made, held, None, whose), *real_pairs(evidence, tell)
            sides, *pairs = (some.scaled(spread(held, made)) for some in sets)
            measure(report, sides, pairs, evidence.seed)
        else:
            said = few.format(len(made), patients, least)
            report.not_computed.update({f"fidelity.{name}": said for name in names})
    if min(len(made), patients) >= SMALLEST_TEST:
        report.notes.append(_HALVES if real_pairs(evidence, tell)[0].whose_first is not None else _TRAINING)


def real_pairs(evidence: Evidence, tell: Tell) -> list[Sides]:
    """Return pairs of real sets of different patients, whose distances are the floors of synthetic ones.

    One volume of each of as many training patients as there are synthetic volumes, against the held-out volumes;
    where training holds fewer patients than half of the held-out ones, halves of the latter. Several random draws.
    """
    rows, seed = evidence.features(tell), evidence.seed
    held, names = (np.array([item.whose for item in side]) for side in (evidence.holdout, evidence.training))
    apart = np.flatnonzero(~np.isin(names, held))
    trained = apart[one_each(names[apart], seed)] if len(apart) else apart
    if 2 * len(trained) < len(np.unique(held)):
        return [
            Sides(rows.holdout[first], rows.holdout[second], held[first], held[second])
            for first, second in halves(held, seed)
        ]
    size = min(len(trained), len(rows.synthetic))
    draws = range(_SPLITS if len(trained) > size else 1)
    chosen = (numpy_rng(seed, "floor", draw).permutation(trained)[:size] for draw in draws)
    return [Sides(rows.training[some], rows.holdout, None, held) for some in chosen]


def spread(reference: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return what to divide features by: the reference's standard deviation (d,).

    Where the reference is constant to 1e-6 of its size, that of both sets together, so that a feature in which only
    the other set varies counts with about one unit and not with millions; 1 where both are constant.
    """
    own, both = reference.std(axis=0), np.concatenate([reference, other]).std(axis=0)
    size = _CONSTANT * np.maximum(np.abs(reference).max(axis=0), np.abs(other).max(axis=0))
    return np.where(own > size, own, np.where(both > size, both, 1.0))


def one_each(whose: np.ndarray, seed: int) -> np.ndarray:
    """Return the indices of one volume of each patient, drawn at random."""
    order = numpy_rng(seed, "one each").permutation(len(whose))
    return np.sort(order[np.unique(whose[order], return_index=True)[1]])


def halves(whose: np.ndarray, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return random splits into two halves of the patients, as indices of volumes."""
    names, codes = np.unique(whose, return_inverse=True)
    out = []
    for split in range(_SPLITS):
        first = numpy_rng(seed, "floor", split).permutation(len(names)) < len(names) // 2
        out.append((np.flatnonzero(first[codes]), np.flatnonzero(~first[codes])))
    return out


def _floor(measure: Callable[[Sides], float | Sequence[float]], pairs: Sequence[Sides]) -> np.ndarray:
    return np.mean([measure(sides) for sides in pairs], axis=0)


def _frechet(report: Report, sides: Sides, pairs: Sequence[Sides], seed: int) -> None:
    def measure(some: Sides) -> float:
        clusters = {"clusters_x": some.whose_first, "clusters_y": some.whose_second}
        return frechet_distance(some.first, some.second, debias=True, **clusters)

    found = frechet_interval(sides.first, sides.second, clusters_y=sides.whose_second, seed=seed)
    report.metrics["fidelity.frechet"] = Figure(
        found.value,
        len(sides.first),
        "lower",
        f"without the bias of small sets, with it {found.plain:.4g}; {found.clusters[1]} real patients",
        found.interval,
        floor=float(_floor(measure, pairs)),
    )


def _kernel(report: Report, sides: Sides, pairs: Sequence[Sides], seed: int) -> None:
    # scaled by both sets alike, or their labels could not be exchanged
    both = np.concatenate([sides.first, sides.second])
    middle, scale = both.mean(axis=0), spread(both, both)

    def measure(some: Sides) -> float:
        return kernel_distance(some.first, some.second, clusters_x=some.whose_first, clusters_y=some.whose_second)

    sides, *pairs = (some.scaled(scale, middle) for some in (sides, *pairs))
    whole = kernel_interval(sides.first, sides.second, clusters_y=sides.whose_second, seed=seed)
    found = kernel_test(sides.first, sides.second, clusters_y=sides.whose_second, seed=seed)
    report.metrics["fidelity.kernel"] = Figure(
        whole.value,
        len(sides.first),
        "lower",
        f"squared; null SD {found.null_sd:.2g}, permutation p {found.p_value:.3g}",
        whole.interval,
        floor=float(_floor(measure, pairs)),
        p_value=found.p_value,
    )


def _single(report: Report, sides: Sides, pairs: Sequence[Sides], seed: int) -> None:
    """Measure what takes rows for independent: on one volume of each patient."""

    def scores(some: Sides) -> list[float]:
        k = _NEIGHBOURS
        return [*precision_recall(some.first, some.second, k=k), *density_coverage(some.first, some.second, k=k)]

    def sliced(some: Sides) -> float:
        return sliced_wasserstein(some.first, some.second, seed=seed)

    sides, *pairs = (singled(some, seed) for some in (sides, *pairs))
    names = ("precision", "recall", "density", "coverage")
    for name, value, floor in zip(names, scores(sides), _floor(scores, pairs), strict=True):
        report.metrics[f"fidelity.{name}"] = Figure(
            value, len(sides.first), "higher", f"share, {_NEIGHBOURS} neighbours", floor=float(floor)
        )
    unit = "in the real volumes' spread along random directions"
    report.metrics["fidelity.sliced_wasserstein"] = Figure(
        sliced(sides), len(sides.first), "lower", unit, floor=float(_floor(sliced, pairs))
    )


def singled(sides: Sides, seed: int) -> Sides:
    """Return one volume of each patient of both sets."""
    rows = [
        values if whose is None else values[one_each(whose, seed)]
        for values, whose in ((sides.first, sides.whose_first), (sides.second, sides.whose_second))
    ]
    return Sides(*rows)
