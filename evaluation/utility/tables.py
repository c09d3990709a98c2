"""Scores of an experiment, arm by arm, as the comparisons take them. Knows results, no volumes and no report."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from evaluation.functional import expected_calibration_error
from evaluation.utility.compare import Comparison, Scores, adjusted, by_case, gain, ratio
from evaluation.utility.config import COMPARED, NON_INFERIORITY
from evaluation.utility.run import Result, UtilityScores

Measure = Callable[[Mapping[str, Any]], float]
Cell = tuple[float, float]
"""Fraction and ratio (0: the whole synthetic set)."""
SIZES = ("small", "medium", "large")
LOWER = ("hd95", "ece", "brier")


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
    """Return the scores of every arm that was trained in a cell."""
    found = ((arm, table(results_of(scores, arm, cell), read)) for arm in scores.config.arms)
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
        if "S" in arms and whole is not None and not any(key[0][1] == cell[1] for key in found if key[1] == "S"):
            found[cell, "S", "R"] = ratio("S/R", arms["S"], whole, margin=NON_INFERIORITY, seed=seed)
    return dict(zip(found, adjusted(list(found.values())), strict=True))


def detection(results: Sequence[Result]) -> Iterator[tuple[str, float, int, tuple[float, float]]]:
    """Yield (size, share found, lesions, (from ml, to ml)) by thirds of the test lesions' volume, over all seeds."""
    found = [(float(size), bool(hit)) for one in results for row in one.rows for size, hit in row.get("lesions", [])]
    if not found:
        return
    sizes = np.array([size for size, _ in found])
    hits = np.array([hit for _, hit in found], dtype=np.float64)
    edges = np.quantile(sizes, [0.0, 1 / 3, 2 / 3, 1.0])
    place = np.searchsorted(edges[1:3], sizes, side="left")
    for number, name in enumerate(SIZES):
        inside = place == number
        if inside.any():
            many = int(inside.sum()) // len(results)
            yield name, float(hits[inside].mean()), many, (float(edges[number]), float(edges[number + 1]))


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
