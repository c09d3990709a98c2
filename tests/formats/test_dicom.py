"""DICOM series and SEG: geometry and values exact whatever the order of files, and what each fault says."""

import locale
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from synth import io
from synth.dicom import Segmentation
from synth.errors import DataError, GeometryError, SynthError
from synth.volume import Volume

pydicom = pytest.importorskip("pydicom")
from pydicom import uid  # noqa: E402

from tests.formats.dicom_files import edit, write_segmentation, write_series  # noqa: E402

GRID = (9, 7, 8)


@pytest.fixture(autouse=True)
def same_locale() -> Iterator[None]:
    """ITK's DICOM writer, which only tests use, leaves the process in the locale C: later tests would read ASCII."""
    before = locale.setlocale(locale.LC_ALL)
    yield
    locale.setlocale(locale.LC_ALL, before)


def turned(steps: tuple[float, float, float] = (0.7, 1.1, 2.5), seed: int = 4) -> np.ndarray:
    """An oblique, anisotropic affine, right-handed in the way that DICOM stacks are."""
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    turn = turn if np.linalg.det(turn) > 0 else turn * [1, 1, -1]
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn * steps, (-31.25, 12.5, 400.0)
    return affine


def phantom(affine: np.ndarray | None = None) -> Volume:
    data = np.random.default_rng(1).integers(-1024, 2000, (1, *GRID)).astype(np.int16)
    return Volume(data, turned() if affine is None else affine)


@pytest.mark.parametrize("rescale", [(1.0, 0.0), (1.0, -1024.0), (2.0, -1024.0)])
@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.RLELossless])
def test_a_turned_anisotropic_series_is_read_exactly(rescale: tuple[float, float], syntax: str, tmp_path: Path) -> None:
    volume = phantom()
    volume = volume.replace(data=volume.data // 2 * 2)
    write_series(tmp_path, volume, slope=rescale[0], intercept=rescale[1], syntax=syntax)
    back, header = io.read(tmp_path), io.read_header(tmp_path)
    np.testing.assert_allclose(back.affine, volume.affine, atol=1e-4)
    np.testing.assert_array_equal(back.data, volume.data)
    assert (header.grid, header.channels, header.dtype) == (GRID, 1, back.data.dtype)
    np.testing.assert_array_equal(header.affine, back.affine)


def test_gdcm_sees_the_same(tmp_path: Path) -> None:
    volume = phantom()
    write_series(tmp_path, volume, intercept=-1024.0)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    other = reader.Execute()
    back = io.read(tmp_path)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(other).transpose(2, 1, 0), back.data[0])
    for index in ((0, 0, 0), (8, 6, 7), (8, 0, 0)):
        point = np.array(other.TransformIndexToPhysicalPoint(index)) * [-1, -1, 1]
        np.testing.assert_allclose(point, (back.affine @ [*index, 1])[:3], atol=1e-3)


def test_what_itk_writes_is_read(tmp_path: Path) -> None:
    volume = phantom(np.diag([-0.5, -0.5, 3.0, 1.0]))
    image = sitk.GetImageFromArray(volume.data[0].transpose(2, 1, 0))
    for k in range(GRID[2]):
        one = image[:, :, k]
        one.SetSpacing((0.5, 0.5))
        tags = {"0008|0060": "CT", "0020|000e": "1.2.3", "0020|0032": f"0\\0\\{3.0 * k}"}
        tags |= {"0020|0037": "1\\0\\0\\0\\1\\0", "0020|0013": str(k), "0028|1052": "0", "0028|1053": "1"}
        for name, value in tags.items():
            one.SetMetaData(name, value)
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(tmp_path / f"{k}.dcm"))
        writer.Execute(one)
    back = io.read(tmp_path)
    np.testing.assert_array_equal(back.data, volume.data)
    np.testing.assert_allclose(back.affine, volume.affine, atol=1e-4)


def test_each_slice_has_its_own_rescale(tmp_path: Path) -> None:
    """As in PET; a fraction in any of them makes floats of all."""
    volume = phantom().replace(data=np.full((1, *GRID), 100, np.int16))
    write_series(tmp_path, volume, modality="MR", change=lambda one, k: setattr(one, "RescaleSlope", f"{k + 0.5}"))
    back = io.read(tmp_path)
    assert back.data.dtype == np.float32
    np.testing.assert_array_equal(back.data[0, 0, 0], [100 * (k + 0.5) for k in range(GRID[2])])


