"""The artefact gate: how unlike real patches the patches of an image are. Learned from real images only.

A patch (8 voxels along every axis) is described by log energies at several scales and directions, as PaDiM and
PatchCore describe it by activations of a network (Defard 2021, Roth 2022; AdverX-Ray, 2025, trains a discriminator on
patches for the same purpose). An image is described by what its patches are like on the whole, and by its least
likely patches. Knows no corruption, no file layout but its own, and no model.
"""

import numpy as np
from scipy import ndimage

from synth.errors import DataError

NAME = "artefact gate 1"
PATCH = 8
SMALLEST = 10
"""Real images that a gate is learned from, at least."""
_FLOOR = 1e-3  # added before logarithms, in shares of the intensity window
_BODY = 0.05
_QUANTILES = (0.1, 0.5, 0.9)
_PER_IMAGE, _KEPT = 400, 20_000
_FOLDS = 4


def describe(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return descriptors (patches, d) of a mapped image (channel, *grid), and which patches hold tissue (patches,).

    For each channel and patch: mean; log RMS of first differences along each axis; of second differences along each
    axis; of the difference between neighbours of odd and even parity (checkerboards, doubled slices) along each axis;
    of bands between Gaussian blurs of 0.8, 1.6 and 3.2 voxels. Axes shorter than a patch make one patch.
    """
    if image.ndim not in (3, 4) or not np.isfinite(image).all():
        raise DataError(f"a gate takes finite images (channel, *grid) in 2D or 3D, got shape {image.shape}")
    parts, tissue = [], None
    for channel in np.asarray(image, dtype=np.float32):
        mean = _pooled(channel)
        tissue = mean > _BODY if tissue is None else tissue | (mean > _BODY)
        parts.append(mean.ravel())
        parts += [np.log(_FLOOR + np.sqrt(np.maximum(_pooled(m), 0.0))).ravel() for m in _energies(channel)]
    assert tissue is not None
    return np.stack(parts, axis=1).astype(np.float64), tissue.ravel()


def _energies(channel: np.ndarray) -> list[np.ndarray]:
    """Return maps of squared filter responses, each on the grid of the channel."""
    out = []
    for axis in range(channel.ndim):
        first = np.diff(channel, axis=axis, append=np.take(channel, [-1], axis=axis))
        second = np.diff(first, axis=axis, prepend=np.take(first, [0], axis=axis))
        out += [first**2, second**2, _parity(first, axis)]
    blurs = [channel] + [ndimage.gaussian_filter(channel, s, mode="nearest", truncate=3.0) for s in (0.8, 1.6, 3.2)]
    out += [(fine - coarse) ** 2 for fine, coarse in zip(blurs, blurs[1:], strict=False)]
    return out


def _parity(first: np.ndarray, axis: int) -> np.ndarray:
    """Return (x_{2i+1} - x_{2i})^2 at both voxels of a pair: beside `first` it tells pairs that are too alike."""
    odd = np.arange(first.shape[axis]) // 2 * 2
    return np.take(first, odd, axis=axis) ** 2


def _pooled(x: np.ndarray) -> np.ndarray:
    for axis in range(x.ndim):
        starts = np.arange(0, max(x.shape[axis] - PATCH // 2, 1), PATCH)
        sizes = np.diff([*starts, x.shape[axis]])
        shape = [-1 if other == axis else 1 for other in range(x.ndim)]
        x = np.add.reduceat(x, starts, axis=axis) / sizes.reshape(shape)
    return x


def _summary(rows: np.ndarray, tissue: np.ndarray) -> np.ndarray:
    """Return what an image's patches are like on the whole: mean and quantiles in tissue, mean in air; NaN if none."""
    nothing = np.full(rows.shape[1], np.nan)
    inside, outside = rows[tissue], rows[~tissue]
    parts = [inside.mean(axis=0), *np.quantile(inside, _QUANTILES, axis=0)] if len(inside) else [nothing] * 4
    return np.concatenate([*parts, outside.mean(axis=0) if len(outside) else nothing])
