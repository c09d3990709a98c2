"""Scores of an experiment, arm by arm, as the comparisons take them. Knows results, no volumes and no report."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from evaluation.functional import expected_calibration_error
from evaluation.utility.compare import LEAST_PATIENTS, Comparison, Scores, adjusted, by_case, gain, ratio
from evaluation.utility.config import COMPARED, NON_INFERIORITY
from evaluation.utility.run import Cell, Result, UtilityScores
from synth.errors import DataError

Measure = Callable[[Mapping[str, Any]], float]
SIZES = ("small", "medium", "large", "huge")
EDGES_ML = (0.1, 1.0, 10.0)
"""Where a size ends and the next begins, in ml (cm^2 in 2D). Fixed, so that a report tells no patient's lesion."""
LEAST_LESIONS = 5
"""A size with fewer test lesions is put together with the next."""
LOWER = ("hd95", "ece", "brier", "crps")
FURTHER = {"segmentation": ("nsd", "hd95", "ece", "brier", "crps"), "classification": ("brier",)}
"""Scores beside Dice and accuracy."""


def measure(name: str, label: int | None = None) -> Measure:
    """Return what reads one score of a row: of a label (from 0), or the mean over those that have one.

    >>> measure("dice")({"dice": [0.5, 1.0]}), measure("accuracy")({"found": 1, "level": 1})
    (0.75, 1.0)
    """
    if name == "accuracy":
        return lambda row: float(row["found"] == row["level"])

    def read(row: Mapping[str, Any]) -> float:
        if not isinstance(row[name], list):
            return float(row[name])
        values = row[name] if label is None else [row[name][label]]
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if known else float("nan")

    return read


def results_of(scores: UtilityScores, arm: str, cell: Cell) -> list[Result]:
    """Return the results of an arm in a cell, seed by seed."""
    wanted = {scores.config.job(arm, *cell, seed) for seed in scores.config.seeds}
    return sorted((one for one in scores.results if one.job in wanted), key=lambda one: one.job.seed)


def table(results: Sequence[Result], read: Measure) -> Scores | None:
    """Return an arm's scores; cases without a score (of a label that is absent) are left out. None: no case is left."""
    patients = {str(row["case"]): str(row["patient"]) for one in results for row in one.rows}
    rows = {one.job.seed: {str(row["case"]): read(row) for row in one.rows} for one in results}
    known = [case for case in patients if all(np.isfinite(row.get(case, np.nan)) for row in rows.values())]
    if not known or not rows:
        return None
    kept = {seed: {case: row[case] for case in known} for seed, row in rows.items()}
    return by_case(kept, {case: patients[case] for case in known})


def by_arm(scores: UtilityScores, cell: Cell, read: Measure) -> dict[str, Scores]:
    """Return the scores of every arm that was trained in a cell; G is left out where R has every patient itself."""
    config = scores.config
    same = "R" in config.arms and config.job("R", *cell, 0) == config.job("G", *cell, 0)
    found = ((arm, table(results_of(scores, arm, cell), read)) for arm in config.arms if not (same and arm == "G"))
    return {arm: one for arm, one in found if one is not None}


def compared(
    cells: Mapping[Cell, Mapping[str, Scores]], whole: Scores | None, *, seed: int
) -> dict[tuple[Cell, str, str], Comparison]:
    """Return (cell, arm, other) -> comparison, p adjusted over all of them together.

    whole   the real arm at the largest fraction, against which the synthetic arm is held as a ratio
    Errors: DataError for too few test patients.
    """
    found: dict[tuple[Cell, str, str], Comparison] = {}
    for cell, arms in cells.items():
        for arm, other in COMPARED:
            if arm in arms and other in arms:
                found[cell, arm, other] = gain(f"{arm}-{other}", arms[arm], arms[other], seed=seed)
        held = {of[1] for of, *pair in found if pair == ["S", "R"]}
        if "S" in arms and whole is not None and cell[1] not in held:
            found[cell, "S", "R"] = ratio("S/R", arms["S"], whole, margin=NON_INFERIORITY, seed=seed)
    return dict(zip(found, adjusted(list(found.values())), strict=True))


