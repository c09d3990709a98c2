"""Folds: of patients, each once in validation; given ones are refused where they leak; the test is in none."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.cli import main
from synth.data.folds import check_folds, dump_folds, make_folds, read_folds
from synth.data.power import what_it_can_show
from synth.data.prepared import Prepared
from synth.errors import ConfigError, DataError
from tests.conftest import OBLIQUE, write_dataset

LABELS = {"shell": 3, "core": 200}


@settings(max_examples=60, deadline=None)
@given(count=st.integers(2, 30), crops=st.integers(1, 3), folds=st.integers(2, 8), seed=st.integers(0, 99))
def test_every_patient_validates_once(count: int, crops: int, folds: int, seed: int) -> None:
    patients = {f"c{n}_{crop}": f"p{n}" for n in range(count) for crop in range(crops)}
    if folds > count:
        with pytest.raises(ConfigError, match=f"give 2 to {count}"):
            make_folds(patients, count=folds, seed=seed)
        return
    early = {f"p{n}" for n in range(count // 3)}
    made = make_folds(patients, count=folds, seed=seed, first=early)
    assert made == make_folds(dict(reversed(patients.items())), count=folds, seed=seed, first=early)
    check_folds(made, patients, "here")
    validated = [{patients[case] for case in fold.val} for fold in made]
    assert sum(map(len, validated)) == count and set.union(*validated) == set(patients.values())
    for sizes in ([len(side) for side in validated], [len(side & early) for side in validated]):
        assert max(sizes) - min(sizes) <= 1
    assert all(set(fold.train) | set(fold.val) == set(patients) for fold in made)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve cases of six patients: c00 and c01 are p0's."""
    return write_dataset(tmp_path_factory.mktemp("folds") / "source", 12, (10, 8, 6), OBLIQUE, LABELS)


def case(*numbers: int) -> list[str]:
    return [f"c{number:02d}" for number in numbers]


def given_splits(folder: Path, folds: object) -> list[str]:
    path = folder / "given.json"
    path.write_text(folds if isinstance(folds, str) else json.dumps(folds))
    return ["--splits", str(path)]


