"""Faults of images in 2D and 3D, each in five severities: what a metric must see and a gate must flag.

Each takes an image (channel, *grid) with its mask (*grid), and returns both. The random pattern depends on seed and
name, never on severity, and a severity scales it or takes more of it: a fault grows by construction (but for grids of
so few slices or lines that two shares of them are the same number). Amplitudes are
shares of `value_range`, which is 1 for mapped intensities and the width of the window in native units (400 for a CT
window of 400 HU: an offset of severity 4, 0.125, is then +50 HU). The last axis is taken as the slice axis, the
first as the phase-encoding one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage

from synth.augment import kspace
from synth.errors import ConfigError, DataError, nearest
from synth.rng import numpy_rng

SEVERITIES = (1, 2, 3, 4, 5)
Apply = Callable[[np.ndarray, float, float, np.random.Generator], np.ndarray]
"""(image (channel, *grid) float64, level, value_range, rng) -> image."""


@dataclass(frozen=True)
class Corruption:
    """One fault: what it is, what its five levels mean, and how it is made.

    moves   the anatomy moves, and `apply` is called for the mask too, with order 0
    """

    name: str
    family: Literal["noise", "resolution", "intensity", "k-space", "slices", "geometry", "grid"]
    modalities: tuple[str, ...]
    levels: tuple[float, float, float, float, float]
    unit: str
    apply: Apply
    moves: bool = False


def corrupt(
    image: np.ndarray,
    name: str,
    severity: int,
    *,
    seed: int,
    mask: np.ndarray | None = None,
    value_range: float = 1.0,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return image (channel, *grid) in its own float type and mask (*grid) with the fault `name` of CORRUPTIONS.

    severity     1..5; the same seed gives the same pattern at every severity
    value_range  width of the intensity range in units of the image; 1 for mapped intensities
    Errors: ConfigError for an unknown name, another severity or range; DataError for other shapes, NaN.

    >>> image = np.ones((1, 8, 8))
    >>> corrupt(image, "offset", 1, seed=0)[0].mean().round(3)
    np.float64(1.02)
    """
    if name not in CORRUPTIONS:
        raise ConfigError(f"no corruption is called {name!r}; {nearest(name, CORRUPTIONS)}")
    if severity not in SEVERITIES or not value_range > 0:
        raise ConfigError(f"severity {severity} or value range {value_range} is out of range; give 1 to 5, and above 0")
    if image.ndim not in (3, 4) or (mask is not None and mask.shape != image.shape[1:]):
        raise DataError(f"give an image (channel, *grid) in 2D or 3D and a mask of its grid, got {image.shape}")
    if not np.isfinite(image).all():
        raise DataError("an image holds NaN or infinite voxels; mend or drop it")
    fault = CORRUPTIONS[name]
    level = fault.levels[severity - 1]
    out = fault.apply(image.astype(np.float64), level, value_range, numpy_rng(seed, "corruption", name))
    kind = image.dtype if image.dtype.kind == "f" else np.dtype(np.float32)
    if mask is not None and fault.moves:
        mask = _moved(mask, fault, level, numpy_rng(seed, "corruption", name))
    return out.astype(kind), mask


def _moved(mask: np.ndarray, fault: Corruption, level: float, rng: np.random.Generator) -> np.ndarray:
    """Return the mask where the anatomy went, by the map of the image, nearest neighbour."""
    places = _MAPS[fault.name](mask.shape, level, rng)
    return ndimage.map_coordinates(mask, places, order=0, mode="constant")


def _gaussian_noise(image: np.ndarray, level: float, value_range: float, rng: np.random.Generator) -> np.ndarray:
    """x + s n, n ~ N(0, 1)."""
    return image + level * value_range * rng.standard_normal(image.shape)


def _rician_noise(image: np.ndarray, level: float, value_range: float, rng: np.random.Generator) -> np.ndarray:
    """sqrt((x + s n1)^2 + (s n2)^2): the magnitude of complex noise (Gudbjartsson & Patz 1995); 0 is no signal."""
    real, imaginary = (level * value_range * rng.standard_normal(image.shape) for _ in range(2))
    return np.hypot(image + real, imaginary)


def _blur(image: np.ndarray, level: float, value_range: float, rng: np.random.Generator) -> np.ndarray:
    return np.stack([ndimage.gaussian_filter(channel, level, mode="nearest") for channel in image])


