"""DICOM headers as values: one Slice a file, every fault one line. Knows no stack and no pixels."""

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from synth.errors import DataError, GeometryError, SynthError

if TYPE_CHECKING:
    import pydicom

SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
"""SOP classes of Segmentation Storage and Label Map Segmentation Storage (PS3.4, table B.5-1)."""
TELLING = (
    *("TemporalPositionIdentifier", "AcquisitionNumber", "EchoTime", "EchoNumbers", "DiffusionBValue", "InversionTime"),
    *("FlipAngle", "TriggerTime", "NominalPercentageOfCardiacPhase", "ImageType", "ConvolutionKernel", "KVP"),
    *("ContrastBolusAgent", "AcquisitionTime", "ContentTime"),
)
"""Tags that tell apart files of one place: time points, echoes, b-values, phases, kernels; times come last."""
_WANTED = (
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesDescription", "Modality", "PatientID"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SpacingBetweenSlices", "SliceThickness"),
    *("Rows", "Columns", "InstanceNumber", "RescaleSlope", "RescaleIntercept", "BitsStored", "PixelRepresentation"),
    *("SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", *TELLING),
)


def holds_dicom(folder: Path) -> bool:
    """True when a file of `folder` itself is DICOM."""
    return folder.is_dir() and any(is_dicom(path) for path in sorted(folder.iterdir()))


def is_dicom(path: Path) -> bool:
    """True for a file with the DICOM preamble: 128 bytes, then DICM (PS3.10, 7.1)."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def find_segmentation(place: Path) -> Path | None:
    """Return the DICOM-SEG that `place` is, or holds as its only DICOM file; None where there is none."""
    files = [path for path in sorted(place.iterdir()) if is_dicom(path)] if place.is_dir() else [place]
    if len(files) != 1 or not is_dicom(files[0]):
        return None
    return files[0] if text_of(read_header(files[0], only=("SOPClassUID",)), "SOPClassUID") in SEGMENTATIONS else None


def read_header(path: Path, *, only: Sequence[str] = _WANTED) -> "pydicom.Dataset":
    """Return a file's elements without its pixels, those of `only`. Errors: DataError."""
    library = load_library(path)
    with reading(path):
        return library.dcmread(path, stop_before_pixels=True, specific_tags=list(only))


def load_library(path: Path) -> Any:
    """Return pydicom. Errors: DataError with how to install it."""
    try:
        import pydicom
    except ImportError:
        raise DataError(f"{path} is DICOM, which needs pydicom; run pip install 'synthvol[dicom]'") from None
    return pydicom


