"""Smooth invertible warps: stationary velocity fields, integrated by scaling and squaring (Arsigny et al. 2006).

Fields are (3, *grid) in millimetres on a regular grid of `spacing_mm`.
"""

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

_SQUARINGS = 6


def random_field(grid: tuple[int, ...], sigma_mm: float, spacing_mm: float, rng: np.random.Generator) -> np.ndarray:
    """Return a smooth random field of unit root mean square: white noise under a Gaussian of sigma_mm."""
    noise = rng.standard_normal(grid)
    field = ndimage.gaussian_filter(noise, sigma_mm / spacing_mm, mode="reflect", truncate=3.0)
    return field / max(float(np.sqrt((field**2).mean())), 1e-12)


def velocity_field(
    grid: tuple[int, ...], bands: tuple[tuple[float, float], ...], *, spacing_mm: float, rng: np.random.Generator
) -> Tensor:
    """Return a velocity (3, *grid): the sum of bands (sigma_mm, root mean square of the vector in mm)."""
    total = np.zeros((3, *grid))
    for sigma_mm, size_mm in bands:
        for axis in range(3):
            total[axis] += size_mm / np.sqrt(3.0) * random_field(grid, sigma_mm, spacing_mm, rng)
    return torch.from_numpy(total)


def _lookup(values: Tensor, displacement: Tensor, spacing_mm: float) -> Tensor:
    grid = values.shape[1:]
    axes = [torch.arange(n, dtype=torch.float64) for n in grid]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij")) + displacement / spacing_mm
    unit = [2.0 * places[axis] / (n - 1) - 1.0 for axis, n in enumerate(grid)]
    points = torch.stack(unit[::-1], dim=-1)[None]
    return functional.grid_sample(values[None], points, align_corners=True, padding_mode="border")[0]


def exponential(velocity: Tensor, spacing_mm: float) -> Tensor:
    """Return the displacement (3, *grid) in mm of the flow of `velocity` at time 1."""
    displacement = velocity / 2**_SQUARINGS
    for _ in range(_SQUARINGS):
        displacement = displacement + _lookup(displacement, displacement, spacing_mm)
    return displacement


def residual_rms_mm(points: np.ndarray, other: np.ndarray) -> float:
    """Return the root mean square distance in mm left between matched points (3, n) after the best affine map.

    min over A, b of sqrt(mean |other - (A points + b)|^2), by least squares.

    >>> points = np.random.default_rng(0).normal(size=(3, 50))
    >>> round(residual_rms_mm(points, 2.0 * points + 1.0), 6)
    0.0
    """
    design = np.concatenate([points, np.ones((1, points.shape[1]))]).T.astype(np.float64)
    solution, *_ = np.linalg.lstsq(design, other.T.astype(np.float64), rcond=None)
    return float(np.sqrt(((other.T - design @ solution) ** 2).sum(axis=1).mean()))


def jacobian(displacement: Tensor, spacing_mm: float) -> Tensor:
    """Return the determinant of the warp's Jacobian, positive everywhere where it does not fold."""
    rows = [torch.stack(torch.gradient(displacement[axis], spacing=spacing_mm)) for axis in range(3)]
    matrix = torch.stack(rows).permute(2, 3, 4, 0, 1) + torch.eye(3, dtype=displacement.dtype)
    return torch.linalg.det(matrix)
