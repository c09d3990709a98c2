"""Overlap and surface distance of label maps, and detection of lesions. A structure missed scores the worst there is.

Surfaces are those of `evaluation.functional.surface` (DeepMind's surface-distance): elements at voxel corners,
weighted by area, distances in mm along the given spacing. Conventions for a label in one case: absent in both maps,
nothing was missed (Dice 1, surface Dice 1, HD95 0); absent in one, the worst case (0, 0, the image's diagonal).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from evaluation.functional.arrays import array
from evaluation.functional.surface import percentile_mm, surface_distances


def dice(pred: Any, ref: Any, *, labels: Sequence[int]) -> np.ndarray:
    """Return 2 |A n B| / (|A| + |B|) of each label of label maps (*grid): (labels,). Absent in both: 1.

    Errors: ValueError for grids that differ or values that are no numbers.
    """
    first, second = _label_maps(pred, ref)
    out = []
    for label in labels:
        a, b = first == label, second == label
        size = a.sum() + b.sum()
        out.append(2.0 * (a & b).sum() / size if size else 1.0)
    return np.array(out)


def hd95(pred: Any, ref: Any, *, labels: Sequence[int], spacing_mm: Sequence[float]) -> np.ndarray:
    """Return the 95 % Hausdorff distance in mm of each label of label maps (*grid): (labels,).

    HD95 = max(q95(d(pred -> ref)), q95(d(ref -> pred))), q95 the distance that 95 % of a surface's area does not
    exceed (Nikolov et al. 2018, compute_robust_hausdorff). Absent in both: 0. Absent in one: the diagonal of the
    image in mm, which no distance inside it exceeds. Errors: ValueError for grids or spacings that do not fit.

    >>> plate = np.zeros((6, 4, 4)); plate[1] = 1
    >>> hd95(plate, np.roll(plate, 3, axis=0), labels=[1], spacing_mm=(2.0, 1.0, 1.0)).tolist()
    [6.0]
    """
    first, second = _label_maps(pred, ref, spacing_mm)
    diagonal = float(np.linalg.norm(np.array(first.shape) * np.array(spacing_mm)))
    out = []
    for label in labels:
        a, b = first == label, second == label
        if a.any() and b.any():
            found = surface_distances(a, b, spacing_mm)
            sides = (found.pred_mm, found.pred_area), (found.ref_mm, found.ref_area)
            out.append(max(percentile_mm(*side, 0.95) for side in sides))
        else:
            out.append(diagonal if a.any() or b.any() else 0.0)
    return np.array(out)


def surface_dice(
    pred: Any, ref: Any, *, labels: Sequence[int], spacing_mm: Sequence[float], tolerance_mm: float = 1.0
) -> np.ndarray:
    """Return the share of both surfaces' area within `tolerance_mm` of the other (NSD), of each label: (labels,).

    Nikolov et al. 2018, compute_surface_dice_at_tolerance. Absent in both: 1; absent in one: 0.
    Errors: ValueError for grids, spacings or a tolerance that do not fit.
    """
    first, second = _label_maps(pred, ref, spacing_mm)
    if not tolerance_mm >= 0:
        raise ValueError(f"tolerance_mm is a distance of 0 or more, got {tolerance_mm}")
    out = []
    for label in labels:
        a, b = first == label, second == label
        if a.any() and b.any():
            found = surface_distances(a, b, spacing_mm)
            near = found.pred_area[found.pred_mm <= tolerance_mm].sum()
            near += found.ref_area[found.ref_mm <= tolerance_mm].sum()
            out.append(float(near / (found.pred_area.sum() + found.ref_area.sum())))
        else:
            out.append(0.0 if a.any() or b.any() else 1.0)
    return np.array(out)


class Lesions(NamedTuple):
    """The lesions of one label in one case: volumes of the reference's in ml (areas in cm^2 in 2D), whether each was
    found, and how many of the prediction are none of the reference's.
    """

    sizes_ml: np.ndarray
    found: np.ndarray
    false_positives: int


@dataclass(frozen=True, eq=False)
class Detection:
    """Lesions of one label in one case, counted by size.

    edges_ml          lower edges of the size bins; the last has no upper one
    lesions, found    reference lesions of each bin, and how many of them were found: (bins,)
    false_positives   predicted lesions that touch no reference lesion
    """

    edges_ml: tuple[float, ...]
    lesions: np.ndarray
    found: np.ndarray
    false_positives: int

    @property
    def sensitivity(self) -> np.ndarray:
        """The share found of each bin; NaN where a bin holds no lesion."""
        return np.where(self.lesions > 0, self.found / np.maximum(self.lesions, 1), np.nan)


def detection(
    pred: Any,
    ref: Any,
    *,
    labels: Sequence[int],
    spacing_mm: Sequence[float],
    edges_ml: Sequence[float] = (0.0, 0.1, 1.0, 10.0),
    overlap: float = 0.0,
) -> list[Detection]:
    """Return for each label how many lesions of each size were found, and the false positives of the case.

    Lesions as `lesions` tells them, sizes in ml (cm^2 in 2D). Absent in both: no lesion, none false.
    Pool a set by summing `lesions`, `found` and `false_positives` over its cases.
    Errors: ValueError for grids, spacings, edges or a share that do not fit.
    """
    edges = np.asarray(edges_ml, dtype=np.float64)
    if not len(edges) or (np.diff(edges) <= 0).any():
        raise ValueError(f"size edges ascend, got {tuple(edges_ml)}")
    out = []
    for one in lesions(pred, ref, labels=labels, spacing_mm=spacing_mm, overlap=overlap):
        place = np.searchsorted(edges, one.sizes_ml, side="right") - 1
        kept = place >= 0
        out.append(
            Detection(
                tuple(float(edge) for edge in edges),
                np.bincount(place[kept], minlength=len(edges)),
                np.bincount(place[kept & one.found], minlength=len(edges)),
                one.false_positives,
            )
        )
    return out


def lesions(
    pred: Any, ref: Any, *, labels: Sequence[int], spacing_mm: Sequence[float], overlap: float = 0.0
) -> list[Lesions]:
    """Return for each label every lesion of the reference, whether it was found, and the false positives of the case.

    A lesion is a component of voxels that touch by faces, edges or corners. A reference lesion is found where at least
    the share `overlap` of its voxels is predicted, and one voxel in any case; a predicted lesion that shares no voxel
    with the reference is a false positive. Errors: ValueError for grids, spacings or a share that do not fit.

    >>> ref = np.array([[1, 1, 0, 0, 1]])
    >>> (one,) = lesions(np.array([[1, 0, 0, 0, 0]]), ref, labels=[1], spacing_mm=(5.0, 10.0), overlap=0.5)
    >>> one.sizes_ml.tolist(), one.found.tolist(), one.false_positives
    ([1.0, 0.5], [True, False], 0)
    """
    first, second = _label_maps(pred, ref, spacing_mm)
    if not 0 <= overlap <= 1:
        raise ValueError(f"overlap is a share, got {overlap}")
    unit = float(np.prod(spacing_mm)) / (1000.0 if first.ndim == 3 else 100.0)
    out = []
    for label in labels:
        a, b = first == label, second == label
        parts, count = _components(b)
        sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
        hits = np.bincount(parts[a], minlength=count + 1)[1:]
        # a tenth of 30 voxels is 3.0000000000000004 of them
        found = (hits > 0) & (hits >= overlap * sizes * (1 - 1e-12))
        guesses, number = _components(a)
        touched = np.bincount(guesses[b], minlength=number + 1)[1:]
        out.append(Lesions(sizes * unit, found, int((touched == 0).sum())))
    return out


def _components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    parts, count = ndimage.label(mask, structure=np.ones((3,) * mask.ndim))  # pyright: ignore[reportGeneralTypeIssues]
    return np.asarray(parts), int(count)


def _label_maps(pred: Any, ref: Any, spacing_mm: Sequence[float] | None = None) -> tuple[np.ndarray, np.ndarray]:
    first, second = array(pred), array(ref)
    if first.shape != second.shape:
        raise ValueError(f"label maps have grids {first.shape} and {second.shape}; compare equal ones")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("a label map holds NaN or infinite values")
    if spacing_mm is not None:
        if first.ndim != len(spacing_mm) or first.ndim not in (2, 3):
            raise ValueError(f"label maps {first.shape} are 2D or 3D with a spacing for each axis, got {spacing_mm}")
        if not all(np.isfinite(step) and step > 0 for step in spacing_mm):
            raise ValueError(f"spacings are positive, got {tuple(spacing_mm)}")
    return first, second
