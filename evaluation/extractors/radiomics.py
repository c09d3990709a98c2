"""Weight-free radiomics-style features of a volume: one vector, deterministic, the same code in 2D and 3D.

Intensities are mapped ones (0 and 1 are the ends of the window), so that bins and thresholds are fixed and an
offset or a gain is seen. Knows no file and no network.
"""

import hashlib
from itertools import product

import numpy as np
from scipy import ndimage

from evaluation.extractors.base import Extractor, InputSpec

NAME = "radiomics 3"
_BODY = 0.02
_QUANTILES = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)
_BINS, _TOP = 16, 1.2  # grey levels, and the mapped intensity where the last one starts
_SIGMAS = (0.7, 1.4, 2.8)
_WAVELET_LEVELS = 2
_CELLS = 3
_FLOOR = 1e-4  # added before logarithms: a thousandth of the noise of a good scan


def radiomics_extractor() -> Extractor:
    """Return the default extractor; see `radiomics_table` for what it measures."""
    return Extractor(NAME, _vector, InputSpec(), _definition(), "whole volume")


def _definition() -> str:
    text = f"{NAME}|{_BODY}|{_QUANTILES}|{_BINS}|{_TOP}|{_SIGMAS}|{_WAVELET_LEVELS}|{_CELLS}|{_FLOOR}"
    return hashlib.sha256(text.encode()).hexdigest()


def _vector(image: np.ndarray, mask: np.ndarray | None, labels: int, spacing_mm: tuple[float, ...]) -> np.ndarray:
    return np.array(list(radiomics_table(image, mask, labels=labels, spacing_mm=spacing_mm).values()))


def radiomics_table(
    image: np.ndarray, mask: np.ndarray | None = None, *, labels: int = 0, spacing_mm: tuple[float, ...] = ()
) -> dict[str, float]:
    """Return the features of a mapped image (channel, *grid) and its labels 1..`labels` (*grid), by name.

    For each channel: first-order statistics inside the body (mapped intensity above 0.02); grey-level
    co-occurrence of neighbours in 13 directions (4 in 2D) with 16 fixed bins, symmetric (Haralick 1973), averaged,
    and along each axis; log RMS of Haar subbands at two levels, of Laplacian of Gaussian and gradient at three
    scales; means of 3 cells along every axis; mean and spread inside each label. For each label: volume, surface
    over volume^((d-1)/d), centroid and principal axes in mm. A label that is absent gives zeros. The names and
    their number depend only on channels, dimensions and `labels`. About 70 + 10 for each label in 3D.
    """
    table: dict[str, float] = {}
    grid = image.shape[1:]
    labelled = _clipped(mask, labels) if mask is not None and labels else np.zeros(grid, dtype=np.intp)
    for number, channel in enumerate(np.asarray(image, dtype=np.float64)):
        found = {**_first_order(channel), **_cooccurrence(channel), **_scales(channel), **_cells(channel)}
        if labels:
            found |= _intensity(channel, labelled, labels)
        table |= {f"c{number}.{name}": value for name, value in found.items()}
    if labels:
        table |= _shape(labelled, labels, grid, spacing_mm or (1.0,) * len(grid))
    return table


def _clipped(mask: np.ndarray, labels: int) -> np.ndarray:
    """Return the mask as intp with values beyond `labels` as background."""
    whole = mask.astype(np.intp)
    return np.where((whole < 0) | (whole > labels), 0, whole)


def _first_order(channel: np.ndarray) -> dict[str, float]:
    inside = channel > _BODY
    body = channel[inside] if inside.any() else channel.ravel()
    mean, spread = float(body.mean()), float(body.std())
    out = {f"quantile{q:g}": float(v) for q, v in zip(_QUANTILES, np.quantile(body, _QUANTILES), strict=True)}
    centred = (body - mean) / max(spread, _FLOOR)
    square = centred * centred
    counts = np.bincount(_levels(body).astype(np.intp), minlength=_BINS) / body.size
    used = counts[counts > 0]
    return out | {
        "mean": mean,
        "spread": spread,
        "skewness": float((square * centred).mean()),
        "kurtosis": float(np.log1p((square * square).mean())),
        "entropy": float(-(used * np.log2(used)).sum()),
        "body": float(inside.mean()),
    }


