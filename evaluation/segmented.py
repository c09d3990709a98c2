"""What the bench's segmenter makes of the evidence, measured once and shared by sections. Knows no report.

Probabilities of a set would not fit memory: of each volume only its label map, class and calibration are kept.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.evidence import Evidence, Judged, Tell
from evaluation.functional import (
    brier_score,
    dice,
    expected_calibration_error,
    hd95,
    reliability_curve,
    roi_rows,
    surface_dice,
    volume_crps,
)
from synth.rng import numpy_rng

MOST_HELD_OUT = 48
_MARGIN = 2.0  # voxels around foreground in which calibration is judged


@dataclass(frozen=True, eq=False)
class Calibration:
    """Calibration of one volume's probabilities near foreground, NaN without any; CRPS in ml of each label.

    bins   mean confidence, frequency and count of each bin of confidence (3, bins); zeros where there is nothing
    """

    ece: float
    brier: float
    crps: np.ndarray
    bins: np.ndarray


@dataclass(frozen=True, eq=False)
class Segmented:
    """One volume as the segmenter sees it; calibration None where the segmenter gives labels only."""

    item: Judged
    labels: np.ndarray
    name: str
    calibration: Calibration | None


@dataclass(frozen=True, eq=False)
class BothSides:
    """Synthetic volumes, and held-out ones of patients who did not train the segmenter, segmented.

    Of the latter at most 48, drawn by the evidence's seed: one of each patient before a second of any.
    """

    synthetic: Sequence[Segmented]
    holdout: Sequence[Segmented]


@dataclass(frozen=True, eq=False)
class OwnScore:
    """Dice by label that the segmenter reaches on real volumes.

    rows       (patients with a label, labels), each the mean of a patient's volumes, NaN where none holds the label
    mean       (labels,) over patients; NaN where none holds the label
    recorded   not measured here, but where the segmenter was made, on patients held out there
    """

    rows: np.ndarray
    mean: np.ndarray
    recorded: bool = False


def unseen(evidence: Evidence) -> list[Judged]:
    """Return the held-out volumes of patients whom the segmenter was not trained on."""
    return [item for item in evidence.holdout if item.whose not in evidence.bench.saw]


def own_score(evidence: Evidence, tell: Tell) -> OwnScore | None:
    """Return what the evidence's segmenter, which must be there, reaches itself; None where nobody can say."""
    sides, model = segmented(evidence, tell), evidence.bench.segmenter
    assert model is not None
    names = model.config.labels
    if not sides.holdout:
        told = () if evidence.holdout else evidence.bench.recorded
        rows = np.array([[row.get(name, np.nan) for name in names] for row in told])
        return OwnScore(rows, column_means(rows), recorded=True) if told else None
    labels = list(range(1, len(names) + 1))
    found = dice_rows([one.labels for one in sides.holdout], [one.item.mask for one in sides.holdout], labels)
    rows = patient_means(found, [one.item.whose for one in sides.holdout])
    rows = rows[np.isfinite(rows).any(axis=1)]
    return OwnScore(rows, column_means(rows))


def why_no_score(evidence: Evidence) -> str:
    """Return why `own_score` is None."""
    if not evidence.holdout:
        return "there are no held-out patients on whom the segmenter's own score could be measured"
    return (
        "the segmenter was trained on every patient held out here, so that its own score cannot be measured; give "
        "another --judge, or none, so that one is trained on the training patients"
    )


def patient_means(rows: np.ndarray, whose: Sequence[str]) -> np.ndarray:
    """Return the mean of each patient's rows (n, d) -> (patients, d), NaN left out; NaN where there is nothing else."""
    names = list(dict.fromkeys(whose))
    owner = np.array([names.index(one) for one in whose], dtype=np.int64)
    return np.array([column_means(rows[owner == index]) for index in range(len(names))]).reshape(-1, rows.shape[1])


def column_means(rows: np.ndarray) -> np.ndarray:
    """Return the mean of each column (n, d) -> (d,), NaN left out; NaN where there is nothing else."""
    count = np.isfinite(rows).sum(axis=0)
    return np.where(count > 0, np.nansum(rows, axis=0) / np.maximum(count, 1), np.nan)


