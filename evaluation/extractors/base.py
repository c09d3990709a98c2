"""What a feature extractor is: a name, a function, what it expects of its input, and what identifies it.

Knows no network and no file.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

import numpy as np

from synth.errors import DataError

Filter = Literal["none", "linear-antialiased", "bilinear-tf1", "linear-gaussian"]
Measure = Callable[[np.ndarray, np.ndarray | None, int, tuple[float, ...]], np.ndarray]
"""(image (channel, *grid) mapped, mask (*grid) or None, number of labels, spacing in mm) -> (d,)."""


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """What a network sees of a volume; all of it goes into the fingerprint.

    view           planes: slices along every axis of the grid, pooled to one vector; volume: the whole grid
    size           pixels (voxels) along every axis of the input; empty: as large as the volume, padded to `multiple`
    spacing_mm     of a pixel after resampling; None: a slice is padded to a square, and resized to `size`
    gap_mm         between slices; 0 for every slice
    windows        mapped intensities that become 0 and 1, one pair for each input channel; see `mapped_windows`
    mean, std      subtracted and divided by, for each input channel, after windowing
    scale          what 1 becomes before mean and std: 1 or 255
    normalise      fixed: by mean and std; zscore: by the volume's own voxels that are not 0
    channel_order  of the input; the windows are in this order
    filter         resampling: none, linear-antialiased (torch, antialias=True), bilinear-tf1 (TensorFlow 1.x
                   resize_bilinear with align_corners=False, no half-pixel centres, no antialiasing), and for
                   volumes linear-gaussian (as Volume.resample_to)
    """

    view: Literal["planes", "volume"] = "volume"
    size: tuple[int, ...] = ()
    spacing_mm: float | None = None
    gap_mm: float = 0.0
    windows: tuple[tuple[float, float], ...] = ((0.0, 1.0),)
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    scale: float = 1.0
    normalise: Literal["fixed", "zscore"] = "fixed"
    channel_order: Literal["rgb", "bgr", "grey"] = "grey"
    filter: Filter = "none"
    multiple: int = 1

    def text(self) -> str:
        """Return all fields as one line of JSON, keys sorted."""
        return json.dumps(asdict(self), sort_keys=True)


@dataclass(frozen=True, eq=False)
class Extractor:
    """A volume -> one feature vector.

    fn       (image, mask, labels, spacing_mm) -> (d,)
    spec     what `fn` does to its input before it measures
    sha256   of the weights, or of the definition where there are none
    pooling  how one vector comes of several slices or positions

    >>> mean = Extractor("mean", lambda image, *_: image.mean(axis=(1, 2)), InputSpec(), "0" * 64)
    >>> mean(np.ones((1, 4, 4))).tolist()
    [1.0]
    """

    name: str
    fn: Measure
    spec: InputSpec
    sha256: str
    pooling: str = "none"
    facts: dict[str, str] = field(default_factory=dict)

    def __call__(
        self, image: np.ndarray, mask: np.ndarray | None = None, *, labels: int = 0, spacing_mm: Sequence[float] = ()
    ) -> np.ndarray:
        """Return the features (d,) float64 of a mapped image (channel, *grid) and its labels 1..`labels` (*grid).

        spacing_mm   of the grid; empty: 1 mm
        Errors: DataError for grids that differ, voxels that are no numbers, features that are none.
        """
        if image.ndim not in (3, 4):
            raise DataError(f"an image is (channel, *grid) in 2D or 3D, got shape {image.shape}")
        if mask is not None and mask.shape != image.shape[1:]:
            raise DataError(f"mask grid {mask.shape} is not image grid {image.shape[1:]}")
        if not np.isfinite(image).all():
            raise DataError("an image holds NaN or infinite voxels; mend or drop it")
        spacing = tuple(float(step) for step in spacing_mm) or (1.0,) * (image.ndim - 1)
        if len(spacing) != image.ndim - 1 or min(spacing) <= 0:
            raise DataError(f"spacing {spacing} is not that of a grid of {image.ndim - 1} axes")
        row = np.asarray(self.fn(image, mask, labels, spacing), dtype=np.float64).ravel()
        if not np.isfinite(row).all():
            raise DataError(f"extractor {self.name} made features that are NaN or infinite")
        return row

    def fingerprint(self) -> str:
        """Return what identifies the features: reports with different ones do not compare. 16 hexadecimal digits."""
        text = "|".join((self.name, self.spec.text(), self.sha256, self.pooling))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def mapped_windows(
    native: Sequence[tuple[float, float]], *, seen: tuple[float, float]
) -> tuple[tuple[float, float], ...]:
    """Return windows in native units (HU) as mapped intensities, `seen` being what 0 and 1 stand for.

    >>> mapped_windows([(-160.0, 240.0)], seen=(-200.0, 300.0))
    ((0.08, 0.88),)
    """
    low, high = seen
    if not high > low:
        raise DataError(f"the mapped window {seen} is empty")
    return tuple((round((a - low) / (high - low), 12), round((b - low) / (high - low), 12)) for a, b in native)
