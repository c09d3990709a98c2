"""Chest X-rays from the front: what a ray passes through, as twelve-bit whole numbers."""

from collections.abc import Mapping

import numpy as np
from scipy import ndimage

from synth.rng import numpy_rng
from synth.simulate.phantoms.parts import Pair, smooth_field
from synth.volume import Volume

CHEST_LABELS: Mapping[str, int] = {"lungs": 1, "heart": 2}
_FIELD_MM = 358.4
"""Side of the square field, as in JSRT: 2048 pixels of 0.175 mm."""
_HIGHEST = 4095


def chest_xray(seed: int, *, size: int = 256) -> Pair:
    """Return a frontal chest X-ray (1, size, size), uint16 of twelve bits, of `seed`; bone is bright, lungs are dark.

    Axes are columns and rows of the picture, the patient's left at its right. Lungs are what is seen of them beside
    heart and diaphragm.

    >>> pair = chest_xray(1, size=64)
    >>> pair.image.data.dtype, sorted(set(pair.mask.data.ravel().tolist()))
    (dtype('uint16'), [0, 1, 2])
    """
    rng = numpy_rng(seed, "chest")
    axis = ((np.arange(size) + 0.5) / size * 2 - 1).astype(np.float32)
    x, y = np.meshgrid(axis - rng.uniform(-0.03, 0.03), axis, indexing="ij", sparse=True)
    x = x + 0.012 * smooth_field((size, size), np.full(2, 2.0), 0.3, rng)
    lungs, heart, bottom = _organs(x, y, rng)
    mm = size / _FIELD_MM
    soft = _body(x, y)
    air = ndimage.gaussian_filter((lungs | (heart & (y < bottom))).astype(np.float32), 5.0 * mm)
    depth = air * ndimage.gaussian_filter(lungs.astype(np.float32), 1.2 * mm)
    thick = 0.6 * soft - 0.5 * depth * soft
    thick += 0.07 * ndimage.gaussian_filter(heart.astype(np.float32), 1.5 * mm)
    thick += 0.1 * np.clip((y - bottom) / 0.25, 0.0, 1.0) * soft
    thick += _bones(x, y, soft) + _airways(x, y, lungs, size, rng)
    thick = ndimage.gaussian_filter(thick, 0.6 * mm)
    image = _HIGHEST * np.clip(0.06 + 0.95 * thick, 0.0, 1.0) * rng.uniform(0.92, 1.05)
    image = image + rng.standard_normal(image.shape) * (18.0 + 0.01 * image)
    labels = np.where(heart, 2, np.where(lungs, 1, 0)).astype(np.uint8)
    step = _FIELD_MM / size
    affine = np.diag([-step, -step, 1.0, 1.0])
    stored = np.clip(np.rint(image), 0, _HIGHEST).astype(np.uint16)
    return Pair(Volume(stored[None], affine), Volume(labels[None], affine, dict(CHEST_LABELS)))


def _organs(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return lungs, heart and the row of the diaphragm at every column."""
    side = np.tanh(x / 0.08)
    out = np.abs(x)
    widest, top, low = rng.uniform(0.64, 0.74), rng.uniform(-0.8, -0.72), rng.uniform(0.46, 0.6)
    up = np.clip((0.25 - y) / (0.25 - top), 0.0, 1.0)
    lateral = widest * (1.0 - up**2.3) ** (1 / 2.3) + 0.03 * np.clip(y - 0.25, 0.0, None)
    medial = 0.1 + 0.1 * np.clip((-0.35 - y) / 0.4, 0.0, 1.0) ** 2 + 0.04 * np.exp(-(((y + 0.08) / 0.12) ** 2))
    # the right half of the diaphragm stands higher; its domes fall towards the ribs
    bottom = low + 0.04 * side + 0.9 * np.clip(out - 0.3, 0.0, None) ** 2 + 0.25 * np.clip(0.3 - out, 0.0, None) ** 2
    lungs = (out > medial) & (out < lateral) & (y < bottom)
    tilt, size = rng.uniform(0.45, 0.75), rng.uniform(0.9, 1.12)
    u, v = x - 0.11, y - (low - 0.19)
    along, across = u * np.cos(tilt) + v * np.sin(tilt), -u * np.sin(tilt) + v * np.cos(tilt)
    heart = ((along / (0.37 * size)) ** 2 + (across / (0.27 * size)) ** 2 < 1.0) & (y < bottom + 0.01)
    knob = ((x - 0.1) / 0.09) ** 2 + ((y + 0.24) / 0.1) ** 2 < 1.0
    return lungs & ~heart & ~knob, heart, bottom


def _body(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return how much soft tissue lies along the ray, 0 to 1: neck, sloping shoulders, trunk."""
    shoulders = 0.24 + 0.93 * np.clip((y + 0.98) / 0.4, 0.0, 1.0) ** 0.8
    wide = np.minimum(shoulders, 0.92 + 0.25 * np.clip((-0.1 - y) / 0.4, 0.0, 1.0))
    return np.sqrt(np.clip(1.0 - (x / wide) ** 4, 0.0, 1.0)) * (0.9 + 0.1 * np.clip(y, 0.0, 1.0))


def _bones(x: np.ndarray, y: np.ndarray, soft: np.ndarray) -> np.ndarray:
    """Return what spine, ribs and clavicles add."""
    out = np.abs(x)
    spine = 0.1 * np.exp(-((x / 0.075) ** 4)) * (0.85 + 0.15 * np.cos(2 * np.pi * y / 0.13))
    bones = spine + 0.0 * y
    cage = 0.74 * (1.0 - np.clip((0.3 - y) / 1.15, 0.0, 1.0) ** 2.5) ** 0.4
    for rib in range(9):
        start = -0.72 + 0.145 * rib
        behind = start - 0.1 * np.sin(np.clip(out / 0.75, 0.0, 1.0) * np.pi) + 0.22 * (out / 0.75) ** 2
        before = start + 0.42 - 0.35 * (out / 0.75)
        for middle, half, amount in ((behind, 0.03, 0.055), (before, 0.035, 0.028)):
            band = np.exp(-(((y - middle) / half) ** 4))
            bones = bones + amount * band * (out < cage) * (out > (0.07 if amount > 0.03 else 0.3))
    clavicle = np.exp(-(((y - (-0.62 - 0.16 * (out - 0.1) / 0.6)) / 0.032) ** 4))
    return (bones + 0.075 * clavicle * (out > 0.06) * (out < 0.75)) * soft


def _airways(x: np.ndarray, y: np.ndarray, lungs: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return what vessels add, most at the hila, and what the windpipe takes away."""
    hilum = np.hypot((np.abs(x) - 0.17) / 0.8, y + 0.03)
    extent = np.full(2, 2.0)
    marks = np.abs(smooth_field((size, size), extent, 0.07, rng)) + 0.5 * np.abs(
        smooth_field((size, size), extent, 0.03, rng)
    )
    vessels = 0.075 * np.exp(-hilum / 0.3) * marks * lungs
    windpipe = np.exp(-((x / 0.045) ** 4)) / (1.0 + np.exp((y + 0.18) / 0.03))
    return vessels - 0.09 * windpipe
