"""DICOM written for tests: a series of slices and a SEG, tag by tag, so that any of them can be spoilt."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items

from synth.volume import Volume

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
Change = Callable[[Dataset, int], object]


def write_series(
    folder: Path,
    volume: Volume,
    *,
    slope: float = 1.0,
    intercept: float = 0.0,
    modality: str = "CT",
    patient: str = "P1",
    series: str = "1.2.3.4",
    change: Change | None = None,
    keep: Sequence[int] | None = None,
    syntax: str = uid.ExplicitVRLittleEndian,
    prefix: str = "im",
) -> list[Path]:
    """Write one CT or MR file a slice; names do not follow the order in space. `change` may spoil a header."""
    affine = LPS @ volume.affine
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    turn = affine[:3, :3] / steps
    stored = np.rint((volume.data[0].astype(np.float64) - intercept) / slope).astype(np.int16)
    paths = []
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(volume.grid[2]) if keep is None else keep:
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = uid.CTImageStorage if modality == "CT" else uid.MRImageStorage
        meta.MediaStorageSOPInstanceUID = f"{series}.{k + 1}"
        meta.TransferSyntaxUID = uid.UID(syntax)
        one = Dataset()
        one.file_meta = meta
        one.SOPClassUID, one.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = "1.2.3", series, "1.2.9"
        one.Modality, one.PatientID, one.InstanceNumber = modality, patient, k + 1
        one.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        one.ImageOrientationPatient = [f"{v:.10g}"[:16] for v in (*turn[:, 0], *turn[:, 1])]
        one.ImagePositionPatient = [f"{v:.10g}"[:16] for v in (affine @ [0, 0, k, 1])[:3]]
        one.PixelSpacing = [f"{steps[1]:.10g}", f"{steps[0]:.10g}"]
        one.SliceThickness = f"{steps[2]:.6g}"
        one.Rows, one.Columns = volume.grid[1], volume.grid[0]
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 1
        one.RescaleSlope, one.RescaleIntercept = f"{slope:g}", f"{intercept:g}"
        one.PixelData = np.ascontiguousarray(stored[:, :, k].T).tobytes()
        if change is not None:
            change(one, k)
        if syntax == uid.RLELossless:
            one.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
            one.compress(uid.RLELossless)
        paths.append(folder / f"{prefix}{(k * 7919) % 1000:03d}.dcm")
        one.save_as(paths[-1], enforce_file_format=True)
    return paths


def write_segmentation(
    path: Path,
    mask: Volume,
    segments: dict[int, str],
    *,
    kind: str = "BINARY",
    change: Callable[[Dataset], object] | None = None,
) -> None:
    """Write a SEG of `mask` (value = segment number); empty frames are left out, as most writers do."""
    affine = LPS @ mask.affine
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    turn = affine[:3, :3] / steps
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = uid.SegmentationStorage
    meta.MediaStorageSOPInstanceUID = "1.2.7.1"
    meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    seg = Dataset()
    seg.file_meta = meta
    seg.SOPClassUID, seg.SOPInstanceUID, seg.Modality = uid.SegmentationStorage, "1.2.7.1", "SEG"
    seg.SegmentationType = kind
    seg.SegmentSequence = Items([_item(SegmentNumber=n, SegmentLabel=name) for n, name in segments.items()])
    frames, groups = [], []
    for number in segments if kind == "BINARY" else [0]:
        for k in range(mask.grid[2]):
            plane = mask.data[0, :, :, k].T
            plane = plane == number if kind == "BINARY" else plane
            if not plane.any():
                continue
            frames.append(plane)
            group = _item(
                PlanePositionSequence=Items(
                    [_item(ImagePositionPatient=[f"{v:.8g}" for v in (affine @ [0, 0, k, 1])[:3]])]
                )
            )
            if kind == "BINARY":
                group.SegmentIdentificationSequence = Items([_item(ReferencedSegmentNumber=number)])
            groups.append(group)
    seg.SharedFunctionalGroupsSequence = Items(
        [
            _item(
                PlaneOrientationSequence=Items(
                    [_item(ImageOrientationPatient=[f"{v:.10g}"[:16] for v in (*turn[:, 0], *turn[:, 1])])]
                ),
                PixelMeasuresSequence=Items([_item(PixelSpacing=[f"{steps[1]:.10g}", f"{steps[0]:.10g}"])]),
            )
        ]
    )
    seg.PerFrameFunctionalGroupsSequence = Items(groups)
    seg.NumberOfFrames, seg.Rows, seg.Columns = len(frames), mask.grid[1], mask.grid[0]
    seg.SamplesPerPixel, seg.PhotometricInterpretation, seg.PixelRepresentation = 1, "MONOCHROME2", 0
    bits = np.stack(frames).astype(np.uint8)
    if kind == "BINARY":
        seg.BitsAllocated, seg.BitsStored, seg.HighBit = 1, 1, 0
        packed = np.packbits(bits.ravel(), bitorder="little").tobytes()
    else:
        seg.BitsAllocated, seg.BitsStored, seg.HighBit = 8, 8, 7
        packed = bits.tobytes()
    seg.PixelData = packed + b"\0" * (len(packed) % 2)
    if change is not None:
        change(seg)
    path.parent.mkdir(parents=True, exist_ok=True)
    seg.save_as(path, enforce_file_format=True)


def edit(path: Path, **elements: object) -> None:
    """Change elements of a file; None takes them out."""
    header = pydicom.dcmread(path)
    for name, value in elements.items():
        if value is None:
            delattr(header, name)
        else:
            setattr(header, name, value)
    header.save_as(path)


def _item(**elements: object) -> Dataset:
    out = Dataset()
    for name, value in elements.items():
        setattr(out, name, value)
    return out
