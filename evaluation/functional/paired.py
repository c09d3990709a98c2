"""Comparisons of one volume with another, voxel by voxel: SSIM, MS-SSIM, PSNR, MAE, NCC. Knows no files or units.

All take (batch, channel, *grid) in 2D or 3D, torch or numpy, and return float64 (batch,). `mask` is (batch or 1,
channel or 1, *grid), inside where above 0. Where a value depends on the span of possible values, data_range is asked
for: it is that of the modality (such as 4000 HU), never read off the data.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from evaluation.functional.arrays import array

_TRUNCATE = 3.5
_SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
Sigma = float | Sequence[float]


def psnr(x: Any, y: Any, *, data_range: float, mask: Any = None) -> np.ndarray:
    """Return 10 log10(range^2 / MSE), inside `mask` where given: (batch,); infinite for equal volumes.

    Errors: ValueError for shapes that differ, values that are no numbers, an empty mask.
    """
    first, second, inside = _pair(x, y, mask)
    _positive(data_range)
    mse = [((a - b)[m] ** 2).mean() for a, b, m in zip(first, second, inside, strict=True)]
    with np.errstate(divide="ignore"):
        return 10 * np.log10(data_range**2 / np.array(mse))


def mae(x: Any, y: Any, *, mask: Any = None) -> np.ndarray:
    """Return the mean absolute error, inside `mask` where given, in the volumes' own unit: (batch,).

    Volumes in HU give HU; the mask is the body's in SynthRAD (Thummerer et al. 2023). Errors: as psnr.

    >>> mae([[[[-1000.0, 40.0]]]], [[[[0.0, 60.0]]]], mask=[[[[0, 1]]]]).tolist()
    [20.0]
    """
    first, second, inside = _pair(x, y, mask)
    return np.array([np.abs(a - b)[m].mean() for a, b, m in zip(first, second, inside, strict=True)])


def ncc(x: Any, y: Any, *, mask: Any = None) -> np.ndarray:
    """Return the normalised cross-correlation (Pearson's r over voxels), inside `mask` where given: (batch,), -1..1.

    NCC = sum (x - mean x)(y - mean y) / sqrt(sum (x - mean x)^2 sum (y - mean y)^2)

    Errors: as psnr, and ValueError for a volume that is constant inside, where it is not defined.
    """
    first, second, inside = _pair(x, y, mask)
    out = []
    for a, b, m in zip(first, second, inside, strict=True):
        u, v = a[m] - a[m].mean(), b[m] - b[m].mean()
        if np.ptp(a[m]) == 0 or np.ptp(b[m]) == 0:
            raise ValueError("a volume is constant where it is compared; correlation is not defined there")
        out.append(float(np.clip((u @ v) / np.sqrt((u @ u) * (v @ v)), -1.0, 1.0)))
    return np.array(out)


def ssim(x: Any, y: Any, *, data_range: float, mask: Any = None, sigma: Sigma = 1.5) -> np.ndarray:
    """Return the structural similarity (Wang et al. 2004), inside `mask` where given: (batch,).

    SSIM = (2 mu_x mu_y + C1)(2 s_xy + C2) / ((mu_x^2 + mu_y^2 + C1)(s_x^2 + s_y^2 + C2)), C1 = (0.01 range)^2,
    C2 = (0.03 range)^2, with a Gaussian window of `sigma` voxels cut at 3.5 sigma, population covariances, averaged
    over the voxels where the window fits; equals scikit-image's gaussian_weights=True, use_sample_covariance=False.
    sigma   one for all axes or one for each, 0 where the window is one voxel thin; see window_sigma
    Errors: ValueError for shapes that differ, values that are no numbers, axes shorter than the window, an empty mask.
    """
    first, second, inside = _pair(x, y, mask)
    sigmas = _window(first.shape[2:], sigma, data_range)
    out = []
    for a, b, m in zip(first, second, inside, strict=True):
        parts = [_kept(_terms(p, q, data_range, sigmas)[0], kept, sigmas) for p, q, kept in zip(a, b, m, strict=True)]
        out.append(float(_mean(parts)))
    return np.array(out)


def ms_ssim(x: Any, y: Any, *, data_range: float, mask: Any = None, sigma: Sigma = 1.5) -> np.ndarray:
    """Return the multi-scale similarity (Wang et al. 2003): (batch,). As many of the 5 scales as the grid carries.

    MS-SSIM = l_S^w_S prod_s c_s^w_s over scales s of halved volumes (means of 2 voxels along each axis), with the
    window and the terms of `ssim`. A grid carries a scale while the window fits along every axis: `ms_ssim_scales`
    says how many, so that reports can record it; their weights are renormalised. Contrast terms below 0 count as 0.
    `mask` is applied at every scale: a coarse voxel is inside where any of its voxels is.
    Errors: as ssim.
    """
    first, second, inside = _pair(x, y, mask)
    sigmas = _window(first.shape[2:], sigma, data_range)
    scales = ms_ssim_scales(first.shape[2:], sigma=sigmas)
    weights = np.array(_SCALES[:scales]) / sum(_SCALES[:scales])
    out = np.ones(len(first))
    for scale in range(scales):
        for index in range(len(first)):
            parts = [
                _kept(_terms(a, b, data_range, sigmas)[0 if scale == scales - 1 else 1], kept, sigmas)
                for a, b, kept in zip(first[index], second[index], inside[index], strict=True)
            ]
            out[index] *= max(_mean(parts), 0.0) ** weights[scale]
        if scale < scales - 1:
            first, second = _halved(first), _halved(second)
            inside = _halved(inside.astype(np.float64)) > 0
    return out


def ms_ssim_scales(grid: Sequence[int], *, sigma: Sigma = 1.5) -> int:
    """Return how many of the 5 scales a grid carries; reports state it beside the value.

    >>> ms_ssim_scales((176, 256, 256)), ms_ssim_scales((64, 80, 64)), ms_ssim_scales((32, 32))
    (5, 3, 2)
    """
    sides = [2 * radius + 1 for radius in _radii(_sigmas(sigma, len(grid)))]
    scales = 1
    while scales < len(_SCALES) and all(n // 2**scales >= max(w, 2) for n, w in zip(grid, sides, strict=True)):
        scales += 1
    return scales


def window_sigma(spacing_mm: Sequence[float], *, sigma: float = 1.5) -> tuple[float, ...]:
    """Return the sigma along each axis of a window that is round in mm: `sigma` voxels along the finest axis.

    >>> window_sigma((1.0, 1.0, 3.0))
    (1.5, 1.5, 0.5)
    """
    finest = min(spacing_mm)
    if not finest > 0:
        raise ValueError(f"spacings are positive, got {tuple(spacing_mm)}")
    return tuple(sigma * finest / step for step in spacing_mm)


def _pair(x: Any, y: Any, mask: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return both volumes and the mask in their shape."""
    first, second = array(x), array(y)
    if first.shape != second.shape:
        raise ValueError(f"volumes have shapes {first.shape} and {second.shape}; compare equal ones")
    if first.ndim not in (4, 5):
        raise ValueError(f"volumes are (batch, channel, *grid) in 2D or 3D, got {first.shape}")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("a volume holds NaN or infinite voxels")
    if mask is None:
        return first, second, np.broadcast_to(np.True_, first.shape)
    inside = np.broadcast_to(array(mask) > 0, first.shape)
    if not inside.reshape(len(inside), -1).any(axis=1).all():
        raise ValueError("a mask is empty; there is nothing to compare")
    return first, second, inside


def _positive(data_range: float) -> None:
    if not (np.isfinite(data_range) and data_range > 0):
        raise ValueError(f"data_range is the span of possible values and positive, got {data_range}")


def _sigmas(sigma: Sigma, dims: int) -> tuple[float, ...]:
    each = tuple(float(s) for s in sigma) if isinstance(sigma, Sequence) else (float(sigma),) * dims
    if len(each) != dims or min(each) < 0 or not 0 < max(each) < np.inf:
        raise ValueError(f"sigma is one number or one for each of {dims} axes, not below 0, got {sigma}")
    return each


def _radii(sigmas: Sequence[float]) -> list[int]:
    return [int(_TRUNCATE * sigma + 0.5) for sigma in sigmas]


def _window(grid: Sequence[int], sigma: Sigma, data_range: float) -> tuple[float, ...]:
    """Return the sigma of each axis, once the window is known to fit."""
    _positive(data_range)
    sigmas = _sigmas(sigma, len(grid))
    sides = [2 * radius + 1 for radius in _radii(sigmas)]
    if any(n < side for n, side in zip(grid, sides, strict=True)):
        raise ValueError(f"grid {tuple(grid)} is shorter than the window of {sides} voxels")
    return sigmas


def _terms(x: np.ndarray, y: np.ndarray, data_range: float, sigmas: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Return the maps of SSIM and of its contrast-structure term, where the window fits."""
    # variances of large offsets lose their digits; the means below put it back
    centre = 0.5 * (float(x.mean()) + float(y.mean()))
    a, b = x - centre, y - centre
    mean_a, mean_b, both = _blur(a, sigmas), _blur(b, sigmas), _blur(a * b, sigmas)
    np.square(a, out=a)
    a += np.square(b, out=b)
    spread = _blur(a, sigmas)  # of both together: their variances enter as a sum only
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    both -= mean_a * mean_b
    spread -= np.square(mean_a) + np.square(mean_b)
    contrast = (2 * both + c2) / (spread + c2)
    mean_a += centre
    mean_b += centre
    full = (2 * mean_a * mean_b + c1) / (np.square(mean_a) + np.square(mean_b) + c1)
    full *= contrast
    return full, contrast


def _blur(values: np.ndarray, sigmas: Sequence[float]) -> np.ndarray:
    """Return the Gaussian average of every voxel where the window fits; each axis is cropped once it is done."""
    for axis, (sigma, radius) in enumerate(zip(sigmas, _radii(sigmas), strict=True)):
        if radius:
            places = np.arange(-radius, radius + 1)
            window = np.exp(-0.5 * (places / sigma) ** 2)
            blurred = ndimage.correlate1d(values, window / window.sum(), axis=axis)
            values = blurred[(*[slice(None)] * axis, slice(radius, -radius))]
    return values.copy() if values.base is not None else values


def _kept(values: np.ndarray, inside: np.ndarray, sigmas: Sequence[float]) -> tuple[float, int]:
    """Return the sum of a map inside a mask of the whole grid, and over how many voxels."""
    crop = tuple(slice(radius, n - radius) for radius, n in zip(_radii(sigmas), inside.shape, strict=True))
    kept = inside[crop]
    if kept.all():
        return float(values.sum()), values.size
    return float(values[kept].sum()), int(kept.sum())


def _mean(parts: Sequence[tuple[float, int]]) -> float:
    count = sum(number for _, number in parts)
    if not count:
        raise ValueError("a mask is empty where the window fits; there is nothing to compare")
    return sum(total for total, _ in parts) / count


def _halved(values: np.ndarray) -> np.ndarray:
    for axis in range(2, values.ndim):
        even = values.shape[axis] // 2 * 2
        values = np.moveaxis(values, axis, 0)[:even]
        values = np.moveaxis((values[0::2] + values[1::2]) / 2, 0, axis)
    return values
