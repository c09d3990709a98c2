"""NIfTI as bytes: header to geometry, voxels to and from the stored order, deflate. Knows no Volume.

The sform counts where its code is above 0, else the qform, else the pixel sizes alone; lengths in metres or
micrometres become millimetres.
"""

import io
import math
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from synth.errors import DataError, OutputError

LEVELS = {2: 3}
"""Effort of isal by bytes a voxel, 2 otherwise: 3 is faster and smaller on 16 bits, 2 to 4 times slower on others."""
_BLOCK_BYTES = 4 << 20
_MM_PER_UNIT = {1: 1000.0, 3: 0.001}


def compressor() -> str:
    """Return what gzip members are made with; equal bytes need equal compressors (isal: and equal CPU features)."""
    try:
        import isal
    except ImportError:
        return f"zlib {zlib.ZLIB_RUNTIME_VERSION} level 1"
    return f"isal {isal.__version__} levels {LEVELS.get(2)} (16 bits), 2"


class Plan(NamedTuple):
    """Where the voxels of a NIfTI file are and what they mean."""

    grid: tuple[int, ...]
    channels: int
    affine: np.ndarray
    dtype: np.dtype[Any]
    offset: int
    scale: tuple[float, float] | None

    @property
    def values(self) -> np.dtype[Any]:
        """Type of the voxels once scaled: whole numbers stay whole (CT kept with an offset) where 32 bits hold them."""
        if self.scale is None or self.dtype.kind not in "iuf":
            return self.dtype.newbyteorder("=")
        if self.dtype.kind in "iu" and all(part.is_integer() for part in self.scale):
            slope, inter = self.scale
            ends = [slope * float(end) + inter for end in (np.iinfo(self.dtype).min, np.iinfo(self.dtype).max)]
            for kind in (np.int16, np.int32):
                if np.iinfo(kind).min <= min(ends) and max(ends) <= np.iinfo(kind).max:
                    return np.dtype(kind)
        return np.dtype(np.float32)

    @classmethod
    def of(cls, raw: bytes, path: Path) -> "Plan":
        from nibabel.nifti1 import Nifti1Header
        from nibabel.nifti2 import Nifti2Header
        from nibabel.spatialimages import HeaderDataError

        sizes = {int.from_bytes(raw[:4], "little"), int.from_bytes(raw[:4], "big")}
        kind = Nifti2Header if 540 in sizes else Nifti1Header
        if not sizes & {348, 540} or len(raw) < kind.template_dtype.itemsize:
            raise DataError(f"{path} is no NIfTI file; check or copy the file again")
        header = kind.from_fileobj(io.BytesIO(raw), check=False)
        if not bytes(header["magic"].item()).startswith((b"n+1", b"n+2")):
            raise DataError(f"{path} is not a single-file NIfTI (.hdr/.img pair or Analyze); convert it to .nii.gz")
        try:
            dtype = header.get_data_dtype()
            affine = _affine(header)
            offset = int(header["vox_offset"])
        except KeyError:  # a datatype that nibabel has no name for
            dtype, affine, offset = np.dtype(np.void), np.eye(4), 0
        except (ValueError, OverflowError, HeaderDataError) as error:
            raise DataError(
                f"{path} has a broken NIfTI header ({last_line(error)}); check or copy the file again"
            ) from error
        if dtype.fields is not None:
            raise DataError(f"{path} is an RGB volume; split it into channels first")
        if dtype.kind == "V":
            raise DataError(
                f"{path} has datatype {int(header['datatype'])} in its header, which is no type of numbers; write it "
                "again as whole numbers or floats"
            )
        dims = [int(n) for n in header["dim"]]
        shape = tuple(dims[1 : dims[0] + 1]) if 1 <= dims[0] <= 7 else ()
        if not shape or min(shape) < 1:
            raise DataError(f"{path} has a broken NIfTI header (dim {dims}); check or copy the file again")
        if sum(n > 1 for n in shape[3:]) > 1:
            raise DataError(f"{path} has axes {shape}; give one volume of channels, split time points into files")
        slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
        inter = inter if np.isfinite(inter) else 0.0
        scaled = np.isfinite(slope) and slope != 0.0 and (slope, inter) != (1.0, 0.0)
        grid = (*shape[:3], *(1,) * (3 - len(shape)))
        channels = math.prod(shape[3:])
        return cls(grid, channels, affine, dtype, offset, (slope, inter) if scaled else None)


