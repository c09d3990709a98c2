"""A DICOM series as one stack: files found, sorted along the normal, checked to be an even, whole, upright block."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from synth.dicom.headers import TELLING, Slice, is_dicom, kind_of, read_header, reading, text_of
from synth.dicom.pixels import decode, dtype_of
from synth.errors import DataError, GeometryError

if TYPE_CHECKING:
    import pydicom

_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
SAME_PLACE_MM = 1e-3
MISSING = 1.5
"""A step this many times the usual one is a gap."""
UNEVEN = 0.1
"""A slice further than this share of a step from its even place: positions are often rounded to 0.1 mm."""
TILT_DEGREES = 0.05


@dataclass(frozen=True, eq=False)
class Series:
    """The slices of one series, in order along their normal; `ignored` files beside them are no images.

    affine is voxel (column, row, slice) -> mm RAS+, from ImagePositionPatient, ImageOrientationPatient and
    PixelSpacing (PS3.3, C.7.6.2.1.1): column 0 runs along a row, column 1 down a column, column 2 over the slices.
    """

    place: Path
    slices: tuple[Slice, ...]
    ignored: int = 0

    @classmethod
    def find(cls, place: Path, *, series: str | None = None) -> "Series":
        """Return the series of a folder, a DICOMDIR (its folder with all below) or one file.

        `series` is the SeriesInstanceUID where there are several. Errors: DataError, GeometryError.
        """
        files, ignored = _files(place)
        groups: dict[str, list[tuple[pydicom.Dataset, Path]]] = {}
        kinds: dict[str, str] = {}
        for path in files:
            with reading(path):
                header = read_header(path)
                if "Rows" not in header or "Columns" not in header:  # structure sets, reports, directories
                    ignored += 1
                    continue
                uid = text_of(header, "SeriesInstanceUID")
                groups.setdefault(uid, []).append((header, path))
                kinds[uid] = kind_of(header)
        if not groups:
            raise DataError(f"{place} holds no DICOM images ({ignored} other files); give the folder of the slices")
        found = "; ".join(f"{uid} ({len(groups[uid])} files, {kinds[uid]})" for uid in sorted(groups))
        if series is None and len(groups) > 1:
            raise DataError(
                f"{place} holds {len(groups)} series: {found}; keep one in the folder, or name it: "
                "synth.read(folder, series=UID)"
            )
        if series is not None and series not in groups:
            raise DataError(f"{place} has no series {series!r}; there are {found}")
        own = groups[series] if series is not None else next(iter(groups.values()))
        return cls(place, _ordered([Slice.of(header, path) for header, path in own], place), ignored)

    @property
    def grid(self) -> tuple[int, int, int]:
        """Voxels along a row, down a column, over the slices."""
        rows, columns = self.slices[0].size
        return columns, rows, len(self.slices)

    @property
    def dtype(self) -> np.dtype:
        """Type of the voxels in memory, from the headers alone."""
        return dtype_of(self.slices)

    @property
    def modality(self) -> str:
        """Modality as the first slice says it, such as CT or MR; empty where it does not."""
        return self.slices[0].modality

    @property
    def patients(self) -> set[str]:
        """PatientIDs that the files name, without empty ones."""
        return {one.patient for one in self.slices if one.patient}

    @cached_property
    def affine(self) -> np.ndarray:
        """Voxel -> mm, RAS+ (4, 4)."""
        first, last = self.slices[0], self.slices[-1]
        out = np.eye(4)
        out[:3, 0] = first.orientation[0] * first.spacing[1]
        out[:3, 1] = first.orientation[1] * first.spacing[0]
        count = len(self.slices)
        out[:3, 2] = (last.position - first.position) / (count - 1) if count > 1 else first.normal * first.thickness
        out[:3, 3] = first.position
        return _LPS @ out

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (voxels (1, i, j, k), affine): stored value x RescaleSlope + RescaleIntercept of each slice."""
        out = np.empty((1, *self.grid), dtype=self.dtype)
        for k, one in enumerate(self.slices):
            out[0, :, :, k] = decode(one, self.dtype).T
        return out, self.affine


def _files(place: Path) -> tuple[list[Path], int]:
    """Return the DICOM files of a place and how many others lie there; what a DICOMDIR lists is not followed."""
    if place.is_file() and place.name.upper() != "DICOMDIR":
        return [place], 0
    folder = place.parent if place.is_file() else place
    deep = (folder / "DICOMDIR").is_file()
    there = sorted(path for path in (folder.rglob("*") if deep else folder.iterdir()) if path.is_file())
    files = [path for path in there if is_dicom(path)]
    if not files:
        below = next((path for path in sorted(folder.rglob("*")) if is_dicom(path)), None)
        hint = f"give {below.parent}, where some are" if below else "give the folder of the slices"
        raise DataError(f"{place} holds no DICOM files ({len(there)} others); {hint}")
    return files, len(there) - len(files)


def _ordered(slices: Sequence[Slice], place: Path) -> tuple[Slice, ...]:
    """Return the slices sorted along their normal. Errors: DataError, GeometryError for what is no stack."""
    _require_one_plane(slices, place)
    normal = slices[0].normal
    order = sorted(slices, key=lambda one: (float(one.position @ normal), one.path.name))
    heights = np.array([float(one.position @ normal) for one in order])
    _require_one_each(order, heights, place)
    _require_even(order, heights, place)
    _require_upright(order, place)
    return tuple(order)


