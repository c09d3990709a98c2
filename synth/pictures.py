"""PNG and JPEG as voxels: (channel, column, row) and the step between pixels. Knows no Volume and no dataset layout.

Values are kept as stored: 8 or 16 bits, grey or RGB; an image is turned as its EXIF orientation says. Where a PNG
says pixels per metre (pHYs), that is its spacing; JPEG densities are the screen's, and are not read.
"""

import struct
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from synth.errors import DataError, OutputError

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg")
_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
_ALPHA = {"LA": 1, "RGBA": 3}
_DEEP = {2: 3, 4: 2, 6: 4}
"""PNG colour types of several samples -> samples a pixel: at 16 bits Pillow gives 8, so ITK reads them."""


class Plan(NamedTuple):
    """What a picture's header says: columns and rows as shown, channels without alpha, type, mm or None."""

    grid: tuple[int, int]
    channels: int
    dtype: np.dtype
    spacing_mm: tuple[float, float] | None

    @property
    def affine(self) -> np.ndarray:
        """Pixel -> mm in RAS+, as ITK places pictures: the first pixel at 0, columns to the left, rows to the back."""
        x, y = self.spacing_mm or (1.0, 1.0)
        return np.diag([-x, -y, 1.0, 1.0])


def plan(path: Path) -> Plan:
    """Return what the header says. Errors: DataError naming the file."""
    with _opened(path) as image:
        turned = _orientation(image, path) in (5, 6, 7, 8)
        columns, rows = image.size[::-1] if turned else image.size
        step = _spacing(image)
        step = (step[1], step[0]) if step and turned else step
        deep = _deep(path)
        channels = 3 if image.mode in ("P", "RGB", "RGBA") else 1
        kind = np.uint16 if deep or image.mode.startswith("I") else np.uint8
    return Plan((columns, rows), channels, np.dtype(kind), step)


def decode(path: Path) -> np.ndarray:
    """Return an image (channel, column, row); a palette becomes RGB, an opaque alpha is dropped. Errors: DataError."""
    from PIL import ImageOps

    if samples := _deep(path):
        with _opened(path) as image:
            if _orientation(image, path) != 1:
                raise DataError(f"{path} is 16-bit colour to be shown turned; turn it and save it without EXIF")
        data = _by_itk(path)
        data = data.reshape(*data.shape[:2], -1)
        if data.shape[2] != samples:
            raise DataError(f"{path} has {data.shape[2]} samples a pixel, its header says {samples}; write it again")
        alpha = data[..., samples - 1 :] if samples in (2, 4) else None
        data = data[..., : samples - 1] if samples in (2, 4) else data
    else:
        with _opened(path) as image:
            shown = ImageOps.exif_transpose(_loaded(image, path))
            shown = shown.convert("RGBA" if "transparency" in shown.info else "RGB") if shown.mode == "P" else shown
            data = np.asarray(shown).reshape(shown.height, shown.width, -1)
            data = _as_stored(data, path)
            alpha = data[..., _ALPHA[shown.mode] :] if shown.mode in _ALPHA else None
            data = data[..., : _ALPHA[shown.mode]] if shown.mode in _ALPHA else data
    if alpha is not None and alpha.min() < np.iinfo(alpha.dtype).max:
        raise DataError(f"{path} is transparent in places, where it has no value; save it without alpha")
    return np.ascontiguousarray(data.transpose(2, 1, 0))


def decode_labels(path: Path) -> np.ndarray:
    """Return a mask (1, column, row): grey values, or the indices of a palette. Errors: DataError for other files."""
    if path.suffix.lower() != ".png":
        raise DataError(f"{path} is JPEG, which changes values; save masks as PNG")
    with _opened(path) as image:
        if image.mode == "P":
            return np.asarray(_loaded(image, path)).T[None].copy()
    data = decode(path)
    if (data != data[:1]).any():
        raise DataError(f"{path} is a mask in colours; save label values as grey or as a palette PNG")
    return data[:1]


def is_palette(path: Path) -> bool:
    """True for a picture whose values are indices of a palette. Errors: DataError naming the file."""
    with _opened(path) as image:
        return image.mode == "P"


