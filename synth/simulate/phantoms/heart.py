"""Short-axis stacks of the heart: cine MR of thick slices, oblique as such stacks lie."""

from collections.abc import Mapping

import numpy as np
from scipy import ndimage

from synth.rng import numpy_rng
from synth.simulate.phantoms.parts import Pair, smooth_field
from synth.volume import Volume

CARDIAC_LABELS: Mapping[str, int] = {"right_ventricle": 1, "myocardium": 2, "left_ventricle": 3}
"""Names and values as in ACDC."""
_TISSUE = {"air": 8.0, "fat": 400.0, "muscle": 110.0, "lung": 32.0, "blood": 460.0, "heart": 135.0, "liver": 190.0}
_NOISE = 11.0
_TURN = (25.0, -20.0)
"""Degrees that the stack is turned about its first and second axis; its slices still lie nearest to axial."""


def cardiac_mr(
    seed: int, *, grid: tuple[int, int, int] = (256, 216, 10), spacing_mm: tuple[float, float, float] = (1.4, 1.4, 8.0)
) -> Pair:
    """Return a balanced steady-state stack (int16) of `seed`, apex first: both ventricles and the myocardium.

    Blood and fat are bright, muscle dark, lungs nearly black; slices lie a little beside one another, as breath-holds
    differ. Papillary muscles count as left ventricle.

    >>> pair = cardiac_mr(1, grid=(64, 56, 6), spacing_mm=(5.6, 5.6, 13.0))
    >>> pair.image.data.dtype, sorted(set(pair.mask.data.ravel().tolist()))
    (dtype('int16'), [0, 1, 2, 3])
    """
    rng = numpy_rng(seed, "heart")
    plane = np.array(grid[:2]) * np.array(spacing_mm[:2])
    axes = [((np.arange(n) + 0.5) * step - n * step / 2) for n, step in zip(grid[:2], spacing_mm[:2], strict=True)]
    x, y = np.meshgrid(*axes, indexing="ij", sparse=True)
    wobble = 1.0 + 0.03 * smooth_field(grid[:2], plane, 25.0, rng)
    heart = _Heart(rng)
    chest = _chest(x, y, 1.0 + 0.03 * smooth_field(grid[:2], plane, 75.0, rng), rng)
    fat = smooth_field(grid[:2], plane, 9.0, rng)
    image, labels = np.empty(grid, dtype=np.float32), np.zeros(grid, dtype=np.uint8)
    for number in range(grid[2]):
        beside = rng.uniform(-1.2, 1.2, size=2)
        level = (number + 0.5) / grid[2]
        image[..., number], labels[..., number] = heart.slice(x - beside[0], y - beside[1], level, chest, wobble, fat)
    image = ndimage.gaussian_filter(image, [1.0 / spacing_mm[0], 1.0 / spacing_mm[1], 0.0])
    image *= 1.0 + 0.16 * smooth_field(grid[:2], plane, 120.0, rng)[..., None]
    noise = _NOISE * rng.standard_normal((2, *grid))
    image = np.hypot(image + noise[0], noise[1]) * rng.uniform(0.85, 1.2)
    affine = _oblique(grid, spacing_mm)
    stored = np.rint(image).astype(np.int16)
    return Pair(Volume(stored[None], affine), Volume(labels[None], affine, dict(CARDIAC_LABELS)))


class _Heart:
    """Sizes of one heart in mm, and what a plane of it shows."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.centre = np.array([-34.0, 16.0]) + rng.uniform(-8.0, 8.0, size=2)
        self.cavity = rng.uniform(20.0, 27.0)
        self.wall = rng.uniform(7.5, 11.0)
        self.right = rng.uniform(0.95, 1.2)
        self.angle = rng.uniform(0.2, 0.6)
        self.papillary = rng.uniform(0.0, 0.6) + np.array([0.6, 3.6])

    def slice(
        self, x: np.ndarray, y: np.ndarray, level: float, chest: np.ndarray, wobble: np.ndarray, fat: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return image and labels of the plane at `level`, 0 at the apex and 1 at the base."""
        outer, inner = self.cavity + self.wall, self.cavity
        epi, endo, free = (_round(level, first) for first in (-0.02, 0.08, 0.2))
        away = np.hypot(x - self.centre[0], y - self.centre[1]) * wobble
        left = away < outer * epi
        pool = away < inner * endo
        along, across = np.cos(self.angle), np.sin(self.angle)
        u = along * (x - self.centre[0]) + across * (y - self.centre[1]) - 0.8 * outer
        v = -across * (x - self.centre[0]) + along * (y - self.centre[1])
        reach = np.hypot(u / (outer * self.right), v / (1.3 * outer)) * wobble
        right, rim = reach < free, reach < free * 1.08 + 0.03 * (free > 0)
        image = chest.copy()
        around = (away < outer * epi + 7.0) | (reach < free * 1.2)
        image[around] = np.where(fat[around] > 0.3, 0.75 * _TISSUE["fat"], _TISSUE["muscle"])
        image[rim | left] = _TISSUE["heart"]
        image[right & ~left] = _TISSUE["blood"] * 0.94
        image[pool] = _TISSUE["blood"]
        for angle in self.papillary:
            at = self.centre + 0.62 * inner * endo * np.array([np.cos(angle), np.sin(angle)])
            image[pool & (np.hypot(x - at[0], y - at[1]) < 3.6 * (0.25 < level < 0.75))] = _TISSUE["heart"]
        labels = np.zeros(chest.shape, dtype=np.uint8)
        labels[right & ~left], labels[left], labels[pool] = 1, 2, 3
        return image, labels


def _round(level: float, first: float) -> float:
    """Return the radius, as a share of the base's, of an ellipsoid that begins at `first`."""
    up = np.clip((level - first) / (1.0 - first), 0.0, 1.0)
    return float(np.sqrt(1.0 - (1.0 - up) ** 2))


def _chest(x: np.ndarray, y: np.ndarray, wobble: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a plane without a heart: skin fat, muscle, two lungs, liver, spine and aorta."""
    wide, deep = rng.uniform(145.0, 165.0), rng.uniform(98.0, 112.0)
    rim = rng.uniform(9.0, 18.0)

    def ellipse(at: tuple[float, float], radii: tuple[float, float]) -> np.ndarray:
        return np.hypot((x - at[0]) / radii[0], (y - at[1]) / radii[1]) * wobble < 1.0

    image = np.full(wobble.shape, _TISSUE["air"], dtype=np.float32)
    image[ellipse((0, 0), (wide, deep))] = _TISSUE["fat"]
    image[ellipse((0, 0), (wide - rim, deep - rim))] = _TISSUE["muscle"]
    thorax = ellipse((0, 4), (wide - rim - 14, deep - rim - 12))
    image[thorax] = _TISSUE["lung"]
    image[thorax & ellipse((-8, 0), (34, deep))] = 0.6 * _TISSUE["fat"]
    image[thorax & ellipse((-12, -30), (30, 40))] = _TISSUE["muscle"]
    image[thorax & ellipse((74, -36), (76, 56))] = _TISSUE["liver"]
    image[ellipse((0, -deep + rim + 30), (19, 18))] = 0.55 * _TISSUE["fat"]
    image[ellipse((-26, -deep + rim + 46), (11, 11))] = _TISSUE["blood"]
    return image


def _oblique(grid: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """Return the affine of a centred grid turned by `_TURN`."""
    a, b = np.deg2rad(_TURN)
    first = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    second = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = second @ first @ np.diag(spacing_mm)
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(grid) - 1) / 2)
    return affine