def _require_one_plane(slices: Sequence[Slice], place: Path) -> None:
    first = slices[0]
    turns = Counter(tuple(np.round(one.orientation, 2).ravel() + 0.0) for one in slices)
    if len(turns) > 1:
        told = ", ".join(f"{count} of {_direction(np.array(turn))}" for turn, count in sorted(turns.items()))
        raise GeometryError(f"{place} mixes orientations: {told}; keep one, and take localizers out")
    if all(one.scout for one in slices):
        raise DataError(f"{place} is a localizer ({first.kind}); give the series it was planned for")
    for one in slices:
        if np.abs(one.orientation - first.orientation).max() > 1e-3:
            raise GeometryError(f"{one.path} is turned against {first.path.name}; its series is no stack, leave it out")
        if one.size != first.size or np.abs(one.spacing - first.spacing).max() > 1e-4:
            raise GeometryError(
                f"{one.path} has {one.size[1]}x{one.size[0]} pixels at {_mm(one.spacing)} mm, {first.path.name} "
                f"{first.size[1]}x{first.size[0]} at {_mm(first.spacing)} mm; keep files of one size"
            )


def _require_one_each(order: Sequence[Slice], heights: np.ndarray, place: Path) -> None:
    again = np.flatnonzero(np.diff(heights) < SAME_PLACE_MM)
    if not again.size:
        return
    one, other = order[again[0]], order[again[0] + 1]
    aside = float(np.linalg.norm(one.position - other.position))
    if aside > SAME_PLACE_MM:
        raise GeometryError(
            f"{other.path} lies {aside:.3g} mm beside {one.path.name} in one plane; keep one position a slice"
        )
    where = f"{again.size} positions of {place} are taken twice, first {one.path.name} and {other.path.name}"
    for name in TELLING:
        values = {each.told[name] for each in order}
        if one.told[name] != other.told[name]:
            some = ", ".join(sorted(values)[:4]) + (", ..." if len(values) > 4 else "")
            raise DataError(f"{where}, which differ in {name} ({some}); keep the files of one value")
    raise DataError(f"{where}, whose headers agree; remove the copies")


def _require_even(order: Sequence[Slice], heights: np.ndarray, place: Path) -> None:
    steps = np.diff(heights)
    if steps.size == 0:
        return
    usual = float(np.sort(steps)[(steps.size - 1) // 2])  # of two, the smaller: the other may be the gap
    gaps = np.flatnonzero(steps > MISSING * usual)
    if gaps.size:
        told = [
            f"{max(round(float(steps[k]) / usual) - 1, 1)} between InstanceNumber {order[k].instance} "
            f"at {heights[k]:.4g} mm and {order[k + 1].instance} at {heights[k + 1]:.4g} mm"
            for k in gaps[:3]
        ]
        more = f" and {gaps.size - 3} gaps more" if gaps.size > 3 else ""
        raise GeometryError(
            f"{place} misses slices: {'; '.join(told)}{more} (usual step {usual:.4g} mm); "
            "add them or leave the case out"
        )
    step = (heights[-1] - heights[0]) / steps.size
    off = np.abs(heights - (heights[0] + step * np.arange(len(heights))))
    if off.max() > UNEVEN * step + SAME_PLACE_MM:
        worst = order[int(off.argmax())]
        raise GeometryError(
            f"{place} has uneven steps of {steps.min():.4g} to {steps.max():.4g} mm, {worst.path.name} lies "
            f"{off.max():.3g} mm from its even place; resample it to even slices (dcm2niix does)"
        )


def _require_upright(order: Sequence[Slice], place: Path) -> None:
    """Refuse a stack that leans: its slices lie one over the other only along a slanted line (gantry tilt)."""
    if len(order) < 2:
        return
    run = order[-1].position - order[0].position
    angle = float(np.degrees(np.arccos(np.clip(abs(run @ order[0].normal) / np.linalg.norm(run), 0, 1))))
    if angle > TILT_DEGREES:
        raise GeometryError(
            f"{place} is a sheared stack, its slices lean by {angle:.2f} degrees (gantry tilt); resample it upright "
            "first (dcm2niix does)"
        )
    even = [order[0].position + run * k / (len(order) - 1) for k in range(len(order))]
    aside = [float(np.linalg.norm(one.position - place)) for one, place in zip(order, even, strict=True)]
    limit = UNEVEN * float(np.linalg.norm(run)) / (len(order) - 1) + float(order[0].spacing.min()) * 0.25
    if max(aside) > limit:
        worst = order[int(np.argmax(aside))]
        raise GeometryError(f"{worst.path} lies {max(aside):.3g} mm off the line of its series; leave it out")


def _direction(turn: np.ndarray) -> str:
    """Return a plane's name by the axis its normal is nearest to.

    >>> _direction(np.array([1, 0, 0, 0, 1, 0]))
    'axial'
    """
    across = np.abs(np.cross(turn[:3], turn[3:]))
    plane = ("sagittal", "coronal", "axial")[int(across.argmax())]
    return plane if across.max() > 0.99 else f"oblique {plane}"


def _mm(spacing: np.ndarray) -> str:
    return "x".join(f"{step:.4g}" for step in spacing[::-1])
