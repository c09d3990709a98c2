"""One PNG of a pair: three planes through what is labelled, with letters, outlines and the notice. Knows no model."""

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from synth.volume import Volume

NOTICE = "SYNTHETIC - not for diagnosis"
_TILE, _FOOT = 256, 26
_PLANES = (("axial", 0, 1, "RLAP"), ("coronal", 0, 2, "RLSI"), ("sagittal", 1, 2, "APSI"))
"""Name, axes across and up, letters at the left, right, top and bottom: the patient's right at the left."""


def draw(
    image: "Volume", mask: "Volume | None", colours: Mapping[int, tuple[int, int, int]], window: tuple[float, float]
) -> bytes:
    """Return a PNG of the first channel, labels outlined in `colours`; radiological, the notice in the picture."""
    from PIL import Image, ImageDraw

    grey, labels, spacing = _ras(image, mask)
    centre = _centre(labels)
    tiles = [_tile(grey, labels, spacing, plane, centre, (colours, window)) for plane in _planes(image)]
    out = Image.new("RGB", (sum(tile.width for tile in tiles), _TILE + _FOOT))
    left = 0
    pen = ImageDraw.Draw(out)
    for tile, plane in zip(tiles, _planes(image), strict=True):
        out.paste(tile, (left, 0))
        before, after, above, below = plane[3]
        middle, across = _TILE // 2, left + tile.width // 2
        spots = {(left + 4, middle): before, (left + tile.width - 12, middle): after}
        spots |= {(across, 2): above, (across, _TILE - 14): below}
        for spot, letter in spots.items():
            pen.text(spot, letter, fill=(255, 220, 120))
        left += tile.width
    pen.text((6, _TILE + 6), NOTICE, fill=(255, 150, 120))
    file = io.BytesIO()
    out.save(file, "PNG")
    return file.getvalue()


def _planes(image: "Volume") -> tuple[tuple[str, int, int, str], ...]:
    return _PLANES if image.spatial_dims == 3 else _PLANES[:1]


def _ras(image: "Volume", mask: "Volume | None") -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    """Return voxels (i, j, k) of image and mask along the nearest axes of RAS+, and their spacing."""
    flat = image.data[0] if image.spatial_dims == 3 else image.data[0][..., None]
    marks = np.zeros(flat.shape, np.int64)
    if mask is not None:
        marks = np.asarray(mask.data[0] if mask.spatial_dims == 3 else mask.data[0][..., None]).astype(np.int64)
    cosines = image.affine[:3, :3] / np.linalg.norm(image.affine[:3, :3], axis=0)
    spacing = np.linalg.norm(image.affine[:3, :3], axis=0)
    order = _nearest_axes(cosines)
    flips = tuple(world for world in range(3) if cosines[world, order[world]] < 0)
    turned = [np.flip(part.transpose(order), flips) for part in (flat, marks)]
    return turned[0].astype(np.float64), turned[1], tuple(float(spacing[axis]) for axis in order)


def _nearest_axes(cosines: np.ndarray) -> tuple[int, ...]:
    """Return which voxel axis runs most along each world axis.

    >>> _nearest_axes(np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, -1]]))
    (1, 0, 2)
    """
    from itertools import permutations

    best = max(permutations(range(3)), key=lambda order: sum(abs(cosines[w, order[w]]) for w in range(3)))
    return tuple(best)


def _centre(labels: np.ndarray) -> tuple[int, ...]:
    """Return a voxel of the rarest label at the plane where it is largest, else the middle."""
    values, counts = np.unique(labels[labels > 0], return_counts=True)
    if not len(values):
        return tuple(n // 2 for n in labels.shape)
    rarest = labels == values[counts.argmin()]
    axes = ((1, 2), (0, 2), (0, 1))
    return tuple(int(rarest.sum(axis=others).argmax()) for others in axes)


def _tile(
    grey: np.ndarray,
    labels: np.ndarray,
    spacing: tuple[float, ...],
    plane: tuple[str, int, int, str],
    centre: tuple[int, ...],
    look: tuple[Mapping[int, tuple[int, int, int]], tuple[float, float]],
) -> Any:
    """Return one plane as a picture, as tall as a tile, its pixels square in mm."""
    from PIL import Image

    _, across, up, letters = plane
    colours, (low, high) = look
    at = tuple(slice(None) if axis in (across, up) else centre[axis] for axis in range(3))
    cut, marks = (np.flip(part[at].T, 0) for part in (grey, labels))  # up is up
    if letters[0] in "RA":  # the first letter is at the larger end of the axis
        cut, marks = np.flip(cut, 1), np.flip(marks, 1)
    tall = cut.shape[0] * spacing[up]
    size = (max(round(_TILE * cut.shape[1] * spacing[across] / tall), 1), _TILE)
    shade = np.clip((cut - low) / (high - low), 0, 1)
    image = Image.fromarray((255 * shade).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC).convert("RGB")
    numbers, index = np.unique(marks, return_inverse=True)
    large = Image.fromarray(index.reshape(marks.shape).astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
    names, pixels = np.asarray(large), np.array(image)
    edge = np.zeros(names.shape, bool)
    edge[:-1] |= names[:-1] != names[1:]
    edge[:, :-1] |= names[:, :-1] != names[:, 1:]
    for number, value in enumerate(numbers):
        if value:
            pixels[edge & (names == number)] = colours.get(int(value), (255, 255, 255))
    return Image.fromarray(pixels)
