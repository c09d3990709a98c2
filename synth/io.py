"""Volumes on disk: NIfTI through nibabel, NRRD and MetaImage through SimpleITK. Geometry is kept exactly.

In memory everything is RAS+. NIfTI: the sform counts where its code is above 0, else the qform, else the
pixel sizes. ITK formats are LPS: their affine is turned by diag(-1, -1, 1, 1).
Files are written beside their place and swapped in, so that a kill or a full disk leaves no half file.
"""

import errno
import os
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from synth.errors import DataError, GeometryError, OutputError
from synth.volume import Volume

SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha")
_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def suffix_of(path: str | Path) -> str:
    """Return the volume suffix of `path`; DataError names the known ones."""
    name = Path(path).name.lower()
    for suffix in SUFFIXES:
        if name.endswith(suffix):
            return suffix
    raise DataError(f"{path} is no volume by its suffix; known are {', '.join(SUFFIXES)}")


def read(path: str | Path, *, labels: Mapping[str, int] | None = None) -> Volume:
    """Return the volume of a file; with `labels` (name -> value) it is a mask.

    Floats come as float32, whole numbers keep their type; a NIfTI scale (scl_slope, scl_inter) is applied.
    Errors: DataError for missing, truncated or unreadable files and voxels that are no numbers;
    GeometryError for sheared axes.
    """
    path = Path(path)
    suffix = suffix_of(path)
    if not path.is_file():
        raise DataError(f"{path} does not exist; check the path")
    volume = _read_nifti(path) if suffix.startswith(".nii") else _read_itk(path)
    if volume.sheared:
        raise GeometryError(f"{path} has sheared axes; resample it to an orthogonal grid first")
    if volume.data.dtype.kind == "f" and not np.isfinite(volume.data).all():
        bad = int((~np.isfinite(volume.data)).sum())
        raise DataError(f"{path} has {bad} voxels that are NaN or infinite; replace them before use")
    return volume if labels is None else volume.replace(labels=labels)


def read_header(path: str | Path) -> tuple[tuple[int, ...], np.ndarray]:
    """Return (grid, affine) of a file without its voxels where the format allows."""
    path = Path(path)
    if not suffix_of(path).startswith(".nii"):
        volume = read(path)
        return volume.grid, volume.affine
    image = _open_nifti(path)
    shape = tuple(int(n) for n in image.shape)
    return _squeezed(shape), _nifti_affine(image)


def write(volume: Volume, path: str | Path) -> None:
    """Write a volume atomically; equal volumes give equal bytes. Errors: OutputError when it cannot be written."""
    path = Path(path)
    suffix = suffix_of(path)
    if volume.data.dtype == np.bool_ or volume.data.dtype == np.float64:
        volume = volume.replace(data=volume.data.astype(np.uint8 if volume.data.dtype == np.bool_ else np.float32))
    if suffix.startswith(".nii"):
        content = _nifti_bytes(volume)
        write_bytes(path, _gzip(content) if suffix == ".nii.gz" else content)
    else:
        _write_itk(volume, path)


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes atomically: all of them, or nothing and an OutputError."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        why = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
        raise OutputError(f"{path} cannot be written ({why}); free room or give another folder") from error


def compressor() -> str:
    """Return what gzip members are made with; equal bytes need equal compressors."""
    try:
        import isal.igzip_lib  # noqa: F401
    except ImportError:
        return f"zlib {zlib.ZLIB_RUNTIME_VERSION} level 1"
    return "isal level 1"


def _gzip(content: bytes) -> bytes:
    """Return a gzip member without name or time, so that equal content gives equal bytes."""
    try:
        from isal import igzip_lib
    except ImportError:
        packer = zlib.compressobj(1, zlib.DEFLATED, 31)
        return packer.compress(content) + packer.flush()
    return igzip_lib.compress(content, level=1, flag=igzip_lib.COMP_GZIP)


def _open_nifti(path: Path):  # noqa: ANN202 - nibabel's own type
    import nibabel

    try:
        return nibabel.load(path)  # pyright: ignore[reportPrivateImportUsage]
    except Exception as error:
        raise DataError(
            f"{path} cannot be read as NIfTI ({_first_line(error)}); check or copy the file again"
        ) from error


