"""Pictures without a plotting library: mosaics of planes with mask contours, as PNG."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

COLOURS = ((255, 99, 71), (64, 224, 160), (90, 160, 255), (255, 215, 0), (218, 112, 214), (0, 206, 209), (255, 140, 0))


def planes(image: np.ndarray) -> list[np.ndarray]:
    """Return the middle planes of (*grid): axial, coronal, sagittal; a 2D image is its own."""
    if image.ndim == 2:
        return [np.rot90(image)]
    i, j, k = (n // 2 for n in image.shape)
    return [np.rot90(image[:, :, k]), np.rot90(image[:, j, :]), np.rot90(image[i, :, :])]


def overlay(image: np.ndarray, mask: np.ndarray | None, *, low: float, high: float, scale: int = 2) -> np.ndarray:
    """Return one row of planes as RGB, `mask` drawn as contours; grey from low to high."""
    tiles = []
    height = max(plane.shape[0] for plane in planes(image))
    labels = planes(mask) if mask is not None else [None] * 3
    for plane, label in zip(planes(image), labels, strict=False):
        grey = np.clip((plane - low) / max(high - low, 1e-9), 0.0, 1.0) * 255
        rgb = np.repeat(np.kron(grey, np.ones((scale, scale)))[..., None], 3, axis=2).astype(np.uint8)
        if label is not None:
            large = np.kron(label, np.ones((scale, scale), dtype=label.dtype))
            for value in range(1, int(large.max(initial=0)) + 1):
                inside = large == value
                core = inside.copy()
                for axis in (0, 1):
                    core &= np.roll(inside, 1, axis) & np.roll(inside, -1, axis)
                rgb[inside & ~core] = COLOURS[(value - 1) % len(COLOURS)]
        tiles.append(np.pad(rgb, ((0, height * scale - rgb.shape[0]), (2, 2), (0, 0))))
    return np.concatenate(tiles, axis=1)


def mosaic(rows: Sequence[np.ndarray], *, columns: int = 2) -> bytes:
    """Return a PNG of rows laid out in columns."""
    width = max(row.shape[1] for row in rows)
    height = max(row.shape[0] for row in rows)
    cells = [np.pad(row, ((2, 2 + height - row.shape[0]), (0, width - row.shape[1]), (0, 0))) for row in rows]
    cells += [np.zeros_like(cells[0])] * (-len(cells) % columns)
    grid = [np.concatenate(cells[i : i + columns], axis=1) for i in range(0, len(cells), columns)]
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(grid, axis=0)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def data_uri(png: bytes) -> str:
    """Return a PNG as a data URI, for pages that need no other file."""
    return "data:image/png;base64," + base64.b64encode(png).decode()
