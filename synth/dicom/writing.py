"""DICOM written: voxels as a series of one file a slice, labels as a SEG on its grid; every file says SYNTHETIC.

Knows no Volume and no dataset layout; gives bytes, opens no file. Nothing is drawn: unique identifiers are hashes
(2.25.<number>, PS3.5, B.2) of what the sample is, and no date is written but the one a SEG must have, which is fixed,
so that equal pairs give equal bytes.
"""

import hashlib
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from synth.dicom.headers import load_library
from synth.errors import DataError, GeometryError

if TYPE_CHECKING:
    import pydicom

NOTICE = "SYNTHETIC - not for diagnosis"
_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_CT = ("ct", "cbct", "hu")
_MR = ("mr", "t1", "t2", "flair", "pd", "dwi", "adc", "swi", "dce")
_LESIONS = (
    "lesion",
    "tumor",
    "tumour",
    "neoplasm",
    "nodule",
    "polyp",
    "cyst",
    "metastasis",
    "stroke",
    "edema",
    "oedema",
)


class Identity(NamedTuple):
    """Whom and what a sample's files are of: the case, the software, and parts that tell it from any other sample."""

    case: str
    software: str
    parts: tuple[str | int, ...]

    @property
    def patient(self) -> str:
        """PatientID: the case with syn_ before it, so that no hospital's own ID can be meant."""
        return (self.case if self.case.startswith("syn_") else f"syn_{self.case}")[:64]

    def uid(self, *role: str | int) -> str:
        """Return the identifier of one role of this sample, the same whenever it is made.

        >>> Identity("syn_0", "s 1", (7,)).uid("study") == Identity("syn_0", "s 1", (7,)).uid("study")
        True
        """
        said = "\\x1f".join(map(str, ("synthvol", *self.parts, *role))).encode()
        raw = bytearray(hashlib.sha256(said).digest()[:16])
        raw[6], raw[8] = raw[6] & 0x0F | 0x80, raw[8] & 0x3F | 0x80  # a UUID of version 8 (RFC 9562)
        return f"2.25.{int.from_bytes(raw, 'big')}"


@dataclass(frozen=True)
class Stored:
    """Voxels as a file keeps them: value = pixel x slope + intercept."""

    pixels: np.ndarray
    bits: int
    slope: str = "1"
    intercept: str = "0"


def modality_of(channel: str) -> str:
    """Return CT, MR or OT (a Secondary Capture) by a channel's name.

    >>> [modality_of(name) for name in ("CT", "T2w", "FLAIR", "R")]
    ['CT', 'MR', 'MR', 'OT']
    """
    plain = re.sub(r"[^a-z0-9]", "", channel.lower())
    if plain in _CT or plain.startswith("ct"):
        return "CT"
    return "MR" if plain.startswith(_MR) else "OT"


def stored(values: np.ndarray, modality: str) -> Stored:
    """Return voxels in at most 16 bits: whole numbers as they are, CT in whole HU, others over 65,536 even steps.

    Errors: DataError for CT beyond 16 bits.
    """
    low, high = float(values.min()), float(values.max())
    if values.dtype.kind in "biu" or modality == "CT":
        whole = values if values.dtype.kind in "biu" else np.rint(values)
        own = np.dtype(np.uint8) if values.dtype.kind == "b" else values.dtype
        if own in (np.uint8, np.uint16):
            return Stored(whole.astype(np.uint16), 8 * own.itemsize)
        if round(low) >= -32768 and round(high) <= 32767:
            return Stored(whole.astype(np.int16), 16)
        if modality == "CT":
            raise DataError(f"CT values from {low:g} to {high:g} do not fit DICOM's 16 bits; clip them or write NIfTI")
    slope = _decimal((high - low) / 65535 if high > low else 1.0)
    intercept = _decimal(low)
    pixels = np.clip(np.rint((values.astype(np.float64) - float(intercept)) / float(slope)), 0, 65535)
    return Stored(pixels.astype(np.uint16), 16, slope, intercept)