@pytest.mark.parametrize("kind", ["JPEG2000", "JPEG"])
def test_compressed_pixels(kind: str, tmp_path: Path) -> None:
    """Packed by GDCM, JPEG being the lossless one; our rescale is applied once."""
    volume = phantom(np.diag([-1.0, -1.0, 2.0, 1.0]))

    def pack(one: "pydicom.Dataset", k: int) -> None:
        stored = np.frombuffer(one.PixelData, np.int16).reshape(1, one.Rows, one.Columns)
        writer = sitk.ImageFileWriter()
        writer.SetImageIO("GDCMImageIO")
        writer.UseCompressionOn()
        writer.SetCompressor(kind)
        writer.SetFileName(str(tmp_path / "packed.dcm"))
        writer.Execute(sitk.GetImageFromArray(stored))
        packed = pydicom.dcmread(tmp_path / "packed.dcm")
        assert packed.file_meta.TransferSyntaxUID.is_compressed
        one.file_meta.TransferSyntaxUID, one.PixelData = packed.file_meta.TransferSyntaxUID, packed.PixelData
        one["PixelData"].is_undefined_length = True
        for name in ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"):
            setattr(one, name, getattr(packed, name))

    write_series(tmp_path / "series", volume, intercept=-1024.0, change=pack)
    np.testing.assert_array_equal(io.read(tmp_path / "series").data, volume.data)


def test_single_slices_are_2d(tmp_path: Path) -> None:
    path = write_series(tmp_path, phantom(), keep=[3])[0]
    for place in (tmp_path, path):
        volume = io.read(place)
        assert volume.grid == GRID[:2]
        np.testing.assert_array_equal(volume.data, phantom().data[..., 3])


def test_a_dicomdir_is_its_folder_and_its_paths_are_not_followed(tmp_path: Path) -> None:
    write_series(tmp_path / "disc" / "A" / "B", phantom())
    (tmp_path / "disc" / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM" + b"../../etc/passwd")
    np.testing.assert_array_equal(io.read(tmp_path / "disc" / "DICOMDIR").data, phantom().data)
    from pydicom.fileset import FileSet

    for path in sorted((tmp_path / "disc").rglob("*.dcm")):
        edit(path, PatientName="A", StudyDate="20200101", StudyTime="000000", StudyID="1", SeriesNumber=1)
    pack = FileSet()
    for path in sorted((tmp_path / "disc").rglob("*.dcm")):
        pack.add(path)
    pack.write(tmp_path / "set")
    for place in (tmp_path / "set" / "DICOMDIR", tmp_path / "set"):
        np.testing.assert_array_equal(io.read(place).data, phantom().data)


def test_other_files_are_ignored_and_counted(tmp_path: Path) -> None:
    from synth.dicom import Series

    write_series(tmp_path, phantom())
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "Thumbs.db").write_bytes(b"\0" * 300)
    report = pydicom.dcmread(sorted(tmp_path.glob("*.dcm"))[0])
    for name in ("Rows", "Columns", "PixelData"):
        delattr(report, name)
    report.SOPClassUID = uid.BasicTextSRStorage
    report.save_as(tmp_path / "report.dcm")
    assert Series.find(tmp_path).ignored == 3
    assert io.read(tmp_path).grid == GRID


def test_one_of_several_series(tmp_path: Path) -> None:
    write_series(tmp_path, phantom(), series="1.2.3.4")
    write_series(tmp_path, phantom(), series="1.2.3.5", modality="MR", prefix="mr")
    with pytest.raises(
        DataError, match=r"2 series: 1\.2\.3\.4 \(8 files, CT\); 1\.2\.3\.5 \(8 files, MR\).*series=UID"
    ):
        io.read(tmp_path)
    np.testing.assert_array_equal(io.read(tmp_path, series="1.2.3.5").data, phantom().data)
    with pytest.raises(DataError, match="has no series '9'"):
        io.read(tmp_path, series="9")


def at(k: int, **elements: object) -> Callable:
    """A change of slice k alone, or of all for -1; None takes an element out."""

    def change(one: "pydicom.Dataset", number: int) -> None:
        for name, value in elements.items():
            if k in (number, -1):
                delattr(one, name) if value is None else setattr(one, name, value)

    return change


def _lean(one: "pydicom.Dataset", k: int) -> None:
    place = np.array(one.ImagePositionPatient, dtype=float)
    down = np.array(one.ImageOrientationPatient, dtype=float)[3:]
    one.ImagePositionPatient = [f"{v:.8g}" for v in place + down * k * 2.5 * np.tan(np.radians(12.0))]


def _again(**elements: object) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        write_series(folder, phantom(), change=at(-1, AcquisitionNumber=1))
        write_series(folder, phantom(), change=at(-1, **{"AcquisitionNumber": 1, **elements}), prefix="again")

    return spoil


def _slices(change: Callable | None = None, **options: object) -> Callable[[Path], object]:
    return lambda folder: write_series(folder, phantom(), change=change, **options)  # pyright: ignore


