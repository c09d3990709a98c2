"""Comparisons of one volume with another: SSIM, MS-SSIM, PSNR. data_range is always asked for."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from evaluation.functional.arrays import array

_SIGMA, _TRUNCATE = 1.5, 3.5
_RADIUS = int(_TRUNCATE * _SIGMA + 0.5)
_SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def psnr(x: Any, y: Any, *, data_range: float, mask: Any = None) -> np.ndarray:
    """Return 10 log10(range^2 / MSE) of (batch, channel, *grid) volumes, inside `mask` where given: (batch,)."""
    error = (array(x) - array(y)) ** 2
    inside = np.ones_like(error, dtype=bool) if mask is None else np.broadcast_to(array(mask) > 0, error.shape)
    with np.errstate(divide="ignore"):
        return np.array([10 * np.log10(data_range**2 / e[m].mean()) for e, m in zip(error, inside, strict=True)])


def ssim(x: Any, y: Any, *, data_range: float, mask: Any = None) -> np.ndarray:
    """Return the structural similarity of (batch, channel, *grid) volumes: (batch,).

    Wang et al. 2004 with a Gaussian of sigma 1.5 (radius 5) and population covariances, averaged where the
    window fits; equals scikit-image's gaussian_weights=True, use_sample_covariance=False.
    Errors: ValueError for shapes that differ or axes shorter than the window.
    """
    first, second = array(x), array(y)
    _comparable(first, second, data_range)
    values = [
        np.mean([_maps(a, b, data_range)[0] for a, b in zip(p, q, strict=True)], axis=0)
        for p, q in zip(first, second, strict=True)
    ]
    if mask is None:
        return np.array([value.mean() for value in values])
    crop = tuple(slice(_RADIUS, -_RADIUS) for _ in range(first.ndim - 2))
    masks = np.broadcast_to(array(mask) > 0, (len(first), 1, *first.shape[2:]))
    kept = [m[0][crop] for m in masks]
    if not all(m.any() for m in kept):
        raise ValueError("a mask is empty where the window fits; there is nothing to compare")
    return np.array([value[m].mean() for value, m in zip(values, kept, strict=True)])


def ms_ssim(x: Any, y: Any, *, data_range: float) -> np.ndarray:
    """Return the multi-scale similarity (Wang et al. 2003): (batch,). As many of the 5 scales as the grid carries.

    A grid carries a scale while every axis is at least 11 voxels long; weights are renormalised. Contrast terms
    below 0 count as 0.
    """
    first, second = array(x), array(y)
    _comparable(first, second, data_range)
    scales = ms_ssim_scales(first.shape[2:])
    weights = np.array(_SCALES[:scales]) / sum(_SCALES[:scales])
    out = np.ones(len(first))
    for scale in range(scales):
        for index in range(len(first)):
            pairs = [_maps(a, b, data_range) for a, b in zip(first[index], second[index], strict=True)]
            term = np.mean([full.mean() if scale == scales - 1 else contrast.mean() for full, contrast in pairs])
            out[index] *= max(float(term), 0.0) ** weights[scale]
        if scale < scales - 1:
            first, second = _halved(first), _halved(second)
    return out


def ms_ssim_scales(grid: Sequence[int]) -> int:
    """Return how many of the 5 scales a grid carries; reports state it beside the value.

    >>> ms_ssim_scales((176, 256, 256)), ms_ssim_scales((64, 80, 64)), ms_ssim_scales((32, 32))
    (5, 3, 2)
    """
    scales = 1
    while scales < len(_SCALES) and min(grid) // 2**scales > 2 * _RADIUS:
        scales += 1
    return scales


def _comparable(x: np.ndarray, y: np.ndarray, data_range: float) -> None:
    if not data_range > 0:
        raise ValueError(f"data_range is the span of possible values and positive, got {data_range}")
    if x.shape != y.shape:
        raise ValueError(f"volumes have shapes {x.shape} and {y.shape}; compare equal ones")
    if min(x.shape[2:]) <= 2 * _RADIUS:
        raise ValueError(f"grid {x.shape[2:]} is shorter than the window of {2 * _RADIUS + 1} voxels")


def _maps(x: np.ndarray, y: np.ndarray, data_range: float) -> tuple[np.ndarray, np.ndarray]:
    def blur(values: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(values, _SIGMA, truncate=_TRUNCATE)

    centre = float(x.mean())  # variances of large offsets lose their digits; the means below put it back
    a, b = x - centre, y - centre
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    both = blur(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    contrast = (2 * both + c2) / (var_a + var_b + c2)
    mean_a, mean_b = mean_a + centre, mean_b + centre
    full = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1) * contrast
    crop = tuple(slice(_RADIUS, -_RADIUS) for _ in range(x.ndim))
    return full[crop], contrast[crop]


def _halved(values: np.ndarray) -> np.ndarray:
    for axis in range(2, values.ndim):
        even = values.shape[axis] // 2 * 2
        values = np.moveaxis(values, axis, 0)[:even]
        values = np.moveaxis((values[0::2] + values[1::2]) / 2, 0, axis)
    return values