def _levels(values: np.ndarray) -> np.ndarray:
    """Return grey levels 0.._BINS-1 of mapped intensities."""
    return np.clip(values * (_BINS / _TOP), 0, _BINS - 1).astype(np.uint16)


def directions(dims: int) -> list[tuple[int, ...]]:
    """Return half of all neighbour offsets: 13 in 3D, 4 in 2D.

    >>> len(directions(3)), len(directions(2))
    (13, 4)
    """
    return [step for step in product((-1, 0, 1), repeat=dims) if step > (0,) * dims]


def _cooccurrence(channel: np.ndarray) -> dict[str, float]:
    outside = _BINS  # one more level, dropped after counting: no boolean indexing
    level = np.where(channel > _BODY, _levels(channel), np.uint16(outside))
    rows = {step: _haralick(_pairs(level, step)) for step in directions(channel.ndim)}
    names = ("contrast", "dissimilarity", "homogeneity", "energy", "correlation", "entropy")
    mean = np.mean(list(rows.values()), axis=0)
    out = {f"glcm.{name}": float(value) for name, value in zip(names, mean, strict=True)}
    for axis in range(channel.ndim):
        along = rows[tuple(int(other == axis) for other in range(channel.ndim))]
        out |= {f"glcm.contrast.axis{axis}": float(along[0]), f"glcm.correlation.axis{axis}": float(along[4])}
    return out


def _pairs(level: np.ndarray, step: tuple[int, ...]) -> np.ndarray:
    """Return symmetric normalised counts (_BINS, _BINS) of levels at `step` from one another; zeros where none is."""
    here = tuple(slice(max(-s, 0), n - max(s, 0)) for s, n in zip(step, level.shape, strict=True))
    there = tuple(slice(max(s, 0), n - max(-s, 0)) for s, n in zip(step, level.shape, strict=True))
    side = _BINS + 1
    code = level[here] * np.uint16(side) + level[there]
    counts = np.bincount(code.ravel(), minlength=side * side).reshape(side, side)[:_BINS, :_BINS].astype(np.float64)
    counts = counts + counts.T
    return counts / max(counts.sum(), 1.0)


_I, _J = np.indices((_BINS, _BINS))
_APART = np.abs(_I - _J).astype(np.float64)


def _haralick(joint: np.ndarray) -> list[float]:
    single = joint.sum(axis=1)
    level = np.arange(_BINS)
    mean = float(level @ single)
    variance = float(((level - mean) ** 2) @ single)
    used = joint[joint > 0]
    return [
        float(np.log(_FLOOR + (joint * _APART**2).sum())),
        float((joint * _APART).sum()),
        float((joint / (1.0 + _APART**2)).sum()),
        float((joint**2).sum()),
        float((joint * (_I - mean) * (_J - mean)).sum() / variance) if variance > 1e-12 else 1.0,
        float(-(used * np.log2(used)).sum()),
    ]


def _scales(channel: np.ndarray) -> dict[str, float]:
    out: dict[str, float] = {}
    low = channel
    for level in range(1, _WAVELET_LEVELS + 1):
        bands = _haar(low)
        for name, band in bands.items():
            if name != "L" * channel.ndim:
                out[f"haar{level}.{name}"] = _log_rms(band)
        low = bands["L" * channel.ndim]
    for sigma in _SIGMAS:
        smooth = ndimage.gaussian_filter(channel, sigma, mode="nearest", truncate=3.0)
        out[f"log{sigma:g}"] = _log_rms(ndimage.laplace(smooth, mode="nearest"))
        slopes = [np.diff(smooth, axis=axis) for axis in range(channel.ndim)]
        square = sum(float((slope**2).sum()) / channel.size for slope in slopes)
        out[f"gradient{sigma:g}"] = float(np.log(_FLOOR + np.sqrt(square)))
    return out


