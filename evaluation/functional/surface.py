"""Surfaces of binary masks: surface elements with their areas, and how far they lie from another surface.

Conventions are those of DeepMind's surface-distance (Nikolov et al. 2018), whose table of areas this holds
(Apache-2.0): an element sits at each corner between 2^d voxels that are not all alike, outside the image counts as
background, and its area is that of the marching-cubes triangles there, scaled by the spacing. Knows no labels.
"""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy import ndimage

# Triangles of the codes 0..127, three digits each: |normal| in eighths of a voxel face; code 255 - c is code c.
_TRIANGLES = (
    "- 111 111 440 111 404 222 400333 111 222 404 400333 440 400333 400333 800 111 044 222 040333 222 004333 "
    "333 666 222 044111 404111 022202444 440111 022220444 400444 400333 111 222 044 040333 222 404111 044111 "
    "022202444 222 333 004333 666 440111 400444 022220444 400333 440 040333 040333 080 440111 202220444 040444 "
    "040333 440111 040444 202220444 040333 880 440111 440111 440 111 222 222 440111 044 004333 044111 "
    "022220444 222 333 404111 400444 040333 666 022202444 400333 404 004333 404111 202220444 004333 008 004444 "
    "004333 404111 004444 808 404111 202220444 004333 404111 404 222 333 044111 040444 044111 004444 088 "
    "044111 333 444 004444 333 040444 333 044111 222 400333 666 022202444 040333 022220444 004333 044111 044 "
    "400444 333 404111 222 440111 222 222 111"
)


class Surfaces(NamedTuple):
    """Distances in mm of the elements of each surface to the other, and the elements' areas in mm^2 (mm in 2D)."""

    pred_mm: np.ndarray
    ref_mm: np.ndarray
    pred_area: np.ndarray
    ref_area: np.ndarray


def surface_distances(pred: np.ndarray, ref: np.ndarray, spacing_mm: Sequence[float]) -> Surfaces:
    """Return both surfaces of boolean masks (*grid), 2D or 3D, neither of them empty.

    Distances are between elements (corners), by the exact Euclidean transform with the spacing.
    """
    # nothing outside the union's box can be nearest, so the transforms run inside it
    box = tuple(slice(int(where.min()), int(where.max()) + 1) for where in np.nonzero(pred | ref))
    codes = [_codes(mask[box]) for mask in (pred, ref)]
    full = 2 ** (2**pred.ndim) - 1
    edges = [(code > 0) & (code < full) for code in codes]
    sampling, area = tuple(spacing_mm), _areas(tuple(float(step) for step in spacing_mm))
    to_pred, to_ref = (np.asarray(ndimage.distance_transform_edt(~edge, sampling=sampling)) for edge in edges)
    return Surfaces(to_ref[edges[0]], to_pred[edges[1]], area[codes[0][edges[0]]], area[codes[1][edges[1]]])


def percentile_mm(distances: np.ndarray, areas: np.ndarray, share: float) -> float:
    """Return the smallest distance that at least `share` of the area does not exceed."""
    order = np.lexsort((areas, distances))
    reached = np.cumsum(areas[order]) / areas.sum()
    return float(distances[order][min(int(np.searchsorted(reached, share)), len(order) - 1)])


def _codes(mask: np.ndarray) -> np.ndarray:
    """Return for each corner the bits of its 2^d voxels, the first along every axis the highest."""
    padded = np.pad(mask, 1).astype(np.int64)
    code = np.zeros(tuple(n + 1 for n in mask.shape), dtype=np.int64)
    for number, offset in enumerate(np.ndindex(*[2] * mask.ndim)):
        bit = 2**mask.ndim - 1 - number
        code |= padded[tuple(slice(o, o + n + 1) for o, n in zip(offset, mask.shape, strict=True))] << bit
    return code


@cache
def _areas(spacing_mm: tuple[float, ...]) -> np.ndarray:
    """Return the area of each code at this spacing: (256,) in 3D, the length (16,) in 2D."""
    if len(spacing_mm) == 2:
        down, across = spacing_mm
        slant = 0.5 * float(np.hypot(down, across))
        half = [0.0, slant, slant, across, slant, down, 2 * slant, slant]
        return np.array(half + half[::-1])
    i, j, k = spacing_mm
    scale = np.array([j * k, i * k, i * j]) / 8
    half = []
    for word in _TRIANGLES.split():
        normals = np.array([int(digit) for digit in word.replace("-", "000")]).reshape(-1, 3)
        half.append(float(np.linalg.norm(normals * scale, axis=1).sum()))
    return np.array(half + half[::-1])