def _resampled(image: np.ndarray, factor: float, axis: int) -> np.ndarray:
    """Return an axis averaged over cells of `factor` voxels and interpolated back linearly."""
    n = image.shape[axis]
    cells = max(int(round(n / factor)), 1)
    edges = np.linspace(0.0, n, cells + 1)
    here = np.arange(n)
    overlap = np.minimum(edges[1:, None], here + 1) - np.maximum(edges[:-1, None], here)
    coarse = np.clip(overlap, 0.0, None) / (n / cells)
    at = np.clip((here + 0.5) * cells / n - 0.5, 0.0, cells - 1.0)
    low = np.minimum(np.floor(at).astype(int), max(cells - 2, 0))
    fine = np.zeros((n, cells))
    fine[here, low] = 1.0 - (at - low)
    fine[here, np.minimum(low + 1, cells - 1)] += at - low
    return np.moveaxis(np.tensordot(fine @ coarse, image, axes=(1, axis)), 0, axis)


def _thick_slices(image: np.ndarray, level: float, value_range: float, rng: np.random.Generator) -> np.ndarray:
    return _resampled(image, level, image.ndim - 1)


def _low_resolution(image: np.ndarray, level: float, value_range: float, rng: np.random.Generator) -> np.ndarray:
    for axis in range(1, image.ndim):
        image = _resampled(image, level, axis)
    return image


def _offset(image: np.ndarray, level: float, value_range: float, rng: np.random.Generator) -> np.ndarray:
    return image + level * value_range


def _contrast(image: np.ndarray, level: float, value_range: float, rng: np.random.Generator) -> np.ndarray:
    """(x / r)^gamma r from the lowest value up; what lies below 0 in mapped units stays."""
    return np.where(image > 0, value_range * (np.maximum(image, 0.0) / value_range) ** level, image)


def _bias_field(image: np.ndarray, level: float, value_range: float, rng: np.random.Generator) -> np.ndarray:
    """x exp(a f), f of low cosines with largest magnitude 1: a receive coil's shading."""
    axes = [np.linspace(0.0, np.pi, n) for n in image.shape[1:]]
    field = np.zeros(image.shape[1:])
    for _ in range(4):
        waves = [np.cos(rng.uniform(0.3, 1.2) * axis + rng.uniform(0.0, np.pi)) for axis in axes]
        wave = rng.standard_normal()
        for number, part in enumerate(waves):
            wave = wave * part.reshape([-1 if axis == number else 1 for axis in range(len(waves))])
        field += wave
    field -= field.mean()
    return image * np.exp(level * field / max(float(np.abs(field).max()), 1e-12))


def _slice_duplication(image: np.ndarray, level: float, value_range: float, rng: np.random.Generator) -> np.ndarray:
    """A share of the odd slices are copies of the slice before: at level 1 every slice is there twice."""
    odd = np.arange(1, image.shape[-1], 2)
    chosen = np.sort(rng.permutation(odd)[: max(round(level * len(odd)), 1)])
    out = image.copy()
    out[..., chosen] = image[..., chosen - 1]
    return out


