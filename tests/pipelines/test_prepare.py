"""Journeys of `synth prepare`: geometry and values kept, patients apart, nothing of the user's is lost."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipelines.cli import main
from synth import config
from synth.data.placement import Placement
from synth.data.preparation import _within, label_volumes
from synth.data.prepared import Contents, Prepared
from synth.data.schema import Attribute
from synth.errors import DataError
from synth.io import read, write
from synth.volume import Volume
from tests.conftest import OBLIQUE, phantom, tiny_recipe, write_dataset

LABELS = {"shell": 3, "core": 200}


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line a refused command says."""
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("synth: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "source", 4, (10, 8, 6), OBLIQUE @ np.diag([-1.0, 1, 1, 1]), LABELS)


@pytest.fixture
def done(source: Path, tmp_path: Path) -> Prepared:
    assert main(["prepare", str(source), "--out", str(tmp_path / "out")]) == 0
    return Prepared.load(tmp_path / "out")


def test_oblique_flipped_masks_come_back_bit_equal(done: Prepared, source: Path) -> None:
    assert done.schema.grid == (12, 8, 8)
    for case in done.cases:
        native = read(source / "labelsTr" / f"{case.case}.nii.gz", labels=LABELS)
        assert case.native_grid == native.grid
        assert np.abs(np.reshape(case.native_affine, (4, 4)) - native.affine).max() < 1e-4
        placement = Placement.of(native, grid=done.schema.grid, spacing_mm=done.schema.spacing_mm)
        values = np.array([0, *done.schema.label_values.values()])
        back = placement.to_native(Volume(values[done.mask(case)][None], placement.affine, LABELS))
        assert np.array_equal(back.data, native.data) and back.same_geometry(native, tolerance_mm=1e-4)
        image = done.image(case)
        assert image.dtype == np.float32 and image.shape == (1, *done.schema.grid) and image.min() >= -0.5


def test_channels_are_padded_with_their_own_air(tmp_path: Path) -> None:
    source = write_dataset(tmp_path / "source", 2, (10, 8, 6), np.eye(4), LABELS)
    info = json.loads((source / "dataset.json").read_text())
    (source / "dataset.json").write_text(json.dumps({**info, "channel_names": {"0": "T1", "1": "CT"}}))
    for path in list((source / "imagesTr").iterdir()):
        volume = read(path)
        hounsfield = np.where(volume.data < 200, -1000, 40).astype(np.int16)
        write(volume.replace(data=hounsfield), path.with_name(path.name.replace("_0000", "_0001")))
    assert main(["prepare", str(source), "--out", str(tmp_path / "out"), "--size", "16", "16", "16"]) == 0
    done = Prepared.load(tmp_path / "out")
    corner = done.image(done.cases[0])[:, 0, 0, 0]
    assert abs(corner[0]) < 0.15
    assert done.schema.intensities[1].invert(corner[1:])[0] == pytest.approx(-1000, abs=0.1)


@pytest.mark.parametrize("name", ["CT", "ct", "Ct"])
def test_ct_is_ct_however_it_is_spelled(name: str, tmp_path: Path) -> None:
    """nnU-Net folds the case of channel names."""
    source = write_dataset(tmp_path / "source", 2, (10, 8, 6), np.eye(4), LABELS)
    info = json.loads((source / "dataset.json").read_text())
    (source / "dataset.json").write_text(json.dumps({**info, "channel_names": {"0": name}}))
    assert main(["prepare", str(source), "--out", str(tmp_path / "out")]) == 0
    assert Prepared.load(tmp_path / "out").schema.intensities[0].kind == "window"


def test_levels_without_training_cases_do_not_reach_training(tmp_path: Path) -> None:
    source = write_dataset(tmp_path / "source", 5, (8, 8), np.eye(4), LABELS)
    (source / "cases.csv").write_text("case,kind\n" + "".join(f"c{n:02d},only{n}\n" for n in range(5)))
    assert main(["prepare", str(source), "--out", str(tmp_path / "out")]) == 0
    done = Prepared.load(tmp_path / "out")
    assert {case.split for case in done.cases} == {"train", "holdout", "test"}
    assert all(bool(case.attributes) == (case.split == "train") for case in done.cases)


def test_volumes_of_labels(done: Prepared) -> None:
    voxel = float(np.prod(done.schema.spacing_mm)) / 1000
    counts = [int((done.mask(case) == 2).sum()) for case in done.cases]
    assert label_volumes(done)["core"] == pytest.approx(float(np.median(counts)) * voxel)


def test_same_command_same_content(done: Prepared, source: Path, tmp_path: Path) -> None:
    assert main(["prepare", str(source), "--out", str(tmp_path / "again")]) == 0
    assert Prepared.load(tmp_path / "again").sha256 == done.sha256
    assert main(["prepare", str(source), "--out", str(tmp_path / "again"), "--overwrite", "--patients", "each"]) == 0
    assert Prepared.load(tmp_path / "again").sha256 != done.sha256
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "out", "source"]


