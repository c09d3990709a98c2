"""The training loop's space: its axes, spacing, intensities and label numbers, and the patches it takes. No files.

Real and synthetic volumes go through the same maps, so that no network can tell them by their geometry or scale.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from synth.data.intensity import IntensityMap
from synth.data.placement import Placement
from synth.errors import DataError, GeometryError, nearest
from synth.stream.buffer import Stored
from synth.volume import Volume

Scale = Literal["native", "unit", "zscore"]
_LARGEST_SMALL = 255


@dataclass(frozen=True, kw_only=True)
class Space:
    """Axes nearest to RAS (2D: along `direction`), a spacing, a scale of intensities, numbers of labels.

    grid         voxels along each axis; None = as many as the volume fills
    spacing_mm   None = each volume's own
    scale        native units; unit, by `maps`; zscore, (x - mean) / SD of each of the volume's channels, after `maps`
    labels       name -> number in the masks; the background is 0
    """

    grid: tuple[int, ...] | None = None
    spacing_mm: tuple[float, ...] | None = None
    direction: tuple[tuple[float, ...], ...] | None = None
    scale: Scale = "native"
    maps: tuple[IntensityMap, ...] = ()
    labels: Mapping[str, int] = field(default_factory=dict)

    @property
    def dtype(self) -> np.dtype:
        """Type of masks: uint8 where the numbers fit, else int64."""
        return np.dtype(np.uint8 if max(self.labels.values(), default=0) <= _LARGEST_SMALL else np.int64)

    def place(self, image: Volume, mask: Volume | None) -> Stored:
        """Return an image with its mask (labels named; None = background alone) in this space.

        Errors: GeometryError where dimensions differ, DataError for labels that the space does not number.
        """
        placement = self._placement(image)
        parts = [
            placement.to_working(Volume(channel[None], image.affine), fill=float(channel.min())).data
            for channel in image.data
        ]
        data = self.scaled(np.concatenate(parts).astype(np.float32))
        if mask is None:
            return Stored(data, np.zeros((1, *data.shape[1:]), dtype=self.dtype))
        return Stored(data, self.numbered(placement.to_working(mask)))

    def scaled(self, data: np.ndarray) -> np.ndarray:
        """Return native voxels (channel, *grid) in the loop's intensities, float32."""
        if self.maps:
            data = np.stack([rule.apply(channel) for rule, channel in zip(self.maps, data, strict=True)])
        return standardised(data) if self.scale == "zscore" else np.ascontiguousarray(data, dtype=np.float32)

    def numbered(self, mask: Volume) -> np.ndarray:
        """Return the labels of a named mask in the loop's numbers. Errors: DataError for a label without one."""
        out = np.zeros(mask.data.shape, dtype=self.dtype)
        for name, value in (mask.labels or {}).items():
            if value == 0:
                continue
            if name not in self.labels:
                raise DataError(f"label {name!r} has no number in the training's masks; {nearest(name, self.labels)}")
            out[mask.data == value] = self.labels[name]
        return out

    def _placement(self, image: Volume) -> Placement:
        direction = None if self.direction is None else np.array(self.direction, dtype=np.float64)
        own = Placement.of(image, grid=image.grid, spacing_mm=image.spacing_mm, direction=direction)
        step = tuple(image.spacing_mm[axis] for axis in own.order)
        spacing = self.spacing_mm or step
        if len(spacing) != image.spatial_dims:
            raise GeometryError(
                f"spacing has {len(spacing)} axes, the volumes have {image.spatial_dims}; give one each"
            )
        grid = self.grid or grid_at(own.turned_grid, step, spacing)
        return Placement.of(image, grid=grid, spacing_mm=spacing, direction=direction)


def grid_at(grid: tuple[int, ...], spacing_mm: tuple[float, ...], new_mm: tuple[float, ...]) -> tuple[int, ...]:
    """Return how many voxels of spacing `new_mm` cover the extent of a grid, at least one.

    >>> grid_at((64, 80), (2.6, 2.6), (1.3, 5.2))
    (128, 40)
    """
    return tuple(max(1, round(n * old / new)) for n, old, new in zip(grid, spacing_mm, new_mm, strict=True))


def standardised(data: np.ndarray) -> np.ndarray:
    """Return each channel with mean 0 and SD 1, a constant one as 0."""
    axes = tuple(range(1, data.ndim))
    mean = data.mean(axis=axes, keepdims=True, dtype=np.float64)
    spread = data.std(axis=axes, keepdims=True, dtype=np.float64)
    return ((data - mean) / np.where(spread > 0, spread, 1.0)).astype(np.float32)


def patch(stored: Stored, size: tuple[int, ...] | None, rng: np.random.Generator, foreground: float) -> Stored:
    """Return a patch of `size`, the whole where it is None; volumes that are smaller are padded around.

    The share `foreground` of the patches is centred on a labelled voxel, as far as the volume reaches; others lie
    anywhere. Padding is each channel's least value, and background.
    """
    if size is None:
        return stored
    grid = stored.image.shape[1:]
    if len(size) != len(grid):
        raise GeometryError(f"size {size} has {len(size)} axes, the volumes have {len(grid)}; give one number each")
    centred, anywhere = rng.random() < foreground, rng.random(len(grid))
    starts = [math.floor(u * (max(n - m, 0) + 1)) for u, n, m in zip(anywhere, grid, size)]
    choice = rng.random()
    if centred and (labelled := np.flatnonzero(stored.mask[0])).size:
        voxel = np.unravel_index(labelled[math.floor(choice * labelled.size)], grid)
        starts = [int(np.clip(v - m // 2, 0, max(n - m, 0))) for v, n, m in zip(voxel, grid, size)]
    cut = tuple(slice(start, start + m) for start, m in zip(starts, size))
    image, mask = stored.image[(slice(None), *cut)], stored.mask[(slice(None), *cut)]
    missing = [max(m - n, 0) for n, m in zip(grid, size)]
    if any(missing):
        around = [(lack // 2, lack - lack // 2) for lack in missing]
        image = np.stack([np.pad(one, around, constant_values=one.min()) for one in image])
        mask = np.pad(mask, [(0, 0), *around])
    return Stored(np.ascontiguousarray(image), np.ascontiguousarray(mask))