def _no_pixels(folder: Path) -> None:
    path = write_series(folder, phantom())[2]
    path.write_bytes(path.read_bytes()[:-40])


def _jpeg_xl(folder: Path) -> None:
    for path in write_series(folder, phantom()):
        header = pydicom.dcmread(path)
        header.PixelData = pydicom.encaps.encapsulate([header.PixelData])
        header["PixelData"].is_undefined_length = True
        header.file_meta.TransferSyntaxUID = uid.HTJ2KLossless
        header.save_as(path)


FAULTS: dict[str, tuple[Callable[[Path], object], type[SynthError], str]] = {
    "gantry tilt": (_slices(_lean), GeometryError, r"lean by 12\.00 degrees"),
    "a slice is missing": (
        _slices(keep=[0, 1, 2, 4, 5, 6, 7]),
        GeometryError,
        "1 between InstanceNumber (3|5) at .* and (3|5)",
    ),
    "two gaps": (_slices(keep=[0, 1, 2, 5, 6, 7]), GeometryError, "2 between InstanceNumber"),
    "uneven": (
        lambda f: [
            write_series(f, phantom(np.diag([-1.0, -1, 2, 1])), keep=range(4)),
            write_series(
                f,
                phantom(np.diag([-1.0, -1, 2, 1])),
                keep=range(4, 8),
                change=lambda one, k: setattr(one, "ImagePositionPatient", [0, 0, 2 * k + 0.7]),
            ),
        ],
        GeometryError,
        "uneven steps of 2 to 2.7 mm",
    ),
    "time series": (_again(TemporalPositionIdentifier=2), DataError, r"differ in TemporalPositionIdentifier \(, 2\)"),
    "echoes": (_again(EchoTime="30"), DataError, "differ in EchoTime"),
    "copies": (_again(), DataError, "8 positions of .* are taken twice, .* headers agree; remove the copies"),
    "localizer within": (
        lambda f: [
            write_series(f, phantom(np.diag([-1.0, -1, 2, 1]))),
            write_series(
                f,
                phantom(np.array([[0, 0, 2, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1.0]])),
                keep=[0],
                prefix="scout",
            ),
        ],
        GeometryError,
        "mixes orientations: 1 of sagittal, 8 of axial",
    ),
    "localizer": (_slices(at(-1, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])), DataError, "is a localizer"),
    "multi-frame": (_slices(at(0, NumberOfFrames=8)), DataError, r"holds 8 frames .*dcm2niix"),
    "colour": (_slices(at(0, SamplesPerPixel=3, PhotometricInterpretation="RGB")), DataError, "colour"),
    "inverted": (
        _slices(at(0, PhotometricInterpretation="MONOCHROME1")),
        DataError,
        "MONOCHROME1, low values are bright",
    ),
    "no spacing": (_slices(at(4, PixelSpacing=None)), GeometryError, "has no PixelSpacing"),
    "zero spacing": (_slices(at(4, PixelSpacing=[0, 1])), GeometryError, "mm above 0"),
    "no position": (_slices(at(0, ImagePositionPatient=None)), GeometryError, "has no ImagePositionPatient"),
    "no orientation": (_slices(at(0, ImageOrientationPatient=None)), GeometryError, "has no ImageOrientationPatient"),
    "flat orientation": (_slices(at(0, ImageOrientationPatient=[1, 0, 0, 1, 0, 0])), GeometryError, "perpendicular"),
    "other size": (_slices(at(3, Rows=9, Columns=7)), GeometryError, "has 7x9 pixels .* 9x7"),
    "truncated": (_no_pixels, DataError, "pixels cannot be read"),
    "no pixels": (_slices(at(5, PixelData=None)), DataError, "has no pixels"),
    "unknown compression": (_jpeg_xl, DataError, "High-Throughput JPEG 2000.*decompress it first"),
    "no DICOM": (lambda f: (f / "a.txt").write_text("x"), DataError, r"holds no DICOM files \(1 others\)"),
    "one level up": (lambda f: write_series(f / "deep", phantom()), DataError, "give .*deep, where some are"),
    "segmentation": (lambda f: write_segmentation(f / "s.dcm", mask(), {1: "a", 2: "b"}), DataError, "is a DICOM-SEG"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_one_line(name: str, tmp_path: Path) -> None:
    spoil, kind, words = FAULTS[name]
    spoil(tmp_path)
    with pytest.raises(kind, match=words) as caught:
        io.read(tmp_path)
    said = str(caught.value)
    assert str(tmp_path) in said and "\n" not in said and ";" in said


def mask() -> Volume:
    data = np.zeros((1, *GRID), np.uint8)
    data[0, 2:6, 1:5, 2:6], data[0, 3:5, 2:4, 3:5] = 1, 2
    return Volume(data, turned())


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_a_segmentation_lies_on_its_image(kind: str, tmp_path: Path) -> None:
    """Empty frames are not in the file; the image says where they are."""
    write_segmentation(tmp_path / "mask.dcm", mask(), {1: "liver", 2: "tumour"}, kind=kind)
    found = Segmentation.open(tmp_path / "mask.dcm")
    assert found.segments == {1: "liver", 2: "tumour"}
    image = phantom()
    back = found.read(image.grid, image.affine, {"tumour": 1, "liver": 7})
    np.testing.assert_array_equal(back, np.array([0, 7, 1])[mask().data])


SEG_FAULTS: dict[str, tuple[Callable[[Path], object], type[SynthError], str]] = {
    "fractions": (
        lambda p: write_segmentation(p, mask(), {1: "a", 2: "b"}, change=lambda s: setattr(s, "SegmentationType", "FRACTIONAL")),
        DataError,
        "SEG of fractions",
    ),
    "no names": (
        lambda p: write_segmentation(p, mask(), {1: "a", 2: ""}),
        DataError,
        "segment 2 comes twice or has no SegmentLabel",
    ),
    "unknown name": (lambda p: write_segmentation(p, mask(), {1: "a", 2: "c"}), DataError, "segment 'c', which is no label"),
    "elsewhere": (
        lambda p: write_segmentation(p, mask().replace(affine=turned(seed=9)), {1: "a", 2: "b"}),
        GeometryError,
        "frame 1 does not lie on a slice",
    ),
    "half a slice off": (
        lambda p: write_segmentation(
            p, mask().replace(affine=turned() @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0.5], [0, 0, 0, 1]])), {1: "a", 2: "b"}
        ),
        GeometryError,
        "does not lie on a slice",
    ),
    "other size": (
        lambda p: write_segmentation(p, mask().replace(data=mask().data[:, :-1]), {1: "a", 2: "b"}),
        GeometryError,
        "frames of 8x7, its image 9x7",
    ),
    "overlap": (
        lambda p: write_segmentation(
            p, mask(), {1: "a", 2: "b"},
            change=lambda s: setattr(s, "PixelData", b"\xff" * len(s.PixelData)),
        ),
        DataError,
        "segments 'a' and 'b' overlap",
    ),
    "not a SEG": (lambda p: shutil.copy(write_series(p.parent / "s", phantom())[0], p), DataError, "is no DICOM-SEG"),
}  # fmt: skip


