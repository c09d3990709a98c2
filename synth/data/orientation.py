"""How a volume lies in memory: the order of its axes, their directions and steps; turned to that of other data.

nnU-Net, for one, takes arrays as they are stored, so that a set lies as the data that it joins. Knows no layout.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from synth.errors import GeometryError
from synth.volume import Volume

_SAME_STEP = 1e-3
_LINE = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}


@dataclass(frozen=True)
class Lie:
    """Axis codes of volumes, such as ("R", "A", "S"), the steps in mm that were met, and the median one, by axis."""

    codes: tuple[str, ...]
    met: tuple[tuple[float, ...], ...]
    median: tuple[float, ...]

    @classmethod
    def of(cls, affines: Sequence[np.ndarray], dims: int) -> "Lie":
        """Return how most of the volumes with these affines lie; the first kind where several are as many."""
        if dims == 2:
            steps = [tuple(float(s) for s in np.linalg.norm(a[:3, :2], axis=0)) for a in affines]
            codes: tuple[str, ...] = ()
        else:
            kinds = [axis_codes(affine) for affine in affines]
            codes = Counter(kinds).most_common(1)[0][0]
            steps = [_steps(affine, codes) for affine in affines]
        median = tuple(float(np.median([step[axis] for step in steps])) for axis in range(dims))
        return cls(codes, tuple(dict.fromkeys(steps)), median)

    def take(self, volume: Volume) -> Volume:
        """Return a volume lying so; resampled to the median step where its own was not met. Errors: GeometryError."""
        if volume.spatial_dims != len(self.median):
            raise GeometryError(f"a {volume.spatial_dims}D volume cannot lie as {len(self.median)}D ones; give others")
        placed = turned_to(volume, self.codes) if self.codes else volume
        own = np.array(placed.spacing_mm)
        if any(np.abs(own / np.array(step) - 1).max() < _SAME_STEP for step in self.met):
            return placed
        return on_spacing(placed, self.median)


def axis_codes(affine: np.ndarray) -> tuple[str, ...]:
    """Return where the axes of a 3D volume point to, of R or L, A or P, S or I.

    >>> axis_codes(np.diag([-1.0, 1.0, 2.0, 1.0]))
    ('L', 'A', 'S')
    """
    from nibabel.orientations import aff2axcodes

    return tuple(str(code) for code in aff2axcodes(affine))


def turned_to(volume: Volume, codes: Sequence[str]) -> Volume:
    """Return a 3D volume with the same voxels at the same places, its axes in the order and directions of `codes`."""
    from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

    moves = ornt_transform(io_orientation(volume.affine), axcodes2ornt(tuple(codes)))
    data = np.stack([apply_orientation(channel, moves) for channel in volume.data])
    return volume.replace(data=np.ascontiguousarray(data), affine=volume.affine @ inv_ornt_aff(moves, volume.grid))


def lying_as(volume: Volume, affine: np.ndarray) -> Volume:
    """Return a 3D volume with its axes as those of an affine run: DICOM keeps slices in the order of their normal.

    2D ones, pictures among them, stay.
    """
    if volume.spatial_dims < 3 or np.allclose(volume.affine, affine, atol=1e-3):
        return volume
    return turned_to(volume, axis_codes(affine))


def on_spacing(volume: Volume, spacing_mm: Sequence[float]) -> Volume:
    """Return a volume resampled to other steps over the same field of view, centred as it was."""
    dims = volume.spatial_dims
    own, new = np.array(volume.spacing_mm), np.array(spacing_mm, dtype=np.float64)
    grid = tuple(max(int(round(n * a / b)), 1) for n, a, b in zip(volume.grid, own, new, strict=True))
    affine = np.array(volume.affine)
    affine[:3, :dims] = affine[:3, :dims] / own * new
    centre = volume.affine[:3, :dims] @ ((np.array(volume.grid) - 1) / 2) + volume.affine[:3, 3]
    affine[:3, 3] = centre - affine[:3, :dims] @ ((np.array(grid) - 1) / 2)
    fill = 0.0 if volume.labels is not None else float(volume.data.min())
    resampled = volume.resample_to(grid, affine, fill=fill)
    if volume.data.dtype.kind in "iu" and volume.labels is None:
        return resampled.replace(data=np.rint(resampled.data).astype(volume.data.dtype))
    return resampled


def _steps(affine: np.ndarray, codes: Sequence[str]) -> tuple[float, ...]:
    """Return the steps of a volume along axes in the order of `codes`."""
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    along = {_LINE[code]: float(length) for code, length in zip(axis_codes(affine), lengths, strict=True)}
    return tuple(along[_LINE[code]] for code in codes)
