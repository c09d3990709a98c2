"""DICOM-SEG masks, placed on the grid of their image: empty frames are often left out, so the image says the grid."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from synth.dicom.headers import SEGMENTATIONS, load_library, numbers_of, read_header, reading, text_of
from synth.dicom.pixels import stored_pixels
from synth.errors import DataError, GeometryError, nearest

if TYPE_CHECKING:
    import pydicom

_LPS = np.diag([-1.0, -1.0, 1.0])
_OFF_VOXELS = 0.05


@dataclass(frozen=True)
class Segmentation:
    """A SEG file: its segments (number -> SegmentLabel). Voxels are read on demand. Segments are not to overlap."""

    path: Path
    segments: dict[int, str]

    @classmethod
    def open(cls, path: Path) -> "Segmentation":
        """Return what the header says. Errors: DataError for other files, fractions and unnamed segments."""
        with reading(path, "a damaged DICOM-SEG"):
            return cls._of(read_header(path, only=("SOPClassUID", "SegmentationType", "SegmentSequence")), path)

    @classmethod
    def _of(cls, header: "pydicom.Dataset", path: Path) -> "Segmentation":
        if text_of(header, "SOPClassUID") not in SEGMENTATIONS:
            raise DataError(f"{path} is no DICOM-SEG; give the mask as SEG, NIfTI or a series of its own")
        if text_of(header, "SegmentationType") == "FRACTIONAL":
            raise DataError(f"{path} is a SEG of fractions, which are no labels; export it as BINARY or LABELMAP")
        segments: dict[int, str] = {}
        for item in header.get("SegmentSequence") or ():
            number, label = int(item.get("SegmentNumber") or 0), text_of(item, "SegmentLabel")
            if number > 0 and number not in segments and label:
                segments[number] = label
            elif number != 0:
                raise DataError(f"{path}: segment {number} comes twice or has no SegmentLabel; export it again")
        if not segments:
            raise DataError(f"{path} names no segments; export it again")
        return cls(path, segments)

    def read(self, grid: tuple[int, ...], affine: np.ndarray, labels: dict[str, int]) -> np.ndarray:
        """Return the mask (1, *grid) by `labels` (name -> value) on the image's grid and affine (RAS+).

        Errors: GeometryError for frames off that grid, DataError for unknown names and overlapping segments.
        """
        with reading(self.path, "a damaged DICOM-SEG"):
            return self._painted(load_library(self.path).dcmread(self.path), grid, affine, labels)

    def _painted(
        self, header: "pydicom.Dataset", grid: tuple[int, ...], affine: np.ndarray, labels: dict[str, int]
    ) -> np.ndarray:
        values = {number: self._value(name, labels) for number, name in self.segments.items()}
        frames = stored_pixels(header, self.path)
        frames = frames[None] if frames.ndim == 2 else frames
        if frames.shape[1:] != (grid[1], grid[0]):
            raise GeometryError(
                f"{self.path} has frames of {frames.shape[2]}x{frames.shape[1]}, its image {grid[0]}x{grid[1]}; "
                "give the SEG of this image"
            )
        whole = np.zeros((1, *grid[:2], *(grid[2:] or (1,))), dtype=np.min_scalar_type(max(values.values())))
        labelmap = text_of(header, "SegmentationType") == "LABELMAP"
        for number, frame in enumerate(frames):
            layer = whole[0, :, :, self._height(header, number, grid, affine)]
            if labelmap:
                for segment in np.unique(frame[frame > 0]):
                    if int(segment) not in values:
                        raise DataError(f"{self.path} has segment {segment}, which it does not name; export it again")
                    layer[(frame == segment).T] = values[int(segment)]
            else:
                self._paint(layer, frame.T > 0, values[self._segment(header, number)], labels)
        return whole if len(grid) == 3 else whole[..., 0]

    def _value(self, name: str, labels: dict[str, int]) -> int:
        if name not in labels:
            hint = nearest(name, labels)
            raise DataError(f"{self.path} has segment {name!r}, which is no label of the dataset; {hint}")
        return labels[name]

    def _paint(self, layer: np.ndarray, inside: np.ndarray, value: int, labels: dict[str, int]) -> None:
        over = inside & (layer > 0) & (layer != value)
        if over.any():
            names = {number: name for name, number in labels.items()}
            other = names[int(layer[over][0])]
            raise DataError(
                f"{self.path}: segments {other!r} and {names[value]!r} overlap; give masks whose labels are disjoint"
            )
        layer[inside] = value

    def _segment(self, header: "pydicom.Dataset", number: int) -> int:
        for groups in self._groups(header, number):
            for item in groups.get("SegmentIdentificationSequence") or ():
                if int(item.ReferencedSegmentNumber) in self.segments:
                    return int(item.ReferencedSegmentNumber)
        raise DataError(f"{self.path}: frame {number + 1} names no known segment; export it again")

    def _height(self, header: "pydicom.Dataset", number: int, grid: tuple[int, ...], affine: np.ndarray) -> int:
        """Return the slice of the image that a frame covers."""
        place, turn, step = (None, None, None)
        for groups in self._groups(header, number):
            for item in groups.get("PlanePositionSequence") or ():
                place = numbers_of(item, "ImagePositionPatient", 3, self.path)
            for item in groups.get("PlaneOrientationSequence") or ():
                turn = numbers_of(item, "ImageOrientationPatient", 6, self.path).reshape(2, 3)
            for item in groups.get("PixelMeasuresSequence") or ():
                step = numbers_of(item, "PixelSpacing", 2, self.path)
        if place is None or turn is None or step is None:
            raise GeometryError(f"{self.path}: frame {number + 1} does not say where it is; export it again")
        voxel = np.linalg.solve(affine[:3, :3], _LPS @ place - affine[:3, 3])
        axes = _LPS @ (turn * step[::-1, None]).T
        height = round(float(voxel[2]))
        far = np.abs(axes - affine[:3, :2]).max() * max(grid[:2]) / np.linalg.norm(affine[:3, 0])
        if np.abs(voxel - [0, 0, height]).max() > _OFF_VOXELS or far > 0.5 or not 0 <= height < (grid[2:] or (1,))[0]:
            raise GeometryError(
                f"{self.path}: frame {number + 1} does not lie on a slice of its image; give the SEG of this image"
            )
        return height

    @staticmethod
    def _groups(header: "pydicom.Dataset", number: int) -> "list[pydicom.Dataset]":
        shared = list(header.get("SharedFunctionalGroupsSequence") or ())
        own = header.get("PerFrameFunctionalGroupsSequence") or ()
        return [*shared[:1], *([own[number]] if number < len(own) else [])]
