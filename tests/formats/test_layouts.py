"""Every layout is found out, read whole, and goes through `synth prepare`."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipelines.cli import main
from synth.data.dataset import Dataset
from synth.data.prepared import Prepared
from synth.data.reading import read_image, read_mask
from synth.data.splits import patients_of
from synth.formats import detect, read
from synth.io import write
from tests.conftest import write_dataset
from tests.formats import datasets
from tests.formats.datasets import LABELS, pair

MAKERS: dict[str, tuple[Callable[[Path], Path], tuple[str, ...]]] = {
    "nnU-Net": (lambda f: write_dataset(f, 3, datasets.GRID, np.eye(4), LABELS), ("MR",)),
    "MSD": (datasets.msd, ("FLAIR", "T1w")),
    "BIDS": (datasets.bids, ("FLAIR", "T1w")),
    "DICOM": (datasets.dicom, ("CT",)),
    "images and masks": (datasets.pictures, ("R", "G", "B")),
}


@pytest.mark.parametrize("name", MAKERS)
def test_the_layout_is_found_out_and_prepared(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, channels = MAKERS[name]
    source = make(tmp_path / "source")
    assert detect(source).name == name
    dataset = read(source)
    assert (dataset.layout, dataset.channels, dataset.label_values) == (name, channels, LABELS)
    before = sorted(path for path in source.rglob("*"))
    assert main(["prepare", str(source), "--out", str(tmp_path / "out")]) == 0
    assert f"layout: {name}" in capsys.readouterr().out
    done = Prepared.load(tmp_path / "out")
    assert done.schema.channels == channels and len(done.cases) == len(dataset.cases)
    assert all(done.image(case).shape[0] == len(channels) for case in done.cases)
    assert set(np.unique(done.mask(done.cases[0]))) == {0, 1, 2}
    assert sorted(path for path in source.rglob("*")) == before
    assert main(["info", str(source)]) == 0 and name in capsys.readouterr().out


def voxels(dataset: Dataset, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    case = dataset.cases[index]
    image = read_image(case, dataset)
    return image.data, read_mask(case, dataset, image).data, image.affine


@pytest.mark.parametrize("make", [datasets.msd, datasets.bids, datasets.dicom])
def test_voxels_and_places_are_those_of_the_files(make: Callable[[Path], Path], tmp_path: Path) -> None:
    dataset = read(make(tmp_path))
    for index in range(3):
        image, mask = pair(index)
        data, labels, affine = voxels(dataset, index)
        np.testing.assert_array_equal(data[0], image.data[0])
        np.testing.assert_array_equal(labels, mask.data)
        np.testing.assert_allclose(affine, image.affine, atol=1e-4)


def test_msd_channels_are_the_fourth_axis(tmp_path: Path) -> None:
    data, _, _ = voxels(read(datasets.msd(tmp_path)), 1)
    np.testing.assert_array_equal(data[1], data[0] + 1)


def test_sessions_of_a_subject_are_one_patient(tmp_path: Path) -> None:
    dataset = read(datasets.bids(tmp_path))
    assert [case.id for case in dataset.cases] == list(datasets.SESSIONS)
    patients, assumed = patients_of(dataset.cases, None)
    assert not assumed and [patients[name] for name in datasets.SESSIONS] == ["sub-01", "sub-01", "sub-02", "sub-03"]
    assert [dict(case.attributes) for case in dataset.cases[1:3]] == [{"age": 61, "sex": "F"}, {"sex": "M"}]
    assert dataset.notes == ("T2w is in 1 of 4 sessions: left out",)


def test_bids_masks_without_sessions_and_tables(tmp_path: Path) -> None:
    for index in range(2):
        image, mask = pair(index)
        write(image, tmp_path / f"sub-{index}" / "anat" / f"sub-{index}_T1w.nii")
        name = f"sub-{index}_space-T1w_desc-lesion_mask.nii.gz"
        write(mask.replace(data=mask.data // 2), tmp_path / "derivatives" / "a" / f"sub-{index}" / name)
    dataset = read(tmp_path)
    assert dataset.label_values == {"lesion": 1} and [case.patient for case in dataset.cases] == ["sub-0", "sub-1"]
    for path in (tmp_path / "derivatives").rglob("*.nii.gz"):
        path.rename(path.with_name(path.name.replace("desc-lesion_mask", "dseg")))
    assert read(tmp_path).label_values == {"label_1": 1}


def test_patients_of_dicom_are_told_apart_without_their_names(tmp_path: Path) -> None:
    source = datasets.dicom(tmp_path / "source", segmentation=True)
    (source / "case1" / "image" / "notes.txt").write_text("x")
    dataset = read(source)
    assert [case.patient for case in dataset.cases] == ["patient_0001", "patient_0001", "patient_0000"]
    assert "1 files in" in dataset.notes[0] and "PatientID" in dataset.notes[1]
    assert main(["prepare", str(source), "--out", str(tmp_path / "out")]) == 0
    text = b"".join(path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file())
    assert b"Smith" not in text and b"Jones" not in text
    (source / "cases.csv").write_text("case,patient,age\ncase0,a,3\ncase1,b,4\ncase2,c,5\n")
    assert [(case.patient, case.attributes["age"]) for case in read(source).cases] == [("a", 3), ("b", 4), ("c", 5)]


def test_segments_are_matched_by_name(tmp_path: Path) -> None:
    """Numbers of segments differ between files of one dataset."""
    from tests.formats.dicom_files import write_segmentation

    source = datasets.dicom(tmp_path, segmentation=True)
    _, mask = pair(1)
    swapped = mask.replace(data=np.array([0, 2, 1], np.uint8)[mask.data])
    write_segmentation(source / "case1" / "mask.dcm", swapped, {2: "shell", 1: "core"}, kind="LABELMAP")
    dataset = read(source)
    assert dataset.label_values == {"core": 1, "shell": 2}
    for index in range(3):
        np.testing.assert_array_equal(voxels(dataset, index)[1], np.array([0, 2, 1])[pair(index)[1].data])


def test_dicom_channels_are_folders(tmp_path: Path) -> None:
    from tests.formats.dicom_files import write_series

    source = datasets.dicom(tmp_path)
    for index in range(3):
        case, (image, _) = source / f"case{index}", pair(index)
        (case / "image").rename(case / "image_T1")
        write_series(case / "image_FLAIR", image, modality="MR", patient=("Smith^A", "Smith^A", "Jones^B")[index])
    dataset = read(source)
    assert dataset.channels == ("FLAIR", "T1") and voxels(dataset, 0)[0].shape[0] == 2


def test_ct_is_told_by_its_files_whatever_its_folder_is_called(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = datasets.dicom(tmp_path / "source")
    for index in range(3):
        place = source / f"case{index}"
        (place / "image").rename(place / "image_arterial")
    assert read(source).channels == ("arterial",) and read(source).modalities == ("CT",)
    assert main(["prepare", str(source), "--out", str(tmp_path / "out")]) == 0
    assert re.search(r"channel arterial +CT window \(HU\)", capsys.readouterr().out)
    assert Prepared.load(tmp_path / "out").schema.intensities[0].kind == "window"


def test_four_axes_are_channels_only_where_something_says_so(tmp_path: Path) -> None:
    for index in range(2):
        image, mask = pair(index)
        datasets.write_4d(tmp_path / "images" / f"c{index}.nii.gz", [image, image])
        write(mask, tmp_path / "masks" / f"c{index}.nii.gz")
    with pytest.raises(ValueError, match="holds 2 volumes, and nothing says whether they are channels or time"):
        read(tmp_path)
    (tmp_path / "dataset.json").write_text(json.dumps({"channel_names": {"0": "T1", "1": "FLAIR"}}))
    dataset = read(tmp_path)
    assert dataset.channels == ("T1", "FLAIR") and voxels(dataset, 0)[0].shape[0] == 2


@pytest.mark.parametrize("same", [True, False])
def test_channels_lie_on_one_grid(same: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_dataset(tmp_path / "source", 3, datasets.GRID, np.eye(4), LABELS)
    info = json.loads((source / "dataset.json").read_text())
    (source / "dataset.json").write_text(json.dumps({**info, "channel_names": {"0": "T1", "1": "FLAIR"}}))
    for index in range(3):
        image, _ = pair(index, datasets.GRID if same else (10, 8, 3), np.diag([1.0, 1, 1 if same else 2, 1]))
        write(image, source / "imagesTr" / f"c{index:02d}_0001.nii.gz")
    code = main(["prepare", str(source), "--out", str(tmp_path / "out")])
    if same:
        assert code == 0 and Prepared.load(tmp_path / "out").schema.channels == ("T1", "FLAIR")
    else:
        said = capsys.readouterr().err
        assert code == 2 and "c00_0001.nii.gz grid (10, 8, 3) does not match image grid (10, 8, 6)" in said


def test_a_folder_around_the_dataset_is_named(tmp_path: Path) -> None:
    datasets.msd(tmp_path / "unpacked" / "Task01")
    with pytest.raises(ValueError, match=r"Task01 has; give that folder"):
        read(tmp_path / "unpacked")
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        ValueError, match="Looked for: MSD .*; images/ .*; nnU-Net .*; BIDS .*; case folders with DICOM"
    ):
        read(tmp_path / "empty")
