"""Classical augmentation of one training pair (numpy in and out): flips, affine, gamma, noise, bias field; CutMix.

Intensities are the mapped ones (0 to about 1). Each draw is from the generator handed in; nothing else is random.
The ranges are nnU-Net's (Isensee et al. 2021, supplement D: rotation to 30 degrees in 2D and 3D, scaling 0.7 to 1.4,
gamma 0.7 to 1.5, noise variance to 0.1) narrowed to what small whole volumes bear, and the bias field of TorchIO
(Perez-Garcia et al. 2021: polynomial of order 3).
"""

import numpy as np
from scipy import ndimage

Pair = tuple[np.ndarray, np.ndarray]
"""Image (channel, *grid) float32 and labels (*grid)."""
DEGREES, SCALE, SHIFT = 15.0, (0.85, 1.2), 0.05
GAMMA, NOISE, BIAS = (0.7, 1.5), 0.05, 0.3
_AFFINE, _GAMMA, _NOISE, _BIAS = 0.5, 0.3, 0.3, 0.3
_ORDER = 3


def classical(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Pair:
    """Return the pair, augmented: flips of each axis (1 in 2), then each of the others by its own chance."""
    for axis in range(mask.ndim):
        if rng.random() < 0.5:
            image, mask = np.flip(image, axis + 1), np.flip(mask, axis)
    if rng.random() < _AFFINE:
        image, mask = affine(image, mask, rng)
    for chance, change in ((_GAMMA, gamma), (_BIAS, bias_field), (_NOISE, noise)):
        if rng.random() < chance:
            image = change(image, rng)
    return np.ascontiguousarray(image, dtype=np.float32), np.ascontiguousarray(mask)


def affine(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Pair:
    """Return the pair turned by up to 15 degrees about each axis, scaled by 0.85 to 1.2 and shifted by up to 5 %.

    Linear for the image, nearest for labels; what comes from outside is the image's lowest value, and background.
    """
    dims = mask.ndim
    turn = np.eye(dims)
    for first in range(dims):
        for second in range(first + 1, dims):
            angle = np.deg2rad(rng.uniform(-DEGREES, DEGREES))
            step = np.eye(dims)
            step[[first, first, second, second], [first, second, first, second]] = (
                np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle),
            )  # fmt: skip
            turn = turn @ step
    matrix = turn / rng.uniform(*SCALE)
    centre = (np.array(mask.shape) - 1) / 2
    offset = centre - matrix @ centre + rng.uniform(-SHIFT, SHIFT, size=dims) * np.array(mask.shape)
    whole = np.concatenate([matrix, offset[:, None]], axis=1)
    moved = [
        ndimage.affine_transform(channel, whole, order=1, mode="constant", cval=float(channel.min()))
        for channel in np.asarray(image, dtype=np.float32)
    ]
    labels = ndimage.affine_transform(mask, whole, order=0, mode="constant", cval=0)
    return np.stack(moved), np.asarray(labels)


def gamma(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return x^g on each channel's own range, g from 0.7 to 1.5, as often below 1 as above."""
    low = image.min(axis=tuple(range(1, image.ndim)), keepdims=True)
    span = np.maximum(image.max(axis=tuple(range(1, image.ndim)), keepdims=True) - low, 1e-6)
    power = rng.uniform(GAMMA[0], 1.0) if rng.random() < 0.5 else rng.uniform(1.0, GAMMA[1])
    return ((image - low) / span) ** power * span + low


def noise(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the image with Gaussian noise of a standard deviation up to 0.05."""
    return image + rng.uniform(0.0, NOISE) * rng.standard_normal(image.shape, dtype=np.float32)


def bias_field(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the image times exp of a polynomial of order 3 over the grid, coefficients up to 0.3."""
    grid = image.shape[1:]
    powers = [np.linspace(-1.0, 1.0, n)[None] ** np.arange(_ORDER + 1)[:, None] for n in grid]
    coefficients = rng.uniform(-BIAS, BIAS, size=(_ORDER + 1,) * len(grid))
    degree = sum(np.meshgrid(*[np.arange(_ORDER + 1)] * len(grid), indexing="ij"))
    field = np.where(np.asarray(degree) <= _ORDER, coefficients, 0.0)
    for axis in powers:
        # contracts the first axis of coefficients with one axis of the grid, which comes last
        field = np.tensordot(field, axis, axes=(0, 0))
    return image * np.exp(field - field.mean())[None].astype(np.float32)


def cutmix(pair: Pair, other: Pair, rng: np.random.Generator) -> Pair:
    """Return the pair with a box of the other in its place, voxels and labels (CutMix, Yun et al. 2019, for masks).

    The box takes a share of the volume that is uniform in 0..1.
    """
    image, mask = np.array(pair[0], dtype=np.float32), np.array(pair[1])
    side = (1.0 - rng.random()) ** (1.0 / mask.ndim)
    box = []
    for n in mask.shape:
        length = max(1, round(side * n))
        first = int(rng.integers(n - length + 1))
        box.append(slice(first, first + length))
    image[(slice(None), *box)] = other[0][(slice(None), *box)]
    mask[tuple(box)] = other[1][tuple(box)]
    return image, mask
