"""What label maps show of anatomy: volumes, intensities, neighbours, topology, and edges of the image at their edges.

Measures of one case come as rows; `set_distance` compares the rows of two sets. Knows no files or names of labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage, stats

from evaluation.functional.arrays import array
from synth.rng import numpy_rng

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_CONSTANT = 1e-3  # of the pooled SD: below it a set is constant


def label_volumes(mask: Any, *, labels: Sequence[int], spacing_mm: Sequence[float]) -> np.ndarray:
    """Return the volume of each label in ml (area in cm^2 in 2D): (labels,); 0 where absent.

    >>> label_volumes([[1, 1], [0, 2]], labels=[1, 2], spacing_mm=(5.0, 10.0)).tolist()
    [1.0, 0.5]
    """
    where = _map(mask, spacing_mm)
    unit = float(np.prod(spacing_mm)) / (1000.0 if where.ndim == 3 else 100.0)
    return np.array([float((where == label).sum()) * unit for label in labels])


def label_intensities(image: Any, mask: Any, *, labels: Sequence[int]) -> np.ndarray:
    """Return quantiles 5, 25, 50, 75 and 95 % of an image (*grid) inside each label: (labels, 5); NaN where absent."""
    values, where = array(image), array(mask)
    if values.shape != where.shape:
        raise ValueError(f"image has grid {values.shape}, mask {where.shape}; give one grid")
    rows = [values[where == label] for label in labels]
    return np.array([np.quantile(row, _QUANTILES) if row.size else [np.nan] * len(_QUANTILES) for row in rows])


def adjacency(mask: Any, *, labels: int, spacing_mm: Sequence[float]) -> np.ndarray:
    """Return which labels touch which: (labels + 1, labels + 1), row a the shares of a's border that each b has.

    Borders are voxel faces between unlike labels, weighted by their area; 0 is the background. Rows sum to 1, or to 0
    where a label is absent or borders on nothing. Errors: ValueError for values outside 0..labels.
    """
    where = _map(mask, spacing_mm)
    if where.size and not 0 <= where.min() <= where.max() <= labels:
        raise ValueError(f"mask holds values {where.min():g} to {where.max():g}; labels are 0 to {labels}")
    values, count = where.astype(np.int64), labels + 1
    total = np.zeros((count, count))
    for axis, step in enumerate(spacing_mm):
        low, high = _sides(values, axis)
        faces = np.bincount((low * count + high).ravel(), minlength=count**2).reshape(count, count)
        total += (faces + faces.T) * (float(np.prod(spacing_mm)) / step)
    np.fill_diagonal(total, 0.0)
    border = total.sum(axis=1, keepdims=True)
    return np.divide(total, border, out=np.zeros_like(total), where=border > 0)


def topology(mask: Any, *, labels: Sequence[int]) -> np.ndarray:
    """Return of each label its components and its cavities: (labels, 2).

    Components touch by faces, edges or corners; a cavity is a face-connected part of the rest that does not reach the
    border of the image (the Betti numbers b0 and b_{d-1}; tunnels are not counted).
    """
    where = array(mask)
    out = []
    for label in labels:
        inside = where == label
        parts = _components(inside, np.ones((3,) * where.ndim))
        # one layer of outside joins all of the rest that reaches the border
        rest = _components(np.pad(~inside, 1, constant_values=True), None)
        out.append([float(parts), float(rest - 1)])
    return np.array(out).reshape(len(labels), 2)


def boundary_alignment(
    image: Any, mask: Any, *, spacing_mm: Sequence[float], shifts: Sequence[int] = (1, 2, 3)
) -> float:
    """Return how much stronger edges of the image are at the mask's boundaries than at those of the mask shifted.

    r = mean |dI/dn| over voxel faces between unlike labels / the same mean over the mask shifted by 1, 2 and 3 voxels
    each way along each axis; dI/dn is the difference across the face per mm, root sum of squares over channels.
    Above 1, boundaries lie on edges; a mask out of place by some voxels brings it down, below 1 where a shift back
    finds the edges. About 1: the image does not know of the mask.
    image (*grid) or (channel, *grid), mask (*grid). Errors: ValueError for grids that differ, voxels that are no
    numbers, a mask without a boundary, an image without any edge.
    """
    where = _map(mask, spacing_mm)
    values = array(image)
    values = values[None] if values.ndim == where.ndim else values
    if values.shape[1:] != where.shape:
        raise ValueError(f"image has grid {values.shape[1:]}, mask {where.shape}; give one grid")
    if not np.isfinite(values).all():
        raise ValueError("the image holds NaN or infinite voxels")
    slopes = []
    for axis, step in enumerate(spacing_mm):
        slopes.append(np.sqrt((np.diff(values, axis=axis + 1) ** 2).sum(axis=0)) / step)
    here = _mean_slope(slopes, where)
    if here is None:
        raise ValueError("the mask has no boundary; there is nothing to align")
    moved = [
        _mean_slope(*_shifted(slopes, where, axis, sign * shift))
        for axis in range(where.ndim)
        for shift in shifts
        for sign in (1, -1)
        if shift < where.shape[axis] - 1
    ]
    beside = [value for value in moved if value is not None]
    if not beside or sum(beside) + here <= 0:
        raise ValueError("the image has no edge at the mask's boundaries or beside them, or the grid is too small")
    beside_mean = float(np.mean(beside))
    return here / beside_mean if beside_mean > 0 else float("inf")


@dataclass(frozen=True)
class SetDistance:
    """How far two sets of rows are apart, beside what chance does with sets of these sizes.

    distance     mean over columns of the Wasserstein-1 distance over the second set's SD
    difference   mean over columns of (mean - mean) / pooled SD, signed (Cohen's d)
    null_mean    mean of the distance over random re-divisions of the rows into sets of these sizes
    p_value      (1 + re-divisions whose ranks are at least as far apart) / (draws + 1)
    """

    distance: float
    difference: float
    null_mean: float
    p_value: float


def set_distance(x: Any, y: Any, *, draws: int = 999, seed: int = 0) -> SetDistance:
    """Compare rows (n,) or (n, d) of a set with rows (m,) or (m, d) of a reference, by a permutation test.

    W1 = int |F_x - F_y|    for each column, averaged over columns; those that are constant in both sets are left out

    The distance and its mean over re-divisions take W1 over the SD of whatever is the second set of the division. The
    test takes W1 of the pooled midranks, a function of the pooled rows and the division alone: exact at any n, m and d
    where rows are exchangeable (a scale of the reference that all re-divisions shared would not be), and not ruled by
    the tails of one column.
    NaN marks what a row does not have (a label that is absent) and is left out of its column. Rows of one patient are
    not exchangeable with others': give one row of each.
    Errors: ValueError for fewer than 2 rows a side, or no column with 2 values a side.

    >>> x = np.arange(20.0)
    >>> found = set_distance(x + 100.0, x); found.p_value, round(found.difference, 1)
    (0.001, 16.9)
    """
    first, second = _matrix(x), _matrix(y)
    if min(len(first), len(second)) < 2 or first.shape[1] != second.shape[1]:
        raise ValueError(f"two sets of 2 rows at least and as many columns, got {first.shape} and {second.shape}")
    both = np.concatenate([first, second])
    told = np.isfinite(both)
    enough = (told[: len(first)].sum(axis=0) > 1) & (told[len(first) :].sum(axis=0) > 1)
    varies = np.array([np.ptp(column[kept]) > 0 if kept.any() else False for column, kept in zip(both.T, told.T)])
    if not enough.any():
        raise ValueError("no column has 2 values a side; there is nothing to compare")
    both = both[:, enough & varies]
    if not both.shape[1]:
        return SetDistance(0.0, 0.0, 0.0, 1.0)
    rng = numpy_rng(seed, "set distance")
    sides = np.zeros((draws + 1, len(both)), dtype=bool)
    sides[0, : len(first)] = True
    for row in sides[1:]:
        row[rng.permutation(len(both))[: len(first)]] = True
    columns = [_divided(column, sides) for column in both.T]
    apart, ranks = (_mean_told(np.stack(some)) for some in zip(*columns, strict=True))
    p_value = (1 + int((ranks[1:] >= ranks[0] - 1e-12).sum())) / (draws + 1)
    null_mean = float(apart[1:].mean()) if draws else 0.0
    return SetDistance(float(apart[0]), _difference(both, len(first)), null_mean, p_value)


def _divided(column: np.ndarray, sides: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return W1 of a column's values over the second side's SD, and of its midranks, for each division (draws, n).

    NaN where a side holds no value. An SD that is 0 beside that of all values stands for nothing: theirs is taken.
    """
    there = np.isfinite(column)
    values = column[there] - column[there].mean()
    order = np.argsort(values, kind="stable")
    values, first = values[order], sides[:, there][:, order]
    n, m = first.sum(axis=1), (~first).sum(axis=1)
    some = (n > 0) & (m > 0)
    count, rest = np.maximum(n, 1)[:, None], np.maximum(m, 1)[:, None]
    between = np.abs(np.cumsum(first, axis=1) / count - np.cumsum(~first, axis=1) / rest)[:, :-1]
    mean = (~first @ values)[:, None] / rest
    spread = np.sqrt(np.maximum((~first @ values**2)[:, None] / rest - mean**2, 0.0))[:, 0]
    pooled = float(values.std())
    spread = np.where(spread > _CONSTANT * pooled, spread, pooled)
    ranks = stats.rankdata(values) / len(values)
    apart = between @ np.diff(values) / spread
    return np.where(some, apart, np.nan), np.where(some, between @ np.diff(ranks), np.nan)


def _mean_told(rows: np.ndarray) -> np.ndarray:
    """Return the mean over rows of what is no NaN; 0 where all are."""
    told = np.isfinite(rows)
    return np.where(told, rows, 0.0).sum(axis=0) / np.maximum(told.sum(axis=0), 1)


def _difference(both: np.ndarray, n: int) -> float:
    x, y = both[:n], both[n:]
    pooled = np.sqrt((np.nanvar(x, axis=0, ddof=1) + np.nanvar(y, axis=0, ddof=1)) / 2)
    apart = np.nanmean(x, axis=0) - np.nanmean(y, axis=0)
    return float(np.mean(np.divide(apart, pooled, out=np.zeros_like(apart), where=pooled > 0)))


def _mean_slope(slopes: Sequence[np.ndarray], where: np.ndarray) -> float | None:
    """Return the mean slope over the faces between unlike labels; None without one."""
    total, count = 0.0, 0
    for axis, slope in enumerate(slopes):
        low, high = _sides(where, axis)
        faces = low != high
        total, count = total + float(slope[faces].sum()), count + int(faces.sum())
    return total / count if count else None


def _shifted(
    slopes: Sequence[np.ndarray], where: np.ndarray, axis: int, shift: int
) -> tuple[list[np.ndarray], np.ndarray]:
    """Return slopes and mask cropped so that the mask lies `shift` voxels further along `axis`."""

    def cut(values: np.ndarray, *, ahead: bool) -> np.ndarray:
        part = slice(abs(shift), None) if ahead else slice(None, values.shape[axis] - abs(shift))
        return values[(*[slice(None)] * axis, part)]

    return [cut(slope, ahead=shift > 0) for slope in slopes], cut(where, ahead=shift < 0)


def _sides(values: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    low = values[(*[slice(None)] * axis, slice(None, -1))]
    return low, values[(*[slice(None)] * axis, slice(1, None))]


def _map(mask: Any, spacing_mm: Sequence[float]) -> np.ndarray:
    where = array(mask)
    if where.ndim != len(spacing_mm) or where.ndim not in (2, 3) or not min(spacing_mm) > 0:
        raise ValueError(f"a mask of 2D or 3D needs a spacing for each axis, got {where.shape} and {spacing_mm}")
    if not np.isfinite(where).all():
        raise ValueError("the mask holds NaN or infinite values")
    return where


def _matrix(rows: Any) -> np.ndarray:
    values = array(rows)
    return values.reshape(len(values), -1) if values.ndim < 2 else values


def _components(inside: np.ndarray, structure: np.ndarray | None) -> int:
    return int(ndimage.label(inside, structure=structure)[1])  # pyright: ignore[reportIndexIssue]