@contextlib.contextmanager
def reading(path: Path, what: str = "damaged DICOM") -> Iterator[None]:
    """Turn whatever a damaged file makes pydicom raise, at any access, into a DataError; keep its warnings quiet.

    Values that are odd but readable bring warnings; those that matter are checked here.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (SynthError, MemoryError):
        raise
    except Exception as error:  # pydicom has kinds of its own, and lets those of the standard library through
        said = " ".join(str(error).split())[:160] or type(error).__name__
        raise DataError(f"{path} is {what} ({said}); copy or export it again") from error


def text_of(header: "pydicom.Dataset", name: str) -> str:
    """Return an element as plain text, empty where it is absent."""
    value = header.get(name, "")
    if value is None:
        return ""
    plain = value if isinstance(value, str) or not hasattr(value, "__iter__") else "\\".join(map(str, value))
    return str(plain).strip()


def numbers_of(header: "pydicom.Dataset", name: str, count: int, path: Path) -> np.ndarray:
    """Return `count` finite numbers of an element. Errors: GeometryError where they are not there."""
    value = header.get(name)
    if value is None or value == "":
        raise GeometryError(f"{path} has no {name}; its place is not known, so leave the file out or export it again")
    try:
        numbers = np.atleast_1d(np.array(value, dtype=np.float64))
    except (TypeError, ValueError):
        numbers = np.zeros(0)
    if numbers.shape != (count,) or not np.isfinite(numbers).all():
        raise GeometryError(f"{path} has {name} {text_of(header, name)!r}; {count} numbers are needed, export it again")
    return numbers


@dataclass(frozen=True, eq=False)
class Slice:
    """One image file: where it is (LPS mm), how its values are stored, and what tells it from its neighbours.

    orientation   two unit rows, along a pixel row and down a pixel column
    spacing       mm between rows, between columns (the order of PixelSpacing)
    """

    path: Path
    series: str
    kind: str
    modality: str
    position: np.ndarray
    orientation: np.ndarray
    spacing: np.ndarray
    size: tuple[int, int]
    instance: str
    rescale: tuple[float, float]
    stored: tuple[int, bool]
    told: Mapping[str, str]
    thickness: float
    patient: str
    scout: bool

    @classmethod
    def of(cls, header: "pydicom.Dataset", path: Path) -> "Slice":
        """Return the slice a header describes. Errors: DataError, GeometryError for what is not read here."""
        with reading(path):
            return cls._of(header, path)

    @classmethod
    def _of(cls, header: "pydicom.Dataset", path: Path) -> "Slice":
        _require_plain(header, path)
        orientation = numbers_of(header, "ImageOrientationPatient", 6, path).reshape(2, 3)
        if np.abs(orientation @ orientation.T - np.eye(2)).max() > 1e-3:
            raise GeometryError(
                f"{path} has ImageOrientationPatient {text_of(header, 'ImageOrientationPatient')}, which is no pair of "
                "perpendicular unit vectors; export it again"
            )
        spacing = numbers_of(header, "PixelSpacing", 2, path)
        if spacing.min() <= 0:
            raise GeometryError(f"{path} has PixelSpacing {text_of(header, 'PixelSpacing')}; give mm above 0")
        bits = int(header.get("BitsStored") or 16)
        if not 1 <= bits <= 32:
            raise DataError(f"{path} has BitsStored {bits}; 1 to 32 are read, export it again")
        gaps = (text_of(header, name) for name in ("SpacingBetweenSlices", "SliceThickness"))
        return cls(
            path=path,
            series=text_of(header, "SeriesInstanceUID"),
            kind=kind_of(header),
            modality=text_of(header, "Modality").upper(),
            position=numbers_of(header, "ImagePositionPatient", 3, path),
            orientation=orientation / np.linalg.norm(orientation, axis=1, keepdims=True),  # often rounded
            spacing=spacing,
            size=(int(header.Rows), int(header.Columns)),
            instance=text_of(header, "InstanceNumber") or "?",
            rescale=(_number(header, "RescaleSlope", 1.0, path), _number(header, "RescaleIntercept", 0.0, path)),
            stored=(bits, bool(header.get("PixelRepresentation") or 0)),
            told={name: text_of(header, name) for name in TELLING},
            thickness=next((abs(float(gap)) for gap in gaps if _is_number(gap) and float(gap) != 0), 1.0),
            patient=text_of(header, "PatientID"),
            scout="LOCALIZER" in text_of(header, "ImageType").upper(),
        )

    @property
    def normal(self) -> np.ndarray:
        """Unit vector across the slice: row direction x column direction."""
        across = np.cross(self.orientation[0], self.orientation[1])
        return across / np.linalg.norm(across)


def kind_of(header: "pydicom.Dataset") -> str:
    """Return the modality with the series' description, in few words."""
    return " ".join(filter(None, (text_of(header, "Modality"), text_of(header, "SeriesDescription")[:40]))) or "?"


def _require_plain(header: "pydicom.Dataset", path: Path) -> None:
    """Errors: DataError for segmentations, several frames in one file, colour and inverted grey."""
    if text_of(header, "SOPClassUID") in SEGMENTATIONS:
        raise DataError(f"{path} is a DICOM-SEG, no image; put it beside the image as mask.dcm")
    if _is_number(text_of(header, "NumberOfFrames")) and int(header.NumberOfFrames) > 1:
        raise DataError(
            f"{path} holds {header.NumberOfFrames} frames in one file (enhanced multi-frame), which is not read; "
            "convert it to one file a slice, or to NIfTI (dcm2niix)"
        )
    if int(header.get("SamplesPerPixel") or 1) != 1:
        raise DataError(f"{path} is a colour image ({text_of(header, 'PhotometricInterpretation')}); give grey slices")
    meaning = text_of(header, "PhotometricInterpretation")
    if meaning not in ("MONOCHROME2", ""):
        why = "low values are bright there" if meaning == "MONOCHROME1" else "its values are no grey"
        raise DataError(f"{path} is {meaning}, {why}; export it as MONOCHROME2")


def _number(header: "pydicom.Dataset", name: str, otherwise: float, path: Path) -> float:
    said = text_of(header, name)
    if not said:
        return otherwise
    if not _is_number(said):
        raise DataError(f"{path} has {name} {said!r}; it must be a number, export it again")
    return float(said)


def _is_number(said: str) -> bool:
    try:
        return bool(np.isfinite(float(said)))
    except ValueError:
        return False
