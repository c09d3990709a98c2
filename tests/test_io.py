"""Volumes on disk: every law of the file layer, and what each fault says."""

import errno
import gzip
import os
import tempfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synth import io, nifti
from synth.errors import DataError, GeometryError, OutputError, SynthError
from synth.volume import Volume

TYPES = ("uint8", "int16", "uint16", "int32", "float32")
QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def rotation(seed: int, *, flipped: bool) -> np.ndarray:
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    return turn if (np.linalg.det(turn) < 0) == flipped else turn * [1, 1, -1]


@st.composite
def affines(draw: st.DrawFn) -> np.ndarray:
    """Oblique, axis-aligned in any order, and nearly half-turned ones; either handedness; anisotropic."""
    seed, flipped = draw(st.integers(0, 10_000)), draw(st.booleans())
    kind = draw(st.sampled_from(["oblique", "aligned", "half turn"]))
    if kind == "oblique":
        turn = rotation(seed, flipped=flipped)
    elif kind == "aligned":
        rng = np.random.default_rng(seed)
        turn = np.eye(3)[rng.permutation(3)] * rng.choice([-1.0, 1.0], 3)
    else:
        small = np.linalg.qr(np.eye(3) + 1e-4 * np.random.default_rng(seed).normal(size=(3, 3)))[0]
        turn = np.diag([-1.0, -1.0, 1.0]) @ (small * np.sign(np.diag(small)))
    affine = np.eye(4)
    affine[:3, :3] = turn * [draw(st.floats(0.2, 8.0)) for _ in range(3)]
    affine[:3, 3] = [draw(st.floats(-400, 400)) for _ in range(3)]
    return affine


@st.composite
def volumes(draw: st.DrawFn) -> Volume:
    dims, channels = draw(st.sampled_from([2, 3])), draw(st.sampled_from([1, 2, 3]))
    grid = tuple(draw(st.integers(2, 7)) for _ in range(dims))
    values = np.random.default_rng(draw(st.integers(0, 99))).normal(100, 30, (channels, *grid))
    return Volume(values.astype(draw(st.sampled_from(TYPES))), draw(affines()))


@pytest.mark.parametrize("suffix", io.SUFFIXES)
@given(volume=volumes())
@QUICK
def test_what_is_written_is_read(volume: Volume, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"case{suffix}"
    io.write(volume, path)
    back, header = io.read(path), io.read_header(path)
    assert back.data.dtype == volume.data.dtype
    np.testing.assert_array_equal(back.data, volume.data)
    np.testing.assert_allclose(back.affine, volume.affine, atol=1e-4)
    assert back.same_geometry(volume)
    assert (header.grid, header.channels, header.dtype) == (volume.grid, volume.channels, volume.data.dtype)
    np.testing.assert_array_equal(header.affine, back.affine)
    io.write(volume, tmp_path / f"other{suffix}")
    assert path.read_bytes() == (tmp_path / f"other{suffix}").read_bytes()
    assert not [entry for entry in tmp_path.iterdir() if entry.name.startswith(".")]


@pytest.mark.parametrize("suffix", io.SUFFIXES)
@given(affine=affines())
@QUICK
def test_other_libraries_see_the_same(affine: np.ndarray, suffix: str, tmp_path: Path) -> None:
    volume = Volume(np.arange(5 * 6 * 7, dtype=np.int16).reshape(1, 5, 6, 7), affine)
    path = tmp_path / f"case{suffix}"
    io.write(volume, path)
    image = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), volume.data[0].T)
    for index in ((0, 0, 0), (4, 5, 6), (4, 0, 0), (0, 5, 0)):
        point = np.array(image.TransformIndexToPhysicalPoint(index)) * [-1, -1, 1]
        np.testing.assert_allclose(point, (affine @ [*index, 1])[:3], atol=1e-3)
    if suffix.startswith(".nii"):
        other = nibabel.load(path)
        np.testing.assert_allclose(other.affine, affine, atol=1e-4)
        np.testing.assert_array_equal(np.asarray(other.dataobj), volume.data[0])


