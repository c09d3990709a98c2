"""nnU-Net raw datasets and folders of volumes: round trips, and what each fault says."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth import io
from synth.data.dataset import Dataset
from synth.errors import DataError, GeometryError, OutputError, SynthError
from synth.formats import read
from synth.formats.cases import check_mask, read_rows, values_of
from synth.formats.folder import read_folder
from synth.formats.nnunet import DatasetWriter, read_dataset, regions_of, sha256_of
from synth.volume import Volume

OBLIQUE = np.array([[0.0, -1.5, 0.0, 9.0], [0.48, 0.0, -2.4, -7.0], [0.64, 0.0, 1.8, 5.5], [0.0, 0.0, 0.0, 1.0]])
GRID = (6, 5, 4)
GAPS = {"organ": 3, "rod": 200}


def pair(seed: int, labels: dict[str, int], *, channels: int = 1) -> tuple[Volume, Volume]:
    rng = np.random.default_rng(seed)
    image = rng.integers(-1000, 2000, (channels, *GRID)).astype(np.int16)
    values = np.array([0, *labels.values()])
    mask = values[rng.integers(0, len(values), (1, *GRID))].astype(np.int16)
    return Volume(image, OBLIQUE), Volume(mask, OBLIQUE, labels)


def make(folder: Path, *, count: int = 2, channels: tuple[str, ...] = ("CT",), ending: str = ".nii.gz", **more: object):
    writer = DatasetWriter(folder, name="Phantom", channels=channels, labels=GAPS, file_ending=ending, **more)  # pyright: ignore
    sums = {}
    for index in range(count):
        sums.update(writer.add(f"case_{index}", *pair(index, GAPS, channels=len(channels))))
    writer.finish(count)
    return sums


@pytest.mark.parametrize("ending", io.SUFFIXES)
def test_what_is_written_is_read(ending: str, tmp_path: Path) -> None:
    sums = make(tmp_path, channels=("T1", "FLAIR"), ending=ending, extra={"population": "phantoms", "licence": "none"})
    dataset = read(tmp_path)
    assert dataset.channels == ("T1", "FLAIR")
    assert (dataset.file_ending, dataset.population, dataset.extra["licence"]) == (ending, "phantoms", "none")
    assert [case.id for case in dataset.cases] == ["case_0", "case_1"]
    assert {name: sha256_of(tmp_path / name) for name in sums} == sums
    assert len(sums) == 6
    for index, case in enumerate(dataset.cases):
        image, mask = pair(index, GAPS, channels=2)
        for channel, path in enumerate(case.images):
            volume = io.read(path)
            np.testing.assert_array_equal(volume.data[0], image.data[channel])
            np.testing.assert_allclose(volume.affine, OBLIQUE, atol=1e-4)
        assert case.mask is not None
        back = io.read(case.mask, labels=dataset.label_values)
        assert back.data.dtype == np.uint8
        for name, value in GAPS.items():
            np.testing.assert_array_equal(back.data == dataset.label_values[name], mask.data == value)


def test_gaps_are_closed_and_recorded(tmp_path: Path) -> None:
    make(tmp_path)
    info = json.loads((tmp_path / "dataset.json").read_text())
    assert info["labels"] == {"background": 0, "organ": 1, "rod": 2}
    assert info["synth_label_values"] == GAPS
    assert info["numTraining"] == 2
    assert read(tmp_path).label_values == {"organ": 1, "rod": 2}


@given(values=st.lists(st.integers(1, 3000), min_size=1, max_size=12, unique=True), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_any_label_values_survive_by_name(
    values: list[int], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("set")
    labels = {f"part {number}": value for number, value in enumerate(values)}
    image, mask = pair(seed, labels)
    writer = DatasetWriter(folder, name="Any", channels=("MR",), labels=labels)
    writer.add("one", image, mask)
    writer.finish(1)
    dataset = read(folder)
    assert sorted(dataset.label_values.values()) == list(range(1, len(values) + 1))
    case = dataset.cases[0]
    assert case.mask is not None
    back = io.read(case.mask).data
    for name, value in labels.items():
        np.testing.assert_array_equal(back == dataset.label_values[name], mask.data == value)


def test_regions_and_ignore(tmp_path: Path) -> None:
    labels = {"oedema": 1, "core": 2, "ignore": 3, "enhancing": 4}
    regions = {"whole": (1, 2, 4), "inner": (2, 4), "active": (4,)}
    writer = DatasetWriter(tmp_path, name="Tumour", channels=("MR",), labels=labels, regions=regions)
    image, mask = pair(0, labels)
    writer.add("one", image, mask)
    writer.finish(1)
    info = json.loads((tmp_path / "dataset.json").read_text())
    assert info["labels"] == {"background": 0, "whole": [1, 2, 3], "inner": [2, 3], "active": [3], "ignore": 4}
    assert info["regions_class_order"] == [1, 2, 3]
    dataset = read(tmp_path)
    assert dataset.label_values == {"oedema": 1, "core": 2, "enhancing": 3, "ignore": 4}
    assert regions_of(dataset.extra) == {"whole": (1, 2, 3), "inner": (2, 3), "active": (3,)}
    del info["synth_labels"]
    (tmp_path / "dataset.json").write_text(json.dumps(info))
    assert read(tmp_path).label_values == {"label_1": 1, "label_2": 2, "active": 3, "ignore": 4}


def test_listed_files(tmp_path: Path) -> None:
    make(tmp_path / "store")
    info = json.loads((tmp_path / "store" / "dataset.json").read_text())
    images, masks = tmp_path / "store" / "imagesTr", tmp_path / "store" / "labelsTr"
    info["dataset"] = {
        f"case_{i}": {"images": [str(images / f"case_{i}_0000.nii.gz")], "label": f"../store/labelsTr/case_{i}.nii.gz"}
        for i in range(2)
    }
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "dataset.json").write_text(json.dumps(info))
    dataset = read(tmp_path / "list")
    assert [case.images[0] for case in dataset.cases] == [images / f"case_{i}_0000.nii.gz" for i in range(2)]
    assert all(case.mask is not None and case.mask.resolve().parent == masks for case in dataset.cases)


def test_sidecar_and_truth(tmp_path: Path) -> None:
    make(tmp_path, count=3)
    with (tmp_path / "cases.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [
                ["case", "patient", "text", "age", "volume", "grade", "code"],
                ["case_0", "07", "one, small", "61", "1.5", "2", "007"],
                ["case_1", "07", "", "", "2", "x", "010"],
            ]
        )
    image, _ = pair(0, GAPS)
    io.write(image, tmp_path / "truthTr" / "case_0.nii.gz")
    first, second, third = read(tmp_path).cases
    assert (first.patient, first.text) == ("07", "one, small")
    assert dict(first.attributes) == {"age": 61, "volume": 1.5, "grade": "2", "code": "007"}
    assert dict(second.attributes) == {"volume": 2.0, "grade": "x", "code": "010"}
    assert (second.text, third.patient, dict(third.attributes)) == (None, None, {})
    assert (first.truth, second.truth) == (tmp_path / "truthTr" / "case_0.nii.gz", None)


def edit(**fields: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        info = json.loads((folder / "dataset.json").read_text())
        info.update(fields)
        (folder / "dataset.json").write_text(json.dumps({k: v for k, v in info.items() if v is not None}))

    return change


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def text(name: str, content: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(content) and None


def regrid(name: str) -> Callable[[Path], None]:
    return lambda folder: io.write(Volume(np.zeros((1, 3, 3, 3), np.uint8)), folder / name) and None


def shift(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        volume = io.read(folder / name)
        affine = np.array(volume.affine)
        affine[0, 3] += 0.5
        io.write(volume.replace(affine=affine), folder / name)

    return change


FAULTS: dict[str, tuple[Callable[[Path], None], type[SynthError], str]] = {
    "no dataset.json": (remove("dataset.json"), DataError, "dataset.json does not exist"),
    "broken JSON": (text("dataset.json", '{\n "labels": {,\n}'), DataError, r"line 2, column 13 is not valid JSON"),
    "JSON list": (text("dataset.json", "[]"), DataError, "no JSON object"),
    "no labels": (edit(labels=None), DataError, "has no 'labels'"),
    "labels list": (edit(labels=["a"]), DataError, "labels is"),
    "labels of v1": (edit(labels={"0": "background", "1": "organ"}), DataError, "v1; turn them round"),
    "modality of v1": (edit(channel_names=None, modality={"0": "CT"}), DataError, "v1 or MSD"),
    "label of text": (edit(labels={"background": 0, "organ": "1"}), DataError, "'organ' has value '1'"),
    "no background": (edit(labels={"organ": 1, "rod": 2}), DataError, "no label has value 0"),
    "value twice": (edit(labels={"background": 0, "organ": 1, "rod": 1}), DataError, "both have value 1"),
    "regions without order": (edit(labels={"background": 0, "a": [1, 2], "b": 2}), DataError, "regions_class_order"),
    "channel numbers": (edit(channel_names={"1": "CT"}), DataError, "counting from 0"),
    "channel missing": (edit(channel_names={"0": "CT", "1": "PET"}), DataError, "'case_0' has no case_0_0001.nii.gz"),
    "number of cases": (edit(numTraining=5), DataError, "numTraining 5, 2 cases are there"),
    "file ending": (edit(file_ending=".tif"), DataError, "known are .nii.gz"),
    "other ending": (edit(file_ending=".nrrd"), DataError, "holds no <case>_0000.nrrd files"),
    "mask missing": (remove("labelsTr/case_1.nii.gz"), DataError, "'case_1' has no labelsTr/case_1.nii.gz"),
    "image missing": (remove("imagesTr/case_1_0000.nii.gz"), DataError, "case_1.nii.gz has no image"),
    "mask grid": (regrid("labelsTr/case_1.nii.gz"), GeometryError, r"mask grid \(3, 3, 3\) does not match .*'case_1'"),
    "mask shifted": (shift("labelsTr/case_1.nii.gz"), GeometryError, "mask affine does not match"),
    "mask unreadable": (text("labelsTr/case_1.nii.gz", "no"), DataError, "case_1.nii.gz is not gzip data"),
    "file name": (regrid("imagesTr/case_1.nii.gz"), DataError, "has no channel number"),
    "stranger in cases.csv": (text("cases.csv", "case,age\nnobody,3\n"), DataError, "names case 'nobody'"),
    "cases.csv without case": (text("cases.csv", "id,age\na,3\n"), DataError, "one of them 'case'"),
    "cases.csv ragged": (text("cases.csv", "case,age\ncase_0,3,4\n"), DataError, "line 2 has 3 cells"),
    "cases.csv twice": (text("cases.csv", "case,age\ncase_0,3\ncase_0,3\n"), DataError, "line 3 names its case again"),
    "listed without label": (edit(dataset={"a": {"images": []}}), DataError, 'dataset.a needs "images"'),
    "listed outside": (edit(dataset={"../a": {"images": [], "label": "b"}}), DataError, "no plain file name"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_one_line(name: str, tmp_path: Path) -> None:
    make(tmp_path)
    change, kind, words = FAULTS[name]
    change(tmp_path)
    with pytest.raises(kind, match=words) as caught:
        read_dataset(tmp_path)
    assert "\n" not in str(caught.value)
    assert ";" in str(caught.value)


def test_strange_label_values() -> None:
    with pytest.raises(DataError, match=r"mask of case 'a' has value 7, dataset.json knows \[0, 1, 2\]"):
        check_mask(Volume(np.array([[[0, 1], [7, 2]]])), {"x": 1, "y": 2}, case="a")
    check_mask(Volume(np.array([[[0, 1], [1, 2]]])), {"x": 1, "y": 2}, case="a")
    assert values_of(np.array([-5, 1_000_000, -5])) == [-5, 1_000_000]
    assert values_of(np.array([255, 0, 7], np.uint8)) == [0, 7, 255]


def test_writer_refuses_what_is_wrong(tmp_path: Path) -> None:
    writer = DatasetWriter(tmp_path / "set", name="Phantom", channels=("CT",), labels=GAPS)
    image, mask = pair(0, GAPS)
    for case in ("../up", ".hidden", "a/b", "", "a b", "a..b", "é"):
        with pytest.raises(OutputError, match="no plain file name"):
            writer.add(case, image, mask)
    with pytest.raises(DataError, match="channels"):
        writer.add("one", pair(0, GAPS, channels=2)[0], mask)
    with pytest.raises(DataError, match="has value 200"):
        writer.add("one", image, mask.replace(labels={"organ": 3}))
    with pytest.raises(DataError, match="did you mean 'organ'"):
        writer.add("one", image, mask.replace(labels={"orgam": 3, "rod": 200}))
    with pytest.raises(GeometryError, match="'one'"):
        writer.add("one", image.replace(affine=np.eye(4)), mask)
    with pytest.raises(DataError, match="NaN"):
        writer.add("one", image.replace(data=np.full(image.data.shape, np.nan)), mask)
    assert not (tmp_path / "set").exists(), "nothing is written of a wrong case"
    with pytest.raises(OutputError, match="share a value"):
        DatasetWriter(tmp_path, name="Phantom", channels=("CT",), labels={"a": 1, "b": 1})
    with pytest.raises(OutputError, match="region 'all'"):
        DatasetWriter(tmp_path, name="Phantom", channels=("CT",), labels=GAPS, regions={"all": (3, 4)})
    with pytest.raises(OutputError, match="known are"):
        DatasetWriter(tmp_path, name="Phantom", channels=("CT",), labels=GAPS, file_ending=".tif")


def test_a_mask_is_matched_by_name(tmp_path: Path) -> None:
    writer = DatasetWriter(tmp_path, name="Phantom", channels=("CT",), labels=GAPS)
    image, mask = pair(0, {"rod": 1, "organ": 2})
    writer.add("one", image, mask)
    back = io.read(tmp_path / "labelsTr" / "one.nii.gz").data
    np.testing.assert_array_equal(back == 2, mask.data == 1)
    np.testing.assert_array_equal(back == 1, mask.data == 2)


def test_a_set_that_is_not_whole_is_no_dataset(tmp_path: Path) -> None:
    writer = DatasetWriter(tmp_path, name="Phantom", channels=("CT",), labels=GAPS)
    assert not writer.has("one")
    writer.add("one", *pair(0, GAPS))
    assert writer.has("one")
    with pytest.raises(OutputError, match="holds 1 of 2 cases"):
        writer.finish(2)
    assert not (tmp_path / "dataset.json").exists()
    writer.finish()
    assert len(read(tmp_path).cases) == 1


def test_equal_cases_give_equal_bytes(tmp_path: Path) -> None:
    assert make(tmp_path / "a") == make(tmp_path / "b")
    assert (tmp_path / "a" / "dataset.json").read_bytes() == (tmp_path / "b" / "dataset.json").read_bytes()


def test_folder_of_volumes(tmp_path: Path) -> None:
    for index in range(2):
        image, mask = pair(index, GAPS)
        io.write(image, tmp_path / "images" / f"c{index}.nrrd")
        io.write(mask, tmp_path / "masks" / f"c{index}.nii.gz")
    (tmp_path / "cases.csv").write_text("case,patient,kind\nc1,9,a\n")
    dataset = read(tmp_path)
    assert isinstance(dataset, Dataset)
    assert dataset.label_values == {"label_3": 3, "label_200": 200}
    assert [(case.id, case.patient) for case in dataset.cases] == [("c0", None), ("c1", "9")]
    assert read_folder(tmp_path / "images").cases[0].mask is None
    (tmp_path / "masks" / "c1.nii.gz").unlink()
    with pytest.raises(DataError, match=r"c1.nrrd has no file of the same name"):
        read(tmp_path)


def test_unknown_layouts_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nnU-Net v2 raw dataset"):
        read(tmp_path)
    with pytest.raises(DataError, match="is not a folder"):
        read(tmp_path / "gone")
    assert read_rows(tmp_path / "cases.csv") == {}