def segmented(evidence: Evidence, tell: Tell) -> BothSides:
    """Return both sides of the evidence through its segmenter, which must be there; measured once."""
    kept = evidence.__dict__.get("_segmented")
    if kept is None:
        held, turns = unseen(evidence), Counter[str]()
        order = numpy_rng(evidence.seed, "segmented hold-out").permutation(len(held)).tolist()
        turn: dict[int, int] = {}
        for place in order:
            turn[place] = turns[held[place].whose]
            turns[held[place].whose] += 1
        chosen = [held[place] for place in sorted(sorted(order, key=turn.__getitem__)[:MOST_HELD_OUT])]
        kept = BothSides(*([_one(evidence, item, tell) for item in side] for side in (evidence.synthetic, chosen)))
        evidence.__dict__["_segmented"] = kept
    return kept


def surface_rows(evidence: Evidence, tell: Tell) -> list[np.ndarray]:
    """Return surface Dice and HD95 of synthetic and of held-out volumes: (n, 2, labels) each; measured once.

    Within `tolerance_of` the evidence. NaN where the mask lacks the label or the grids differ.
    """
    kept = evidence.__dict__.get("_surface_rows")
    if kept is None:
        sides, model = segmented(evidence, tell), evidence.bench.segmenter
        assert model is not None
        labels = list(range(1, len(model.config.labels) + 1))
        asked: dict[str, Any] = {"labels": labels, "spacing_mm": spacing_of(evidence)}
        kept = []
        for side in (sides.synthetic, sides.holdout):
            rows = np.full((len(side), 2, len(labels)), np.nan)
            for number, one in enumerate(side):
                found, ref = one.labels, one.item.mask
                if found.shape == ref.shape:
                    near = surface_dice(found, ref, tolerance_mm=tolerance_of(evidence), **asked)
                    present = [(ref == label).any() for label in labels]
                    rows[number] = np.where(present, np.stack([near, hd95(found, ref, **asked)]), np.nan)
            kept.append(rows)
        evidence.__dict__["_surface_rows"] = kept
    return kept


def tolerance_of(evidence: Evidence) -> float:
    """Return the tolerance of surface Dice: the longest side of a voxel."""
    return max(spacing_of(evidence))


def spacing_of(evidence: Evidence) -> tuple[float, ...]:
    """Return the spacing of the evidence's grid; voxels where it is not known."""
    return evidence.spacing_mm or (1.0,) * evidence.synthetic[0].mask.ndim


def dice_rows(found: Sequence[np.ndarray], masks: Sequence[np.ndarray], labels: Sequence[int]) -> np.ndarray:
    """Return Dice (samples, labels); NaN where the mask lacks the label or the grids differ."""
    rows = np.full((len(found), len(labels)), np.nan)
    for index, (a, b) in enumerate(zip(found, masks, strict=True)):
        if a.shape == b.shape:
            present = np.array([(b == label).any() for label in labels])
            rows[index] = np.where(present, dice(a, b, labels=labels), np.nan)
    return rows


def known_classes(model: object) -> tuple[str, ...]:
    """Return the classes of its attribute that a segmenter can tell; none where it knows no attribute."""
    return tuple(getattr(getattr(model, "config", None), "classes", ()))


def relative(rows: np.ndarray, own: np.ndarray) -> float | None:
    """Return the mean over labels of mean Dice, over the same mean of the segmenter's own; None without a label."""
    count = np.isfinite(rows).sum(axis=0)
    kept = (count > 0) & (own > 0)
    if not kept.any():
        return None
    return float((np.nansum(rows, axis=0)[kept] / count[kept]).mean() / own[kept].mean())


def _one(evidence: Evidence, item: Judged, tell: Tell) -> Segmented:
    model: Any = evidence.bench.segmenter
    if not hasattr(model, "probabilities"):
        labels, name = model.label(item.image)
        tell("segmented")
        return Segmented(item, labels, name, None)
    shares, name = model.probabilities(item.image)
    calibration = None
    if shares.shape[1:] == item.mask.shape and item.mask.max(initial=0) < len(shares):
        rows, truth = roi_rows(shares, item.mask, margin=_MARGIN)
        some = len(truth) > 0
        rows = rows / rows.sum(axis=1, keepdims=True)  # float32 sums are 1 to 7 digits only
        calibration = Calibration(
            expected_calibration_error(rows, truth) if some else float("nan"),
            brier_score(rows, truth) if some else float("nan"),
            volume_crps(shares, item.mask, labels=range(1, len(shares)), spacing_mm=spacing_of(evidence)),
            np.nan_to_num(np.stack(reliability_curve(rows, truth))) if some else np.zeros((3, 1)),
        )
    tell("segmented")
    return Segmented(item, shares.argmax(axis=0).astype(np.uint8), name, calibration)
