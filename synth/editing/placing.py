"""Placing: a blob of a label put into a mask, of a size that is asked for, where its tissue allows. Knows no image."""

import math
from collections.abc import Sequence

import numpy as np

from synth.errors import ConditionError, GeometryError, nearest
from synth.rng import numpy_rng
from synth.volume import Volume

_FARTHEST = 1.8
"""Radii beyond which a blob does not reach, however little of its tissue lies nearer."""
_ROUGHNESS = 0.18
"""Standard deviation of the border, in radii."""
_STRETCH = (0.8, 1.25)


def place_label(
    mask: Volume, *, label: str, at: Sequence[int], ml: float, seed: int, within: Sequence[str] | None = None
) -> Volume:
    """Return the mask with a connected blob of `label` at voxel `at`: an ellipsoid with a rough border.

    Voxels are taken in the order of |offset / stretch| + 0.18 n, offset in radii of a ball of that size, stretch and
    the smooth noise n drawn from the seed, until `ml` are there; in 2D a voxel is 1 mm thick. Only tissue `within` is
    taken: by default the label at the voxel, or around it where `label` is there already. Where that tissue is thin,
    fewer are.

    Errors: ConditionError for an unknown label, a voxel of no tissue, a size that is none or more than the tissue;
    GeometryError for a voxel outside the mask and for a mask without names.

    >>> ball = Volume(np.ones((1, 9, 9, 9), np.uint8), labels={"tissue": 1, "lesion": 2})
    >>> int((place_label(ball, label="lesion", at=(4, 4, 4), ml=0.02, seed=0).data == 2).sum())
    20
    """
    voxels, centre = mask.data[0], tuple(int(index) for index in at)
    value, allowed = _tissue(mask, label, centre, within)
    if not (math.isfinite(ml) and ml > 0):
        raise ConditionError(f"{label}: its size is {ml} ml; give more than 0")
    spacing = np.round(mask.spacing_mm, 4)  # as stored in single precision, so that files give the same blob
    dims, volume = len(spacing), 1000.0 * ml
    count, room = max(round(volume / float(np.prod(spacing))), 1), int(allowed.sum())
    if count > room:
        most = room * float(np.prod(spacing)) / 1000.0
        raise ConditionError(f"{label}: {ml:g} ml is more than the {most:.4g} ml of its tissue; give less")
    radius = (0.75 * volume / math.pi) ** (1 / 3) if dims == 3 else math.sqrt(volume / math.pi)
    reach = [math.ceil(_FARTHEST * radius / step) + 1 for step in spacing]
    axes = [np.arange(-far, far + 1) * step for far, step in zip(reach, spacing, strict=True)]
    rank = _rank(np.stack(np.meshgrid(*axes, indexing="ij")), radius, spacing, seed)
    rank[tuple(reach)] = -np.inf
    # the window may overlap the border, its random numbers do not depend on that
    inside = tuple(slice(max(c - far, 0), c + far + 1) for c, far in zip(centre, reach, strict=True))
    cut = tuple(
        slice(place.start - c + far, min(place.stop, n) - c + far)
        for place, c, far, n in zip(inside, centre, reach, voxels.shape, strict=True)
    )
    chosen = _chosen(rank[cut], allowed[inside], count, tuple(c - place.start for c, place in zip(centre, inside)))
    data = np.array(mask.data)
    data[0][inside][chosen] = value
    return mask.replace(data=data)


def placed_ml(before: Volume, after: Volume, *, label: str) -> float:
    """Return how many ml of `label` an edit of a mask put in: voxels that were not of it; in 2D a voxel is 1 mm thick.

    Errors: GeometryError for masks of two geometries; KeyError where the mask knows no such label.

    >>> ball = Volume(np.ones((1, 9, 9, 9), np.uint8), labels={"tissue": 1, "lesion": 2})
    >>> placed_ml(ball, place_label(ball, label="lesion", at=(4, 4, 4), ml=0.02, seed=0), label="lesion")
    0.02
    """
    before.require_same_geometry(after, case="edit")
    value = (after.labels or {})[label]
    new = int(((after.data == value) & (before.data != value)).sum())
    return float(f"{new * float(np.prod(np.round(after.spacing_mm, 4))) / 1000.0:.6g}")


def _tissue(mask: Volume, label: str, centre: tuple[int, ...], within: Sequence[str] | None) -> tuple[int, np.ndarray]:
    """Return the label's value, and which voxels may become it. Errors: ConditionError, GeometryError."""
    voxels, known = mask.data[0], mask.labels or {}
    if not known:
        raise GeometryError("the mask has no names for its labels; give Volume.labels")
    for name in (label, *(within or ())):
        if name not in known:
            raise ConditionError(f"label {name!r} is none of the mask's; {nearest(name, known)}")
    if len(centre) != voxels.ndim:
        raise GeometryError(f"voxel {centre} has {len(centre)} coordinates, the mask {voxels.ndim} axes; give one each")
    if not all(0 <= c < n for c, n in zip(centre, voxels.shape)):
        raise GeometryError(f"voxel {centre} lies outside the mask of {voxels.shape}; give another")
    value, there = known[label], int(voxels[centre])
    parents = [known[name] for name in within or ()]
    if within is None and there not in (0, value):
        parents = [there]
    elif within is None and there == value:
        near = voxels[tuple(slice(max(c - 3, 0), c + 4) for c in centre)]
        values, counts = np.unique(near[(near != 0) & (near != value)], return_counts=True)
        parents = [int(values[counts.argmax()])] if len(values) else []
    if there not in (*parents, value):
        raise ConditionError(f"voxel {centre} is no tissue that {label!r} lies in; take one inside the organ")
    return value, np.isin(voxels, [*parents, value])


def _rank(offsets: np.ndarray, radius: float, spacing: np.ndarray, seed: int) -> np.ndarray:
    """Return the order in which voxels at `offsets` (axis, *grid) mm are taken, in radii; infinite beyond reach."""
    from scipy import ndimage

    rng = numpy_rng(seed, "placed")
    stretch = rng.uniform(*_STRETCH, size=len(offsets))
    stretch /= float(np.prod(stretch)) ** (1 / len(stretch))
    distance = np.sqrt(sum((part / one) ** 2 for part, one in zip(offsets, stretch, strict=True))) / radius
    noise = ndimage.gaussian_filter(rng.standard_normal(distance.shape), np.maximum(0.4 * radius / spacing, 0.5))
    rough = distance + _ROUGHNESS * noise / max(float(noise.std()), 1e-9)
    return np.where(distance <= _FARTHEST, rough, np.inf)


def _chosen(rank: np.ndarray, allowed: np.ndarray, count: int, centre: tuple[int, ...]) -> np.ndarray:
    """Return the `count` lowest ranks of what is connected to the centre through allowed voxels."""
    from scipy import ndimage

    seed = np.zeros(rank.shape, dtype=bool)
    seed[centre] = True
    # what grows from the centre is its connected part
    order = np.where(ndimage.binary_propagation(seed, mask=allowed & np.isfinite(rank) | seed), rank, np.inf)
    limit = np.partition(order, min(count, order.size) - 1, axis=None)[min(count, order.size) - 1]
    return np.asarray(ndimage.binary_propagation(seed, mask=(order <= limit) & (order < np.inf)))
