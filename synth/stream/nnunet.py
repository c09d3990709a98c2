"""nnU-Net's order of axes for a stream's pairs. Needs no nnU-Net; the trainer that does is docs/nnunet.

nnU-Net keeps a file's own voxel order, as arrays (channel, z, y, x). A stream's pairs run along RAS.
"""

import numpy as np

from synth.data.placement import Placement
from synth.stream.buffer import Stored
from synth.volume import Volume


def to_stream(spacing_zyx: tuple[float, ...], affine: np.ndarray) -> tuple[float, ...]:
    """Return the spacing to give a Stream, of one in the order of nnU-Net's arrays; `affine` is a case's."""
    order, _ = _turns(affine)
    file_mm = spacing_zyx[::-1]
    return tuple(float(file_mm[axis]) for axis in order)


def in_file_order(stored: Stored, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return image (channel, z, y, x) and labels (1, z, y, x) as nnU-Net would read them from a file of this affine."""
    order, flips = _turns(affine)
    back = [int(axis) + 1 for axis in np.argsort(order)]
    turned = (slice(None), *(slice(None, None, -1 if flip else 1) for flip in flips))
    image, mask = (array[turned].transpose(0, *back).transpose(0, 3, 2, 1) for array in (stored.image, stored.mask))
    return np.ascontiguousarray(image), np.ascontiguousarray(mask)


def locations(mask: np.ndarray, labels: list[int], *, most: int = 10_000) -> dict[int, np.ndarray]:
    """Return up to `most` voxels of each label, evenly picked, as nnU-Net's class_locations: rows of (0, z, y, x)."""
    found: dict[int, np.ndarray] = {}
    for label in labels:
        places = np.argwhere(mask == label)
        found[label] = places[:: max(1, -(-len(places) // most))]
    return found


def _turns(affine: np.ndarray) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    outline = Volume(np.broadcast_to(np.zeros(()), (1, 2, 2, 2)), affine)
    own = Placement.of(outline, grid=outline.grid, spacing_mm=outline.spacing_mm)
    return own.order, own.flips
