"""What phantoms share: the pair they are, and smooth random fields."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from synth.volume import Volume


@dataclass(frozen=True, eq=False)
class Pair:
    """A phantom: image and mask on one grid."""

    image: Volume
    mask: Volume


def smooth_field(grid: tuple[int, ...], extent: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Return a smooth field of unit root mean square, drawn coarse and interpolated: sigma in units of `extent`."""
    coarse = [max(int(np.ceil(2.5 * length / sigma)), 4) for length in extent]
    drawn = ndimage.gaussian_filter(rng.standard_normal(coarse), 1.2)
    field = ndimage.zoom(
        drawn, [n / c for n, c in zip(grid, coarse, strict=True)], order=1, grid_mode=True, mode="nearest"
    )
    values = np.asarray(field, dtype=np.float32)
    return values / float(np.sqrt(np.mean(values * values)))