def _affine(header: Any) -> np.ndarray:
    """Return voxel -> mm, RAS+: sform, else qform, else pixel sizes from the origin (NIfTI-1 methods 3, 2, 1)."""
    unit = _MM_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)
    if int(header["sform_code"]) > 0:
        affine = header.get_sform()
    else:
        sizes = np.abs(header["pixdim"][1:4])
        beyond = np.arange(1, 4) > int(header["dim"][0])
        header["pixdim"][1:4] = np.where(beyond & (sizes == 0), 1.0, sizes)
        if abs(float(header["pixdim"][0])) != 1.0:
            header["pixdim"][0] = 1.0  # the standard reads a missing handedness as right
        coded = int(header["qform_code"]) > 0
        affine = header.get_qform() if coded else np.diag([*header["pixdim"][1:4].astype(np.float64), 1.0])
    affine = np.array(affine, dtype=np.float64)
    affine[:3] *= unit
    return affine


def _bytes_of(path: Path, inflate: Callable[[Path], bytes]) -> bytes:
    """Return a NIfTI file's bytes, decompressed by `inflate`; faults name the file."""
    try:
        raw = inflate(path)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        if not packed:
            raise DataError(
                f"{path} is not gzip data; check or copy the file again, or name it .nii if it is not compressed"
            ) from error
        raise DataError(f"{path} is truncated or damaged ({last_line(error)}); copy the file again") from error
    if raw[:2] == b"\x1f\x8b":
        raise DataError(f"{path} is gzip data; name it .nii.gz")
    return raw


def _inflated(path: Path) -> bytes:
    if not path.name.lower().endswith(".gz"):
        return path.read_bytes()
    try:
        from isal import igzip
    except ImportError:
        import gzip as igzip
    from importlib import import_module

    fault = getattr(import_module(igzip.decompress.__module__), "IsalError", zlib.error)
    try:
        return igzip.decompress(path.read_bytes())
    except fault as error:
        raise ValueError(last_line(error)) from error


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        raw = file.read(1 << 16)
    return zlib.decompressobj(31).decompress(raw, 1024) if path.name.lower().endswith(".gz") else raw[:1024]


def plan(path: Path) -> Plan:
    """Return what the header says. Errors: DataError naming the file."""
    return Plan.of(_bytes_of(path, _head), path)