@pytest.mark.parametrize("name", SEG_FAULTS)
def test_every_fault_of_a_segmentation_is_one_line(name: str, tmp_path: Path) -> None:
    spoil, kind, words = SEG_FAULTS[name]
    path = tmp_path / "mask.dcm"
    spoil(path)
    with pytest.raises(kind, match=words) as caught:
        Segmentation.open(path).read(GRID, turned(), {"a": 1, "b": 2})
    assert str(path) in str(caught.value) and "\n" not in str(caught.value) and ";" in str(caught.value)


def test_without_pydicom_the_line_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    write_series(tmp_path, phantom())
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(DataError, match=r"pip install 'synthvol\[dicom\]'"):
        io.read(tmp_path)


def test_damaged_headers_are_one_line_or_read(tmp_path: Path) -> None:
    """Bytes of the header changed, lost and added: never a fault of ours."""
    path = write_series(tmp_path / "series", phantom(), keep=[0, 1, 2])[1]
    write_segmentation(tmp_path / "mask.dcm", mask(), {1: "a", 2: "b"})
    whole = {path: path.read_bytes(), tmp_path / "mask.dcm": (tmp_path / "mask.dcm").read_bytes()}
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(25):
        for place, raw in whole.items():
            at = int(rng.integers(132, min(len(raw), 1100)))
            new = rng.integers(0, 256, rng.integers(0, 3)).astype(np.uint8).tobytes()
            place.write_bytes(raw[:at] + new + raw[at + int(rng.integers(1, 3)) :])
            try:
                if place == path:
                    io.read(tmp_path / "series")
                else:
                    Segmentation.open(place).read(GRID, turned(), {"a": 1, "b": 2})
            except SynthError as error:
                assert "\n" not in str(error) and str(tmp_path) in str(error)
                refused += 1
    assert refused > 8


def test_two_steps_show_a_gap(tmp_path: Path) -> None:
    write_series(tmp_path, phantom(), keep=[0, 1, 3])
    with pytest.raises(GeometryError, match="1 between InstanceNumber"):
        io.read(tmp_path)
