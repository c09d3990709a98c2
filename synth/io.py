"""Volumes on disk: NIfTI, NRRD and MetaImage, DICOM series (read only) and pictures. Geometry is kept exactly.

In memory everything is RAS+. ITK formats are LPS: their affine is turned by diag(-1, -1, 1, 1). A third
axis of one voxel is dropped: a file of one slice is a 2D volume, whose plane may lie anywhere. A picture
keeps its spacing alone. Files are written beside their place and swapped in, so that a kill or a full disk
leaves no half file. This module knows no dataset layout.
"""

import errno
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np

from synth import nifti, pictures
from synth.errors import DataError, GeometryError, OutputError
from synth.nifti import compressor as compressor
from synth.nifti import last_line
from synth.volume import Volume

if TYPE_CHECKING:
    import SimpleITK

SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha")
"""Volumes of any geometry; `pictures.SUFFIXES` are read too, and .png written."""
PICTURES = pictures.SUFFIXES
_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_AGAIN = "check or copy the file again"


class Header(NamedTuple):
    """What a file says of its voxels: grid, number of channels, affine (4, 4) RAS+, type in memory."""

    grid: tuple[int, ...]
    channels: int
    affine: np.ndarray
    dtype: np.dtype[Any]

    def outline(self) -> Volume:
        """Return a volume of this geometry whose voxels take no memory."""
        return Volume(np.broadcast_to(np.zeros((), dtype=self.dtype), (self.channels, *self.grid)), self.affine)


def suffix_of(path: str | Path) -> str:
    """Return the volume suffix of `path`; DataError names the known ones.

    >>> suffix_of("case.NII.GZ")
    '.nii.gz'
    """
    name = Path(path).name.lower()
    for suffix in (*SUFFIXES, *PICTURES):
        if name.endswith(suffix):
            return suffix
    raise DataError(f"{path} is no volume by its suffix; known are {', '.join((*SUFFIXES, *PICTURES))}")


def read(
    path: str | Path, *, labels: Mapping[str, int] | None = None, finite: bool = True, series: str | None = None
) -> Volume:
    """Return the volume of a file; with `labels` (name -> value) it is a mask of whole numbers.

    A folder, a DICOMDIR or a .dcm file is a DICOM series, `series` its SeriesInstanceUID where there are several.
    Floats come as float32, whole numbers keep their type; a NIfTI scale (scl_slope, scl_inter) is applied:
    value = slope x stored + inter. `finite=False` lets NaN and infinite voxels through.
    Errors: DataError for missing, truncated or unreadable files, voxels that are no numbers, masks with
    fractions; GeometryError for sheared or singular axes.
    """
    path = Path(path)
    data, affine = _decoded(path, is_mask=labels is not None, series=series)
    if data.dtype.kind not in "biuf":
        raise DataError(f"{path} has voxels of type {data.dtype}; write real numbers")
    if data.dtype.kind == "f":
        with np.errstate(over="ignore"):
            data = data.astype(np.float32, copy=False)
        if finite and not np.isfinite(data).all():
            bad = int((~np.isfinite(data)).sum())
            raise DataError(f"{path} has {bad} voxels that are NaN or infinite; replace them before use")
    volume = _placed(data, affine, path)
    return volume if labels is None else volume.replace(data=_whole(volume.data, path), labels=labels)


def read_header(path: str | Path) -> Header:
    """Return grid, channels, affine and type of a file without reading its voxels. Errors: as `read`."""
    path = Path(path)
    if is_series(path):
        from synth.dicom import Series

        if not path.exists():
            raise DataError(f"{path} does not exist; check the path")
        found = Series.find(path)
        grid, channels, affine, dtype = found.grid, 1, found.affine, found.dtype
    elif (suffix := _known_file(path)) in PICTURES:
        picture = pictures.plan(path)
        grid, channels, affine, dtype = picture.grid, picture.channels, picture.affine, picture.dtype
    elif suffix.startswith(".nii"):
        plan = nifti.plan(path)
        grid, channels, affine = plan.grid, plan.channels, plan.affine
        dtype = plan.values
    else:
        grid, channels, affine, dtype = _itk_header(path)
    dtype = np.dtype(np.float32) if dtype.kind == "f" else dtype
    header = Header(grid[:2] if grid[2:] == (1,) else grid, channels, affine, dtype)
    _placed(np.broadcast_to(np.zeros((), dtype=dtype), (channels, *header.grid)), affine, path)
    return header


