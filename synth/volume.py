"""Volume: voxels and where they are in the world. Knows no file format and no network.

Axes: channel first, then the grid (i, j) or (i, j, k). The affine maps voxel indices to
millimetres in RAS+ (the NIfTI convention); 2D volumes keep the 4x4 affine of their plane.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np

from synth.errors import GeometryError

GEOMETRY_TOLERANCE_MM = 1e-3


@dataclass(frozen=True)
class Label:
    """One named label value of a mask, with what writers and pictures need."""

    name: str
    value: int
    colour: tuple[int, int, int] | None = None
    snomed: str | None = None


def palette(index: int) -> tuple[int, int, int]:
    """Return a colour that stays distinct over many labels (golden-angle hues)."""
    import colorsys

    red, green, blue = colorsys.hsv_to_rgb((0.08 + index * 0.381966) % 1.0, 0.75, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels `data` (channel, *grid) placed in the world by `affine` (4, 4), voxel -> mm, RAS+.

    Integer data with `labels` (name -> value, background excluded or 0) is a mask.
    Errors: GeometryError when the axes or the affine are not those of a volume.

    >>> volume = Volume(np.zeros((1, 4, 5, 6)), np.diag([1.0, 2.0, 3.0, 1.0]))
    >>> volume.grid, volume.spacing_mm
    ((4, 5, 6), (1.0, 2.0, 3.0))
    """

    data: np.ndarray
    affine: np.ndarray = field(default_factory=lambda: np.eye(4))
    labels: Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        if self.data.ndim not in (3, 4):
            raise GeometryError(f"volume data has shape {self.data.shape}; give (channel, i, j) or (channel, i, j, k)")
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise GeometryError(f"affine of shape {affine.shape} is not a finite 4x4 matrix; write one voxel -> mm")
        if abs(np.linalg.det(affine[:3, :3])) < 1e-12:
            raise GeometryError("affine is singular; every axis needs a spacing above 0 mm")
        affine.flags.writeable = False
        object.__setattr__(self, "affine", affine)
        if self.labels is not None:
            object.__setattr__(self, "labels", MappingProxyType(dict(self.labels)))

    @property
    def grid(self) -> tuple[int, ...]:
        """Number of voxels along each spatial axis."""
        return tuple(self.data.shape[1:])

    @property
    def spatial_dims(self) -> int:
        """2 or 3."""
        return self.data.ndim - 1

    @property
    def channels(self) -> int:
        """Number of channels (1 for a mask)."""
        return self.data.shape[0]

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Distance between voxel centres along each spatial axis, in mm."""
        lengths = np.linalg.norm(self.affine[:3, :3], axis=0)
        return tuple(float(length) for length in lengths[: self.spatial_dims])

    @property
    def sheared(self) -> bool:
        """True when the axes are not orthogonal (gantry tilt, a sheared affine)."""
        columns = self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0)
        return bool(np.abs(columns.T @ columns - np.eye(3)).max() > 1e-3)

    def replace(self, **fields: object) -> "Volume":
        """Return a copy with the named fields replaced."""
        return replace(self, **fields)  # pyright: ignore[reportArgumentType]

    def same_geometry(self, other: "Volume", *, tolerance_mm: float = GEOMETRY_TOLERANCE_MM) -> bool:
        """True when both have one grid and every corner lies within `tolerance_mm`."""
        if self.grid != other.grid:
            return False
        corners = _corners(self.grid)
        gap = np.abs((self.affine - other.affine) @ corners)[:3]
        return bool(gap.max() <= tolerance_mm)

    def require_same_geometry(self, other: "Volume", *, case: str, what: str = "mask") -> None:
        """Raise GeometryError naming `case` unless `other` (the `what`) shares this geometry."""
        if other.grid != self.grid:
            raise GeometryError(
                f"{what} grid {other.grid} does not match image grid {self.grid} of case {case!r}; "
                f"resample the {what} with Volume.resample_like(image)."
            )
        if not self.same_geometry(other):
            raise GeometryError(
                f"{what} affine does not match the image affine of case {case!r} (same grid {self.grid}); "
                f"resample the {what} with Volume.resample_like(image)."
            )

    def resample_like(self, reference: "Volume", *, fill: float = 0.0) -> "Volume":
        """Return these voxels on the grid of `reference`; masks by nearest neighbour, images linearly."""
        return self.resample_to(reference.grid, reference.affine, fill=fill)

    def resample_to(self, grid: tuple[int, ...], affine: np.ndarray, *, fill: float = 0.0) -> "Volume":
        """Return these voxels sampled on `grid` at `affine`; outside the field of view is `fill`.

        Masks (integer data with labels) use nearest neighbour, everything else is linear. Axes that
        get coarser are smoothed first (Gaussian, sigma = 0.42 x step in old voxels - 0.42) so that
        nothing aliases.
        """
        from scipy import ndimage

        if len(grid) != self.spatial_dims:
            raise GeometryError(f"cannot resample a {self.spatial_dims}D volume to grid {tuple(grid)}")
        to_old = _snapped(np.linalg.inv(self.affine) @ np.asarray(affine, dtype=np.float64))
        dims = self.spatial_dims
        matrix, offset = to_old[:dims, :dims], to_old[:dims, 3]
        is_mask = self.labels is not None or self.data.dtype == np.bool_
        step = np.sqrt((matrix**2).sum(axis=1))
        sigma = np.maximum(0.42 * (step - 1.0), 0.0)
        out = np.empty((self.channels, *grid), dtype=self.data.dtype if is_mask else np.float32)
        for channel in range(self.channels):
            source = self.data[channel]
            if not is_mask:
                source = source.astype(np.float32)
                if sigma.max() > 0.05:
                    source = ndimage.gaussian_filter(source, sigma, mode="nearest")
            out[channel] = ndimage.affine_transform(
                source,
                matrix,
                offset,  # pyright: ignore[reportArgumentType]
                output_shape=tuple(grid),
                order=0 if is_mask else 1,
                cval=fill,
            )
        return Volume(out, np.asarray(affine), self.labels)


def _corners(grid: tuple[int, ...]) -> np.ndarray:
    axes = [(0.0, float(n - 1)) for n in grid] + [(0.0, 0.0)] * (3 - len(grid))
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    return np.concatenate([points, np.ones((len(points), 1))], axis=1).T


def _snapped(to_old: np.ndarray) -> np.ndarray:
    """Return a voxel map whose entries are whole where only rounding keeps them from it.

    Otherwise the first or last slice of an oblique grid falls a hair outside itself, and is filled.
    """
    whole = np.rint(to_old)
    near = np.abs(to_old - whole) < np.array([1e-6, 1e-6, 1e-6, 1e-4])
    return np.where(near, whole, to_old)