def encode(data: np.ndarray, spacing_mm: tuple[float, ...], path: Path) -> bytes:
    """Return the PNG of (channel, column, row), grey or RGB interleaved, uint8 or uint16; pHYs where not 1 mm.

    Written here and not by Pillow, which knows no RGB of 16 bits; every row has filter 2, up (PNG 1.2, 6.4).
    Errors: OutputError for other channels, types and suffixes.
    """
    import zlib

    if path.suffix.lower() != ".png":
        raise OutputError(f"{path} would be JPEG, which changes values; write .png")
    if data.ndim != 3 or len(data) not in (1, 3):
        raise OutputError(f"{path} cannot hold shape {data.shape}; PNG takes 2D grey (1) or RGB (3) channels")
    if data.dtype not in (np.uint8, np.uint16):
        raise OutputError(f"{path} cannot hold {data.dtype}; PNG takes uint8 and uint16")
    bits = 8 * data.dtype.itemsize
    lines = data.transpose(2, 1, 0).astype(f">u{data.dtype.itemsize}").tobytes()
    lines = np.frombuffer(lines, np.uint8).reshape(data.shape[2], -1)
    up = lines - np.vstack([np.zeros_like(lines[:1]), lines[:-1]])  # modulo 256, as the standard has it
    filtered = np.hstack([np.full((len(up), 1), 2, np.uint8), up])
    colour = 0 if len(data) == 1 else 2
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", data.shape[1], data.shape[2], bits, colour, 0, 0, 0))]
    per_metre = [round(1000.0 / step) for step in spacing_mm]
    if tuple(spacing_mm) != (1.0, 1.0) and all(0 < value < 1 << 31 for value in per_metre):
        chunks.append((b"pHYs", struct.pack(">IIB", *per_metre, 1)))
    chunks += [(b"IDAT", zlib.compress(filtered.tobytes(), 6)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )


def _opened(path: Path) -> "Image":
    from PIL import Image

    try:
        image = Image.open(path, formats=("PNG", "JPEG"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} is no picture that can be read ({_line(error, path)}); save it again") from error
    if image.format not in (_FORMATS[path.suffix.lower()], "MPO"):
        raise DataError(f"{path} is {image.format} data; name it .{str(image.format).lower()}")
    if getattr(image, "n_frames", 1) > 1 and image.format == "PNG":
        raise DataError(f"{path} is animated ({image.n_frames} frames); save one picture a file")  # pyright: ignore
    if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I"):
        raise DataError(f"{path} has colours of kind {image.mode}; save it as grey or RGB")
    return image


def _orientation(image: "Image", path: Path) -> int:
    """Return the EXIF orientation, 1 where there is none; only a PNG that mentions EXIF is decoded to find it."""
    if image.format == "PNG":
        raw = path.read_bytes()
        if not any(mark in raw for mark in (b"eXIf", b"profile type exif", b"XML:com.adobe.xmp")):
            return 1
        _loaded(image, path)
    return int(image.getexif().get(0x0112, 1))


def _loaded(image: "Image", path: Path) -> "Image":
    try:
        image.load()
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{path} is truncated or damaged ({_line(error, path)}); copy the file again") from error
    return image


def _head(path: Path) -> tuple[int, int]:
    """Return (bit depth, colour type) of a PNG, (8, 2) for others."""
    with path.open("rb") as file:
        raw = file.read(26)
    return (raw[24], raw[25]) if raw[:4] == b"\x89PNG" and len(raw) == 26 else (8, 2)


def _deep(path: Path) -> int:
    """Return the samples a pixel of a 16-bit PNG that has several, else 0."""
    depth, colour = _head(path)
    return _DEEP.get(colour, 0) if depth == 16 else 0


def _as_stored(data: np.ndarray, path: Path) -> np.ndarray:
    """Undo what Pillow does to grey PNGs of 1, 2 and 4 bits: it stretches them to 8."""
    depth, colour = _head(path)
    if data.dtype == np.bool_:
        return data.astype(np.uint8)
    if colour == 0 and depth in (2, 4):
        return data // {2: 85, 4: 17}[depth]
    return data.astype(np.uint16) if data.dtype == np.int32 else data


def _spacing(image: "Image") -> tuple[float, float] | None:
    if image.format != "PNG" or "dpi" not in image.info:
        return None
    steps = tuple(1000.0 / round(dots / 0.0254) if dots > 0 else 0.0 for dots in image.info["dpi"])
    return (steps[0], steps[1]) if min(steps) > 0 else None


def _by_itk(path: Path) -> np.ndarray:
    import SimpleITK as sitk  # noqa: N813

    try:
        return sitk.GetArrayFromImage(sitk.ReadImage(str(path), imageIO="PNGImageIO"))
    except RuntimeError as error:
        raise DataError(f"{path} is truncated or damaged; copy the file again") from error


def _line(error: BaseException, path: Path) -> str:
    return " ".join(str(error).replace(str(path), path.name).split())[:160]
