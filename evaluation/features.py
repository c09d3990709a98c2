"""Weight-free features of a volume: one vector a volume, deterministic, 2D and 3D. Always there, never downloaded."""

import hashlib

import numpy as np
from scipy import ndimage

NAME = "radiomics-lite 2"
_QUANTILES = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)
_SIGMAS = (0.7, 1.4, 2.8)
_PYRAMID = 4


def features(image: np.ndarray, mask: np.ndarray | None = None, *, labels: int = 0) -> np.ndarray:
    """Return the features of an image (channel, *grid) in mapped intensities, and of its labels 1..`labels` (*grid).

    Inside the body: quantiles, moments, energies of gradient and Laplacian of Gaussian at three scales; a 4-cell
    intensity pyramid along every axis; and the mean, spread and share of labels 1..`labels`. The length depends on
    channels, dimensions and `labels` only, so that rows of different volumes line up.
    """
    out: list[float] = []
    for channel in image.astype(np.float64):
        body = channel[channel > 0.02] if (channel > 0.02).any() else channel.ravel()
        out += [float(q) for q in np.quantile(body, _QUANTILES)]
        out += [float(body.mean()), float(body.std()), float((channel > 0.02).mean())]
        for sigma in _SIGMAS:
            out.append(float(np.sqrt((ndimage.gaussian_gradient_magnitude(channel, sigma) ** 2).mean())))
            out.append(float(np.sqrt((ndimage.gaussian_laplace(channel, sigma) ** 2).mean())))
        out += [float(cell.mean()) for cell in _cells(channel)]
        if mask is not None:
            for label in range(1, labels + 1):
                inside = channel[mask == label]
                out += [float(inside.mean()), float(inside.std())] if inside.size else [0.0, 0.0]
    return np.array(out)


def _cells(channel: np.ndarray) -> list[np.ndarray]:
    cells = [channel]
    for axis in range(channel.ndim):
        cells = [part for cell in cells for part in np.array_split(cell, _PYRAMID, axis=axis)]
    return cells


def fingerprint() -> str:
    """Return what identifies these features: reports with different ones do not compare."""
    text = f"{NAME}|{_QUANTILES}|{_SIGMAS}|{_PYRAMID}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]
