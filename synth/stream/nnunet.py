"""nnU-Net's order of axes and channels for a stream's pairs, and its form of them on disk. Needs no nnU-Net; the
trainer that does is docs/nnunet.

nnU-Net keeps a file's own voxel order, as arrays (channel, z, y, x). A stream's pairs run along RAS.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from synth.data.placement import Placement
from synth.data.schema import Schema
from synth.errors import DataError, nearest
from synth.stream.buffer import Stored, publish
from synth.volume import Volume

if TYPE_CHECKING:
    from synth.stream.dataset import Stream


def spacing_zyx(schema: Schema, affine: np.ndarray) -> tuple[float, ...]:
    """Return the spacing of a model's samples, as `in_file_order` gives them, in the order of nnU-Net's arrays."""
    order, _ = _turns(affine)
    own = schema.native_spacing_mm if schema.native_grid else schema.spacing_mm
    file_mm = [float(own[axis]) for axis in np.argsort(order)]
    return tuple(file_mm[::-1])


def in_file_order(stored: Stored, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return image (channel, z, y, x) and labels (1, z, y, x) as nnU-Net would read them from a file of this affine."""
    order, flips = _turns(affine)
    back = [int(axis) + 1 for axis in np.argsort(order)]
    turned = (slice(None), *(slice(None, None, -1 if flip else 1) for flip in flips))
    image, mask = (array[turned].transpose(0, *back).transpose(0, 3, 2, 1) for array in (stored.image, stored.mask))
    return np.ascontiguousarray(image), np.ascontiguousarray(mask)


Labels = int | tuple[int, ...]


def channel_order(own: Sequence[str], wanted: Mapping[str, str]) -> list[int]:
    """Return which of the model's channels each of dataset.json's channel_names is. Errors: DataError for one it lacks.

    >>> channel_order(["T1", "T2"], {"0": "T2", "1": "T1"})
    [1, 0]
    """
    names = [wanted[number] for number in sorted(wanted, key=int)]
    for name in names:
        if name not in own:
            raise DataError(f"dataset.json has channel {name!r}, the model has not; {nearest(name, own)}")
    return [own.index(name) for name in names]


def locations(mask: np.ndarray, labels: Sequence[Labels], *, most: int = 10_000) -> dict[Labels, np.ndarray]:
    """Return up to `most` voxels of each label (of any of several), evenly picked, as nnU-Net's class_locations.

    Rows of (0, z, y, x).
    """
    found: dict[Labels, np.ndarray] = {}
    for label in labels:
        places = np.argwhere(np.isin(mask, label))
        found[label] = places[:: max(1, -(-len(places) // most))]
    return found


def kept_or_made(path: Path, make: Callable[[], tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Return image and labels as kept at `path`, else those of `make`, kept there from then on. Errors: OutputError."""
    from safetensors.numpy import load, save

    try:
        both = load(path.read_bytes())
    except FileNotFoundError:
        image, labels = make()
        # nnU-Net gives views into larger arrays; safetensors would write what lies between their voxels
        both = {"image": np.ascontiguousarray(image), "labels": np.ascontiguousarray(labels)}
        publish(path, save(both))
    return both["image"], both["labels"]


def begin_at(stream: "Stream", epoch: int) -> None:
    """Have a stream that was just opened, its policy Plain, begin at `epoch`: no sample of before it is asked for."""
    state = stream.state_dict(step=0)
    stream.load_state_dict({**state, "epoch": epoch, "rows": [*state["rows"], *state["rows"][-1:] * epoch]})


def drop_before(folder: Path, number: int) -> None:
    """Remove what `kept_or_made` keeps in `folder` of samples below `number`; files are called <sample>.safetensors."""
    for path in folder.glob("*.safetensors"):
        if int(path.stem) < number:
            path.unlink(missing_ok=True)


def _turns(affine: np.ndarray) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    outline = Volume(np.broadcast_to(np.zeros(()), (1, 2, 2, 2)), affine)
    own = Placement.of(outline, grid=outline.grid, spacing_mm=outline.spacing_mm)
    return own.order, own.flips