def decode(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return (voxels (channel, i, j, k), affine); scl_slope and scl_inter are applied. Errors: DataError."""
    raw = _bytes_of(path, _inflated)
    header = Plan.of(raw, path)
    shape = (*header.grid, header.channels)
    count = math.prod(shape)
    needed = header.offset + count * header.dtype.itemsize
    if len(raw) < needed or header.offset < 0:
        raise DataError(f"{path} is truncated: {len(raw)} of {needed} bytes; copy the file again")
    stored = np.frombuffer(raw, dtype=header.dtype, count=count, offset=header.offset).reshape(shape, order="F")
    if header.scale is not None and header.dtype.kind in "iuf":
        slope, inter = header.scale
        stored = (stored * np.float64(slope) + np.float64(inter)).astype(header.values)
    data = np.empty((header.channels, *header.grid), dtype=stored.dtype.newbyteorder("="))
    for j in range(header.grid[1]):  # as in _slab: row by row, then turned in the cache
        data[:, :, j] = np.ascontiguousarray(stored[:, j].T).swapaxes(1, 2)
    return data, header.affine


def encode(
    data: np.ndarray, affine: np.ndarray, path: Path, *, packed: bool, fourth: bool = False
) -> list[bytes | memoryview]:
    """Return the file in pieces for voxels (channel, i, j, k), gzip where `packed`; `fourth`: channels as time points.

    Errors: OutputError.
    """
    head = _first_bytes(data, affine, path, fourth=fourth)
    return _gzip(head, data) if packed else [head, *(_slab(data, *span) for span in _spans(data))]


def last_line(error: BaseException) -> str:
    """Return what an error says, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _first_bytes(data: np.ndarray, affine: np.ndarray, path: Path, *, fourth: bool) -> bytes:
    """Return the first 352 bytes; sform and qform say the same (code 1, scanner).

    Channels are a vector along the fifth axis (NIfTI-1, intent 1007), or with `fourth` what the fourth axis counts.
    """
    from nibabel.nifti1 import Nifti1Header

    header = Nifti1Header()
    try:
        header.set_data_dtype(data.dtype)
        grid = tuple(data.shape[1:])
        header.set_data_shape(grid if len(data) == 1 else (*grid, *(() if fourth else (1,)), len(data)))
    except ValueError as error:
        raise OutputError(f"{path} cannot be written as NIfTI ({last_line(error)}); write .nrrd instead") from error
    if len(data) > 1 and not fourth:
        header.set_intent("vector")
    header.set_qform(affine, code=1)
    header.set_sform(affine, code=1)
    header.set_xyzt_units("mm")
    header["scl_slope"], header["scl_inter"] = 1.0, 0.0
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    return header.binaryblock + b"\0\0\0\0"


def _spans(data: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Yield (channel, first, last) of slabs along the slowest axis on disk, about _BLOCK_BYTES each."""
    thick = max(1, _BLOCK_BYTES // max(data[0, :, :, :1].nbytes, 1))
    for channel in range(data.shape[0]):
        for first in range(0, data.shape[3], thick):
            yield channel, first, min(first + thick, data.shape[3])


def _slab(data: np.ndarray, channel: int, first: int, last: int) -> memoryview:
    """Return slices first..last of a channel as NIfTI stores them: i fastest."""
    out = np.empty((last - first, data.shape[2], data.shape[1]), dtype=data.dtype)
    for j in range(data.shape[2]):
        # two steps: turning a small copy spares the cache misses of a stride that is a power of two
        out[:, j] = np.ascontiguousarray(data[channel, :, j, first:last]).T
    return out.data.cast("B")


def _gzip(head: bytes, data: np.ndarray) -> list[bytes | memoryview]:
    """Return one gzip member without name or time: slabs deflated apart, so that cores share the work.

    Slabs are cut by size alone; the bytes do not depend on the number of threads.
    """
    from concurrent.futures import ThreadPoolExecutor

    try:
        from isal import isal_zlib as codec

        level = LEVELS.get(data.dtype.itemsize, 2)
    except ImportError:
        import zlib as codec

        level = 1

    def deflate(content: bytes | memoryview, *, last: bool) -> bytes:
        packer = codec.compressobj(level, codec.DEFLATED, -15, 9)
        return packer.compress(content) + packer.flush(codec.Z_FINISH if last else codec.Z_FULL_FLUSH)

    def packed(span: tuple[int, int, int]) -> tuple[bytes, memoryview]:
        content = _slab(data, *span)
        return deflate(content, last=False), content

    crc, length = codec.crc32(head), len(head)
    parts: list[bytes | memoryview] = [b"\x1f\x8b\x08\0\0\0\0\0\0\xff", deflate(head, last=False)]
    spans = list(_spans(data))
    with ThreadPoolExecutor(max(1, min(4, os.cpu_count() or 1, len(spans)))) as pool:
        for part, content in pool.map(packed, spans):
            crc, length = codec.crc32(content, crc), length + len(content)
            parts.append(part)
    tail = (crc & 0xFFFFFFFF).to_bytes(4, "little") + (length & 0xFFFFFFFF).to_bytes(4, "little")
    return [*parts, deflate(b"", last=True), tail]