def test_prepare_stores_folds_and_says_them(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["prepare", str(source), "--folds", "3", "--holdout", "0.2", "--test", "0.2", "--out"]
    assert main([*command, str(tmp_path / "one")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line.startswith("  fold")] == ["fold"] * 3
    assert "undecidable: 1 hold-out patient; needs 3 more" in lines[-1]
    assert main([*command, str(tmp_path / "two")]) == 0
    files = [(tmp_path / name / "splits_final.json").read_bytes() for name in ("one", "two")]
    assert files[0] == files[1]
    done = Prepared.load(tmp_path / "one")
    test = {row.case for row in done.split("test")}
    assert test and not test & {name for fold in done.folds for name in (*fold.train, *fold.val)}
    assert dump_folds(read_folds(tmp_path / "one" / "splits_final.json")) == files[0]
    for number, fold in enumerate(done.folds):
        view = done.at_fold(number)
        assert {row.case for row in view.split("val")} == set(fold.val)
        assert {row.case for side in ("train", "holdout") for row in view.split(side)} == set(fold.train)
        assert {row.case for row in view.split("test")} == test and view.split("train")


def test_given_folds_are_taken_and_what_they_leave_out_is_said(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folds = [
        {"train": case(0, 1, 2, 3, 4, 5), "val": case(6, 7)},
        {"train": case(4, 5, 6, 7), "val": case(0, 1, 2)},
    ]
    out = tmp_path / "out"
    assert main(["prepare", str(source), "--out", str(out), *given_splits(tmp_path, folds)]) == 0
    assert "cases that no fold names: c08, c09, c10, c11" in capsys.readouterr().out
    done = Prepared.load(out)
    assert {row.case for row in done.split("test")} == set(case(8, 9, 10, 11))
    assert json.loads((out / "splits_final.json").read_text()) == folds
    view = done.at_fold(1)
    assert "c03" not in {row.case for row in view.cases}, "its patient validates, and the fold does not name it"


@pytest.mark.parametrize(
    ("folds", "words"),
    [
        ([{"train": case(0, 1, 99), "val": case(2)}], "fold 0 names cases that are not there: c99"),
        ([{"train": case(0, 1, 2), "val": case(2, 3)}], "fold 0 has cases in train and val: c02"),
        ([{"train": case(0, 2), "val": case(1, 4)}], "patients in train and val: p0 (cases c00, c01)"),
        ([{"train": case(0, 0, 1), "val": case(4)}], "names cases twice: c00"),
        ([{"train": case(0, 1), "val": []}], "fold 0 has no list of cases 'val'"),
        ({"train": case(0), "val": case(2)}, "holds no list of folds"),
        ("[", "cannot be read as JSON"),
    ],
)
def test_leaking_folds_are_refused_by_name(
    folds: object, words: str, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prepare", str(source), "--out", str(tmp_path / "out"), *given_splits(tmp_path, folds)]) == 2
    assert words in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--folds", "1"], "--folds is 1"),
        (["--folds", "9"], "give 2 to 5"),
        (["--folds", "2", "--splits", "x.json"], "give one of them"),
        (["--splits", "x.json", "--test", "0.2"], "leave --test out"),
        (["--splits", "none.json"], "none.json"),
    ],
)
def test_options_that_do_not_fit(
    options: list[str], words: str, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prepare", str(source), "--out", str(tmp_path / "out"), *options]) == 2
    assert words in capsys.readouterr().err


def test_a_folder_whose_folds_were_spoilt_is_refused(source: Path, tmp_path: Path) -> None:
    assert main(["prepare", str(source), "--out", str(tmp_path / "out"), "--folds", "2"]) == 0
    done = Prepared.load(tmp_path / "out")
    with pytest.raises(ConfigError, match="folds 0 to 1"):
        done.at_fold(2)
    tested = done.split("test")[0].case
    moved = [{"train": list(fold.train), "val": [*fold.val, tested]} for fold in done.folds]
    (done.folder / "splits_final.json").write_text(json.dumps(moved))
    with pytest.raises(DataError, match="test patients"):
        Prepared.load(done.folder)


def test_equal_voxels_under_two_patients_are_refused(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = write_dataset(tmp_path / "again", 4, (10, 8, 6), OBLIQUE, LABELS)
    (again / "imagesTr/c02_0000.nii.gz").write_bytes((again / "imagesTr/c00_0000.nii.gz").read_bytes())
    assert main(["prepare", str(again), "--out", str(tmp_path / "out")]) == 2
    assert "'c00' and 'c02' have the same voxels" in capsys.readouterr().err


def test_folders_of_before_folds_still_open(source: Path, tmp_path: Path) -> None:
    """As they were written: prepared.yaml is the schema, rows know no digest, type or foreground."""
    assert main(["prepare", str(source), "--out", str(tmp_path / "out")]) == 0
    done = Prepared.load(tmp_path / "out")
    from synth import config

    (done.folder / "prepared.yaml").write_text(config.dump(done.schema))
    rows = [json.loads(line) for line in (done.folder / "cases.jsonl").read_text().splitlines()]
    kept = [{k: v for k, v in row.items() if k not in ("digest", "dtype", "foreground")} for row in rows]
    (done.folder / "cases.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    old = Prepared.load(done.folder)
    assert old.schema == done.schema and old.patients_assumed is None
    assert len({old.digest(row) for row in old.cases}) == 12
    with pytest.raises(DataError, match="--folds"):
        old.at_fold(0)


def test_the_table_says_what_would_mend(source: Path, tmp_path: Path) -> None:
    options = ["--patients", "each", "--holdout", "0.34", "--test", "0.34"]
    assert main(["prepare", str(source), "--out", str(tmp_path / "out"), *options]) == 0
    table = dict(what_it_can_show(Prepared.load(tmp_path / "out")))
    assert table["patients (cases), holdout"] == "4 (4)"
    assert table["smallest detectable Dice gain"] == "0.140; needs 28 more test patients for 0.05"
    assert table["smallest detectable copy share"] == "0.750; needs 56 more hold-out patients for a share of 5 %"
