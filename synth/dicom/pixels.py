"""Pixels of DICOM slices in their own units. pydicom decodes what it can, GDCM (SimpleITK) the rest."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from synth.dicom.headers import Slice, load_library, reading
from synth.errors import DataError

if TYPE_CHECKING:
    import pydicom

_SMALL = (np.uint8, np.int16, np.uint16, np.int32)


def dtype_of(slices: Sequence[Slice]) -> np.dtype:
    """Return the smallest type that holds whatever the headers allow; float32 where a rescale has fractions.

    Twelve stored bits at an intercept of -1024 give int16; sixteen unsigned ones int32.
    """
    bounds: list[float] = []
    for one in slices:
        slope, intercept = one.rescale
        if slope != round(slope) or intercept != round(intercept):
            return np.dtype(np.float32)
        bits, signed = one.stored
        low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
        bounds += [low * slope + intercept, high * slope + intercept]
    for kind in _SMALL:
        if np.iinfo(kind).min <= min(bounds) and max(bounds) <= np.iinfo(kind).max:
            return np.dtype(kind)
    return np.dtype(np.float32)


def decode(one: Slice, dtype: np.dtype) -> np.ndarray:
    """Return a slice (row, column): value = stored x slope + intercept (PS3.3, C.11.1). Errors: DataError."""
    library = load_library(one.path)
    with reading(one.path, "DICOM whose pixels cannot be read"):
        stored = stored_pixels(library.dcmread(one.path), one.path)
    if stored.shape != one.size:
        raise DataError(f"{one.path} holds pixels {stored.shape}, its header says {one.size}; export it again")
    slope, intercept = one.rescale
    values = stored if (slope, intercept) == (1.0, 0.0) else stored * np.float64(slope) + np.float64(intercept)
    return values.astype(dtype)


def stored_pixels(header: "pydicom.Dataset", path: Path) -> np.ndarray:
    """Return pixels as stored, frames first where there are several. Errors: DataError where nothing decodes them."""
    from pydicom.pixels import get_decoder

    if "PixelData" not in header:
        raise DataError(f"{path} has no pixels; export it again")
    syntax = header.file_meta.TransferSyntaxUID
    try:
        known = get_decoder(syntax).is_available
    except NotImplementedError:
        known = False
    # Pillow's decoder of JPEG 2000 knows eight bits only for some files: GDCM is the one for lossy families
    if known and (not syntax.is_compressed or syntax.is_deflated or "RLE" in syntax.name):
        return header.pixel_array
    return _by_gdcm(header, path)


def _by_gdcm(header: "pydicom.Dataset", path: Path) -> np.ndarray:
    """Decode a copy without its rescale, so that slope and intercept are applied once, by us."""
    import SimpleITK as sitk  # noqa: N813

    for name in ("RescaleSlope", "RescaleIntercept", "RescaleType", "ModalityLUTSequence"):
        if name in header:
            delattr(header, name)
    said = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        with tempfile.TemporaryDirectory(prefix="synth-dicom-") as folder:
            copy = Path(folder) / "slice.dcm"
            header.save_as(copy)
            pixels = sitk.GetArrayFromImage(sitk.ReadImage(str(copy), imageIO="GDCMImageIO"))
    except RuntimeError as error:
        name = header.file_meta.TransferSyntaxUID.name
        raise DataError(
            f"{path} is compressed as {name}, which cannot be decoded here; decompress it first (gdcmconv --raw)"
        ) from error
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(said)
    return pixels[0] if len(pixels) == 1 else pixels
