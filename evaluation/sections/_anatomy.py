"""The part of the alignment section that needs no segmenter: edges at boundaries, and anatomy against hold-out.

Held-out volumes count by patient: the mean of each is a floor's, one of each is compared.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from evaluation.evidence import Evidence, Judged
from evaluation.functional import (
    SetDistance,
    adjacency,
    boundary_alignment,
    holm,
    label_intensities,
    label_volumes,
    set_distance,
    topology,
)
from evaluation.functional.statistics import mean_interval
from evaluation.report import Figure, Report
from evaluation.sections.distribution import one_each
from evaluation.segmented import patient_means, spacing_of
from synth.rng import numpy_rng

_FURTHEST = 3  # voxels by which a mask is shifted at most
_LEAST = 5


def boundary(evidence: Evidence, report: Report) -> None:
    """Measure edges of the images at mask boundaries, and the same with every mask shifted by 1 to 3 voxels."""
    spacing, seed = spacing_of(evidence), evidence.seed
    rng = numpy_rng(seed, "shifted masks")
    values, shifted = [], []
    for item in evidence.synthetic:
        value, moved = _ratio(item.image, item.mask, spacing), _moved(item.mask, rng)
        control = None if moved is None else _ratio(item.image, moved, spacing)
        if value is not None and control is not None:
            values.append(value)
            shifted.append(control)
    if not values:
        report.not_computed["alignment.boundary"] = "no sample has a mask boundary with edges of the image near it"
        return
    held = [(v, item.whose) for item in evidence.holdout if (v := _ratio(item.image, item.mask, spacing)) is not None]
    reached = patient_means(np.array([[value] for value, _ in held]).reshape(-1, 1), [whose for _, whose in held])
    unit = "edges at boundaries, over those 1 to 3 voxels beside"
    for name, row in (("alignment.boundary", values), ("alignment.boundary_shifted", shifted)):
        interval = mean_interval(row, seed=seed)
        control = name == "alignment.boundary_shifted"  # has no floor: it must be clearly lower
        floor = float(reached.mean()) if held and not control else None
        report.metrics[name] = Figure(float(np.mean(row)), len(row), "lower" if control else "", unit, interval, floor)


def anatomy(evidence: Evidence, report: Report) -> None:
    """Compare volumes, intensities, neighbours and pieces of labels with those of hold-out volumes."""
    made, names = evidence.synthetic, label_names(evidence)
    whose = np.array([item.whose for item in evidence.holdout])
    held = [evidence.holdout[place] for place in one_each(whose, evidence.seed)] if len(whose) else []
    families = (
        [f"volume.{name}" for name in names] + [f"intensity.{name}" for name in names] + ["adjacency", "topology"]
    )
    reason = None
    if not names:
        families, reason = ["volume", "intensity", "adjacency", "topology"], "no label is known or drawn"
    elif min(len(made), len(held)) < _LEAST:
        reason = f"{len(made)} synthetic volumes and {len(held)} hold-out patients; needs {_LEAST} of each"
    if reason is not None:
        for family in families:
            report.not_computed[f"alignment.{family}"] = reason
        return
    spacing, count = spacing_of(evidence), len(names)
    labels = range(1, count + 1)

    def intensities(item: Judged) -> np.ndarray:
        return np.concatenate([label_intensities(c, item.mask, labels=labels) for c in item.image], axis=1)

    volumes = _rows(made, held, lambda item: label_volumes(item.mask, labels=labels, spacing_mm=spacing))
    levels = _rows(made, held, intensities)
    sets: dict[str, list[np.ndarray]] = {}
    for column, name in enumerate(names):
        sets[f"alignment.volume.{name}"] = [side[:, column] for side in volumes]
        sets[f"alignment.intensity.{name}"] = [side[:, column] for side in levels]
    sets["alignment.adjacency"] = _rows(
        made, held, lambda item: adjacency(item.mask, labels=count, spacing_mm=spacing).ravel()
    )
    sets["alignment.topology"] = _rows(made, held, lambda item: topology(item.mask, labels=labels).ravel())
    _compare(report, sets, evidence.seed)


def label_names(evidence: Evidence) -> tuple[str, ...]:
    """Return the names of labels 1..K: the evidence's, else the segmenter's, else their numbers."""
    most = max(int(item.mask.max(initial=0)) for item in (*evidence.synthetic, *evidence.holdout))
    model = evidence.bench.segmenter
    known = evidence.labels or (tuple(model.config.labels) if model is not None else ())
    return (*known, *(str(value) for value in range(len(known) + 1, most + 1)))


def _rows(made: Sequence[Judged], held: Sequence[Judged], measure: Callable[[Judged], np.ndarray]) -> list[np.ndarray]:
    return [np.stack([measure(item) for item in side]) for side in (made, held)]


def _compare(report: Report, sets: Mapping[str, Sequence[np.ndarray]], seed: int) -> None:
    """Add a figure for each pair of sets, its p beside that which holds for all of them together."""
    found: dict[str, SetDistance] = {}
    for name, (made, held) in sets.items():
        try:
            found[name] = set_distance(made, held, seed=seed)
        except ValueError:
            report.not_computed[name] = "fewer than 2 volumes or patients a side hold it"
    together = holm([one.p_value for one in found.values()])
    for (name, one), p in zip(found.items(), together, strict=True):
        n, m = (int(np.isfinite(side.reshape(len(side), -1)).any(axis=1).sum()) for side in sets[name])
        unit = (
            f"hold-out SDs (Wasserstein), mean shift {one.difference:+.2f} SD, p = {one.p_value:.3f} by ranks "
            f"({p:.3f} among all {len(found)}, Holm), against {m} patients"
        )
        report.metrics[name] = Figure(one.distance, n, "lower", unit, floor=one.null_mean, p_value=one.p_value)


def _ratio(image: np.ndarray, mask: np.ndarray, spacing: tuple[float, ...]) -> float | None:
    try:
        value = boundary_alignment(image, mask, spacing_mm=spacing)
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def _moved(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """Return the mask 1 to 3 voxels further along one axis, its border repeated; None where the grid is too small."""
    axis, amount = int(rng.integers(mask.ndim)), int(rng.integers(1, _FURTHEST + 1)) * (1, -1)[int(rng.integers(2))]
    if mask.shape[axis] <= 2 * _FURTHEST:
        return None
    place = np.clip(np.arange(mask.shape[axis]) - amount, 0, mask.shape[axis] - 1)
    return np.take(mask, place, axis=axis)
