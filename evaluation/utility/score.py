"""What one network scores on one test volume: Dice, surface Dice, HD95, lesions found, calibration. Trains nothing."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from evaluation.evidence import Judged
from evaluation.functional import dice, expected_calibration_error, hd95, surface_dice
from evaluation.utility.arms import Volumes
from evaluation.utility.config import UtilityConfig
from evaluation.utility.network import scores_of

if TYPE_CHECKING:
    from torch import nn

LESION_WORDS = ("lesion", "tumor", "tumour", "nodule", "metast", "stroke", "infarct", "plaque", "cyst", "polyp")
COVERED = 0.1
"""Share of a lesion's voxels that must be labelled right for it to count as found."""
MARGIN = 3
"""Voxels by which a structure is widened to the region in which calibration is measured."""
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

    Absent in both: Dice and surface Dice 1, HD95 0 (see `evaluation.functional`).
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
    row |= {name: [_short(value) for value in values] for name, values in by_label.items()}
    row["ece"], row["brier"] = roi_calibration(probabilities, mask, labels=labels)
    lesions = lesion_labels(volumes.labels, config)
    if lesions:
        row["lesions"], row["false_lesions"] = detected(found, mask, labels=lesions, voxel_ml=_voxel_ml(spacing))
    return row


def detected(
    found: np.ndarray, mask: np.ndarray, *, labels: Sequence[int], voxel_ml: float
) -> tuple[list[tuple[float, bool]], int]:
    """Return (volume in ml, found) of each lesion of the reference, and how many labelled ones are no lesion.

    A lesion is a component (faces, edges and corners touch); it is found where a tenth of it is labelled so. A
    component labelled as a lesion that touches none is false.

    >>> mask = np.array([[1, 1, 0, 0, 1]])
    >>> detected(np.array([[1, 0, 0, 0, 0]]), mask, labels=[1], voxel_ml=0.5)
    ([(1.0, True), (0.5, False)], 0)
    """
    rows: list[tuple[float, bool]] = []
    false = 0
    for label in labels:
        hit, wanted = found == label, mask == label
        parts, count = _components(wanted)
        size = np.bincount(parts.ravel(), minlength=count + 1)[1:]
        covered = np.bincount(parts[hit], minlength=count + 1)[1:]
        rows += [
            (_short(voxels * voxel_ml), bool(overlap >= COVERED * voxels))
            for voxels, overlap in zip(size, covered, strict=True)
        ]
        claimed, many = _components(hit)
        touched = np.unique(claimed[wanted & hit])
        false += many - int((touched > 0).sum())
    return rows, false


def roi_calibration(
    probabilities: np.ndarray, mask: np.ndarray, *, labels: Sequence[int], margin: int = MARGIN
) -> tuple[list[float | None], list[float | None]]:
    """Return the calibration error and Brier score of each label's probability inside its widened region.

    The region is the label, widened by `margin` voxels: over a whole volume, easy background hides a lesion's error.
    Absent in the reference: None.
    """
    errors: list[float | None] = []
    briers: list[float | None] = []
    for label in labels:
        wanted = mask == label
        if not wanted.any():
            errors.append(None)
            briers.append(None)
            continue
        box = tuple(
            slice(max(int(where.min()) - margin, 0), int(where.max()) + margin + 1) for where in np.nonzero(wanted)
        )
        inside = wanted[box]
        region = np.asarray(ndimage.binary_dilation(inside, iterations=margin), dtype=bool)
        stated, true = np.clip(probabilities[(label, *box)][region], 0.0, 1.0), inside[region].astype(np.float64)
        errors.append(_short(expected_calibration_error(stated, true)))
        briers.append(_short(((stated - true) ** 2).mean()))
    return errors, briers


def _components(where: np.ndarray) -> tuple[np.ndarray, int]:
    parts, count = ndimage.label(where, structure=np.ones((3,) * where.ndim))  # pyright: ignore[reportGeneralTypeIssues]
    return np.asarray(parts), int(count)


def _voxel_ml(spacing_mm: Sequence[float]) -> float:
    """Return ml a voxel; in 2D, cm2 a pixel."""
    return float(np.prod(spacing_mm)) / 10.0 ** len(spacing_mm)


def _short(value: float) -> float:
    """Return a value with 6 significant digits, as it is written."""
    return float(f"{float(value):.6g}")