def test_nibabel_and_itk_files_are_read(tmp_path: Path) -> None:
    affine = np.eye(4)
    affine[:3] = np.c_[rotation(3, flipped=True) * [0.5, 1.5, 4.0], [10, -20, 30]]
    values = np.random.default_rng(0).normal(size=(4, 5, 6))
    nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), affine), tmp_path / "one.nii.gz")
    nibabel.save(nibabel.Nifti2Image(values, affine), tmp_path / "two.nii")
    nibabel.save(nibabel.Nifti1Image(values.astype(">f4"), affine), tmp_path / "big.nii")
    for name in ("one.nii.gz", "two.nii", "big.nii"):
        volume = io.read(tmp_path / name)
        assert volume.data.dtype == np.float32
        assert volume.data.dtype.isnative
        np.testing.assert_array_equal(volume.data[0], values.astype(np.float32))
        np.testing.assert_allclose(volume.affine, affine, atol=1e-4)
    image = sitk.GetImageFromArray(np.stack([values, -values], axis=-1), isVector=True)
    sitk.WriteImage(image, str(tmp_path / "vector.nrrd"))
    assert io.read(tmp_path / "vector.nrrd").data.shape == (2, 6, 5, 4)
    np.testing.assert_allclose(io.read(tmp_path / "vector.nrrd").data[1], -values.T, rtol=1e-6)


def save_nifti(path: Path, data: np.ndarray, **fields: object) -> None:
    image = nibabel.Nifti1Image(data, None)
    for name, value in fields.items():
        if name == "sform":
            image.header.set_sform(value, code=1)
        elif name == "qform":
            image.header.set_qform(value, code=1)
        elif name == "zooms":
            image.header.set_zooms(value)
        elif name == "units":
            image.header.set_xyzt_units(value)
    path.write_bytes(
        image.header.binaryblock[:108]
        + np.float32(352).tobytes()
        + image.header.binaryblock[112:344]
        + b"n+1\0"
        + b"\0" * 4
        + data.tobytes(order="F")
    )


def test_sform_before_qform_before_pixel_sizes(tmp_path: Path) -> None:
    data = np.zeros((3, 4, 5), dtype=np.int16)
    one, two = np.diag([1.0, 2.0, 3.0, 1.0]), np.diag([-2.0, -2.0, 4.0, 1.0])
    save_nifti(tmp_path / "both.nii", data, qform=two, sform=one)
    save_nifti(tmp_path / "qform.nii", data, qform=two)
    save_nifti(tmp_path / "none.nii", data, zooms=(1.5, 2.5, 3.5))
    save_nifti(tmp_path / "metre.nii", data, sform=one / 1000 + np.diag([0, 0, 0, 0.999]), units="meter")
    np.testing.assert_allclose(io.read(tmp_path / "both.nii").affine, one)
    np.testing.assert_allclose(io.read(tmp_path / "qform.nii").affine, two, atol=1e-6)
    np.testing.assert_allclose(io.read(tmp_path / "none.nii").affine, np.diag([1.5, 2.5, 3.5, 1.0]))
    np.testing.assert_allclose(io.read(tmp_path / "metre.nii").affine, one, atol=1e-5)


def test_scale_is_applied(tmp_path: Path) -> None:
    stored = np.arange(-30, 30, dtype=np.int16).reshape(3, 4, 5)
    image = nibabel.Nifti1Image(stored, np.eye(4))
    image.header.set_slope_inter(0.5, -1000.0)
    nibabel.save(image, tmp_path / "scaled.nii.gz")
    raw = bytearray(gzip.decompress((tmp_path / "scaled.nii.gz").read_bytes()))
    raw[112:120] = np.float32([0.5, -1000.0]).tobytes()
    raw[352:] = stored.tobytes(order="F")
    (tmp_path / "scaled.nii").write_bytes(raw)
    volume = io.read(tmp_path / "scaled.nii")
    np.testing.assert_array_equal(volume.data[0], stored * 0.5 - 1000.0)
    assert volume.data.dtype == np.float32 == io.read_header(tmp_path / "scaled.nii").dtype


@pytest.mark.parametrize(("stored", "scaled"), [(np.uint8, np.int16), (np.int16, np.int32), (np.uint32, np.float32)])
def test_a_whole_offset_keeps_whole_numbers(stored: type, scaled: type, tmp_path: Path) -> None:
    """CT is often kept as unsigned numbers with an offset of -1024."""
    values = np.arange(60, dtype=stored).reshape(3, 4, 5)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "ct.nii")
    raw = bytearray((tmp_path / "ct.nii").read_bytes())
    raw[112:120] = np.float32([1.0, -1024.0]).tobytes()
    (tmp_path / "ct.nii").write_bytes(raw)
    volume = io.read(tmp_path / "ct.nii")
    np.testing.assert_array_equal(volume.data[0], values.astype(np.float64) - 1024)
    assert volume.data.dtype == scaled == io.read_header(tmp_path / "ct.nii").dtype


