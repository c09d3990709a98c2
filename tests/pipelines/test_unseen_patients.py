"""From training to the report: a model says by salted hashes whom it saw, and is validated and judged on others."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import synth
from pipelines.cli import main
from synth.data.prepared import Prepared
from synth.data.seen import Seen, read_seen
from synth.generator import Generator
from tests.conftest import write_dataset


@pytest.fixture(scope="module")
def folded(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """The same dataset, with two folds."""
    out = tmp_path_factory.mktemp("folded") / "data"
    assert main(["prepare", str(dataset), "--out", str(out), "--holdout", "0", "--test", "0.25", "--folds", "2"]) == 0
    return Prepared.load(out)


@pytest.fixture(scope="module")
def of_fold(folded: Prepared, model: Path) -> Path:
    """A model that says it was trained on fold 0 of them."""
    trained = synth.load(model).model
    folder = folded.folder.parent / "model"
    synth.save(Generator(replace(trained, seen=Seen.of(folded.at_fold(0), seed=0))), folder)
    return folder


@pytest.fixture(scope="module")
def made(of_fold: Path, folded: Prepared) -> Path:
    """A set by that model, with the splits_final.json that goes with it."""
    out = folded.folder.parent / "set"
    assert generate(of_fold, out, folded) == 0
    return out


def generate(model: Path, out: Path, data: Prepared | None, count: int = 2) -> int:
    more = [] if data is None else ["--data", str(data.folder)]
    return main(["generate", str(model), "--out", str(out), "--count", str(count), "--workers", "1", *more])


def evaluate(synthetic: Path, data: Prepared, out: Path) -> int:
    return main(["evaluate", "--synthetic", str(synthetic), "--data", str(data.folder), "--out", str(out)])


def test_a_trained_model_tells_whom_it_saw(model: Path, prepared: Prepared) -> None:
    seen = read_seen(model)
    assert seen is not None and seen.fold is None and seen.model == synth.load(model).model.sha256
    known = {case.case for case in prepared.cases if seen.has(prepared.digest(case))}
    assert known == {case.case for side in ("train", "holdout") for case in prepared.split(side)}
    assert Seen.of(prepared, seed=1).training != seen.training, "the salt is the run's"


def test_a_run_goes_on_only_with_its_own_fold_and_data(
    model: Path, folded: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = ["train", str(model.parent.parent / "tiny.yaml"), "--out", str(model.parent), "--data", str(folded.folder)]
    for more, words in (
        (["--fold", "1"], "was begun on no fold, now it is fold 1; give another --out"),
        ([], "was begun on other data"),
        (["--fold", "2"], "folds 0 to 1"),
        (["--fold", "-1"], "folds 0 to 1"),
    ):
        capsys.readouterr()
        assert main([*begun, *more]) == 2
        assert words in capsys.readouterr().err
    (tmp_path / "image").mkdir()  # of before runs said their fold
    assert main([*begun, "--out", str(tmp_path), "--fold", "0"]) == 2
    assert "was begun without folds" in capsys.readouterr().err and not (tmp_path / "data.json").exists()


def test_a_set_is_validated_on_patients_its_model_never_saw(made: Path, of_fold: Path, folded: Prepared) -> None:
    (fold,) = json.loads((made / "splits_final.json").read_text())
    assert fold == {"train": ["syn_00000", "syn_00001"], "val": list(folded.folds[0].val)}
    assert generate(of_fold, made, None, count=3) == 0  # extended without --data: it keeps up with the samples
    (longer,) = json.loads((made / "splits_final.json").read_text())
    assert longer == {"train": [*fold["train"], "syn_00002"], "val": fold["val"]}


def test_a_model_without_folds_is_validated_on_the_test_patients(
    model: Path, prepared: Prepared, tmp_path: Path
) -> None:
    assert generate(model, tmp_path / "set", prepared) == 0
    (fold,) = json.loads((tmp_path / "set" / "splits_final.json").read_text())
    assert fold["val"] == [case.case for case in prepared.split("test")]


def test_validation_on_seen_patients_is_refused_before_anything_is_made(
    of_fold: Path, folded: Prepared, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The fold's number alone does not do: here its patients change sides, and go by other names."""
    swapped = [{"train": list(fold.val), "val": list(fold.train)} for fold in folded.folds]
    (tmp_path / "swapped.json").write_text(json.dumps(swapped).replace('"c0', '"other0'))
    source = Path(shutil.copytree(dataset, tmp_path / "source"))
    for path in [*source.glob("*Tr/c0*")]:
        path.rename(path.with_name(path.name.replace("c0", "other0")))
    rows = (source / "cases.csv").read_text()
    (source / "cases.csv").write_text(re.sub(r"^c0(\d),p", r"other0\1,q", rows, flags=re.MULTILINE))
    given = ["--splits", str(tmp_path / "swapped.json")]
    assert main(["prepare", str(source), "--out", str(tmp_path / "data"), *given]) == 0
    capsys.readouterr()
    assert generate(of_fold, tmp_path / "set", Prepared.load(tmp_path / "data")) == 2
    told = capsys.readouterr().err
    assert "the model saw patients" in told and all(f"other{case[1:]}" in told for case in folded.folds[0].train)
    assert not (tmp_path / "set").exists()


