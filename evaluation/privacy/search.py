"""The nearest real volume in every pose: similarity of volumes, the best over flips, small shifts and small rotations.

Knows arrays only. Volumes are compared as means over cells, so that noise and small deformations hardly count.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Literal

import numpy as np
from scipy import ndimage

CELLS = 6000
"""At most so many cells a volume is reduced to."""
DEGREES = 5.0
Likeness = Literal["correlation", "dice"]
_REACH = 1
_LOOKED_AT = 6


def cell_grid(grid: Sequence[int], budget: int = CELLS) -> tuple[int, ...]:
    """Return how many cells along each axis of a volume it is reduced to.

    >>> cell_grid((64, 80, 64)), cell_grid((256, 256)), cell_grid((12, 12))
    ((16, 20, 16), (64, 64), (12, 12))
    """
    step = int(np.ceil((np.prod(grid) / budget) ** (1 / len(grid)) - 1e-9))
    return tuple(-(-n // max(step, 1)) for n in grid)


def cells(volume: np.ndarray, grid: Sequence[int]) -> np.ndarray:
    """Return the means (channel, *grid) of a volume (channel, *fine grid) over cells.

    Errors: ValueError where an axis is shorter than its cells.
    """
    out = np.asarray(volume, dtype=np.float64)
    if out.ndim - 1 != len(grid) or any(n < m for n, m in zip(out.shape[1:], grid, strict=True)):
        raise ValueError(f"a volume of {out.shape[1:]} voxels has no {tuple(grid)} cells")
    for axis, count in enumerate(grid, start=1):
        size = out.shape[axis]
        edges = np.linspace(0, size, count + 1).round().astype(int)
        totals = np.add.reduceat(out, edges[:-1], axis=axis)
        lengths = np.diff(edges).reshape([-1 if a == axis else 1 for a in range(out.ndim)])
        out = totals / lengths
    return out


@dataclass(frozen=True, eq=False)
class References:
    """Volumes (m, channel, *cells) that queries are compared with: their middle, without an eighth at every border, so
    that a cropped or padded field of view does not hide a copy and shifts bring in voxels that are there.

    likeness   correlation: NCC, the mean over cells taken off each channel; dice: 2 a.b / (a.a + b.b) of the shares
               of a cell that each label fills (Milletari et al. 2016)
    """

    volumes: np.ndarray
    likeness: Likeness = "correlation"

    @cached_property
    def _rows(self) -> np.ndarray:
        return _reference_rows(_middle(self.volumes).astype(np.float32), self.likeness)

    def compare(self, query: np.ndarray, blocks: Sequence[slice | np.ndarray]) -> tuple[np.ndarray, list[float]]:
        """Return 1 - likeness of a query (channel, *cells) to every reference (m,), and to the nearest of each block.

        The first is the best over all flips and shifts of up to one cell; for each block's nearest few, rotations of
        5 degrees about every axis are tried on top, so that it depends on that block's references alone.
        blocks   slices, indices or marks (m,) of references; the nearest of none is infinitely far
        """
        flips = _flips(query.ndim - 1)
        found = _likenesses(_poses(query, flips), self._rows, self.likeness)
        turned = (query, *rotations(query, DEGREES)) if blocks else ()
        every = np.arange(len(self.volumes))
        nearest = [self._rotated(turned, found, every[block], flips) for block in blocks]
        return np.clip(1.0 - found.max(axis=0), 0.0, 2.0), nearest

    def _rotated(
        self, turned: Sequence[np.ndarray], found: np.ndarray, block: np.ndarray, flips: list[tuple[int, ...]]
    ) -> float:
        """Return 1 - likeness to the nearest of a block, rotations included, in double precision."""
        if not len(block):
            return float("inf")
        few = block[np.argsort(-found[:, block].max(axis=0), kind="stable")[:_LOOKED_AT]]
        pose = int(found[:, few[0]].argmax())
        flip = flips[pose * len(flips) // len(found)]
        posed = np.concatenate([_poses(one, [flip]) for one in turned])
        values = _likenesses(posed, self._rows[few], self.likeness)
        row, column = (int(i) for i in np.unravel_index(int(values.argmax()), values.shape))
        reference = _reference_rows(_middle(self.volumes[[few[column]]]).astype(np.float64), self.likeness)
        value = _likenesses(posed[[row]].astype(np.float64), reference, self.likeness)[0, 0]
        return float(np.clip(1.0 - value, 0.0, 2.0))


def _reference_rows(volumes: np.ndarray, likeness: Likeness) -> np.ndarray:
    """Return (m, channel, *cells) as rows; for correlations without each channel's mean and of length 1."""
    rows = volumes.reshape(*volumes.shape[:2], -1)
    if likeness == "dice":
        return rows.reshape(len(rows), -1)
    rows = (rows - rows.mean(axis=2, keepdims=True)).reshape(len(rows), -1)
    length = np.sqrt((rows * rows).sum(axis=1, keepdims=True))
    return np.where(length > 1e-6, rows / np.maximum(length, 1e-6), 0.0).astype(volumes.dtype)


