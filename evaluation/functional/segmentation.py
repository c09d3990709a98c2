"""Overlap and surface distance of label maps. A structure missed scores the worst there is."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from evaluation.functional.arrays import array


def dice(pred: Any, ref: Any, *, labels: Sequence[int]) -> np.ndarray:
    """Return 2 |A n B| / (|A| + |B|) of each label of label maps (*grid): (labels,). Absent in both: 1."""
    first, second = array(pred), array(ref)
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
    first, second = array(pred), array(ref)
    diagonal = float(np.linalg.norm(np.array(first.shape) * np.array(spacing_mm)))
    out = []
    for label in labels:
        a, b = first == label, second == label
        if not a.any() or not b.any():
            out.append(0.0 if not a.any() and not b.any() else diagonal)
            continue
        edge_a = a & np.logical_not(ndimage.binary_erosion(a))
        edge_b = b & np.logical_not(ndimage.binary_erosion(b))
        to_b = ndimage.distance_transform_edt(~edge_b, sampling=spacing_mm)[edge_a]  # pyright: ignore[reportOptionalSubscript, reportCallIssue, reportArgumentType, reportIndexIssue]
        to_a = ndimage.distance_transform_edt(~edge_a, sampling=spacing_mm)[edge_b]  # pyright: ignore[reportOptionalSubscript, reportCallIssue, reportArgumentType, reportIndexIssue]
        out.append(float(np.percentile(np.concatenate([to_a, to_b]), 95)))
    return np.array(out)
