"""Planted copies: training volumes in the disguises that a copy test must see through. Knows volumes and no test."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from evaluation.evidence import Judged
from synth.rng import numpy_rng

NOISE, GAMMA, RIM, DEGREES, RMS_VOXELS = 0.03, 1.25, 0.1, 5.0, 1.0


@dataclass(frozen=True, eq=False)
class Planted:
    """A disguised copy of training volume number `source`."""

    kind: str
    source: int
    item: Judged


def plant(training: Sequence[Judged], count: int, *, seed: int = 0) -> list[Planted]:
    """Return `count` copies of drawn training volumes, the disguises in turn."""
    rng = numpy_rng(seed, "planted copies")
    chosen = rng.permutation(len(training)) if count <= len(training) else rng.integers(len(training), size=count)
    out = []
    for number in range(count):
        source = int(chosen[number])
        kind = list(DISGUISES)[number % len(DISGUISES)]
        item = training[source]
        image, mask = DISGUISES[kind](np.asarray(item.image, dtype=np.float64), np.asarray(item.mask), rng)
        out.append(Planted(kind, source, replace(item, case=f"planted {number}", image=image, mask=mask)))
    return out


Pair = tuple[np.ndarray, np.ndarray]


def flip(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Pair:
    """Return the pair mirrored along a drawn axis."""
    axis = int(rng.integers(mask.ndim))
    return np.flip(image, axis + 1).copy(), np.flip(mask, axis).copy()


def rotation(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Pair:
    """Return the pair turned by 5 degrees in a drawn plane."""
    plane = tuple(int(a) for a in rng.permutation(mask.ndim)[:2])
    turn = DEGREES * (1 if rng.random() < 0.5 else -1)
    moved = [ndimage.rotate(channel, turn, axes=plane, reshape=False, order=1, mode="nearest") for channel in image]
    return np.stack(moved), ndimage.rotate(mask, turn, axes=plane, reshape=False, order=0, mode="nearest")


def noise(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Pair:
    """Return the image with white noise of 3 % of the range."""
    return image + NOISE * rng.normal(size=image.shape), mask


def gamma(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Pair:
    """Return the image to the power 1.25, or its inverse."""
    power = GAMMA if rng.random() < 0.5 else 1 / GAMMA
    return np.maximum(image, 0.0) ** power, mask


def crop(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Pair:
    """Return the pair with a rim of 10 % of every axis, two voxels at least, emptied."""
    del rng
    inside = tuple(slice(rim, n - rim) for n in mask.shape for rim in [min(max(2, round(RIM * n)), (n - 1) // 2)])
    image, mask = image.copy(), mask.copy()
    outside = np.ones(mask.shape, dtype=bool)
    outside[inside] = False
    for channel in image:
        channel[outside] = channel.min()
    mask[outside] = 0
    return image, mask


def elastic(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator, *, rms_voxels: float = RMS_VOXELS) -> Pair:
    """Return the pair under a smooth displacement of so many voxels RMS."""
    places = np.meshgrid(*[np.arange(n, dtype=np.float64) for n in mask.shape], indexing="ij")
    moves = [ndimage.gaussian_filter(rng.normal(size=mask.shape), min(mask.shape) / 10) for _ in places]
    rms = float(np.sqrt(sum((move**2).mean() for move in moves)))
    at = [place + rms_voxels * move / max(rms, 1e-12) for place, move in zip(places, moves, strict=True)]
    warped = [ndimage.map_coordinates(channel, at, order=1, mode="nearest") for channel in image]
    return np.stack(warped), ndimage.map_coordinates(mask, at, order=0, mode="nearest")


DISGUISES: Mapping[str, Callable[[np.ndarray, np.ndarray, np.random.Generator], Pair]] = {
    "flip": flip,
    "rotation": rotation,
    "noise": noise,
    "gamma": gamma,
    "crop": crop,
    "elastic": elastic,
}