def further(scores: UtilityScores, cell: Cell, arm: str, other: str, *, seed: int) -> dict[str, Comparison]:
    """Return the gain of an arm in each further score and size of lesions, p adjusted over these: above 0 is better.

    Empty where an arm was not trained; scores and sizes that fewer than 5 test patients have are left out.
    """
    both = [results_of(scores, one, cell) for one in (arm, other)]
    if not all(both) or not {arm, other} <= set(scores.config.arms):
        return {}
    pairs = {name: [table(one, measure(name)) for one in both] for name in FURTHER[scores.config.task]}
    sizes = [detection(one) for one in both]
    pairs |= {f"detection.{size}": [one[size] for one in sizes] for size in sizes[0]}
    found = {
        name: gain(name, one, than, seed=seed, better="lower" if name in LOWER else "higher")
        for name, (one, than) in pairs.items()
        if one is not None and than is not None and one.count >= LEAST_PATIENTS
    }
    return dict(zip(found, adjusted(list(found.values())), strict=True))


def size_bins(sizes: Sequence[float]) -> dict[str, tuple[float, float]]:
    """Return name -> (from, to) of the sizes that hold LEAST_LESIONS or more; smaller groups join the next. One: any.

    >>> size_bins([0.05] * 6 + [0.5] * 2 + [3.0] * 4)
    {'small': (0.0, 0.1), 'medium_large_huge': (0.1, inf)}
    """
    edges = [0.0, *EDGES_ML, float("inf")]
    counts = np.histogram(np.asarray(sizes, dtype=np.float64), bins=edges)[0]
    groups: list[list[int]] = [[]]
    for number in range(len(SIZES)):
        if counts[groups[-1]].sum() >= LEAST_LESIONS and counts[number:].sum() >= LEAST_LESIONS:
            groups.append([])
        groups[-1].append(number)
    names = ["_".join(SIZES[n] for n in group) for group in groups] if len(groups) > 1 else ["any"]
    return {name: (edges[group[0]], edges[group[-1] + 1]) for name, group in zip(names, groups, strict=True)}


def in_ml(between: tuple[float, float], dims: int) -> str:
    """Return a size in words.

    >>> in_ml((0.1, 1.0), 3), in_ml((0.0, 0.1), 2), in_ml((10.0, float("inf")), 3), in_ml((0.0, float("inf")), 3)
    ('of 0.1 to 1 ml', 'below 0.1 cm^2', 'of 10 ml or more', 'of any size')
    """
    unit, (low, high) = ("ml" if dims == 3 else "cm^2"), between
    if low == 0.0:
        return "of any size" if np.isinf(high) else f"below {high:g} {unit}"
    return f"of {low:g} {unit} or more" if np.isinf(high) else f"of {low:g} to {high:g} {unit}"


def lesions_of(results: Sequence[Result]) -> tuple[Scores, np.ndarray] | None:
    """Return whether each test lesion was found (seed, lesion), lesions in place of cases, and their exact sizes.

    None: none was counted. Errors: DataError where seeds counted other lesions.
    """
    names: list[str] = []
    whose: list[str] = []
    sizes: list[list[float]] = []
    hits: list[list[float]] = []
    for one in results:
        rows = sorted(one.rows, key=lambda row: str(row["case"]))
        found = [(row, number, told) for row in rows for number, told in enumerate(row.get("lesions", []))]
        names = [f"{row['case']}#{number}" for row, number, _ in found]
        whose = [str(row["patient"]) for row, _, _ in found]
        sizes.append([float(size) for _, _, (size, _) in found])
        hits.append([float(hit) for _, _, (_, hit) in found])
    if not names:
        return None
    if any(one != sizes[0] for one in sizes):
        raise DataError("seeds of an arm counted other lesions; remove the scores kept beside the report, run again")
    return Scores(np.array(hits), tuple(names), tuple(whose)), np.array(sizes[0])


def detection(results: Sequence[Result]) -> dict[str, Scores]:
    """Return size -> whether each test lesion of that size was found; empty where none was counted."""
    told = lesions_of(results)
    if told is None:
        return {}
    found, sizes = told
    out = {}
    for name, (low, high) in size_bins(sizes.tolist()).items():
        inside = np.flatnonzero((sizes >= low) & (sizes < high))
        cases, patients = (tuple(side[i] for i in inside) for side in (found.cases, found.patients))
        out[name] = Scores(found.values[:, inside], cases, patients)
    return out


def class_calibration(results: Sequence[Result]) -> float:
    """Return the mean over seeds of the calibration error of the level that is named."""
    errors = []
    for one in results:
        stated = [float(row["confidence"]) for row in one.rows]
        errors.append(expected_calibration_error(stated, [float(row["found"] == row["level"]) for row in one.rows]))
    return float(np.mean(errors))


def false_lesions(results: Sequence[Result]) -> float | None:
    """Return the mean number of false lesions a case; None where lesions were not counted."""
    counts = [row["false_lesions"] for one in results for row in one.rows if "false_lesions" in row]
    return float(np.mean(counts)) if counts else None
