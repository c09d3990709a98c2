"""Feature similarity of images: phase congruency and gradients. Knows no files, units or masks."""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from evaluation.functional.arrays import array

_T1, _T2 = 0.85, 160.0
_SCALES, _ORIENTATIONS = 4, 4
_SHORTEST, _STEP, _SIGMA_F, _ANGLES = 6, 2, 0.55, 1.2
_NOISE_DEVIATIONS, _NOISE_SHRINK, _TINY = 2.0, 1.7, 1e-4
_SMALLEST, _PREFERRED = 16, 256
_SCHARR = np.array([[3.0, 0.0, -3.0], [10.0, 0.0, -10.0], [3.0, 0.0, -3.0]]) / 16.0


def fsim(x: Any, y: Any, *, data_range: float, axis: int = -1) -> np.ndarray:
    """Return the feature similarity (Zhang et al. 2011) of (batch, channel, *grid) in 2D or 3D: (batch,).

    FSIM = sum S_PC S_G PC_m / sum PC_m, PC_m = max(PC_x, PC_y), S_PC = (2 PC_x PC_y + 0.85) / (PC_x^2 + PC_y^2 + 0.85),
    S_G the same of gradient magnitudes (Scharr) with 160, for values brought from 0..data_range to 0..255. PC is 2D
    phase congruency by log-Gabor filters of 4 scales and 4 orientations (Kovesi 1999), with the authors' parameters;
    images whose shorter side is about a multiple of 256 are averaged down by that multiple first. Channels are
    compared each as grey values (no chromatic term).
    A volume is compared slice by slice across `axis` of its grid (the thick one; the last by default), the sums running
    over all slices: there is no 3D filter here.
    Errors: ValueError for shapes that differ, values that are no numbers, slices below 16 pixels, volumes without any
    structure, where FSIM is not defined.
    """
    first, second = array(x), array(y)
    if first.shape != second.shape or first.ndim not in (4, 5):
        raise ValueError(f"volumes are two alike of (batch, channel, *grid), got {first.shape} and {second.shape}")
    if not (np.isfinite(data_range) and data_range > 0):
        raise ValueError(f"data_range is the span of possible values and positive, got {data_range}")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("a volume holds NaN or infinite voxels")
    sums = np.zeros((len(first), 2))
    for index in range(len(first)):
        for a, b in zip(_slices(first[index], axis), _slices(second[index], axis), strict=True):
            sums[index] += _sums(a * (255.0 / data_range), b * (255.0 / data_range))
    if not (sums[:, 1] > 0).all():
        raise ValueError("two volumes are without structure; FSIM is not defined for them")
    return sums[:, 0] / sums[:, 1]


def phase_congruency(image: Any) -> np.ndarray:
    """Return the phase congruency PC_2 (Kovesi 1999) of one image (rows, columns) of values 0..255: 0..1.

    PC = sum_o max(E_o - T_o, 0) / sum_o sum_s A_so, with amplitudes A of log-Gabor responses, E the energy of the
    weighted phase deviation and T the noise threshold from the median response of the finest scale.
    """
    values = array(image)
    if values.ndim != 2 or min(values.shape) < _SMALLEST:
        raise ValueError(f"phase congruency is of images of {_SMALLEST} pixels a side at least, got {values.shape}")
    rows, columns = values.shape
    spectrum = np.fft.fft2(values)
    energy, amplitude = np.zeros_like(values), np.zeros_like(values)
    for filters, unit_threshold in _bank(rows, columns):
        response = np.fft.ifft2(spectrum * filters)
        strength = np.abs(response)
        total = response.sum(axis=0)
        direction = total / (np.abs(total) + _TINY)
        turned = response * direction.conj()  # real: along the mean phase; imaginary: across
        raw = (turned.real - np.abs(turned.imag)).sum(axis=0)
        power = float(np.median(strength[0] ** 2)) / np.log(2.0)
        energy += np.maximum(raw - unit_threshold * np.sqrt(power), 0.0)
        amplitude += strength.sum(axis=0)
    return np.divide(energy, amplitude, out=np.zeros_like(energy), where=amplitude > 0)


