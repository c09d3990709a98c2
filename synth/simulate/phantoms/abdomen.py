"""Abdomens in Hounsfield units: one with three labels, one with the fifteen organs of AMOS."""

from collections.abc import Mapping

import numpy as np
from scipy import ndimage

from synth.rng import numpy_rng
from synth.simulate.phantoms.parts import Pair, smooth_field
from synth.volume import Volume

CT_LABELS: Mapping[str, int] = {"liver": 1, "kidney": 2, "spine": 3}
_HU = {"air": -1000.0, "lung": -820.0, "fat": -100.0, "muscle": 50.0, "liver": 110.0, "kidney": 190.0, "bone": 600.0}
_CT_NOISE_HU = 14.0
ORGAN_LABELS: Mapping[str, int] = {
    "spleen": 1,
    "right_kidney": 2,
    "left_kidney": 3,
    "gallbladder": 4,
    "oesophagus": 5,
    "liver": 6,
    "stomach": 7,
    "aorta": 8,
    "postcava": 9,
    "pancreas": 10,
    "right_adrenal": 11,
    "left_adrenal": 12,
    "duodenum": 13,
    "bladder": 14,
    "prostate_uterus": 15,
}
"""Names and values as in AMOS."""
_LONG = 9.0
_ORGANS: Mapping[str, tuple[float, tuple[float, float, float], tuple[float, float, float]]] = {
    "liver": (110.0, (0.36, 0.07, 0.38), (0.33, 0.37, 0.44)),
    "stomach": (35.0, (-0.3, 0.2, 0.42), (0.2, 0.17, 0.3)),
    "spleen": (120.0, (-0.54, -0.14, 0.42), (0.14, 0.22, 0.27)),
    "duodenum": (55.0, (0.15, 0.06, 0.02), (0.06, 0.07, 0.2)),
    "pancreas": (100.0, (-0.12, 0.04, 0.1), (0.28, 0.06, 0.09)),
    "gallbladder": (12.0, (0.27, 0.24, 0.08), (0.08, 0.1, 0.15)),
    "right_kidney": (180.0, (0.34, -0.25, -0.06), (0.11, 0.14, 0.26)),
    "left_kidney": (180.0, (-0.34, -0.25, 0.0), (0.11, 0.14, 0.26)),
    "right_adrenal": (65.0, (0.2, -0.2, 0.26), (0.035, 0.07, 0.07)),
    "left_adrenal": (65.0, (-0.22, -0.18, 0.3), (0.035, 0.07, 0.07)),
    "bladder": (8.0, (0.0, 0.14, -0.72), (0.22, 0.17, 0.16)),
    "prostate_uterus": (60.0, (0.0, -0.03, -0.86), (0.12, 0.1, 0.1)),
    "oesophagus": (40.0, (-0.08, -0.11, 0.85), (0.045, 0.045, 0.22)),
    "aorta": (165.0, (-0.05, -0.19, 0.3), (0.05, 0.055, _LONG)),
    "postcava": (140.0, (0.1, -0.17, 0.3), (0.055, 0.05, _LONG)),
}
"""Organ -> HU, centre and radii as shares of half the field of view along right, front and up; painted in order."""


def abdomen_ct(
    seed: int, *, grid: tuple[int, int, int] = (512, 512, 40), spacing_mm: tuple[float, float, float] = (0.8, 0.8, 5.0)
) -> Pair:
    """Return an abdomen in HU (int16) of `seed`: fat around muscle, liver, two kidneys, spine; air is -1000.

    Organs are ellipsoids of varying size and place, their surfaces roughened by a smooth field.

    >>> pair = abdomen_ct(1, grid=(64, 64, 8), spacing_mm=(6.4, 6.4, 25.0))
    >>> pair.image.data.dtype, sorted(set(pair.mask.data.ravel().tolist()))
    (dtype('int16'), [0, 1, 2, 3])
    """
    rng = numpy_rng(seed, "abdomen")
    extent = np.array(grid) * np.array(spacing_mm)
    axes = [((np.arange(n) + 0.5) / n * 2 - 1).astype(np.float32) for n in grid]
    at = np.meshgrid(*axes, indexing="ij", sparse=True)
    rough = 0.1 * smooth_field(grid, extent, 28.0, rng)

    def ellipsoid(centre: tuple[float, float, float], radii: tuple[float, float, float]) -> np.ndarray:
        terms = [((a - c) / r) ** 2 for a, c, r in zip(at, centre, radii, strict=True)]
        return terms[0] + terms[1] + terms[2] + rough < 1.0

    wide, deep = rng.uniform(0.72, 0.86), rng.uniform(0.52, 0.66)
    body = ((at[0] / wide) ** 2 + (at[1] / deep) ** 2 + 0 * at[2]) < 1.0
    rim = rng.uniform(0.06, 0.14)
    inner = ((at[0] / (wide - rim)) ** 2 + (at[1] / (deep - rim)) ** 2 + 0 * at[2]) < 1.0
    image = np.full(grid, _HU["air"], dtype=np.float32)
    image[body], image[inner] = _HU["fat"], _HU["muscle"]
    labels = np.zeros(grid, dtype=np.uint8)
    shift = rng.uniform(-0.04, 0.04, size=3)
    size = rng.uniform(0.85, 1.15, size=3)
    liver = ellipsoid(
        (0.34 + shift[0], 0.05 + shift[1], 0.25 + shift[2]), (0.34 * size[0], 0.34 * size[1], 0.62 * size[2])
    )
    kidneys = np.zeros(grid, dtype=bool)
    for side in (-1, 1):
        centre = (side * (0.3 + rng.uniform(-0.03, 0.03)), -0.28 + shift[1], -0.25 + rng.uniform(-0.1, 0.1))
        kidneys |= ellipsoid(centre, (0.11 * size[1], 0.13 * size[2], 0.4 * size[0]))
    spine = (((at[0] - shift[0]) / 0.11) ** 2 + ((at[1] + 0.33 * deep / 0.6) / 0.13) ** 2 + 0 * at[2]) < 1.0
    for value, (organ, hu) in enumerate(((liver, "liver"), (kidneys, "kidney"), (spine, "bone")), start=1):
        here = organ & inner
        labels[here], image[here] = value, _HU[hu] + rng.uniform(-8.0, 8.0)
    return _scanned(image, labels, spacing_mm, CT_LABELS, rng)


