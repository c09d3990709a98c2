"""Arms as nnU-Net datasets, and nnU-Net's own scores read back: what is linked, who validates, what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.utility.nnunet import arms_of, compare_arms, read_arms
from pipelines.cli import run
from pipelines.nnunet_arms import Arm, commands
from pipelines.progress import Progress
from synth.data.folds import read_folds
from synth.data.prepared import Prepared
from synth.errors import ConfigError, DataError, Interrupted
from synth.formats import read as read_layout
from synth.formats.nnunet import read_dataset
from synth.io import read
from tests.conftest import OBLIQUE, write_dataset


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three phantoms under other ids and other label values."""
    folder = write_dataset(tmp_path_factory.mktemp("set") / "set", 3, (14, 12, 10), OBLIQUE, {"shell": 1, "core": 2})
    for kind in ("imagesTr", "labelsTr"):
        for path in (folder / kind).iterdir():
            path.rename(path.with_name(f"syn_{path.name}"))
    (folder / "cases.csv").unlink()
    return folder


def evaluated(synthetic: Path, prepared: Prepared, out: Path, *more: str) -> int:
    options = ["--synthetic", str(synthetic), "--data", str(prepared.folder), "--out", str(out), "--judge-steps", "0"]
    return run("evaluate", [*options, *more])


@pytest.fixture(scope="module")
def exported(synthetic: Path, dataset: Path, prepared: Prepared) -> Path:
    out = synthetic.parent / "arms"
    more = ["--export-arms", str(out), "--native", str(dataset), "--utility-arms", "R", "S", "RS", "RR", "RA"]
    assert evaluated(synthetic, prepared, synthetic.parent / "report", *more) == 0
    return out


def test_arms_are_datasets_with_native_volumes(
    exported: Path, prepared: Prepared, dataset: Path, synthetic: Path
) -> None:
    raw = exported / "nnUNet_raw"
    folders = {path.name: path for path in raw.iterdir()}
    assert sorted(folders) == ["Dataset001_R", "Dataset002_S", "Dataset003_RS", "Dataset004_RR"]
    train = {case.case for case in prepared.split("train")}
    held = {case.case for case in prepared.split("holdout")}
    made = {"syn_c00", "syn_c01", "syn_c02"}
    wanted = {"Dataset001_R": train | held, "Dataset002_S": made | held, "Dataset003_RS": train | made | held}
    for name, cases in wanted.items():
        found = read_dataset(folders[name])
        assert {case.id for case in found.cases} == cases
        assert read_layout(folders[name]).layout == "nnU-Net"
        assert found.label_values == {"shell": 1, "core": 2}, "nnU-Net wants values without gaps"
    assert len(read_dataset(folders["Dataset004_RR"]).cases) == len(train) + 3 + len(held)
    case = min(train)
    source, copy = (read(folder / f"imagesTr/{case}_0000.nii.gz") for folder in (dataset, folders["Dataset001_R"]))
    assert np.array_equal(source.data, copy.data) and source.same_geometry(copy)
    labels = [read(folder / f"labelsTr/{case}.nii.gz").data for folder in (dataset, folders["Dataset001_R"])]
    assert np.array_equal(labels[0] == 200, labels[1] == 2) and np.array_equal(labels[0] == 3, labels[1] == 1)
    drawn = [read(synthetic / "labelsTr/syn_c00.nii.gz"), read(folders["Dataset002_S"] / "labelsTr/syn_c00.nii.gz")]
    assert np.array_equal(drawn[0].data, drawn[1].data)


def test_volumes_are_written_once_and_no_link_points_elsewhere(exported: Path, prepared: Prepared) -> None:
    files = [path for path in exported.rglob("*") if path.is_file()]
    assert not any(path.is_symlink() for path in exported.rglob("*")) and not (exported / ".volumes").exists()
    case = min(case.case for case in prepared.split("train"))
    same = [path for path in files if path.name == f"{case}_0000.nii.gz"]
    assert len(same) == 3 and len({path.stat().st_ino for path in same}) == 1


