"""MedMNIST archives: one .npz with {train,val,test}_images, uint8 squares of 28, 64, 128 or 224 pixels or cubes of 28
or 64 voxels.

Squares are rows of pixels, as pictures are. Labels are (cases, labels) 0 or 1: whether the mask has any voxel of each
label, as in its multi-label sets. Masks lie beside them under train_masks, which MedMNIST's own loader leaves alone.
Spacing is lost: that is the format.
"""

import io
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, final

import numpy as np

from synth.errors import DataError
from synth.formats.writing import NOTICE, Told, Writer, safe
from synth.io import write_file
from synth.volume import Volume

SIZES = {2: (28, 64, 128, 224), 3: (28, 64)}
"""Edges that MedMNIST+ has, by dimensions; its files of 28 carry no size in their name."""
_UNNAMED = 28
_PARTS = "parts"
_SPLITS = ("train", "val", "test")
SHARES = (0.5, 99.5)
"""Percentiles of an image that become 0 and 255."""


@final
class MedMNISTWriter(Writer):
    """Writes parts/<case>.npz as cases come, then <name>[_<size>].npz of them all; all are training cases.

    Every volume is centred in a cube (2D: a square) in mm and resampled to the size nearest to its longest axis.
    parts/ is what a larger set goes on from; it may be deleted once no more are wanted.
    """

    index = ("synth.json",)
    keeps_grids = False

    def paths(self, case: str, grid: tuple[int, ...] = ()) -> list[Path]:
        """Return the case's part."""
        return [Path(_PARTS) / f"{safe(case)}.npz"]

    def parts(self, told: Told) -> tuple[str, ...]:
        """Return the image and the mask in the case's part."""
        return tuple(f"{self.paths(told.case)[0].as_posix()}/{kind}" for kind in ("image", "mask"))

    def part(self, told: Told, name: str) -> Volume:
        """Return grey values or labels of the cube, without a place."""
        path, _, kind = name.rpartition("/")
        try:
            with np.load(self.folder / path, allow_pickle=False) as held:
                data = held[kind]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(f"{self.folder / path} cannot be read ({error}); generate it again") from error
        if kind == "image":
            return Volume(_turned(np.moveaxis(data, -1, 0)))
        return Volume(_turned(data[None]), labels=self.stored_values)

    def write(self, case: str, image: Volume, mask: Volume, told: Told) -> None:
        """Write one case as it will stand in the archive."""
        dims, values = image.spatial_dims, sorted(self.about.label_values.values())
        size = min(SIZES[dims], key=lambda edge: (abs(edge - max(image.grid)), edge))
        box = _cube(image, size)
        placed = image.replace(data=image.data.astype(np.float32), labels=None)
        grey = placed.resample_to((size,) * dims, box, fill=float(image.data.min())).data
        labels = mask.resample_to((size,) * dims, box).data
        shades = np.stack([_bytes(one, kept=image.data.dtype == np.uint8) for one in grey])
        out = io.BytesIO()
        np.savez(
            out,
            image=np.moveaxis(_turned(shades), 0, -1),
            mask=_turned(labels)[0].astype(mask.data.dtype),
            label=np.array([bool((mask.data == value).any()) for value in values], dtype=np.uint8),
        )
        write_file(self.folder / self.paths(case)[0], [out.getvalue()])

    def finish(self, count: int | None = None, told: Iterable[Told] = ()) -> None:
        """Write the archive, one case in memory at a time, and synth.json. Errors: DataError for other sizes."""
        cases = sorted(path.stem for path in (self.folder / _PARTS).glob("[!.]*.npz"))
        found = self.require(count, cases)
        first = dict(np.load(self.folder / self.paths(cases[0])[0]))
        size = first["mask"].shape[0]
        colours = len(self.about.channels) > 1
        shapes = {
            "images": first["image"].shape if colours else first["image"].shape[:-1],
            "masks": first["mask"].shape,
            "labels": first["label"].shape,
        }
        types = {"images": first["image"].dtype, "masks": first["mask"].dtype, "labels": first["label"].dtype}
        flag = self.about.name.lower()
        name = f"{flag}{'' if size == _UNNAMED else f'_{size}'}.npz"

        def pieces(kind: str) -> Iterator[np.ndarray]:
            for case in cases:
                with np.load(self.folder / self.paths(case)[0]) as part:
                    own = part[kind.removesuffix("s")]
                if own.shape[: len(shapes[kind])] != shapes[kind]:
                    raise DataError(f"case {case!r} comes to {own.shape}, others to {shapes[kind]}; ask for one size")
                yield own.reshape(shapes[kind])

        def archive(file: IO[bytes]) -> None:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
                for split in _SPLITS:
                    for kind, shape in shapes.items():
                        member = zipfile.ZipInfo(f"{split}_{kind}.npy")  # dated 1980: equal sets, equal bytes
                        member.compress_type = zipfile.ZIP_DEFLATED
                        number = found if split == "train" else 0
                        with packed.open(member, "w", force_zip64=True) as place:
                            _header(place, (number, *shape), types[kind])
                            for piece in pieces(kind) if number else ():
                                place.write(np.ascontiguousarray(piece).data)

        write_file(self.folder / name, archive)
        ordered = sorted(self.about.labels, key=lambda label: label.value)
        about = {  # what MedMNIST's INFO has of a set, so that its classes can be told
            "archive": name,
            "flag": flag,
            "size": size,
            "description": f"{NOTICE}. Written by {self.about.software}.",
            "license": "see the licence of the model and of the data it was trained on",
            "n_samples": {"train": found, "val": 0, "test": 0},
            "n_channels": len(self.about.channels),
            "task": "multi-label, binary-class",
            "label": {str(number): label.name for number, label in enumerate(ordered)},
            "mask_values": {label.name: label.value for label in ordered},
            "cases": cases,
            "population": self.about.population,
            "synthetic": True,
        }
        self.put_json("synth.json", about)