def _slice_dropping(image: np.ndarray, level: float, value_range: float, rng: np.random.Generator) -> np.ndarray:
    """A share of the slices hold nothing but the image's lowest value."""
    slices = image.shape[-1]
    # the outer tenths hold air in most scans: a fault there is none
    inner = np.arange(slices // 10, slices - slices // 10)
    out = image.copy()
    out[..., rng.permutation(inner)[: max(round(level * len(inner)), 1)]] = image.min()
    return out


def _checkerboard(image: np.ndarray, level: float, value_range: float, rng: np.random.Generator) -> np.ndarray:
    """x (1 + a (-1)^(i + j + k)): what strided transposed convolutions leave."""
    parity = np.indices(image.shape[1:]).sum(axis=0) % 2
    return image * (1.0 + level * (1.0 - 2.0 * parity))


def _blocks(image: np.ndarray, level: float, value_range: float, rng: np.random.Generator) -> np.ndarray:
    """(1 - a) x + a mean over blocks of 4 voxels: what a codec with too few latents leaves."""
    mean = image
    for axis in range(1, image.ndim):
        starts = np.arange(0, image.shape[axis], 4)
        sizes = np.diff([*starts, image.shape[axis]])
        shape = [-1 if other == axis else 1 for other in range(image.ndim)]
        mean = np.repeat(np.add.reduceat(mean, starts, axis=axis) / sizes.reshape(shape), sizes, axis=axis)
    return (1.0 - level) * image + level * mean


def _zoom_map(grid: tuple[int, ...], level: float, rng: np.random.Generator) -> np.ndarray:
    """Return where each voxel comes from when the anatomy grows by `level` about the centre: (d, *grid)."""
    places = np.indices(grid).astype(np.float64)
    centre = ((np.array(grid) - 1) / 2).reshape(-1, *[1] * len(grid))
    return centre + (places - centre) / (1.0 + level)


def _elastic_map(grid: tuple[int, ...], level: float, rng: np.random.Generator) -> np.ndarray:
    """Return where each voxel comes from under a smooth random displacement of `level` voxels RMS: (d, *grid)."""
    smooth = max(min(grid) / 8, 1.0)
    field = np.stack([ndimage.gaussian_filter(rng.standard_normal(grid), smooth, mode="reflect") for _ in grid])
    field *= level / max(float(np.sqrt((field**2).sum(axis=0).mean())), 1e-12)
    return np.indices(grid) + field


_MAPS: Mapping[str, Callable[[tuple[int, ...], float, np.random.Generator], np.ndarray]] = {
    "zoom": _zoom_map,
    "elastic": _elastic_map,
}


def _warp(name: str) -> Apply:
    def apply(image: np.ndarray, level: float, value_range: float, rng: np.random.Generator) -> np.ndarray:
        places = _MAPS[name](image.shape[1:], level, rng)
        return np.stack([ndimage.map_coordinates(channel, places, order=1, mode="nearest") for channel in image])

    return apply


_ANY, _MR = ("CT", "MR", "PET", "US", "XR"), ("MR",)
_ALL = (
    Corruption("gaussian_noise", "noise", _ANY, (0.01, 0.02, 0.04, 0.07, 0.11), "SD / range", _gaussian_noise),
    Corruption("rician_noise", "noise", _MR, (0.01, 0.02, 0.04, 0.07, 0.11), "SD / range", _rician_noise),
    Corruption("blur", "resolution", _ANY, (0.5, 0.8, 1.2, 1.8, 2.6), "sigma, voxels", _blur),
    Corruption("thick_slices", "resolution", _ANY, (1.5, 2.0, 3.0, 4.5, 6.5), "voxels a slice", _thick_slices),
    Corruption("low_resolution", "resolution", _ANY, (1.3, 1.7, 2.2, 3.0, 4.0), "voxels a cell", _low_resolution),
    Corruption("offset", "intensity", _ANY, (0.02, 0.04, 0.07, 0.125, 0.2), "shift / range", _offset),
    Corruption("contrast", "intensity", _ANY, (1.1, 1.25, 1.45, 1.7, 2.1), "gamma", _contrast),
    Corruption("bias_field", "intensity", _MR, (0.1, 0.2, 0.35, 0.5, 0.7), "largest log gain", _bias_field),
    Corruption("ghosting", "k-space", _MR, (0.05, 0.1, 0.22, 0.35, 0.5), "loss of odd lines", kspace.ghosting),
    Corruption("motion", "k-space", _MR, (0.1, 0.2, 0.3, 0.42, 0.55), "share of lines moved", kspace.motion),
    Corruption("gibbs", "k-space", _MR, (0.2, 0.35, 0.5, 0.62, 0.75), "share of each axis cut", kspace.truncation),
    Corruption("spike", "k-space", _MR, (0.015, 0.03, 0.06, 0.1, 0.16), "amplitude / range", kspace.spike),
    Corruption("slice_duplication", "slices", _ANY, (0.2, 0.4, 0.6, 0.8, 1.0), "share of odd", _slice_duplication),
    Corruption("slice_dropping", "slices", _ANY, (0.04, 0.1, 0.18, 0.27, 0.4), "share of slices", _slice_dropping),
    Corruption("zoom", "geometry", _ANY, (0.03, 0.06, 0.1, 0.16, 0.24), "growth", _warp("zoom"), moves=True),
    Corruption("elastic", "geometry", _ANY, (0.5, 1.0, 1.7, 2.6, 3.8), "RMS, voxels", _warp("elastic"), moves=True),
    Corruption("checkerboard", "grid", _ANY, (0.02, 0.04, 0.07, 0.11, 0.16), "share of signal", _checkerboard),
    Corruption("blocks", "grid", _ANY, (0.15, 0.3, 0.5, 0.75, 1.0), "share of block means", _blocks),
)
CORRUPTIONS: Mapping[str, Corruption] = {fault.name: fault for fault in _ALL}
"""By name. Modalities: where the fault occurs; it can be made of any image."""