def test_nobody_validates_on_synthetic_or_test_cases(exported: Path, prepared: Prepared) -> None:
    held = {case.case for case in prepared.split("holdout")}
    tested = {case.case for case in prepared.split("test")}
    for folder in (exported / "nnUNet_raw").iterdir():
        (fold,) = read_folds(folder / "splits_final.json")
        assert set(fold.val) == held and not set(fold.train) & (held | tested)
        present = {case.id for case in read_dataset(folder).cases}
        assert set(fold.train) | held == present
        assert {path.name.removesuffix(".nii.gz") for path in (folder / "labelsTs").iterdir()} == tested
        assert {path.name.removesuffix("_0000.nii.gz") for path in (folder / "imagesTs").iterdir()} == tested
        beside = exported / "nnUNet_preprocessed" / folder.name
        for name in ("splits_final.json", "dataset.json"):
            assert (beside / name).read_bytes() == (folder / name).read_bytes()
    readme = (exported / "README.md").read_text()
    assert "the segmenter got" in readme and "is not recorded with the set" in readme
    assert "Not here: RA" in readme and "Dataset003_RS | real + synthetic" in readme


def test_the_commands_plan_on_real_volumes_alone(exported: Path) -> None:
    told = (exported / "commands.sh").read_text()
    assert told.count("nnUNetv2_plan_and_preprocess -d 1 ") == 1
    assert "nnUNetv2_move_plans_between_datasets -s 1 -t 3 -sp nnUNetPlans -tp nnUNetPlans" in told
    for number in (2, 3, 4):  # training copies each dataset's fingerprint, which only planning would make
        assert f"nnUNetv2_extract_fingerprint -d {number} --verify_dataset_integrity" in told
    assert "synth evaluate --nnunet R=predictions/R S=predictions/S RS=predictions/RS RR=predictions/RR" in told
    flat = commands([Arm(1, "R", ())], dims=2, runs=2)
    assert "nnUNetv2_train 1 2d 0" in flat and "for run in 0 1; do" in flat and "move_plans" not in flat


