"""Placement: a volume's own geometry <-> the working geometry of a model, and back.

Working axes are the volume's own, turned and flipped to the nearest RAS order, in 2D to the direction of the model's
data; an oblique volume stays oblique. Where the spacing already is the model's, voxels are only moved, never
interpolated.
"""

from dataclasses import dataclass
from itertools import permutations

import numpy as np

from synth.errors import GeometryError
from synth.volume import Volume

_SAME_SPACING = 1e-3
_HAIR = 1e-4


@dataclass(frozen=True, eq=False)
class Placement:
    """Maps volumes of one native geometry to a working grid centred on them.

    order, flips   working axis d is native axis order[d], reversed where flips[d]
    """

    native_grid: tuple[int, ...]
    native_affine: np.ndarray
    grid: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    order: tuple[int, ...]
    flips: tuple[bool, ...]

    @classmethod
    def of(
        cls,
        volume: Volume,
        *,
        grid: tuple[int, ...],
        spacing_mm: tuple[float, ...],
        direction: np.ndarray | None = None,
    ) -> "Placement":
        """Return the placement of `volume` on a working grid of `spacing_mm`.

        direction   (3, 2), where 2D axes are to run; None leaves them as they are. In 3D it is RAS
        """
        dims = volume.spatial_dims
        if dims == 2 and direction is None:
            return cls(volume.grid, volume.affine, grid, spacing_mm, (0, 1), (False, False))
        own = volume.affine[:3, :dims] / np.linalg.norm(volume.affine[:3, :dims], axis=0)
        along = own if dims == 3 or direction is None else direction.T @ own
        order = max(permutations(range(dims)), key=lambda p: sum(abs(along[d, p[d]]) for d in range(dims)))
        flips = tuple(bool(along[d, order[d]] < 0) for d in range(dims))
        return cls(volume.grid, volume.affine, grid, spacing_mm, order, flips)

    @classmethod
    def onto(
        cls, grid: tuple[int, ...], affine: np.ndarray, *, working: tuple[int, ...], spacing_mm: tuple[float, ...]
    ) -> "Placement":
        """Return the placement of a native grid whose axes are the working ones."""
        return cls(grid, affine, working, spacing_mm, tuple(range(len(grid))), (False,) * len(grid))

    @property
    def turned_affine(self) -> np.ndarray:
        """Affine of the native voxels after turning and flipping."""
        affine = np.array(self.native_affine)
        affine[:, : len(self.order)] = self.native_affine[:, list(self.order)]
        for axis, flip in enumerate(self.flips):
            if flip:
                size = self.native_grid[self.order[axis]]
                affine[:3, 3] += affine[:3, axis] * (size - 1)
                affine[:3, axis] *= -1
        return affine

    @property
    def turned_grid(self) -> tuple[int, ...]:
        """Native grid after turning."""
        return tuple(self.native_grid[axis] for axis in self.order)

    @property
    def exact(self) -> bool:
        """True when voxels only move: the native spacing is the working one."""
        own = np.linalg.norm(self.turned_affine[:3, : len(self.grid)], axis=0)
        return bool(np.abs(own / np.array(self.spacing_mm) - 1.0).max() < _SAME_SPACING)

    @property
    def shift(self) -> tuple[int, ...]:
        """Working index of the first turned voxel (negative: cropped), where exact."""
        return tuple((n - m) // 2 for n, m in zip(self.grid, self.turned_grid, strict=True))

    @property
    def affine(self) -> np.ndarray:
        """The working affine."""
        turned = self.turned_affine
        if self.exact:
            out = turned.copy()
            out[:3, 3] -= turned[:3, : len(self.grid)] @ np.array(self.shift, dtype=np.float64)
            return out
        dims = len(self.grid)
        own = np.linalg.norm(turned[:3, :dims], axis=0)
        out = turned.copy()
        out[:3, :dims] = turned[:3, :dims] / own * np.array(self.spacing_mm)
        centre = turned[:3, :dims] @ ((np.array(self.turned_grid) - 1) / 2) + turned[:3, 3]
        out[:3, 3] = centre - out[:3, :dims] @ ((np.array(self.grid) - 1) / 2)
        return out

    def to_working(self, volume: Volume, *, fill: float = 0.0) -> Volume:
        """Return `volume` on the working grid; what lies outside its field of view is `fill`."""
        turned = Volume(self._turn(volume.data), self.turned_affine, volume.labels)
        if self.exact:
            return Volume(_moved(turned.data, self.shift, self.grid, fill), self.affine, volume.labels)
        return _resampled(turned, self.grid, self.affine, fill)

    def to_native(self, volume: Volume, *, fill: float = 0.0) -> Volume:
        """Return a working volume on the native grid and affine."""
        if self.exact:
            back = tuple(-s for s in self.shift)
            data = _moved(volume.data, back, self.turned_grid, fill)
        else:
            data = _resampled(volume, self.turned_grid, self.turned_affine, fill).data
        return Volume(self._unturn(data), self.native_affine, volume.labels)

    def labels_to_native(self, mask: Volume) -> Volume:
        """Return working labels (1, *grid) on the native grid: at each voxel the one with the largest linear share."""
        best = np.full((1, *self.native_grid), -1.0, dtype=np.float32)
        out = np.zeros(best.shape, dtype=mask.data.dtype)
        for value in np.unique(mask.data):
            share = self.to_native(Volume((mask.data == value).astype(np.float32), mask.affine), fill=float(value == 0))
            larger = share.data > best
            best, out = np.where(larger, share.data, best), np.where(larger, value, out)
        return Volume(out.astype(mask.data.dtype), self.native_affine, mask.labels)

    def require_inside(self, mask: Volume, what: str) -> None:
        """Raise GeometryError where labelled voxels of a native mask lie outside the working grid."""
        to_working = np.linalg.inv(self.affine) @ self.turned_affine
        inside = []
        for axis, (size, room) in enumerate(zip(self.turned_grid, self.grid, strict=True)):
            places = to_working[axis, axis] * np.arange(size) + to_working[axis, 3]
            inside.append(np.flatnonzero((places >= -0.5 - _HAIR) & (places <= room - 0.5 + _HAIR)))
        labelled = self._turn(mask.data)[0] > 0
        total = int(labelled.sum())
        lost = total - int(labelled[np.ix_(*inside)].sum())
        if lost:
            extent = " x ".join(f"{n * step:.0f}" for n, step in zip(self.grid, self.spacing_mm, strict=True))
            raise GeometryError(
                f"{what}: {lost} of {total} labelled voxels lie outside the working grid of {extent} mm, which is "
                "centred on the volume; crop or move the mask so that they fit, or use a larger grid (prepare --size)"
            )

    def _turn(self, data: np.ndarray) -> np.ndarray:
        turned = data.transpose(0, *(axis + 1 for axis in self.order))
        return np.ascontiguousarray(turned[(slice(None), *(slice(None, None, -1 if f else 1) for f in self.flips))])

    def _unturn(self, data: np.ndarray) -> np.ndarray:
        flipped = data[(slice(None), *(slice(None, None, -1 if f else 1) for f in self.flips))]
        inverse = np.argsort(self.order)
        return np.ascontiguousarray(flipped.transpose(0, *(int(axis) + 1 for axis in inverse)))


def turned(volume: Volume, direction: np.ndarray) -> Volume:
    """Return a 2D volume with the same pixels at the same places, its axes along `direction` (3, 2); a 3D one as is."""
    if volume.spatial_dims == 3:
        return volume
    placement = Placement.of(volume, grid=volume.grid, spacing_mm=volume.spacing_mm, direction=direction)
    return Volume(placement._turn(volume.data), placement.turned_affine, volume.labels)


def laid(volume: Volume, direction: np.ndarray) -> Volume:
    """Return a 2D volume with the same pixels in the same order, said to run along `direction` (3, 2)."""
    affine = volume.affine.copy()
    affine[:3, :2] = direction * np.array(volume.spacing_mm)
    return volume.replace(affine=affine)


def plane_of(volume: Volume) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return for each 2D axis the world axis it is nearest to, and its sign: ((0, -1), (1, -1)) is a picture's."""
    own = volume.affine[:3, :2] / np.linalg.norm(volume.affine[:3, :2], axis=0)
    first, second = max(permutations(range(3), 2), key=lambda p: abs(own[p[0], 0]) + abs(own[p[1], 1]))
    signs = [1 if own[world, axis] >= 0 else -1 for axis, world in enumerate((first, second))]
    return (first, signs[0]), (second, signs[1])


def _resampled(volume: Volume, grid: tuple[int, ...], affine: np.ndarray, fill: float) -> Volume:
    """Return `volume` on a grid of the same axes; a voxel reaches half a step beyond its centre, `fill` lies further.

    Without that, the outer slice of a finer grid would be `fill` although the volume was measured there.
    """
    dims = volume.spatial_dims
    grown = np.pad(volume.data, [(0, 0), *[(1, 1)] * dims], mode="edge")
    moved = np.array(volume.affine)
    moved[:3, 3] -= moved[:3, :dims].sum(axis=1)
    data = Volume(grown, moved, volume.labels).resample_to(grid, affine, fill=fill).data
    to_old = np.linalg.inv(volume.affine) @ affine
    for axis, size in enumerate(volume.grid):
        places = to_old[axis, axis] * np.arange(grid[axis]) + to_old[axis, 3]
        beyond = (places < -0.5 - _HAIR) | (places > size - 0.5 + _HAIR)
        data[(slice(None),) * (axis + 1) + (beyond,)] = fill
    return Volume(data, affine, volume.labels)


def _moved(data: np.ndarray, shift: tuple[int, ...], grid: tuple[int, ...], fill: float) -> np.ndarray:
    out = np.full((data.shape[0], *grid), fill, dtype=data.dtype)
    source, target = [slice(None)], [slice(None)]
    for move, size, room in zip(shift, data.shape[1:], grid, strict=True):
        first, last = max(move, 0), min(move + size, room)
        target.append(slice(first, max(last, first)))
        source.append(slice(first - move, max(last, first) - move))
    out[tuple(target)] = data[tuple(source)]
    return out
