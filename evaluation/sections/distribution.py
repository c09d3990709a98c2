"""The distribution part of fidelity: distances between the sets, and how far real patients are from one another.

One row is one volume, in features that are scaled by the real volumes' own spread. Volumes of one patient are never
taken for independent: they are deleted, split and drawn together. Floors are what two halves of the real patients
reach, over a few random splits.
"""

from collections.abc import Callable, Sequence

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


def distribution(evidence: Evidence, report: Report, tell: Tell) -> None:
    """Compare synthetic with held-out features: Frechet, kernel, neighbours, sliced Wasserstein."""
    rows = evidence.features(tell)
    made, held = rows.synthetic, rows.holdout
    whose = np.array([item.whose for item in evidence.holdout])
    patients = len(set(whose.tolist()))
    if patients:
        scale = spread(held, made)
        made, held = made / scale, held / scale
    if _enough(report, ("frechet",), SMALLEST_FRECHET, len(made), patients):
        _frechet(report, made, held, whose, evidence.seed)
    if _enough(report, ("kernel",), SMALLEST_TEST, len(made), patients):
        _kernel(report, made, held, whose, evidence.seed)
    names = ("precision", "recall", "density", "coverage", "sliced_wasserstein")
    if _enough(report, names, SMALLEST_NEIGHBOURS, len(made), patients):
        single = held[one_each(whose, evidence.seed)]
        _neighbours(report, made, single, evidence.seed)
        _sliced(report, made, single, evidence.seed)


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


def _enough(report: Report, names: Sequence[str], least: int, made: int, patients: int) -> bool:
    if min(made, patients) >= least:
        return True
    for name in names:
        report.not_computed[f"fidelity.{name}"] = (
            f"{made} synthetic volumes and {patients} held-out patients; below {least} of either it says little"
        )
    return False


def _floor(
    measure: Callable[[np.ndarray, np.ndarray], float | Sequence[float]], splits: list[tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
    return np.mean([measure(a, b) for a, b in splits], axis=0)


def _frechet(report: Report, made: np.ndarray, held: np.ndarray, whose: np.ndarray, seed: int) -> None:
    found = frechet_interval(made, held, clusters_y=whose, seed=seed)

    def measure(a: np.ndarray, b: np.ndarray) -> float:
        return frechet_distance(held[a], held[b], debias=True, clusters_x=whose[a], clusters_y=whose[b])

    report.metrics["fidelity.frechet"] = Figure(
        found.value,
        len(made),
        "lower",
        f"without the bias of small sets, with it {found.plain:.4g}; {found.clusters[1]} real patients",
        found.interval,
        floor=float(_floor(measure, halves(whose, seed))),
    )


def _kernel(report: Report, made: np.ndarray, held: np.ndarray, whose: np.ndarray, seed: int) -> None:
    # scaled by both sets alike, or their labels could not be exchanged
    both = np.concatenate([made, held])
    scale = spread(both, both)
    made, held = (made - both.mean(axis=0)) / scale, (held - both.mean(axis=0)) / scale
    found = kernel_test(made, held, clusters_y=whose, seed=seed)

    def measure(a: np.ndarray, b: np.ndarray) -> float:
        return kernel_distance(held[a], held[b], clusters_x=whose[a], clusters_y=whose[b])

    whole = kernel_interval(made, held, clusters_y=whose, seed=seed)
    report.metrics["fidelity.kernel"] = Figure(
        whole.value,
        len(made),
        "lower",
        f"squared; null SD {found.null_sd:.2g}, permutation p {found.p_value:.3g}",
        whole.interval,
        floor=float(_floor(measure, halves(whose, seed))),
        p_value=found.p_value,
    )


def _neighbours(report: Report, made: np.ndarray, held: np.ndarray, seed: int) -> None:
    def measure(a: np.ndarray, b: np.ndarray) -> list[float]:
        return [*precision_recall(a, b, k=_NEIGHBOURS), *density_coverage(a, b, k=_NEIGHBOURS)]

    splits = halves(np.arange(len(held)), seed)
    floors = _floor(lambda a, b: measure(held[a], held[b]), splits)
    names = ("precision", "recall", "density", "coverage")
    for name, value, floor in zip(names, measure(made, held), floors, strict=True):
        report.metrics[f"fidelity.{name}"] = Figure(
            value, len(made), "higher", f"share, {_NEIGHBOURS} neighbours", floor=float(floor)
        )


def _sliced(report: Report, made: np.ndarray, held: np.ndarray, seed: int) -> None:
    splits = halves(np.arange(len(held)), seed)
    report.metrics["fidelity.sliced_wasserstein"] = Figure(
        sliced_wasserstein(made, held, seed=seed),
        len(made),
        "lower",
        "in the real volumes' spread along random directions",
        floor=float(_floor(lambda a, b: sliced_wasserstein(held[a], held[b], seed=seed), splits)),
    )