def write(volume: Volume, path: str | Path, *, fourth: bool = False) -> None:
    """Write a volume atomically; equal volumes give equal bytes.

    Truth values are stored as uint8, float16 and float64 as float32; other types stay. Channels of a NIfTI
    file are a vector (fifth axis), with `fourth` what the fourth axis counts, as in MSD. A .png takes 2D uint8
    or uint16, grey or RGB, and keeps the spacing alone.
    Errors: OutputError when it cannot be written, GeometryError for sheared axes.
    """
    path = Path(path)
    try:
        suffix = suffix_of(path)
    except DataError as error:
        raise OutputError(str(error)) from None
    if volume.sheared:
        raise GeometryError(f"{path} would have sheared axes; resample the volume with Volume.resample_to first")
    kind = volume.data.dtype
    if kind.kind not in "biuf":
        raise OutputError(f"{path} cannot hold voxels of type {kind}; give whole numbers or floats")
    stored = np.dtype(np.uint8 if kind.kind == "b" else np.float32 if kind.kind == "f" else kind.newbyteorder("="))
    data = volume.data.astype(stored, copy=False)
    if suffix in PICTURES:
        write_bytes(path, pictures.encode(data, volume.spacing_mm[:2], path))
        return
    data = data if volume.spatial_dims == 3 else data[..., None]
    if suffix.startswith(".nii"):
        pieces = nifti.encode(data, volume.affine, path, packed=suffix == ".nii.gz", fourth=fourth)
        _swap_in(path, lambda draft: _pour(pieces, draft))
    else:
        _write_itk(data, volume.affine, path)


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes atomically: all of them, or nothing and an OutputError."""
    _swap_in(path, lambda draft: _pour([content], draft))


def write_file(path: Path, make: Iterable[bytes] | Callable[[IO[bytes]], object]) -> None:
    """Write a file atomically, from pieces as they come or by a function that fills it. Errors: as `write_bytes`."""

    def fill(draft: Path) -> None:
        with draft.open("wb") as file:
            if callable(make):
                make(file)
            else:
                file.writelines(make)

    _swap_in(path, fill)


def is_series(path: Path) -> bool:
    """True for what can only be DICOM: a folder, a DICOMDIR, a .dcm file."""
    if path.is_dir():
        return not path.name.lower().endswith((*SUFFIXES, *PICTURES))
    return path.name.upper() == "DICOMDIR" or path.suffix.lower() == ".dcm"


def _decoded(path: Path, *, is_mask: bool, series: str | None) -> tuple[np.ndarray, np.ndarray]:
    if is_series(path):
        from synth.dicom import Series

        if not path.exists():
            raise DataError(f"{path} does not exist; check the path")
        return Series.find(path, series=series).read()
    suffix = _known_file(path)
    if suffix in PICTURES:
        data = pictures.decode_labels(path) if is_mask else pictures.decode(path)
        return data, pictures.plan(path).affine
    return nifti.decode(path) if suffix.startswith(".nii") else _read_itk(path)


def _known_file(path: Path) -> str:
    suffix = suffix_of(path)
    if not path.exists():
        raise DataError(f"{path} does not exist; check the path")
    if not path.is_file():
        raise DataError(f"{path} is not a file; give a volume file")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty (0 bytes); copy the file again")
    return suffix


def _placed(data: np.ndarray, affine: np.ndarray, path: Path) -> Volume:
    """Return the volume, 2D where it is one slice; geometry faults name the file."""
    try:
        volume = Volume(data[..., 0] if data.ndim == 4 and data.shape[3] == 1 else data, affine)
    except GeometryError as error:
        raise GeometryError(f"{path}: {error}") from None
    if volume.sheared:
        raise GeometryError(f"{path} has sheared axes; resample it to an orthogonal grid first")
    return volume


def _whole(data: np.ndarray, path: Path) -> np.ndarray:
    """Return a mask's voxels as whole numbers."""
    if data.dtype.kind != "f":
        return data
    rounded = np.rint(data)
    if not np.array_equal(rounded, data):
        strange = float(data[rounded != data].flat[0])
        raise DataError(f"{path} is no mask: it holds {strange:g}; give whole values (resample by nearest neighbour)")
    low, high = float(rounded.min(initial=0)), float(rounded.max(initial=0))
    if max(high, -low) >= 2**31:
        raise DataError(f"{path} is no mask: it holds {max(high, -low):g}; give label values below 2^31")
    return rounded.astype(np.result_type(np.min_scalar_type(int(low)), np.min_scalar_type(int(high))))


