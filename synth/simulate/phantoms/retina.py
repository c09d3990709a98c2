"""Colour photographs of the eye's fundus."""

from collections.abc import Mapping

import numpy as np
from scipy import ndimage

from synth.rng import numpy_rng
from synth.simulate.phantoms.parts import Pair, smooth_field
from synth.volume import Volume

RETINA_LABELS: Mapping[str, int] = {"disc": 1, "cup": 2}


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
    shade = 1.0 - 0.35 * (x**2 + y**2) + 0.12 * smooth_field((size, size), np.full(2, 2.0), 0.25, rng)
    tone = np.array([0.78, 0.36, 0.16]) * rng.uniform(0.85, 1.1, size=3)
    image = tone[:, None, None] * shade
    centre = np.array([rng.choice([-1, 1]) * rng.uniform(0.3, 0.5), rng.uniform(-0.15, 0.15)])
    radius = rng.uniform(0.17, 0.25)
    wobble = 0.12 * smooth_field((size, size), np.full(2, 2.0), 0.15, rng)
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
