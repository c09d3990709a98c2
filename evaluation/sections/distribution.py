"""The distribution part of fidelity: distances between the sets, and how far real patients are from one another.

One row is one volume, in features that are scaled by the real volumes' own spread. Volumes of one patient are never
taken for independent: they are deleted, split and drawn together. A floor is what real volumes reach in the place of
the synthetic ones: as many training patients where there are enough, else one half of the held-out patients against
the other. Distances that shrink with n are taken of equally many rows on the floor's side and on the figure's.
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
    mind,
    precision_recall,
)
from evaluation.report import Figure, Report
from synth.rng import numpy_rng

SMALLEST_FRECHET = 50
PATIENTS_A_FEATURE = 3
"""Patients a side that the Frechet distance needs for every feature; see `directions_of`."""
SMALLEST_TEST = 10
SMALLEST_NEIGHBOURS = 20
_SPLITS = 4
_DRAWS = 8
_NEIGHBOURS = 5
_CONSTANT = 1e-6
_TRAINING = "Floors of distances between sets are those of training patients, who stand in for synthetic ones."
_HALVES = (
    "Floors of distances between sets are those of one half of the held-out patients against the other, for want of "
    "training patients."
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

    def turned(self, axes: np.ndarray) -> "Sides":
        """Return both sets along `axes` (d, p)."""
        return Sides(self.first @ axes, self.second @ axes, self.whose_first, self.whose_second)

    @property
    def patients(self) -> tuple[int, int]:
        """Return how many patients each set is of."""
        sets = ((self.first, self.whose_first), (self.second, self.whose_second))
        first, second = (len(rows) if whose is None else len(np.unique(whose)) for rows, whose in sets)
        return first, second


def distribution(evidence: Evidence, report: Report, tell: Tell) -> None:
    """Compare synthetic with held-out features: Frechet, kernel, neighbours, sliced Wasserstein."""
    made, held = evidence.features(tell).synthetic, evidence.features(tell).holdout
    whose = np.array([item.whose for item in evidence.holdout])
    patients = len(set(whose.tolist()))
    few = "{} synthetic volumes and {} held-out patients; below {} of either it says little"
    between = real_pairs(evidence, tell) if min(len(made), patients) >= SMALLEST_TEST else []
    for names, least, measure in (
        (("frechet",), SMALLEST_FRECHET, _frechet),
        (("kernel",), SMALLEST_TEST, _kernel),
        (("precision", "recall", "density", "coverage", "sliced_wasserstein"), SMALLEST_NEIGHBOURS, _single),
    ):
        if min(len(made), patients) >= least:
            sets = Sides(made, held, None, whose), *between
            sides, *pairs = (some.scaled(spread(held, made)) for some in sets)
            measure(report, sides, pairs, evidence.seed)
        else:
            said = few.format(len(made), patients, least)
            report.not_computed.update({f"fidelity.{name}": said for name in names})
    if between:
        report.notes.append(_HALVES if between[0].whose_first is not None else _TRAINING)


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


def directions_of(width: int, patients: int) -> np.ndarray | None:
    """Return the axes (d, p) along which `width` features are compared by the Frechet distance; None: as they are.

    Deleting patients takes off a bias of order 1/n. With few patients for each feature there is more of it, and the
    interval neither covers nor spares equal sets (features with long tails above all). So no more than one direction
    for PATIENTS_A_FEATURE patients of the smallest set is looked at: the first p of a fixed series of random
    orthogonal ones, which depends on d alone and never on the data. The distance along them is at most that of all.
    """
    count = patients // PATIENTS_A_FEATURE
    if count >= width:
        return None
    return np.linalg.qr(numpy_rng(0, "frechet directions").normal(size=(count, width)).T)[0]


def _frechet(report: Report, sides: Sides, pairs: Sequence[Sides], seed: int) -> None:
    def measure(some: Sides) -> float:
        clusters = {"clusters_x": some.whose_first, "clusters_y": some.whose_second}
        return frechet_distance(some.first, some.second, debias=True, **clusters)

    width, fewest = sides.first.shape[1], min(min(some.patients) for some in (sides, *pairs))
    axes, along = directions_of(width, fewest), ""
    if axes is not None:
        sides, *pairs = (some.turned(axes) for some in (sides, *pairs))
        along = (
            f"; along {axes.shape[1]} fixed random directions of {width} features: all would need "
            f"{PATIENTS_A_FEATURE * width} patients a side, of floors too"
        )
    found = frechet_interval(sides.first, sides.second, clusters_y=sides.whose_second, seed=seed)
    report.metrics["fidelity.frechet"] = Figure(
        found.value,
        len(sides.first),
        "lower",
        f"without the bias of small sets, with it {found.plain:.4g}; {found.clusters[1]} real patients{along}",
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
    """Measure what takes rows for independent, and depends on their number: on one volume of each patient, equal n."""

    def scores(some: Sides) -> list[float]:
        k = _NEIGHBOURS
        return [*precision_recall(some.first, some.second, k=k), *density_coverage(some.first, some.second, k=k)]

    def sliced(some: Sides) -> list[float]:
        squared = mind(some.first, some.second, seed=seed)
        return [float(np.sqrt(squared / (3.0 * some.first.shape[1]))), squared]

    made, floors = at_equal_n(*(singled(some, seed) for some in (sides, *pairs)), seed=seed)
    n, m = len(made[0].first), len(made[0].second)
    sizes = f"{n} against {m} volumes, the floor too"
    names = ("precision", "recall", "density", "coverage")
    for name, value, floor in zip(names, _floor(scores, made), _floor(scores, floors), strict=True):
        unit = f"share, {_NEIGHBOURS} neighbours; {sizes}"
        report.metrics[f"fidelity.{name}"] = Figure(float(value), n, "higher", unit, floor=float(floor))
    (distance, squared), (floor, _) = _floor(sliced, made), _floor(sliced, floors)
    unit = f"in the real volumes' spread along random directions; {sizes}; by MIND's formula {squared:.4g}"
    report.metrics["fidelity.sliced_wasserstein"] = Figure(float(distance), n, "lower", unit, floor=float(floor))


def at_equal_n(sides: Sides, *pairs: Sides, seed: int) -> tuple[list[Sides], list[Sides]]:
    """Return `sides`, and all `pairs`, in sets of equally many rows: the fewest of any first, of any second set.

    Rows are left out at random, in several draws where there are some to be left out. Rows are patients here.
    """
    every = (sides, *pairs)
    sizes = min(len(some.first) for some in every), min(len(some.second) for some in every)

    def drawn(some: Sides, name: int) -> list[Sides]:
        if (len(some.first), len(some.second)) == sizes:
            return [some]
        out = []
        for draw in range(_DRAWS):
            rng = numpy_rng(seed, "equal n", name, draw)
            chosen = [np.sort(rng.permutation(len(rows))[:n]) for rows, n in zip((some.first, some.second), sizes)]
            out.append(Sides(some.first[chosen[0]], some.second[chosen[1]]))
        return out

    return drawn(sides, 0), [one for name, pair in enumerate(pairs, start=1) for one in drawn(pair, name)]


def singled(sides: Sides, seed: int) -> Sides:
    """Return one volume of each patient of both sets."""
    rows = [
        values if whose is None else values[one_each(whose, seed)]
        for values, whose in ((sides.first, sides.whose_first), (sides.second, sides.whose_second))
    ]
    return Sides(*rows)