def test_masks_are_whole_numbers(tmp_path: Path) -> None:
    path = tmp_path / "mask.nii.gz"
    io.write(Volume(np.float32([[[0, 3], [200, 3]]])), path)
    mask = io.read(path, labels={"organ": 3, "rod": 200})
    assert mask.data.dtype == np.uint8
    assert dict(mask.labels or {}) == {"organ": 3, "rod": 200}
    io.write(Volume(np.float32([[[0, 0.5], [1, 1]]])), path)
    with pytest.raises(DataError, match=r"mask.nii.gz is no mask: it holds 0.5"):
        io.read(path, labels={"organ": 1})


def damaged(kind: str, suffix: str, folder: Path) -> Path:
    path = folder / f"{kind}{suffix}"
    io.write(Volume(np.random.default_rng(0).normal(size=(1, 12, 13, 14)).astype(np.float32)), path)
    raw = path.read_bytes()
    if kind == "half":
        path.write_bytes(raw[: len(raw) // 2])
    elif kind == "almost":
        path.write_bytes(raw[:-64])
    elif kind == "text":
        path.write_text("not an image\n" * 50)
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "missing":
        path.unlink()
    elif kind == "folder":
        path.unlink()
        path.mkdir()
    elif kind == "nan":
        data = np.zeros((1, 3, 3, 3), dtype=np.float32)
        data[0, 1, 1, :2] = np.nan, np.inf
        io.write(Volume(data), path)
    return path


FAULTS = ("half", "almost", "text", "empty", "missing", "folder", "nan")


@pytest.mark.parametrize("suffix", io.SUFFIXES)
@pytest.mark.parametrize("kind", FAULTS)
def test_every_fault_is_one_line_that_names_file_and_mend(kind: str, suffix: str, tmp_path: Path) -> None:
    path = damaged(kind, suffix, tmp_path)
    with pytest.raises(DataError) as caught:
        io.read(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert ";" in message
    if kind in ("text", "empty", "missing", "folder"):
        with pytest.raises(DataError):
            io.read_header(path)


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (70, np.int16(1234), "has datatype 1234 in its header"),
        (70, np.int16(0), "has datatype 0 in its header"),
        (70, np.int16(1), "has datatype 1 in its header"),
        (70, np.int16(255), "has datatype 255 in its header"),
        (108, np.float32(np.nan), "broken NIfTI header"),
        (108, np.float32(np.inf), "broken NIfTI header"),
    ],
)
def test_broken_types_and_offsets_are_one_line(place: int, value: np.generic, words: str, tmp_path: Path) -> None:
    path = damaged("whole", ".nii", tmp_path)
    raw = bytearray(path.read_bytes())
    raw[place : place + value.nbytes] = value.tobytes()
    path.write_bytes(raw)
    for look in (io.read, io.read_header):
        with pytest.raises(DataError, match=words) as caught:
            look(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value) and ";" in str(caught.value)


def test_a_flipped_bit_in_gzip_is_found(tmp_path: Path) -> None:
    path = damaged("whole", ".nii.gz", tmp_path)
    raw = bytearray(path.read_bytes())
    raw[-6] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DataError, match="damaged"):
        io.read(path)


def test_names_that_lie_about_compression(tmp_path: Path) -> None:
    volume = Volume(np.zeros((1, 3, 3, 3), dtype=np.uint8))
    io.write(volume, tmp_path / "a.nii")
    io.write(volume, tmp_path / "b.nii.gz")
    (tmp_path / "a.nii").rename(tmp_path / "plain.nii.gz")
    (tmp_path / "b.nii.gz").rename(tmp_path / "packed.nii")
    with pytest.raises(DataError, match=r"name it \.nii if"):
        io.read(tmp_path / "plain.nii.gz")
    with pytest.raises(DataError, match=r"name it \.nii\.gz"):
        io.read(tmp_path / "packed.nii")
    with pytest.raises(DataError, match=r"known are \.nii\.gz"):
        io.read(tmp_path / "picture.tif")
    with pytest.raises(OutputError, match=r"known are \.nii\.gz"):
        io.write(volume, tmp_path / "picture.tif")


def test_nan_pass_where_asked(tmp_path: Path) -> None:
    assert not np.isfinite(io.read(damaged("nan", ".nii.gz", tmp_path), finite=False).data).all()