def _haar(x: np.ndarray) -> dict[str, np.ndarray]:
    """Return the orthonormal Haar subbands by name, L or H for each axis; odd axes repeat their last plane."""
    bands = {"": np.pad(x, [(0, n % 2) for n in x.shape], mode="edge")}
    for axis in range(x.ndim):
        split = {}
        for name, band in bands.items():
            even = band[(slice(None),) * axis + (slice(0, None, 2),)]
            odd = band[(slice(None),) * axis + (slice(1, None, 2),)]
            split[name + "L"] = (even + odd) * np.sqrt(0.5)
            split[name + "H"] = (even - odd) * np.sqrt(0.5)
        bands = split
    return bands


def _log_rms(x: np.ndarray) -> float:
    return float(np.log(_FLOOR + np.sqrt((x * x).mean())))


def _cells(channel: np.ndarray) -> dict[str, float]:
    cells = {"": channel}
    for axis in range(channel.ndim):
        cells = {
            f"{name}{number}": part
            for name, cell in cells.items()
            for number, part in enumerate(np.array_split(cell, _CELLS, axis=axis))
        }
    return {f"cell{name}": float(part.mean()) if part.size else 0.0 for name, part in cells.items()}


def _intensity(channel: np.ndarray, mask: np.ndarray, labels: int) -> dict[str, float]:
    flat, values = mask.ravel(), channel.ravel()
    count = np.maximum(np.bincount(flat, minlength=labels + 1), 1)
    mean = np.bincount(flat, values, minlength=labels + 1) / count
    square = np.bincount(flat, values * values, minlength=labels + 1) / count
    spread = np.sqrt(np.maximum(square - mean**2, 0.0))
    out = {}
    for label in range(1, labels + 1):
        out |= {f"label{label}.mean": float(mean[label]), f"label{label}.spread": float(spread[label])}
    return out


def _shape(mask: np.ndarray, labels: int, grid: tuple[int, ...], spacing_mm: tuple[float, ...]) -> dict[str, float]:
    dims, step = len(grid), np.array(spacing_mm)
    where = np.flatnonzero(mask)
    flat = mask.ravel()[where]
    place = np.stack(np.unravel_index(where, grid)).astype(np.float64)
    place = (place - (np.array(grid)[:, None] - 1) / 2) * step[:, None]
    count = np.bincount(flat, minlength=labels + 1)
    centre = np.stack([np.bincount(flat, axis, minlength=labels + 1) for axis in place]) / np.maximum(count, 1)
    place = place - centre[:, flat]
    surface = _surface(mask, labels, step)
    names = ["volume", "roughness", *[f"centre{a}" for a in range(dims)], *[f"axis{a}" for a in range(dims)]]
    out: dict[str, float] = {}
    for label in range(1, labels + 1):
        values = [0.0] * len(names)
        if count[label]:
            apart = place[:, flat == label]
            spread = np.sqrt(np.maximum(np.linalg.eigvalsh(apart @ apart.T / count[label]), 0.0))
            volume = count[label] * float(step.prod())
            roughness = surface[label] / volume ** ((dims - 1) / dims)
            values = [float(np.log1p(volume)), float(roughness), *centre[:, label].tolist(), *spread.tolist()]
        out |= {f"label{label}.{name}": float(value) for name, value in zip(names, values, strict=True)}
    return out


def _surface(mask: np.ndarray, labels: int, step: np.ndarray) -> np.ndarray:
    """Return the area of voxel faces (mm^(d-1)) between each label and anything else: (labels + 1,)."""
    area = np.zeros(labels + 1)
    for axis in range(mask.ndim):
        edge = np.pad(mask, [(1, 1) if other == axis else (0, 0) for other in range(mask.ndim)])
        left = edge[tuple(slice(None, -1) if other == axis else slice(None) for other in range(mask.ndim))]
        right = edge[tuple(slice(1, None) if other == axis else slice(None) for other in range(mask.ndim))]
        differ = left != right
        face = float(step.prod() / step[axis])
        area += face * np.bincount(np.concatenate([left[differ], right[differ]]), minlength=labels + 1)
    return area
