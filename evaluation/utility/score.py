"""What one network scores on one test volume: Dice, surface Dice, HD95, lesions found, calibration. Trains nothing."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluation.evidence import Judged
from evaluation.functional import (
    brier_score,
    dice,
    expected_calibration_error,
    hd95,
    lesions,
    roi_rows,
    surface_dice,
    volume_crps,
)
from evaluation.utility.arms import Volumes
from evaluation.utility.config import UtilityConfig
from evaluation.utility.network import scores_of

if TYPE_CHECKING:
    from torch import nn

LESION_WORDS = ("lesion", "tumor", "tumour", "nodule", "metast", "stroke", "infarct", "plaque", "cyst", "polyp")
COVERED = 0.1
"""Share of a lesion's voxels that must be labelled right for it to count as found."""
Row = dict[str, Any]


def lesion_labels(names: Sequence[str], config: UtilityConfig) -> list[int]:
    """Return the labels whose components count as lesions: those named in the config, or those whose names say so.

    >>> lesion_labels(("csf", "lesion"), UtilityConfig())
    [2]
    """
    wanted = config.lesions
    return [
        number
        for number, name in enumerate(names, start=1)
        if (name in wanted if wanted else any(word in name.casefold() for word in LESION_WORDS))
    ]


def score(model: "nn.Module", item: Judged, volumes: Volumes, config: UtilityConfig) -> Row:
    """Return the scores of one test case, plain values by label; a structure missed scores the worst there is.

    A label that the reference lacks has no score, whatever is predicted: all arms are scored on the same labels, and a
    network that learned nothing earns none by finding nothing. What it finds there counts as false lesions.
    """
    probabilities = scores_of(model, np.asarray(item.image), config).double().numpy()
    row: Row = {"case": item.case, "patient": item.whose}
    if config.task == "classification":
        level = volumes.level(item)
        right = np.eye(len(probabilities))[level]
        return row | {
            "level": level,
            "found": int(probabilities.argmax()),
            "confidence": _short(probabilities.max()),
            "brier": _short(((probabilities - right) ** 2).sum()),
        }
    mask = np.asarray(item.mask)
    found = probabilities.argmax(axis=0).astype(np.uint8)
    labels = list(range(1, len(volumes.labels) + 1))
    spacing = volumes.spacing_mm
    tolerance = config.tolerance_mm or max(spacing)
    by_label = {
        "dice": dice(found, mask, labels=labels),
        "nsd": surface_dice(found, mask, labels=labels, spacing_mm=spacing, tolerance_mm=tolerance),
        "hd95": hd95(found, mask, labels=labels, spacing_mm=spacing),
    }
    there = [bool((mask == label).any()) for label in labels]
    row |= {
        name: [_short(value) if held else None for value, held in zip(values, there, strict=True)]
        for name, values in by_label.items()
    }
    row["ece"], row["brier"] = calibration(probabilities, mask, labels=labels)
    row["crps"] = [_short(v) for v in volume_crps(probabilities, mask, labels=labels, spacing_mm=spacing)]
    counted = lesion_labels(volumes.labels, config)
    if counted:
        told = lesions(found, mask, labels=counted, spacing_mm=spacing, overlap=COVERED)
        row["lesions"] = [
            (_short(size), bool(hit)) for one in told for size, hit in zip(one.sizes_ml, one.found, strict=True)
        ]
        row["false_lesions"] = sum(one.false_positives for one in told)
    return row


def calibration(
    probabilities: np.ndarray, mask: np.ndarray, *, labels: Sequence[int]
) -> tuple[list[float | None], list[float | None]]:
    """Return the calibration error and Brier score of each label's probability in its `region_of_interest`.

    That is the union of true and predicted label, widened by 2 voxels: over a whole volume, easy background hides a
    lesion's error, and in the true label alone false positives cost nothing. Absent in the reference: None, whatever
    is predicted, so that all arms are scored on the same cases.
    """
    errors: list[float | None] = []
    briers: list[float | None] = []
    for label in labels:
        wanted = mask == label
        if not wanted.any():
            errors.append(None)
            briers.append(None)
            continue
        rows, truth = roi_rows(np.clip(probabilities[label], 0.0, 1.0), wanted)
        errors.append(_short(expected_calibration_error(rows, truth)))
        briers.append(_short(brier_score(rows, truth)))
    return errors, briers


def _short(value: float) -> float:
    """Return a value with 6 significant digits, as it is written."""
    return float(f"{float(value):.6g}")