def slices_of(
    values: np.ndarray, affine: np.ndarray, *, channel: str, number: int, identity: Identity
) -> "list[pydicom.Dataset]":
    """Return one image a slice of `values` (i, j, k) at `affine` (4, 4) RAS+: CT, MR or Secondary Capture.

    number   of the series in its study, from 1
    Errors: GeometryError for sheared axes, DataError for values that do not fit.
    """
    import pydicom

    modality = modality_of(channel)
    kept = stored(values, modality)
    turned = _LPS @ affine
    steps = np.linalg.norm(turned[:3, :3], axis=0)
    turn = turned[:3, :3] / steps
    if np.abs(turn.T @ turn - np.eye(3)).max() > 1e-3:
        raise GeometryError(f"case {identity.case!r} has sheared axes, which a DICOM series has not; resample it first")
    out: list[pydicom.Dataset] = []
    for k in range(values.shape[2]):
        one = _head(modality, identity, number)
        one.SeriesDescription = f"SYNTHETIC {channel}"[:64]
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = identity.uid("instance", number, k)
        one.InstanceNumber = k + 1
        one.ImageOrientationPatient = [_decimal(part) for part in (*turn[:, 0], *turn[:, 1])]
        one.ImagePositionPatient = [_decimal(part) for part in (turned @ [0, 0, k, 1])[:3]]
        one.PixelSpacing = [_decimal(steps[1]), _decimal(steps[0])]
        one.SliceThickness = _decimal(steps[2])
        if modality == "MR":
            one.SpacingBetweenSlices = _decimal(steps[2])
        if modality == "OT":
            one.PatientOrientation = [_letter(turn[:, axis]) for axis in (0, 1)]
        _put_pixels(one, kept, k, modality)
        out.append(one)
    return out