def test_data_without_folds_or_test_patients_is_refused(
    of_fold: Path, model: Path, prepared: Prepared, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate(of_fold, tmp_path / "set", prepared) == 2
    assert "has no folds" in capsys.readouterr().err
    assert main(["prepare", str(dataset), "--out", str(tmp_path / "data"), "--test", "0"]) == 0
    assert generate(model, tmp_path / "set", Prepared.load(tmp_path / "data")) == 2
    assert "no test patients" in capsys.readouterr().err


def test_a_set_is_judged_on_the_data_its_model_was_trained_on(
    made: Path, folded: Prepared, prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(made, folded, tmp_path / "report") == 0
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["notes"] == ["judged on fold 0: the validation patients count as held out"]
    assert report["patients_assumed"] is False
    assert evaluate(made, prepared, tmp_path / "other") == 2  # no folds there
    redone = tmp_path / "redone"
    shutil.copytree(folded.folder, redone)
    folds = json.loads((redone / "splits_final.json").read_text())
    (redone / "splits_final.json").write_text(json.dumps(folds[::-1]))
    capsys.readouterr()
    assert evaluate(made, Prepared.load(redone), tmp_path / "other") == 2
    assert "was not trained on the training patients of" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_a_list_of_another_model_is_refused(
    made: Path, model: Path, folded: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(made, tmp_path / "set"))
    shutil.copy(model / "patients.json", copy)
    assert evaluate(copy, folded, tmp_path / "report") == 2
    assert "is of another model" in capsys.readouterr().err
    (copy / "patients.json").write_text("{}")
    assert evaluate(copy, folded, tmp_path / "report") == 2
    assert "patients.json is broken" in capsys.readouterr().err


def test_assumed_patients_and_an_unknown_model_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_dataset(tmp_path / "source", 2, (12, 12, 12), np.eye(4), {"shell": 1, "core": 2})
    rows = (source / "cases.csv").read_text().splitlines()
    (source / "cases.csv").write_text("\n".join("case" if n == 0 else row[:3] for n, row in enumerate(rows)) + "\n")
    assert main(["prepare", str(source), "--out", str(tmp_path / "data")]) == 0
    assert "its own patient (assumed" in capsys.readouterr().out
    assert evaluate(source, Prepared.load(tmp_path / "data"), tmp_path / "report") == 0
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    page = (tmp_path / "report" / "index.html").read_text()
    assert report["patients_assumed"] is True and len(report["notes"]) == 2
    for words in ("each case was taken as its own patient", "judged as claimed"):
        assert any(words in note for note in report["notes"]) and words in page


def test_one_patient_leaves_privacy_and_utility_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_dataset(tmp_path / "source", 2, (12, 12, 12), np.eye(4), {"shell": 1, "core": 2})
    assert main(["prepare", str(source), "--out", str(tmp_path / "data")]) == 0
    assert "one patient only, so that privacy cannot be judged" in capsys.readouterr().out.splitlines()[-1]
    assert evaluate(source, Prepared.load(tmp_path / "data"), tmp_path / "report") == 0
    left_out = json.loads((tmp_path / "report" / "report.json").read_text())["not_computed"]
    for name in ("privacy.nearest", "privacy.copy_test", "utility.dice_gain"):
        assert left_out[name].startswith("one patient only")


def with_masks(model: Path, out: Path, data: Prepared, masks: Path) -> int:
    more = ["--data", str(data.folder), "--masks", str(masks), "--workers", "1"]
    return main(["generate", str(model), "--out", str(out), "--count", "1", *more])


def test_masks_of_validation_and_test_patients_are_refused(
    model: Path, prepared: Prepared, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Samples of them are trained on, so they would show whom the network is validated on; by name and by voxels."""
    train, test = prepared.split("train"), prepared.split("test")
    masks = tmp_path / "masks"
    masks.mkdir()
    for row in train:
        shutil.copy(dataset / "labelsTr" / f"{row.case}.nii.gz", masks)
    assert with_masks(model, tmp_path / "good", prepared, masks) == 0
    for name, row in ((test[0].case, train[0]), ("other", test[0])):
        mask = synth.read(dataset / "labelsTr" / f"{row.case}.nii.gz", labels={})
        synth.write(mask.replace(data=mask.data.astype(np.uint8)), masks / f"{name}.nii.gz")
        capsys.readouterr()
        assert with_masks(model, tmp_path / "bad", prepared, masks) == 2
        told = capsys.readouterr().err
        assert f"masks {name} are of patients that" in told and not (tmp_path / "bad").exists()
        (masks / f"{name}.nii.gz").unlink()


def test_folders_that_do_not_record_masks_tell_them_by_name(
    model: Path, prepared: Prepared, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    older = Path(shutil.copytree(prepared.folder, tmp_path / "older"))
    rows = [json.loads(line) for line in (older / "cases.jsonl").read_text().splitlines()]
    kept = [{name: value for name, value in row.items() if name != "mask_digest"} for row in rows]
    (older / "cases.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    capsys.readouterr()
    assert with_masks(model, tmp_path / "bad", Prepared.load(older), dataset) == 2
    told = capsys.readouterr().err
    assert "told apart by name alone" in told and all(row.case in told for row in prepared.split("test"))