def _slices(volume: np.ndarray, axis: int) -> "list[np.ndarray]":
    if volume.ndim == 3:
        return list(volume)
    if not -3 <= axis < 3:
        raise ValueError(f"axis {axis} is none of the grid's three")
    return [part for channel in volume for part in np.moveaxis(channel, axis, 0)]


def _sums(x: np.ndarray, y: np.ndarray) -> NDArray[np.float64]:
    """Return sum S PC_m and sum PC_m of two images."""
    factor = max(1, round(min(x.shape) / _PREFERRED))
    if factor > 1:
        x, y = _averaged(x, factor), _averaged(y, factor)
    first, second = phase_congruency(x), phase_congruency(y)
    weight = np.maximum(first, second)
    score = _alike(first, second, _T1) * _alike(_gradient(x), _gradient(y), _T2) * weight
    return np.array([score.sum(), weight.sum()])


def _alike(a: np.ndarray, b: np.ndarray, constant: float) -> np.ndarray:
    return (2 * a * b + constant) / (a * a + b * b + constant)


def _gradient(image: np.ndarray) -> np.ndarray:
    across, down = (ndimage.convolve(image, kernel, mode="constant") for kernel in (_SCHARR, _SCHARR.T))
    return np.hypot(across, down)


def _averaged(image: np.ndarray, factor: int) -> np.ndarray:
    rows, columns = (n // factor for n in image.shape)
    return image[: rows * factor, : columns * factor].reshape(rows, factor, columns, factor).mean(axis=(1, 3))


@lru_cache(maxsize=8)
def _bank(rows: int, columns: int) -> "tuple[tuple[np.ndarray, float], ...]":
    """Return for each orientation the filters (scale, rows, columns) and the threshold at a noise power of one."""
    down, across = (_frequencies(n) for n in (rows, columns))
    radius = np.hypot(down[:, None], across[None, :])
    angle = np.arctan2(-down[:, None], across[None, :])
    low_pass = 1.0 / (1.0 + (radius / 0.45) ** 30)
    radius[0, 0] = 1.0
    spread = np.pi / _ORIENTATIONS / _ANGLES
    gabor = []
    for scale in range(_SCALES):
        wave = _SHORTEST * _STEP**scale
        band = np.exp(-(np.log(radius * wave) ** 2) / (2 * np.log(_SIGMA_F) ** 2)) * low_pass
        band[0, 0] = 0.0
        gabor.append(band)
    out = []
    for number in range(_ORIENTATIONS):
        turned = angle - number * np.pi / _ORIENTATIONS
        apart = np.abs(np.arctan2(np.sin(turned), np.cos(turned)))
        filters = np.stack(gabor) * np.exp(-(apart**2) / (2 * spread**2))
        kernels = np.fft.ifft2(filters).real * np.sqrt(rows * columns)
        # sum A_i^2 + 2 sum_{i<j} A_i A_j, twice: (sum A_i)^2 holds the pairs once more
        own, whole = (kernels**2).sum(), (kernels.sum(axis=0) ** 2).sum()
        noise = 2 * own + 2 * (whole - own)
        tau = np.sqrt(noise / (filters[0] ** 2).sum() / 2)
        threshold = tau * (np.sqrt(np.pi / 2) + _NOISE_DEVIATIONS * np.sqrt(2 - np.pi / 2)) / _NOISE_SHRINK
        out.append((filters, float(threshold)))
    return tuple(out)


def _frequencies(n: int) -> np.ndarray:
    """Return the frequencies of the authors' code, zero first; for odd n their steps are 1 / (n - 1)."""
    whole = np.arange(-(n - 1) / 2, n / 2) / (n - 1) if n % 2 else np.arange(-n / 2, n / 2) / n
    return np.fft.ifftshift(whole)