def pairs(archive: str | Path, *, split: str = "train") -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
    """Yield (image (channel, *grid) uint8, label (labels,), mask (*grid) or None) of an archive's split.

    Reads MedMNIST's own archives too, which have no masks. Errors: DataError where the split is not there.
    """
    try:
        with np.load(Path(archive), allow_pickle=False) as held:
            arrays = {name: held[name] for name in held.files if name.startswith(f"{split}_")}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{archive} is no MedMNIST archive ({error}); give the .npz") from error
    if f"{split}_images" not in arrays or f"{split}_labels" not in arrays:
        raise DataError(f"{archive} has no {split}_images and {split}_labels; known splits are {', '.join(_SPLITS)}")
    masks = arrays.get(f"{split}_masks")
    for number, image in enumerate(arrays[f"{split}_images"]):
        channels = image.ndim == 4 or (image.ndim == 3 and image.shape[-1] != image.shape[0])
        data = _turned(np.moveaxis(image, -1, 0) if channels else image[None])
        yield data, arrays[f"{split}_labels"][number], None if masks is None else _turned(masks[number][None])[0]


def _turned(data: np.ndarray) -> np.ndarray:
    """Return (channel, *grid) with the axes of a picture swapped: columns first here, rows first there."""
    return data.swapaxes(1, 2) if data.ndim == 3 else data


def _cube(image: Volume, size: int) -> np.ndarray:
    """Return the affine of a cube (square) of `size` voxels that holds the image in its middle."""
    dims = image.spatial_dims
    spacing = np.array(image.spacing_mm)
    step = max(n * s for n, s in zip(image.grid, spacing, strict=True)) / size
    affine = np.array(image.affine)
    centre = affine @ [*((n - 1) / 2 for n in image.grid), *[0.0] * (3 - dims), 1.0]
    affine[:3, :dims] = affine[:3, :dims] / spacing * step
    affine[:3, 3] = centre[:3] - affine[:3, :dims].sum(axis=1) * (size - 1) / 2
    return affine


def _bytes(channel: np.ndarray, *, kept: bool) -> np.ndarray:
    """Return one channel as 0..255 between its percentiles, or with values `kept` as they are."""
    if kept:
        return np.rint(channel).astype(np.uint8)
    low, high = (float(level) for level in np.percentile(channel, SHARES))
    if high <= low:
        low, high = float(channel.min()), max(float(channel.max()), float(channel.min()) + 1.0)
    return np.rint(np.clip((channel - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def _header(place: IO[bytes], shape: tuple[int, ...], dtype: np.dtype) -> None:
    content = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(place, content)