def _likenesses(posed: np.ndarray, references: np.ndarray, likeness: Likeness) -> np.ndarray:
    """Return the likeness of poses (p, channel, *cells) to reference rows (m, f): (p, m)."""
    parts = posed.reshape(*posed.shape[:2], -1)
    flat = posed.reshape(len(posed), -1)
    dots = flat @ references.T
    square = np.einsum("pcv,pcv->pc", parts, parts)
    if likeness == "dice":
        totals = square.sum(axis=1)[:, None] + (references * references).sum(axis=1)[None]
        return np.where(totals > 0, 2 * dots / np.maximum(totals, 1e-30), 0.0)  # two empty masks are nobody's copy
    # references have no mean, so only the length of a pose needs its own taken off
    spread = square - parts.sum(axis=2) ** 2 / parts.shape[2]
    length = np.sqrt(np.maximum(spread, 0.0).sum(axis=1))
    flat_enough = length**2 <= 1e-5 * np.maximum(square.sum(axis=1), 1e-12)
    return np.where(flat_enough[:, None], 0.0, dots / np.maximum(length, 1e-12)[:, None])


def rotations(volume: np.ndarray, degrees: float) -> list[np.ndarray]:
    """Return a volume (channel, *grid) turned by +- degrees in every plane of its axes."""
    dims = volume.ndim - 1
    planes = [(a + 1, b + 1) for a in range(dims) for b in range(a + 1, dims)]
    return [
        ndimage.rotate(volume, sign * degrees, axes=plane, reshape=False, order=1, mode="nearest")
        for plane in planes
        for sign in (1, -1)
    ]


def _flips(dims: int) -> list[tuple[int, ...]]:
    return [tuple(axis + 1 for axis in range(dims) if bits[axis]) for bits in product((0, 1), repeat=dims)]


def _rim(count: int) -> int:
    """Return how many cells at either border are left out of comparisons; none of very few."""
    return max(1, count // 8) if count > 3 else 0


def _middle(volumes: np.ndarray) -> np.ndarray:
    """Return volumes (m, channel, *cells) without their rims."""
    return volumes[(..., *(slice(_rim(n), n - _rim(n)) for n in volumes.shape[2:]))]


def _poses(query: np.ndarray, flips: Sequence[tuple[int, ...]]) -> np.ndarray:
    """Return (flips x shifts, channel, *middle) float32: the query flipped, its middle taken up to a cell away."""
    starts, sizes = [], []
    for n in query.shape[1:]:
        reach = min(_REACH, _rim(n))
        starts.append([_rim(n) + shift for shift in range(-reach, reach + 1)])
        sizes.append(n - 2 * _rim(n))
    out = []
    for flip in flips:
        turned = np.flip(query, flip) if flip else query
        for start in product(*starts):
            out.append(turned[(slice(None), *(slice(s, s + n) for s, n in zip(start, sizes, strict=True)))])
    return np.stack(out).astype(np.float32)
