"""How sharp and how grained volumes are: power by spatial frequency, texture inside tissues."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from evaluation.functional.arrays import array


def radial_power_spectrum(x: Any, *, spacing_mm: Sequence[float], bins: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Return frequencies in cycles per mm (bins,) and the mean power there (bins,) of one image (*grid).

    |FFT((x - mean) w)|^2 averaged over shells, w a Hann window along every axis; shells go to the Nyquist frequency
    of the coarsest axis. A shell that holds no frequency is NaN. Errors: ValueError for one spacing too few.
    """
    image = array(x)
    if image.ndim != len(spacing_mm):
        raise ValueError(f"a grid of {image.ndim} axes needs as many spacings, got {len(spacing_mm)}")
    window = np.ones(())
    for n in image.shape:
        window = window[..., None] * np.hanning(n + 2)[1:-1]
    power = np.abs(np.fft.fftn((image - image.mean()) * window)) ** 2 / (window**2).sum()
    axes = [np.fft.fftfreq(n, step) for n, step in zip(image.shape, spacing_mm, strict=True)]
    radius = np.sqrt(sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij", sparse=True)))
    edges = np.linspace(0.0, 0.5 / max(spacing_mm), bins + 1)
    shell = np.searchsorted(edges, radius.ravel(), side="right") - 1
    inside = (shell < bins) & (radius.ravel() > 0)
    count = np.bincount(shell[inside], minlength=bins)
    total = np.bincount(shell[inside], power.ravel()[inside], minlength=bins)
    return (edges[:-1] + edges[1:]) / 2, np.where(count > 0, total / np.maximum(count, 1), np.nan)


def texture_deviation(x: Any, mask: Any, *, labels: Sequence[int], sigma: float = 1.0) -> np.ndarray:
    """Return the standard deviation of the high-passed image (*grid) inside each label: (labels,); NaN if absent.

    High-passed is the image less its blur of `sigma` voxels; the blur stays inside the label, so that edges
    between tissues do not count as texture.
    """
    image, where = array(x), array(mask)
    out = []
    for label in labels:
        inside = (where == label).astype(np.float64)
        weight = np.maximum(ndimage.gaussian_filter(inside, sigma), 1e-9)
        rest = (image - ndimage.gaussian_filter(image * inside, sigma) / weight)[inside > 0]
        out.append(float(rest.std()) if rest.size else np.nan)
    return np.array(out)