def segmentation_of(
    mask: np.ndarray, images: "list[pydicom.Dataset]", segments: list[tuple[str, str | None]], identity: Identity
) -> "pydicom.Dataset":
    """Return a BINARY SEG of `mask` (i, j, k) with values 1, 2, ... on the slices `images`, written by highdicom.

    segments   (name, SNOMED code or None) in order of the values; without a code, the name is looked up
    Errors: DataError where highdicom is not installed.
    """
    try:
        import highdicom
    except ImportError:
        raise DataError("a DICOM-SEG is written by highdicom; run pip install 'synthvol[dicom]'") from None
    from pydicom.sr.codedict import codes
    from pydicom.uid import ExplicitVRLittleEndian

    software, _, version = identity.software.partition(" ")
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=software, version=version or "0", family=codes.cid7162.ArtificialIntelligence
    )
    described = []
    for number, (name, snomed) in enumerate(segments, start=1):
        category, kind = _codes(name, snomed)
        described.append(
            highdicom.seg.SegmentDescription(
                segment_number=number,
                segment_label=name,
                segmented_property_category=category,
                segmented_property_type=kind,
                algorithm_type="AUTOMATIC",
                algorithm_identification=algorithm,
            )
        )
    made: Any = highdicom.seg.Segmentation(
        source_images=images,
        pixel_array=np.ascontiguousarray(mask.transpose(2, 1, 0)),
        segmentation_type="BINARY",
        segment_descriptions=described,
        series_instance_uid=identity.uid("series", "seg"),
        series_number=1000,
        sop_instance_uid=identity.uid("instance", "seg"),
        instance_number=1,
        manufacturer=software,
        manufacturer_model_name=software,
        software_versions=identity.software,
        device_serial_number="0",
        content_label="SYNTHETIC",
        content_description=NOTICE,
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    made.SeriesDescription, made.ContentQualification = "SYNTHETIC segmentation", "RESEARCH"
    _settle(made, identity)
    return made


def to_bytes(one: "pydicom.Dataset") -> bytes:
    """Return the file of a dataset."""
    out = io.BytesIO()
    one.save_as(out, enforce_file_format=True)
    return out.getvalue()


def _head(modality: str, identity: Identity, number: int) -> Any:
    """Return what all slices of a series say: patient, study, series, equipment, how it was derived."""
    library = load_library(Path(identity.case))
    from pydicom import uid
    from pydicom.dataset import FileMetaDataset

    kind = {"CT": uid.CTImageStorage, "MR": uid.MRImageStorage}.get(modality, uid.SecondaryCaptureImageStorage)
    one: Any = library.Dataset()
    meta: Any = FileMetaDataset()
    meta.MediaStorageSOPClassUID = one.SOPClassUID = kind
    meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    meta.ImplementationClassUID = Identity("", "", ()).uid("implementation")
    meta.ImplementationVersionName = "SYNTHVOL"
    one.file_meta = meta
    one.SpecificCharacterSet = "ISO_IR 192"
    one.PatientName, one.PatientID = f"SYNTHETIC^{identity.case}"[:64], identity.patient
    one.PatientBirthDate = one.PatientSex = one.Laterality = ""
    one.PatientComments = NOTICE
    one.StudyInstanceUID, one.SeriesInstanceUID = identity.uid("study"), identity.uid("series", number)
    one.FrameOfReferenceUID = identity.uid("frame of reference")
    one.StudyDate = one.StudyTime = one.ReferringPhysicianName = one.StudyID = one.AccessionNumber = ""
    one.StudyDescription = NOTICE
    one.Modality, one.SeriesNumber, one.PositionReferenceIndicator = modality, number, ""
    one.Manufacturer = one.ManufacturerModelName = identity.software.partition(" ")[0]
    one.SoftwareVersions = identity.software[:64]
    one.ContentQualification, one.BurnedInAnnotation = "RESEARCH", "NO"
    one.DerivationDescription = f"{NOTICE}; made by a generative model"
    one.ImageType = ["DERIVED", "SECONDARY", *{"CT": ["AXIAL"], "MR": ["OTHER"]}.get(modality, [])]
    if modality == "OT":
        one.ConversionType = "SYN"
        return one
    one.PatientPosition = "HFS"
    one.AcquisitionNumber = None
    if modality == "CT":
        one.KVP = None
    else:
        one.ScanningSequence, one.SequenceVariant, one.ScanOptions, one.MRAcquisitionType = "RM", "NONE", "", "3D"
        one.RepetitionTime = one.EchoTime = one.EchoTrainLength = None
    return one


def _put_pixels(one: Any, kept: Stored, k: int, modality: str) -> None:
    plane = kept.pixels[:, :, k].T
    one.Rows, one.Columns = plane.shape
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.BitsAllocated, one.BitsStored, one.HighBit = 16, kept.bits, kept.bits - 1
    one.PixelRepresentation = int(plane.dtype.kind == "i")
    if modality == "CT" or (kept.slope, kept.intercept) != ("1", "0"):
        one.RescaleSlope, one.RescaleIntercept = kept.slope, kept.intercept
        one.RescaleType = "HU" if modality == "CT" else "US"
    one.PixelData = np.ascontiguousarray(plane, dtype=plane.dtype.newbyteorder("<")).tobytes()


def _settle(made: Any, identity: Identity) -> None:
    """Take out of a SEG what differs from run to run: today's date, and identifiers that were drawn."""
    made.ContentDate, made.ContentTime = "19000101", "000000"
    for name in ("InstanceCreationDate", "InstanceCreationTime", "ContributingEquipmentSequence"):
        if name in made:
            delattr(made, name)
    organisation = identity.uid("dimensions")
    for item in made.DimensionOrganizationSequence:
        item.DimensionOrganizationUID = organisation
    for item in made.DimensionIndexSequence:
        item.DimensionOrganizationUID = organisation
    made.file_meta.ImplementationClassUID = Identity("", "", ()).uid("implementation")
    made.file_meta.ImplementationVersionName = "SYNTHVOL"


def _codes(name: str, snomed: str | None) -> tuple[Any, Any]:
    """Return category and type of a segment (PS3.16, CID 7150); SNOMED CT's general terms where none fits."""
    from pydicom.sr.codedict import Code, codes

    words = re.findall(r"[A-Za-z]+", name)
    lesion = any(word.lower().rstrip("s") in _LESIONS for word in words)
    category = codes.SCT.MorphologicallyAbnormalStructure if lesion else codes.SCT.AnatomicalStructure
    if snomed:
        return category, Code(snomed, "SCT", name)
    for spelled in ("".join(word.capitalize() for word in words), *(word.capitalize() for word in reversed(words))):
        known = getattr(codes.SCT, spelled, None) if spelled else None
        if known is not None:
            return category, known
    return category, category


def _letter(direction: np.ndarray) -> str:
    """Return the side of the patient that a direction (LPS) mostly runs to (PS3.3, C.7.6.1.1.1).

    >>> _letter(np.array([0.1, -0.9, 0.2]))
    'A'
    """
    axis = int(np.abs(direction).argmax())
    return ("RL", "AP", "FH")[axis][int(direction[axis] > 0)]


def _decimal(value: float) -> str:
    """Return a number as DICOM's decimal string, at most 16 characters."""
    from pydicom.valuerep import format_number_as_ds

    number = float(value)
    return "0" if number == 0 else format_number_as_ds(number).strip()
