"""Overlap and surface distance of label maps. A structure missed scores the worst there is."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from evaluation.functional.arrays import array


def dice(pred: Any, ref: Any, *, labels: Sequence[int]) -> np.ndarray:
    """Return 2 |A n B| / (|A| + |B|) of each label of label maps (*grid): (labels,). Absent in both: 1."""
    first, second = array(pred), array(ref)
    if first.shape != second.shape:
        raise ValueError(f"label maps have grids {first.shape} and {second.shape}; compare equal ones")
    out = []
    for label in labels:
        a, b = first == label, second == label
        size = a.sum() + b.sum()
        out.append(2.0 * (a & b).sum() / size if size else 1.0)
    return np.array(out)


def hd95(pred: Any, ref: Any, *, labels: Sequence[int], spacing_mm: Sequence[float]) -> np.ndarray:
    """Return the 95th percentile of both directions' surface distances in mm, of each label: (labels,).

    Absent in both: 0. Absent in one: the diagonal of the image, the worst case.
    """
    first, second = _label_maps(pred, ref, spacing_mm)
    diagonal = float(np.linalg.norm(np.array(first.shape) * np.array(spacing_mm)))
    out = []
    for label in labels:
        a, b = first == label, second == label
        if a.any() and b.any():
            out.append(float(np.percentile(np.concatenate(_distances(a, b, spacing_mm)), 95)))
        else:
            out.append(diagonal if a.any() or b.any() else 0.0)
    return np.array(out)


def surface_dice(
    pred: Any, ref: Any, *, labels: Sequence[int], spacing_mm: Sequence[float], tolerance_mm: float = 1.0
) -> np.ndarray:
    """Return the share of both surfaces within `tolerance_mm` of the other, of each label: (labels,).

    Nikolov et al. 2018, each border voxel counted once. Absent in both: 1; absent in one: 0.
    """
    first, second = _label_maps(pred, ref, spacing_mm)
    out = []
    for label in labels:
        a, b = first == label, second == label
        if a.any() and b.any():
            out.append(float((np.concatenate(_distances(a, b, spacing_mm)) <= tolerance_mm).mean()))
        else:
            out.append(0.0 if a.any() or b.any() else 1.0)
    return np.array(out)


def _label_maps(pred: Any, ref: Any, spacing_mm: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    first, second = array(pred), array(ref)
    if first.shape != second.shape or first.ndim != len(spacing_mm):
        raise ValueError(f"label maps {first.shape} and {second.shape} need one grid and a spacing for each axis")
    return first, second


def _distances(a: np.ndarray, b: np.ndarray, spacing_mm: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Return in mm how far each border voxel of a lies from b's border, and of b from a's."""
    # nothing outside the union's box can be nearest, so the transforms run inside it
    box = tuple(slice(int(where.min()), int(where.max()) + 1) for where in np.nonzero(a | b))
    a, b = np.pad(a[box], 1), np.pad(b[box], 1)
    edge_a = a & ~np.asarray(ndimage.binary_erosion(a), dtype=bool)
    edge_b = b & ~np.asarray(ndimage.binary_erosion(b), dtype=bool)
    to_b = np.asarray(ndimage.distance_transform_edt(~edge_b, sampling=tuple(spacing_mm)))
    to_a = np.asarray(ndimage.distance_transform_edt(~edge_a, sampling=tuple(spacing_mm)))
    return to_b[edge_a], to_a[edge_b]
