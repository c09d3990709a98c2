"""Labelled phantoms of other shapes than the brain cohort, in right units: CT, two-channel MR, retina in colour.

They stand in for real data where only shape, unit and plumbing matter; no anatomist would take them for patients.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from synth.rng import numpy_rng
from synth.simulate.brain import simulate_brain
from synth.volume import Volume

CT_LABELS: Mapping[str, int] = {"liver": 1, "kidney": 2, "spine": 3}
RETINA_LABELS: Mapping[str, int] = {"disc": 1, "cup": 2}
_HU = {"air": -1000.0, "fat": -100.0, "muscle": 50.0, "liver": 110.0, "kidney": 190.0, "bone": 600.0}
_CT_NOISE_HU = 14.0


@dataclass(frozen=True, eq=False)
class Pair:
    """A phantom: image and mask on one grid."""

    image: Volume
    mask: Volume


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
    rough = 0.1 * _smooth_field(grid, extent, 28.0, rng)

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
    image = ndimage.gaussian_filter(image, [1.2 / step for step in spacing_mm[:2]] + [0.0])
    noise = rng.standard_normal(grid, dtype=np.float32) * _CT_NOISE_HU
    image = np.where(image > _HU["air"] + 1.0, image + noise, image)
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = -(extent - np.array(spacing_mm)) / 2
    stored = np.clip(np.rint(image), -1000, 3071).astype(np.int16)
    return Pair(Volume(stored[None], affine), Volume(labels[None], affine, dict(CT_LABELS)))


def brain_two_channels(seed: int) -> Pair:
    """Return the simulated subject of `seed` as T1 and FLAIR in one image of two channels."""
    subjects = [simulate_brain(seed, contrast=contrast) for contrast in ("T1", "FLAIR")]
    image = np.concatenate([subject.image.data for subject in subjects])
    return Pair(subjects[0].image.replace(data=image), subjects[0].mask)


def retina(seed: int, *, size: int = 256) -> Pair:
    """Return a colour photograph (3, size, size) uint8 of `seed`: a round field, optic disc with its cup, dark vessels.

    >>> pair = retina(1, size=64)
    >>> pair.image.data.shape, sorted(set(pair.mask.data.ravel().tolist()))
    ((3, 64, 64), [0, 1, 2])
    """
    rng = numpy_rng(seed, "retina")
    axis = ((np.arange(size) + 0.5) / size * 2 - 1).astype(np.float32)
    x, y = np.meshgrid(axis, axis, indexing="ij", sparse=True)
    field = x**2 + y**2 < 0.94**2
    shade = 1.0 - 0.35 * (x**2 + y**2) + 0.12 * _smooth_field((size, size), np.full(2, 2.0), 0.25, rng)
    tone = np.array([0.78, 0.36, 0.16]) * rng.uniform(0.85, 1.1, size=3)
    image = tone[:, None, None] * shade
    centre = np.array([rng.choice([-1, 1]) * rng.uniform(0.3, 0.5), rng.uniform(-0.15, 0.15)])
    radius = rng.uniform(0.17, 0.25)
    wobble = 0.12 * _smooth_field((size, size), np.full(2, 2.0), 0.15, rng)
    distance = np.sqrt(((x - centre[0]) / 1.0) ** 2 + ((y - centre[1]) / rng.uniform(1.0, 1.2)) ** 2)
    inside = distance * (1 + wobble)
    disc, cup = inside < radius, inside < radius * rng.uniform(0.35, 0.65)
    for where, colour in ((disc, (0.95, 0.68, 0.36)), (cup, (1.0, 0.88, 0.66))):
        soft = ndimage.gaussian_filter(where.astype(np.float32), size / 256)
        image = image * (1 - soft) + np.array(colour)[:, None, None] * soft
    vessels = _vessels(size, centre, rng)
    image = image * (1 - 0.45 * vessels * np.array([0.6, 1.0, 0.9])[:, None, None])
    image = np.clip(image + 0.012 * rng.standard_normal(image.shape), 0, 1) * field
    labels = (disc.astype(np.uint8) + cup.astype(np.uint8)) * field
    return Pair(
        Volume(np.rint(255 * image).astype(np.uint8)), Volume(labels.astype(np.uint8)[None], labels=dict(RETINA_LABELS))
    )


def _smooth_field(grid: tuple[int, ...], extent: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Return a smooth field of unit root mean square, drawn coarse and interpolated: sigma in units of `extent`."""
    coarse = [max(int(np.ceil(2.5 * length / sigma)), 4) for length in extent]
    drawn = ndimage.gaussian_filter(rng.standard_normal(coarse), 1.2)
    field = ndimage.zoom(
        drawn, [n / c for n, c in zip(grid, coarse, strict=True)], order=1, grid_mode=True, mode="nearest"
    )
    values = np.asarray(field, dtype=np.float32)
    return values / float(np.sqrt(np.mean(values * values)))


def _vessels(size: int, centre: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return how much vessel covers each pixel: curves that leave the disc, thinner as they go."""
    cover = np.zeros((size, size), dtype=np.float32)
    for start in np.linspace(0, 2 * np.pi, 7, endpoint=False) + rng.uniform(0, 2 * np.pi):
        place, heading, width = np.array(centre), start, rng.uniform(1.6, 2.6) * size / 256
        for step in range(size):
            place = place + 1.5 / size * np.array([np.cos(heading), np.sin(heading)])
            heading += rng.normal(0, 0.06) - 0.012 * np.sign(np.sin(heading - start))
            pixel = np.rint((place + 1) / 2 * size - 0.5).astype(int)
            if (pixel < 0).any() or (pixel >= size).any():
                break
            reach = max(int(np.ceil(width * (1 - step / (1.6 * size)))), 1) - 1
            window = tuple(slice(max(p - reach, 0), p + reach + 1) for p in pixel)
            cover[window] = 1.0
    return ndimage.gaussian_filter(cover, 0.7 * size / 256)