def abdomen_organs_ct(
    seed: int, *, grid: tuple[int, int, int] = (136, 136, 128), spacing_mm: tuple[float, float, float] = (3.0, 3.0, 3.0)
) -> Pair:
    """Return an abdomen in HU (int16) of `seed` with fifteen organs, in fat with bowel inside a wall of muscle.

    Organs are ellipsoids of varying size and place, their surfaces roughened by a smooth field.

    >>> pair = abdomen_organs_ct(1, grid=(32, 32, 24), spacing_mm=(13.0, 13.0, 16.0))
    >>> pair.image.data.dtype, pair.mask.labels == dict(ORGAN_LABELS)
    (dtype('int16'), True)
    """
    rng = numpy_rng(seed, "abdomen organs")
    extent = np.array(grid) * np.array(spacing_mm)
    axes = [((np.arange(n) + 0.5) / n * 2 - 1).astype(np.float32) for n in grid]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    wide, deep = rng.uniform(0.78, 0.88), rng.uniform(0.54, 0.62)
    rim, wall = rng.uniform(0.04, 0.09), 0.055

    def inside(by: float) -> np.ndarray:
        return np.broadcast_to(np.abs(x / (wide - by)) ** 2.4 + np.abs(y / (deep - by)) ** 2.4 < 1.0, grid)

    image = np.full(grid, _HU["air"], dtype=np.float32)
    for where, name in ((inside(0.0), "fat"), (inside(rim), "muscle"), (inside(rim + wall), "fat")):
        image[where] = _HU[name]
    cavity = inside(rim + wall)
    loops = smooth_field(grid, extent, 16.0, rng)
    image[cavity & (loops > 0.2) & (y > -0.12) & (z < 0.25)] = 35.0
    image[cavity & (z > 0.95 - 0.5 * ((x / wide) ** 2 + (y / deep) ** 2))] = _HU["lung"]
    spine = ((x / 0.11) ** 2 + ((y + 0.32) / 0.11) ** 2 + 0 * z) < 1.0
    back = ((np.abs(x) - 0.2) / 0.13) ** 2 + ((y + 0.36) / 0.13) ** 2 + 0 * z < 1.0
    image[back & inside(rim)] = _HU["muscle"]
    image[spine & inside(rim)] = 250.0
    labels = np.zeros(grid, dtype=np.uint8)
    rough = 0.12 * smooth_field(grid, extent, 30.0, rng)
    shift, size = rng.uniform(-0.02, 0.02, size=3), rng.uniform(0.92, 1.08)
    for name, (hu, centre, radii) in _ORGANS.items():
        at = np.array(centre) * [wide / 0.83, deep / 0.58, 1.0] + shift + rng.uniform(-0.015, 0.015, size=3)
        own = np.array(radii) * size * rng.uniform(0.93, 1.07, size=3)
        reach = sum(((a - c) / r) ** 2 for a, c, r in zip((x, y, z), at, own, strict=True))
        here = (reach + rough < 1.0) & cavity
        labels[here], image[here] = ORGAN_LABELS[name], hu + rng.uniform(-8.0, 8.0)
    return _scanned(image, labels, spacing_mm, ORGAN_LABELS, rng)


def _scanned(
    image: np.ndarray,
    labels: np.ndarray,
    spacing_mm: tuple[float, float, float],
    names: Mapping[str, int],
    rng: np.random.Generator,
) -> Pair:
    """Return HU as a scanner gives them: blurred in the plane, noise inside the body, whole numbers; centred."""
    image = ndimage.gaussian_filter(image, [1.2 / step for step in spacing_mm[:2]] + [0.0])
    noise = rng.standard_normal(image.shape, dtype=np.float32) * _CT_NOISE_HU
    image = np.where(image > _HU["air"] + 1.0, image + noise, image)
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = -(np.array(image.shape) - 1) * np.array(spacing_mm) / 2
    stored = np.clip(np.rint(image), -1000, 3071).astype(np.int16)
    return Pair(Volume(stored[None], affine), Volume(labels[None], affine, dict(names)))