def _nifti_affine(image) -> np.ndarray:  # noqa: ANN001
    header = image.header
    if int(header["sform_code"]) > 0:
        return header.get_sform()
    return header.get_qform() if int(header["qform_code"]) > 0 else header.get_base_affine()


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    grid = shape[:3]
    return grid[:2] if len(grid) == 3 and grid[2] == 1 else grid


def _read_nifti(path: Path) -> Volume:
    image = _open_nifti(path)
    affine = _nifti_affine(image)
    try:
        if image.get_data_dtype().fields is not None:
            raise DataError(f"{path} is an RGB volume; split it into channels first")
        slope, inter = image.dataobj.slope, image.dataobj.inter
        data = np.asarray(image.dataobj.get_unscaled())
    except (OSError, EOFError, ValueError, zlib.error) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is truncated or damaged ({_first_line(error)}); copy the file again") from error
    if (slope, inter) != (1.0, 0.0):
        data = data.astype(np.float32) * np.float32(slope) + np.float32(inter)
    if data.dtype.kind == "f":
        data = data.astype(np.float32)
    data = data.astype(data.dtype.newbyteorder("="))
    data = data.reshape(data.shape + (1,) * (3 - data.ndim))
    channels = data.reshape(*data.shape[:3], -1)
    channels = np.ascontiguousarray(np.moveaxis(channels, -1, 0))
    return Volume(channels[..., 0] if channels.shape[3] == 1 else channels, affine)


def _nifti_bytes(volume: Volume) -> bytes:
    import nibabel

    data = volume.data if volume.spatial_dims == 3 else volume.data[..., None]
    data = data[0] if len(data) == 1 else np.moveaxis(data, 0, -1)
    image = nibabel.Nifti1Image(np.asarray(data), volume.affine)  # pyright: ignore[reportPrivateImportUsage]
    image.set_sform(volume.affine, code=1)
    image.set_qform(volume.affine, code=1)
    image.header.set_xyzt_units("mm")
    image.header["scl_slope"], image.header["scl_inter"] = np.nan, np.nan
    header = bytearray(image.header.binaryblock)
    header[108:112] = np.float32(352).tobytes()  # vox_offset: 348 bytes of header and 4 of empty extension
    return bytes(header) + b"\0\0\0\0" + np.asarray(data).tobytes(order="F")


def _read_itk(path: Path) -> Volume:
    import SimpleITK as sitk

    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise DataError(f"{path} cannot be read ({_first_line(error)}); check or copy the file again") from error
    dims = image.GetDimension()
    if dims not in (2, 3):
        raise DataError(f"{path} has {dims} axes; 2D and 3D volumes are read")
    affine = np.eye(4)
    direction = np.array(image.GetDirection()).reshape(dims, dims)
    affine[:dims, :dims] = direction * np.array(image.GetSpacing())
    affine[:dims, 3] = image.GetOrigin()
    data = sitk.GetArrayFromImage(image)
    vector = image.GetNumberOfComponentsPerPixel() > 1
    data = np.moveaxis(data, -1, 0) if vector else data[None]
    data = np.ascontiguousarray(data.transpose(0, *range(dims, 0, -1)))
    if data.dtype == np.float64:
        data = data.astype(np.float32)
    affine = _LPS @ affine
    if dims == 3 and data.shape[3] == 1:
        data = data[..., 0]
    return Volume(data, affine)


def _write_itk(volume: Volume, path: Path) -> None:
    import SimpleITK as sitk

    data = volume.data if volume.spatial_dims == 3 else volume.data[..., None]
    array = data.transpose(0, 3, 2, 1)
    image = sitk.GetImageFromArray(
        np.ascontiguousarray(np.moveaxis(array, 0, -1) if len(array) > 1 else array[0]), isVector=len(array) > 1
    )
    affine = _LPS @ volume.affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    partial = path.with_name(f".partial.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(image, str(partial), True)
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:
        partial.unlink(missing_ok=True)
        raise OutputError(
            f"{path} cannot be written ({_first_line(error)}); free room or give another folder"
        ) from error


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