def test_refused_kinds_of_nifti(tmp_path: Path) -> None:
    colour = np.zeros((3, 3, 3), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(colour, np.eye(4)), tmp_path / "rgb.nii")
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 3, 3), np.complex64), np.eye(4)), tmp_path / "complex.nii")
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 3, 3, 2, 2), np.uint8), np.eye(4)), tmp_path / "many.nii")
    nibabel.save(nibabel.Nifti1Pair(np.zeros((3, 3, 3), np.uint8), np.eye(4)), tmp_path / "pair.img")
    (tmp_path / "pair.hdr").rename(tmp_path / "pair.nii")
    for name, words in (("rgb", "RGB"), ("complex", "complex"), ("many", "axes"), ("pair", "pair")):
        with pytest.raises(DataError, match=words):
            io.read(tmp_path / f"{name}.nii")


def test_sheared_axes_are_refused(tmp_path: Path) -> None:
    sheared = np.eye(4)
    sheared[0, 1] = 0.2
    save_nifti(tmp_path / "tilt.nii", np.zeros((3, 4, 5), np.int16), sform=sheared)
    save_nifti(tmp_path / "flat.nii", np.zeros((3, 4, 5), np.int16), sform=np.diag([1.0, 1.0, 0.0, 1.0]))
    for call in (io.read, io.read_header):
        with pytest.raises(GeometryError, match=r"tilt.nii has sheared axes; resample"):
            call(tmp_path / "tilt.nii")
        with pytest.raises(GeometryError, match=r"flat.nii: affine is singular"):
            call(tmp_path / "flat.nii")
    for suffix in io.SUFFIXES:
        with pytest.raises(GeometryError, match="sheared"):
            io.write(Volume(np.zeros((1, 3, 3, 3)), sheared), tmp_path / f"out{suffix}")
        assert not (tmp_path / f"out{suffix}").exists()


@pytest.mark.parametrize("suffix", io.SUFFIXES)
def test_one_slice_is_a_2d_volume(suffix: str, tmp_path: Path) -> None:
    affine = np.eye(4)
    affine[:3] = np.c_[rotation(1, flipped=False) * [0.5, 0.7, 5.0], [1, 2, 3]]
    io.write(Volume(np.ones((2, 4, 5, 1), dtype=np.uint8), affine), tmp_path / f"slice{suffix}")
    volume = io.read(tmp_path / f"slice{suffix}")
    assert volume.grid == (4, 5) == io.read_header(tmp_path / f"slice{suffix}").grid
    np.testing.assert_allclose(volume.affine, affine, atol=1e-5)


def test_failed_writing_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "case.nii.gz"
    io.write(Volume(np.zeros((1, 3, 3, 3), dtype=np.uint8)), path)
    before = path.read_bytes()

    def full(pieces: object, draft: Path) -> None:
        draft.write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(io, "_pour", full)
    with pytest.raises(OutputError, match=r"case.nii.gz cannot be written \(the disk is full\)"):
        io.write(Volume(np.ones((1, 3, 3, 3), dtype=np.uint8)), path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["case.nii.gz"]
    with pytest.raises(OutputError, match="cannot be written"):
        io.write(Volume(np.zeros((1, 3, 3, 3))), path / "below.mha")


@pytest.mark.parametrize("cores", [1, 4])
def test_bytes_do_not_depend_on_cores(cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.random.default_rng(0).integers(0, 900, (1, 128, 128, 96)).astype(np.float32)
    there = Path(tempfile.gettempdir())
    expected = b"".join(nifti.encode(data, np.eye(4), there, packed=True))
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert b"".join(nifti.encode(data, np.eye(4), there, packed=True)) == expected
    assert gzip.decompress(expected)[352:] == data[0].tobytes(order="F")
    assert expected[4:8] == b"\0\0\0\0", "a time would differ between runs"


def test_zlib_stands_in_for_isal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sys

    volume = Volume(np.random.default_rng(0).integers(0, 90, (1, 20, 21, 22)).astype(np.int16))
    monkeypatch.setitem(sys.modules, "isal", None)
    assert io.compressor().startswith("zlib")
    io.write(volume, tmp_path / "case.nii.gz")
    np.testing.assert_array_equal(io.read(tmp_path / "case.nii.gz").data, volume.data)
    with pytest.raises(SynthError):
        io.read(damaged("half", ".nii.gz", tmp_path))


def test_writable_types(tmp_path: Path) -> None:
    for given_type, stored in (("bool", "uint8"), ("float16", "float32"), ("float64", "float32"), ("int64", "int64")):
        io.write(Volume(np.ones((1, 2, 3, 4), dtype=given_type)), tmp_path / "case.nii.gz")
        assert io.read(tmp_path / "case.nii.gz").data.dtype == stored
    with pytest.raises(OutputError, match="complex"):
        io.write(Volume(np.ones((1, 2, 3, 4), dtype=np.complex64)), tmp_path / "case.nii.gz")