def test_without_holdout_training_patients_validate_and_leave_every_arm(
    synthetic: Path, dataset: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    assert run("prepare", [str(dataset), "--out", str(data), "--holdout", "0", "--test", "0.25"]) == 0
    prepared = Prepared.load(data)
    more = ["--export-arms", str(tmp_path / "arms"), "--native", str(dataset), "--utility-arms", "R", "RS"]
    assert evaluated(synthetic, prepared, tmp_path / "report", *more) == 0
    whose = {case.case: case.patient for case in prepared.cases}
    for folder in (tmp_path / "arms" / "nnUNet_raw").iterdir():
        (fold,) = read_folds(folder / "splits_final.json")
        assert len(fold.val) == 2 and len({whose[case] for case in fold.val}) == 1
        assert not {whose[case] for case in fold.val} & {whose.get(case) for case in fold.train}
    assert "may be too good" in (tmp_path / "arms" / "README.md").read_text()


def test_wrong_sources_are_refused_in_one_line(
    synthetic: Path, dataset: Path, prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(said: str, native: Path | None, arms: tuple[str, ...] = ("R", "RS"), set_: Path = synthetic) -> None:
        capsys.readouterr()
        more = ["--export-arms", str(tmp_path / "arms"), *([] if native is None else ["--native", str(native)])]
        assert evaluated(set_, prepared, tmp_path / "report", *more, "--utility-arms", *arms) == 2
        assert said in capsys.readouterr().err.strip().splitlines()[-1]
        assert not list(tmp_path.glob("*arms*")) and not list(tmp_path.glob(".*")), "nothing half-written"

    refused("give --native", None)
    refused("have R among --utility-arms", dataset, ("S", "RS"))
    refused("generate under other ids", dataset, set_=dataset)
    other = Path(shutil.copytree(dataset, tmp_path / "other"))
    train = min(case.case for case in prepared.split("train"))
    swapped = other / "imagesTr" / f"{train}_0000.nii.gz"
    shutil.copy(other / "imagesTr" / f"{min(case.case for case in prepared.split('test'))}_0000.nii.gz", swapped)
    refused("is not the one in", other)
    more = ["--export-arms", str(other / "arms"), "--native", str(other), "--utility-arms", "R", "RS"]
    assert evaluated(synthetic, prepared, tmp_path / "report", *more) == 2
    assert "lie in one another" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    more[1] = str(tmp_path / "file")
    assert evaluated(synthetic, prepared, tmp_path / "report", *more) == 2
    assert "is a file" in capsys.readouterr().err


# --- nnU-Net's own scores ---


def summary(folder: Path, dices: dict[str, list[float]], *, reference: int = 50) -> None:
    """A summary.json as nnU-Net v2 writes it."""
    rows: list[dict[str, Any]] = []
    for case, values in dices.items():
        metrics = {
            str(label): {
                "Dice": value,
                "IoU": value,
                "FN": 1,
                "FP": 1,
                "TN": 9,
                "TP": 5,
                "n_pred": 0 if np.isnan(value) else 6,
                "n_ref": reference,
            }
            for label, value in enumerate(values, start=1)
        }
        rows.append(
            {"metrics": metrics, "prediction_file": f"/p/{case}.nii.gz", "reference_file": f"/x/labelsTs/{case}.nii.gz"}
        )
    folder.mkdir(parents=True, exist_ok=True)
    told = {"foreground_mean": {"Dice": 0.5}, "mean": {"1": {"Dice": 0.5}}, "metric_per_case": rows}
    (folder / "summary.json").write_text(json.dumps(told))


def arms(root: Path, *, added: float = 0.04, cases: int = 20) -> list[str]:
    """Three runs of R and RS, RS better by `added`."""
    rng = np.random.default_rng(0)
    base = rng.uniform(0.6, 0.9, size=(cases, 2))
    for name, more in (("R", 0.0), ("RS", added)):
        for number in range(3):
            drawn = base + more + rng.normal(0, 0.01, base.shape)
            summary(root / name / f"run_{number}", {f"c{n:02d}": row.tolist() for n, row in enumerate(drawn)})
    return [f"R={root / 'R'}", f"RS={root / 'RS'}"]


def test_arms_that_nnunet_scored_are_compared_case_by_case(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = arms(tmp_path)
    assert run("evaluate", ["--nnunet", *given, "--out", str(tmp_path / "report")]) == 0
    assert "utility: gain. RS against R" in capsys.readouterr().out
    told = json.loads((tmp_path / "report" / "report.json").read_text())
    figure = told["metrics"]["utility.dice_gain"]
    assert figure["value"] == pytest.approx(0.04, abs=0.005) and figure["n"] == 20
    assert figure["interval"][0] > 0.03 and "3 of 3 runs" in figure["unit"]
    assert told["metrics"]["utility.p_holm.RS_R"]["value"] < 0.01
    assert {"utility.dice.R", "utility.dice.RS.2"} <= set(told["metrics"]) and told["patients_assumed"] is True
    assert run("evaluate", ["--nnunet", *given, "--out", str(tmp_path / "report")]) == 2, "nothing is overwritten"
    again = ["--nnunet", *given, "--out", str(tmp_path / "again")]
    assert run("evaluate", again) == 0
    assert (tmp_path / "again" / "report.json").read_bytes() == (tmp_path / "report" / "report.json").read_bytes()


def test_no_gain_is_not_called_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("evaluate", ["--nnunet", *arms(tmp_path, added=0.0), "--out", str(tmp_path / "report")]) == 0
    assert "utility: no gain of 0.01 or more" in capsys.readouterr().out


def test_folds_are_put_together_and_seeds_averaged(tmp_path: Path) -> None:
    for seed, value in ((0, 0.5), (1, 0.7)):
        for fold in range(2):
            cases = {f"c{n}": [value + 0.01 * n] for n in range(6) if n % 2 == fold}
            summary(tmp_path / "R" / f"seed_{seed}" / f"fold_{fold}", cases)
    summary(tmp_path / "RS", {f"c{n}": [0.65 + 0.01 * n] for n in range(6)})
    found = {
        arm: one["dice"] for arm, one in read_arms(arms_of([f"R={tmp_path / 'R'}", f"RS={tmp_path / 'RS'}"])).items()
    }
    assert found["R"].values.shape == (2, 6) and found["R"].by_case == pytest.approx(0.6 + 0.01 * np.arange(6))
    (one,) = compare_arms(found).values()
    assert one.value == pytest.approx(0.05) and one.p == pytest.approx(2 / 2**6)


def test_labels_absent_from_both_count_as_right(tmp_path: Path) -> None:
    for arm, value in (("R", 0.0), ("RS", float("nan"))):
        summary(tmp_path / arm, {f"c{n}": [value] for n in range(6)}, reference=0)
    found = read_arms({"R": [tmp_path / "R"], "RS": [tmp_path / "RS"]})
    assert found["RS"]["dice"].by_case.tolist() == [1.0] * 6 and found["R"]["dice"].by_case.tolist() == [0.0] * 6


def test_arms_that_cannot_be_compared_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = arms(tmp_path)
    rows = {f"c{n:02d}": [0.5, 0.5] for n in range(19)}
    summary(tmp_path / "few", rows)
    summary(tmp_path / "other", {**rows, "c19": [0.5, 0.5]}, reference=51)
    summary(tmp_path / "one_label", {**{case: [0.5] for case in rows}, "c19": [0.5]})
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "summary.json").write_text('{"metric_per_case": [{}]}')
    (tmp_path / "empty").mkdir()
    for place, said in (
        ("few", "different cases (1 differ; 'c19' is in R alone)"),
        ("other", "other labels or another reference of case 'c00'"),
        ("one_label", "other labels or another reference"),
        ("broken", "is no summary.json"),
        ("empty", "holds no summary.json"),
    ):
        out = ["--out", str(tmp_path / "report")]
        assert run("evaluate", ["--nnunet", given[0], f"RS={tmp_path / place}", *out]) == 2
        assert said in capsys.readouterr().err.strip().splitlines()[-1]
    for wrong in (["R"], ["R=a"], ["R=a", "R=b"]):
        with pytest.raises(ConfigError, match="--nnunet"):
            arms_of(wrong)
    with pytest.raises(DataError, match="which patient case 'c00'"):
        read_arms(arms_of(given), {})
    summary(tmp_path / "R" / "run_3", {"c00": [0.5, 0.5]})
    with pytest.raises(DataError, match="'c01' is scored 3 times and 'c00' 4 times"):
        read_arms(arms_of(given))


def interrupt(bar: Progress, done: int | None = None, note: str = "") -> None:
    raise Interrupted


def test_few_cases_give_no_comparison(tmp_path: Path) -> None:
    assert run("evaluate", ["--nnunet", *arms(tmp_path, cases=4), "--out", str(tmp_path / "report")]) == 0
    told = json.loads((tmp_path / "report" / "report.json").read_text())
    assert "4 test patients" in told["not_computed"]["utility.dice_gain"] and not told["verdicts"]


def test_evaluate_says_what_it_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("evaluate", ["--out", str(tmp_path / "report")]) == 2
    assert "needs --synthetic" in capsys.readouterr().err


def test_too_few_test_patients_are_told_and_nothing_is_trained(
    synthetic: Path, prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluated(synthetic, prepared, tmp_path / "report", "--utility") == 0
    assert "utility.dice_gain: 2 test cases; 2 test patients at least" in capsys.readouterr().out
    assert not (tmp_path / "report-utility").exists()


def test_scores_do_not_depend_on_how_many_work_nor_on_interruptions(
    synthetic: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    assert run("prepare", [str(dataset), "--out", str(data), "--holdout", "0", "--test", "0.5"]) == 0
    more = [
        "--utility",
        "--utility-arms",
        "R",
        "RS",
        "--utility-steps",
        "2",
        "--utility-seeds",
        "1",
        "--utility-width",
        "8",
    ]
    found = []
    for workers in ("1", "2"):
        out, kept = tmp_path / workers, tmp_path / f"kept{workers}"
        own = ["--utility-workers", workers, "--utility-folder", str(kept)]
        if workers == "2":
            with monkeypatch.context() as broken:
                broken.setattr(Progress, "advance", interrupt)
                assert evaluated(synthetic, Prepared.load(data), out, *more, *own) == 130
        assert evaluated(synthetic, Prepared.load(data), out, *more, *own) == 0
        found.append({path.relative_to(kept): path.read_bytes() for path in kept.rglob("*.json")})
        told = json.loads((out / "report.json").read_text())
        assert (
            told["metrics"]["utility.dice.RS"]["n"] == 4
            and "2 test patients" in told["not_computed"]["utility.dice_gain"]
        )
    assert len(found[0]) == 2 and found[0] == found[1]