def _pour(pieces: Iterable[bytes] | Iterable[bytes | memoryview], draft: Path) -> None:
    with draft.open("wb") as file:
        file.writelines(pieces)


def _swap_in(path: Path, make: Callable[[Path], object], *, folder: bool = False) -> None:
    """Let `make` write a draft, then move it to `path`; with `folder` the draft keeps its suffix, inside a folder."""
    draft = path.with_name(f".{path.name}.partial")
    partial = draft / path.name if folder else draft
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        make(partial)
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:
        full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        why = "the disk is full" if full else getattr(error, "strerror", None) or last_line(error)
        raise OutputError(f"{path} cannot be written ({why}); free room or give another folder") from error
    finally:
        if folder:
            shutil.rmtree(draft, ignore_errors=True)
        elif draft.is_file():
            draft.unlink()


def _itk_affine(source: "SimpleITK.Image | SimpleITK.ImageFileReader", components: int, path: Path) -> np.ndarray:
    dims = source.GetDimension()
    if dims not in (2, 3, 4) or (dims == 4 and components > 1):
        raise DataError(f"{path} has {dims} axes; give 2D or 3D volumes, or one further axis of channels")
    space = min(dims, 3)
    direction = np.array(source.GetDirection()).reshape(dims, dims)[:space, :space]
    affine = np.eye(4)
    affine[:space, :space] = direction * np.array(source.GetSpacing())[:space]
    affine[:space, 3] = source.GetOrigin()[:space]
    return _LPS @ affine


def _itk_header(path: Path) -> tuple[tuple[int, ...], int, np.ndarray, np.dtype[Any]]:
    import SimpleITK as sitk  # noqa: N813

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise DataError(f"{path} cannot be read{_why(error)}; {_AGAIN}") from error
    size, count, dims = reader.GetSize(), reader.GetNumberOfComponents(), reader.GetDimension()
    affine = _itk_affine(reader, count, path)
    one = sitk.Image([1] * min(dims, 3), reader.GetPixelID(), count if count > 1 else 0)
    return tuple(size[:3]), size[3] if dims == 4 else count, affine, sitk.GetArrayFromImage(one).dtype


def _read_itk(path: Path) -> tuple[np.ndarray, np.ndarray]:
    import SimpleITK as sitk  # noqa: N813

    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise DataError(f"{path} cannot be read{_why(error)}; {_AGAIN}") from error
    components = image.GetNumberOfComponentsPerPixel()
    affine = _itk_affine(image, components, path)
    data = sitk.GetArrayFromImage(image)
    if components > 1:
        data = np.moveaxis(data, -1, 0)
    elif image.GetDimension() < 4:
        data = data[None]
    return np.ascontiguousarray(data.transpose(0, *range(data.ndim - 1, 0, -1))), affine


def _write_itk(data: np.ndarray, affine: np.ndarray, path: Path) -> None:
    import SimpleITK as sitk  # noqa: N813

    array = np.ascontiguousarray(data.transpose(3, 2, 1, 0) if len(data) > 1 else data[0].transpose(2, 1, 0))
    try:
        image = sitk.GetImageFromArray(array, isVector=len(data) > 1)
    except (KeyError, TypeError) as error:
        raise OutputError(f"{path} cannot hold voxels of type {data.dtype}; give whole numbers or float32") from error
    turned = _LPS @ affine
    spacing = np.linalg.norm(turned[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((turned[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(turned[:3, 3].tolist())
    _swap_in(path, lambda draft: sitk.WriteImage(image, str(draft), True), folder=True)


def _why(error: RuntimeError) -> str:
    """Return what ITK says of a file it cannot read; its "Reason:" lines tell of the wrong thing."""
    said = last_line(error)
    return ", truncated or damaged" if said.startswith("Reason:") else f" ({said})"
