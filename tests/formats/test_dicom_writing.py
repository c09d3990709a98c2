"""DICOM written: marked synthetic, the same bytes each time, in place to 1e-4 mm, with the values that went in."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest

import synth
from pipelines.cli import run
from synth.data.reading import read_image, read_labels, read_mask, series_of
from synth.dicom.writing import Identity, modality_of, stored
from synth.errors import DataError, GeometryError
from synth.formats import WRITERS, read
from synth.formats.writing import Description, Told
from synth.volume import Label, Volume
from tests.formats.test_writers import LABELS, content, pair, told, write_set

pytest.importorskip("highdicom")


def headers(folder: Path) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(path) for path in sorted(folder.rglob("*.dcm"))]


def test_every_file_says_that_it_is_synthetic(tmp_path: Path) -> None:
    write_set("dicom", tmp_path, channels=("CT", "T1w", "other"), count=1, dtype=np.int16)
    files = headers(tmp_path)
    assert {str(one.SOPClassUID.name) for one in files} == {
        "CT Image Storage",
        "MR Image Storage",
        "Secondary Capture Image Storage",
        "Segmentation Storage",
    }
    for one in files:
        assert str(one.PatientID) == "syn_00000" and str(one.PatientName).startswith("SYNTHETIC^")
        # a SEG is DERIVED, PRIMARY by the standard (PS3.3, C.8.20.2)
        kind = "PRIMARY" if one.Modality == "SEG" else "SECONDARY"
        assert list(one.ImageType)[:2] == ["DERIVED", kind] and "SYNTHETIC" in one.SeriesDescription
        assert one.get("ContentQualification") == "RESEARCH"
        assert one.get("StudyDate", "") == "" and one.SOPInstanceUID == one.file_meta.MediaStorageSOPInstanceUID
    assert len({one.StudyInstanceUID for one in files}) == len({one.FrameOfReferenceUID for one in files}) == 1
    assert len({one.SeriesInstanceUID for one in files}) == 4
    assert len({one.SOPInstanceUID for one in files}) == len(files) == 31
    assert all(
        uid.startswith("2.25.") and len(uid) <= 64
        for one in files
        for uid in (one.SOPInstanceUID, one.SeriesInstanceUID)
    )


def test_identifiers_follow_seed_model_and_voxels(tmp_path: Path) -> None:
    image, mask = pair(0)
    said = {
        "one": (image, told(0)),
        "same": (image, told(0)),
        "seed": (image, Told("syn_00000", identity=("ab" * 32, 8, 0, 0))),
        "model": (image, Told("syn_00000", identity=("cd" * 32, 7, 0, 0))),
        "voxels": (image.replace(data=image.data + 1), told(0)),
    }
    uids = {}
    for name, (own, about) in said.items():
        writer = WRITERS["dicom"](tmp_path / name, Description(name="x", channels=("MR",), labels=LABELS))
        writer.add("syn_00000", own, mask, about)
        uids[name] = frozenset(str(one.SOPInstanceUID) for one in headers(tmp_path / name))
    assert uids["one"] == uids["same"] and content(tmp_path / "one") == content(tmp_path / "same")
    assert all(not uids["one"] & uids[name] for name in ("seed", "model", "voxels"))


def test_values_are_kept_or_stepped_finely() -> None:
    rng = np.random.default_rng(0)
    for kind in (np.uint8, np.int16, np.uint16):
        whole = rng.integers(0, 200, (3, 4, 5)).astype(kind)
        kept = stored(whole, "MR")
        assert np.array_equal(kept.pixels, whole) and (kept.slope, kept.intercept) == ("1", "0")
    hounsfield = stored(np.array([[[-1000.4, 3070.6]]], dtype=np.float32), "CT")
    assert hounsfield.pixels.tolist() == [[[-1000, 3071]]] and hounsfield.slope == "1"
    for values in (rng.normal(0, 1e-3, (4, 4, 4)), rng.normal(5, 1e6, (4, 4, 4)), np.full((2, 2, 2), 0.25)):
        kept = stored(values.astype(np.float32), "MR")
        back = kept.pixels * float(kept.slope) + float(kept.intercept)
        assert np.abs(back - values).max() <= (values.max() - values.min()) / 65535 * 0.51 + 1e-6 * np.abs(values).max()
    with pytest.raises(DataError, match="16 bits"):
        stored(np.array([[[0.0, 1e5]]]), "CT")
    assert [modality_of(name) for name in ("ct", "T1ce", "PD", "grey")] == ["CT", "MR", "MR", "OT"]


def test_many_places_keep_their_place_to_1e_4_mm(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    for number in range(6):
        turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        affine = np.eye(4)
        affine[:3, :3] = turn * rng.uniform(0.3, 5, 3)
        affine[:3, 3] = rng.uniform(-900, 900, 3)
        image, mask = pair(0, affine=affine, dtype=np.int16)
        writer = WRITERS["dicom"](tmp_path / str(number), Description(name="x", channels=("CT",), labels=LABELS))
        writer.add("syn_00000", image, mask, told(0))
        writer.finish(1)
        dataset = read(tmp_path / str(number))
        seen = read_image(dataset.cases[0], dataset)
        corner = seen.affine @ [0, 0, 0, 1]
        ends = [image.affine @ [0, 0, k, 1] for k in (0, image.grid[2] - 1)]
        assert min(np.abs(corner - end).max() for end in ends) < 1e-4
        assert (
            np.abs(np.sort(np.abs(seen.affine[:3, :3]), axis=None) - np.sort(np.abs(affine[:3, :3]), axis=None)).max()
            < 1e-6
        )
        lower = np.abs(corner - ends[0]).max() < 1e-4
        order = slice(None) if lower else slice(None, None, -1)
        assert np.array_equal(seen.data, image.data[..., order])
        assert np.array_equal(read_mask(dataset.cases[0], dataset, seen).data, mask.data[..., order])


def test_sheared_axes_are_refused(tmp_path: Path) -> None:
    image, mask = pair(0)
    affine = image.affine @ np.array([[1, 0.2, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    writer = WRITERS["dicom"](tmp_path / "out", Description(name="x", channels=("CT",), labels=LABELS))
    with pytest.raises(GeometryError, match="sheared"):
        writer.add("syn_00000", image.replace(affine=affine), mask.replace(affine=affine), told(0))
    assert not (tmp_path / "out").exists()


def test_segments_have_codes_and_an_empty_mask_is_written(tmp_path: Path) -> None:
    labels = (Label("liver", 2), Label("liver lesion", 5), Label("thing of its own", 7, snomed="123037004"))
    image, _ = pair(0)
    empty = Volume(np.zeros((1, *image.grid), np.uint8), image.affine, {"liver": 2})
    writer = WRITERS["dicom"](tmp_path, Description(name="x", channels=("MR",), labels=labels))
    writer.add("syn_00000", image, empty, told(0))
    writer.finish(1)
    made = pydicom.dcmread(tmp_path / "syn_00000" / "mask.dcm")
    codes = [one.SegmentedPropertyTypeCodeSequence[0] for one in made.SegmentSequence]
    assert [one.SegmentLabel for one in made.SegmentSequence] == ["liver", "liver lesion", "thing of its own"]
    assert [str(code.CodeMeaning) for code in codes] == ["Liver", "Lesion", "thing of its own"]
    assert codes[2].CodeValue == "123037004" and codes[0].CodeValue == "10200004"
    dataset = read(tmp_path)
    seen = read_image(dataset.cases[0], dataset)
    assert not read_mask(dataset.cases[0], dataset, seen).data.any() and dataset.label_values == {
        "liver": 2,
        "liver lesion": 5,
        "thing of its own": 7,
    }


def test_dicom_in_generate_dicom_out_keeps_the_grid(model: Path, dataset: Path, tmp_path: Path) -> None:
    """The masks are SEG on oblique, anisotropic series; what is made lies on the very same slices."""
    source = read(dataset)
    about = Description(name="x", channels=("CT",), labels=source.labels)
    writer = WRITERS["dicom"](tmp_path / "in", about)
    for case in source.cases[:2]:
        image = read_image(case, source)
        writer.add(case.id, image.replace(data=np.rint(image.data).astype(np.int16)), read_mask(case, source, image))
    writer.finish(2)
    ask = [str(model), "--masks", str(tmp_path / "in"), "--count", "2", "--steps", "1", "--workers", "1"]
    assert run("generate", [*ask, "--out", str(tmp_path / "out"), "--format", "dicom"]) == 0
    given, made = read(tmp_path / "in"), read(tmp_path / "out")
    for one, two in zip(given.cases, made.cases, strict=True):
        first, second = read_image(one, given), read_image(two, made)
        assert first.grid == second.grid and np.abs(first.affine - second.affine).max() < 1e-4
        for label in ("shell", "core"):
            before = read_mask(one, given, first).data == given.label_values[label]
            assert np.array_equal(before, read_mask(two, made, second).data == made.label_values[label])
        assert series_of(one) == str(one.images[0])
        with pytest.raises(DataError, match="no DICOM-SEG"):
            read_labels(one.images[0], {"shell": 3}, one.images[0])
    row = json.loads((tmp_path / "out" / "manifest.jsonl").read_text().splitlines()[0])
    assert row["mask_origin"] == "given" and "syn_00000/mask.dcm" in row["files"] and len(row["files"]) == 11


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy is not installed (Debian: dicom3tools)")
@pytest.mark.parametrize("channel", ["CT", "MR", "grey"])
def test_dciodvfy_finds_no_error(channel: str, tmp_path: Path) -> None:
    write_set("dicom", tmp_path, channels=(channel,), count=1, dtype=np.int16)
    for path in (tmp_path / "syn_00000" / "image" / "00001.dcm", tmp_path / "syn_00000" / "mask.dcm"):
        said = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False).stderr
        assert not [line for line in said.splitlines() if line.startswith("Error")], said


def test_without_highdicom_the_hint_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(DataError, match=r"pip install 'synthvol\[dicom\]'"):
        write_set("dicom", tmp_path, count=1)


def test_a_series_opens_by_read(tmp_path: Path) -> None:
    given = write_set("dicom", tmp_path, count=1, dtype=np.int16)
    seen = synth.read(tmp_path / "syn_00000" / "image")
    assert np.array_equal(seen.data, given[0][0].data) and seen.same_geometry(given[0][0])


def test_patient_ids_are_never_a_hospital_s_own() -> None:
    assert Identity("4711", "s", ()).patient == "syn_4711" and Identity("syn_1", "s", ()).patient == "syn_1"
