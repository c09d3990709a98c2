"""Faulty scores of nnU-Net and faulty asks: exit code 2, one line, and no report."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.cli import run
from synth.data.prepared import Prepared
from tests.pipelines.test_nnunet_arms import summary

CASES = {f"c{n}": [0.5 + 0.01 * n, 0.6] for n in range(6)}
Rows = list[dict[str, Any]]


def refused(capsys: pytest.CaptureFixture[str], out: Path, *options: str) -> str:
    """Return the one line that a refused command says."""
    before = out.exists()
    capsys.readouterr()
    assert run("evaluate", [*options, "--out", str(out)]) == 2
    told = capsys.readouterr()
    assert len(told.err.splitlines()) == 1 and not told.out, told
    assert out.exists() is before
    return told.err


def two(root: Path) -> tuple[str, str]:
    for name in ("R", "RS"):
        summary(root / name, CASES)
    return f"R={root / 'R'}", f"RS={root / 'RS'}"


def dice(value: object) -> Callable[[Rows], object]:
    return lambda rows: rows[2]["metrics"]["2"].update(Dice=value)


def voxels(name: str, value: object) -> Callable[[Rows], object]:
    return lambda rows: rows[2]["metrics"]["2"].update({name: value})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (dice(float("nan")), "case 'c2' has Dice nan of label 2, with 50 reference and 6 predicted voxels"),
        (dice(float("inf")), "has Dice inf"),
        (dice(1.5), "has Dice 1.5"),
        (dice(-0.1), "has Dice -0.1"),
        (dice(None), "is no summary.json of nnU-Net v2"),
        (dice("good"), "is no summary.json of nnU-Net v2"),
        (voxels("n_ref", float("nan")), "is no summary.json of nnU-Net v2"),
        (voxels("n_ref", float("inf")), "is no summary.json of nnU-Net v2"),
        (voxels("n_pred", -1), "has Dice 0.6 of label 2"),
        (lambda rows: rows[2]["metrics"]["2"].pop("n_ref"), "is no summary.json of nnU-Net v2"),
        (lambda rows: rows[2]["metrics"].pop("2"), "case 'c2' has other labels or another reference than other cases"),
        (lambda rows: rows[2].update(metrics={}), "scores no case"),
        (lambda rows: rows[2].update(metrics=[1, 2]), "is no summary.json of nnU-Net v2"),
        (lambda rows: rows[2].pop("reference_file"), "is no summary.json of nnU-Net v2"),
        (lambda rows: rows.append(rows[0]), "scores a case twice"),
        (lambda rows: rows.clear(), "scores no case"),
        (lambda rows: rows.pop(), "were scored on different cases (1 differ; 'c5' is in R alone)"),
    ],
)
def test_faulty_tables_are_refused(
    change: Callable[[Rows], object], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = two(tmp_path)
    file = tmp_path / "RS" / "summary.json"
    told = json.loads(file.read_text())
    change(told["metric_per_case"])
    file.write_text(json.dumps(told))
    assert said in refused(capsys, tmp_path / "report", "--nnunet", *given)


@pytest.mark.parametrize("content", [b"", b"5", b"[]", b"{}", b"\xff\xfe", b'{"metric_per_case": {"a": 1}}', b"null"])
def test_files_that_are_no_tables_are_refused(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = two(tmp_path)
    (tmp_path / "RS" / "summary.json").write_bytes(content)
    assert "is no summary.json of nnU-Net v2" in refused(capsys, tmp_path / "report", "--nnunet", *given)


def test_runs_of_one_arm_against_other_references_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = two(tmp_path)
    for name in ("R", "RS"):  # alike in both arms, so that comparing arms alone would not see it
        summary(tmp_path / name / "again", CASES, reference=51)
    assert "--nnunet R: case 'c0' has other labels or another ref" in refused(
        capsys, tmp_path / "report", "--nnunet", *given
    )


def test_faulty_asks_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, missing = tmp_path / "arms", tmp_path / "nowhere"
    real, both = two(root)
    out = tmp_path / "report"
    for options, said in (
        ([real], "--nnunet names 1 arm"),
        ([real, f"RS={missing}"], "holds no summary.json"),
        ([real, f"RS={missing},,"], "names no arm or no folder"),
        ([real, "RS="], "names no arm or no folder"),
        ([real, both.replace("RS=", "R.S/=")], "'R.S/' is no name of an arm"),
        ([real, real.replace("R=", "RS=")], "is in the folders of both R and RS"),
        ([f"R={root}", both], "is in the folders of both R and RS"),
        ([real, both, "--synthetic", str(missing)], "leave --synthetic out"),
        ([real, both, "--gate"], "leave --gate out"),
        ([real, both, "--save-judge", str(missing)], "leave --save-judge out"),
        ([real, both, "--interactive", "3"], "leave --interactive out"),
        ([real, both, "--patients", "each"], "leave --patients out"),
        ([real, both, "--allow-real-masks"], "leave --allow-real-masks out"),
        ([real, both, "--utility-steps", "5"], "leave --utility-steps out"),
        ([real, both, "--data", str(missing)], "is not a prepared folder"),
    ):
        assert said in refused(capsys, out, "--nnunet", *options), options
    out.write_text("a file")
    assert "is a file" in refused(capsys, out, "--nnunet", real, both)
    assert "lie in one another" in refused(capsys, root / "R" / "report", "--nnunet", real, both)


def test_scores_of_training_patients_are_refused(
    prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = {case.case: [0.5] for case in prepared.split("train")}
    for name in ("R", "RS"):
        summary(tmp_path / name, cases)
    given = [f"R={tmp_path / 'R'}", f"RS={tmp_path / 'RS'}", "--data", str(prepared.folder)]
    assert "is of a training patient of" in refused(capsys, tmp_path / "report", "--nnunet", *given)