def test_truth_of_another_grid_is_refused(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(Volume(np.random.default_rng(0).normal(size=(1, 4, 4, 4)).astype(np.float32)), source / "truthTr/c01.nii.gz")
    assert main(["prepare", str(source), "--out", str(tmp_path / "out")]) == 2
    assert "truth grid (4, 4, 4)" in said(capsys) and not (tmp_path / "out").exists()


def test_earlier_results_survive_a_refusal(
    done: Prepared, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = done.sha256
    assert main(["prepare", str(source), "--out", str(done.folder)]) == 2
    assert "--overwrite" in said(capsys)
    (source / "labelsTr" / "c02.nii.gz").write_bytes(b"x")
    assert main(["prepare", str(source), "--out", str(done.folder), "--overwrite"]) == 2
    assert "c02" in said(capsys) and done.sha256 == before


@pytest.mark.parametrize("where", ["source", "source/inside", "", "notes", "file"])
def test_only_prepared_data_is_replaced(
    where: str, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("keep")
    (tmp_path / "file").write_text("keep")
    before = sorted(tmp_path.rglob("*"))
    assert main(["prepare", str(source), "--out", str(tmp_path / where), "--overwrite"]) == 2
    assert "another --out" in said(capsys) and sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--spacing", "0", "1", "1"], "--spacing"),
        (["--spacing", "nan", "1", "1"], "--spacing"),
        (["--spacing", "1", "1"], "3D"),
        (["--size", "8", "8"], "3D"),
        (["--size", "8", "0", "8"], "--size"),
        (["--size", "999", "999", "999"], "too many"),
        (["--holdout", "0.6", "--test", "0.5"], "--holdout"),
        (["--patients", "("], "--patients"),
        (["--patients", "none.csv"], "none.csv"),
    ],
)
def test_bad_options(
    options: list[str], words: str, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prepare", str(source), "--out", str(tmp_path / "a" / "out"), *options]) == 2
    assert words in said(capsys) and not (tmp_path / "a").exists()


def test_labels_beyond_the_size_are_refused(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", str(source), "--out", str(tmp_path / "out"), "--size", "8", "4", "8"]) == 2
    assert "case 'c01': 10 of 80 labelled voxels lie outside" in said(capsys)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_damaged_folders_say_so(done: Prepared) -> None:
    case = done.case("c01")
    with pytest.raises(DataError, match="did you mean 'c0"):
        done.case("c1")
    path = done.folder / "images" / "c01.npy"
    for content in (b"", path.read_bytes()[:200]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"c01\.npy cannot be read"):
            done.image(case)
    np.save(done.folder / "masks" / "c01.npy", np.zeros((3, 3, 3), np.uint8))
    with pytest.raises(DataError, match="not grid"):
        done.mask(case)
    rows = done.folder / "cases.jsonl"
    good = rows.read_text()
    for text in ("[]\n", "{\n", good.replace('"train"', '"trian"'), good + good, ""):
        rows.write_text(text)
        with pytest.raises(DataError, match=r"cases\.jsonl"):
            Prepared.load(done.folder)


def test_info_of_a_broken_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("{", "[]", "{}"):
        (tmp_path / "report.json").write_text(text)
        assert main(["info", str(tmp_path)]) == 2
        assert "report.json" in said(capsys)


def test_what_names_patients_stays_out_of_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names, dates and the words of one patient's text are in no recipe, and `prepare` says so."""
    from synth.recipe import Recipe
    from synth.training.experiment import complete

    source = write_dataset(tmp_path / "source", 16, (8, 8), np.eye(4), LABELS)
    head, *lines = (source / "cases.csv").read_text().splitlines()
    site = ["north", "north", "north", "north", "south", "south", "south", "south"]
    more = [f"{line},name{n // 2},{site[n // 2]}" for n, line in enumerate(lines)]
    more = [line.replace(" thing", f" thing of name{n // 2} on 2020.{10 + n // 2}") for n, line in enumerate(more)]
    (source / "cases.csv").write_text("\n".join([f"{head},name,site", *more]) + "\n")
    assert main(["prepare", str(source), "--out", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    assert "column 'name' stays out of models" in told and "words of texts, of one patient each, stay out" in told
    done = Prepared.load(tmp_path / "out")
    recipe = complete(config.load(Recipe, tiny_recipe(2)), done)
    text = config.dump(recipe)
    assert "name1" not in text and "2020" not in text and "name" not in {a.name for a in done.schema.attributes}
    assert {"thing", "of", "on"} <= set(recipe.image.conditioning.vocabulary)
    assert all("site" in case.attributes and "name" not in case.attributes for case in done.split("train"))


def test_folders_of_before_that_name_patients_are_read_without_the_names(tmp_path: Path) -> None:
    source = write_dataset(tmp_path / "source", 12, (8, 8), np.eye(4), LABELS)
    head, *lines = (source / "cases.csv").read_text().splitlines()
    more = [f"{line},name{n // 2}" for n, line in enumerate(lines)]
    (source / "cases.csv").write_text("\n".join([f"{head},name", *more]) + "\n")
    assert main(["prepare", str(source), "--out", str(tmp_path / "out")]) == 0
    done = Prepared.load(tmp_path / "out")
    named = Attribute(name="name", kind="categorical", levels=tuple(f"name{n}" for n in range(6)))
    before = replace(done.schema, attributes=(*done.schema.attributes, named))
    (done.folder / "prepared.yaml").write_text(config.dump(Contents(schema=before, stored=done.stored)))
    assert Prepared.load(done.folder).schema == done.schema


def plane(*columns: tuple[float, float, float], normal: tuple[float, float, float] = (0, 0, 1)) -> np.ndarray:
    """The affine of a 2D volume whose axes run along `columns`."""
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = np.array([*columns, normal]).T, (3.0, -7.0, 11.0)
    return affine


@pytest.mark.parametrize(
    ("usual", "odd"),
    [
        (plane((-0.5, 0, 0), (0, -0.8, 0)), plane((0.5, 0, 0), (0, 0.8, 0))),
        (plane((0.5, 0, 0), (0, 0.8, 0)), plane((0.5, 0, 0), (0, -0.8, 0))),
        (plane((0, 0, -0.5), (0, -0.8, 0), normal=(1, 0, 0)), plane((0, 0, 0.5), (0, -0.8, 0), normal=(1, 0, 0))),
    ],
)
def test_slices_keep_their_direction_and_odd_ones_are_turned(
    usual: np.ndarray, odd: np.ndarray, tmp_path: Path
) -> None:
    """The working grid runs as most cases do, so that samples that follow no mask lie as the data does."""
    source = write_dataset(tmp_path / "source", 5, (8, 12), usual, LABELS)
    flips = np.sign(np.diag(usual[:3, :2].T @ odd[:3, :2])) < 0
    for folder, name in (("imagesTr", "c01_0000"), ("labelsTr", "c01")):  # the same pixels, stored the other way round
        path = source / folder / f"{name}.nii.gz"
        volume = read(path)
        axes = tuple(int(axis) + 1 for axis in np.flatnonzero(flips))
        write(Volume(np.flip(volume.data, axes), odd), path)
    assert main(["prepare", str(source), "--out", str(tmp_path / "out")]) == 0
    done = Prepared.load(tmp_path / "out")
    for affine in (
        done.schema.reference_affine,
        replace(done.schema, native_grid=(8, 12), native_spacing_mm=(0.5, 0.8)).native_affine,
    ):
        np.testing.assert_allclose(affine[:3, :2], usual[:3, :2], atol=1e-6)
        middle = affine @ [3.5, 5.5, 0, 1]
        np.testing.assert_allclose(middle[:3], 0, atol=1e-6)
    shell = phantom(1, (8, 12))[1]
    assert np.array_equal(done.mask(done.case("c01")), shell)
    case = done.case("c01")
    native = read(source / "labelsTr" / "c01.nii.gz", labels=LABELS)
    placement = Placement.of(
        native, grid=done.schema.grid, spacing_mm=done.schema.spacing_mm, direction=done.schema.direction
    )
    values = np.array([0, *done.schema.label_values.values()])
    back = placement.to_native(Volume(values[done.mask(case)][None], placement.affine, LABELS))
    assert np.array_equal(back.data, native.data) and back.same_geometry(native)


def test_spacing_of_micrometres_is_not_rounded_up() -> None:
    native, sizes = np.array([0.002, 0.002]), np.array([[2.0, 2.0]])
    coarser = _within(native, sizes, 640_000)
    assert np.all((coarser >= 0.0025) & (coarser < 0.00253))
    assert _within(np.array([1.0, 1.0]), np.array([[1000.0, 1000.0]]), 300_000)[0] == 1.83
