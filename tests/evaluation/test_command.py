"""synth evaluate: a report from folders, and every wrong input in one line."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import evaluation
from pipelines.cli import run
from pipelines.judges import train_bench
from synth.data.prepared import Prepared
from synth.errors import DataError
from synth.io import read, write
from synth.volume import Volume
from tests.conftest import phantom


@pytest.fixture
def synthetic(dataset: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(dataset, tmp_path / "synthetic"))


def evaluate(synthetic: Path, prepared: Prepared, out: Path, *more: str) -> int:
    options = ["--synthetic", str(synthetic), "--data", str(prepared.folder), "--out", str(out)]
    return run("evaluate", [*options, *(more if "--judge-steps" in more else ("--judge-steps", "0", *more))])


def test_a_report_is_written_and_repeats(
    synthetic: Path, prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(synthetic, prepared, tmp_path / "one") == 0
    assert "not computed: alignment.agreement: no shipped judge" in capsys.readouterr().out
    assert evaluate(synthetic, prepared, tmp_path / "two") == 0
    first, second = ((tmp_path / name / "report.json").read_bytes() for name in ("one", "two"))
    assert first == second
    content = json.loads(first)
    assert "alignment.agreement" in content["not_computed"]
    assert len(content["judged"]) == 16
    assert evaluate(synthetic, prepared, tmp_path / "one") == 2
    assert evaluate(synthetic, prepared, tmp_path / "one", "--overwrite") == 0


def test_a_judge_is_trained_where_none_fits_and_can_be_kept(
    synthetic: Path, prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "judge"
    assert evaluate(synthetic, prepared, tmp_path / "one", "--judge-steps", "120", "--save-judge", str(kept)) == 0
    assert "training a judge: 120/120" in capsys.readouterr().err
    assert evaluate(synthetic, prepared, tmp_path / "two", "--judge", str(kept)) == 0
    one, two = (json.loads((tmp_path / name / "report.json").read_text())["metrics"] for name in ("one", "two"))
    assert one["alignment.agreement"]["value"] > 0.8 and one["alignment.dice.shell"]["floor"] > 0.4
    assert two["alignment.agreement"]["value"] == pytest.approx(one["alignment.agreement"]["value"], abs=0.05)
    facts = json.loads((kept / "judge.json").read_text())
    assert facts["trained_n"] == 4 and facts["held_out_n"] == 4 and facts["config"]["classes"] == ["a", "b"]


def test_a_judge_needs_cases_to_learn_from(prepared: Prepared) -> None:
    few = replace(prepared, cases=prepared.split("train"))
    with pytest.raises(DataError, match="0 held-out cases; a judge needs 3 and 2"):
        train_bench(few, steps=1)


def test_wrong_input_ends_in_one_line(
    synthetic: Path, prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(said: str, *more: str, folder: Path = synthetic) -> None:
        capsys.readouterr()
        assert evaluate(folder, prepared, tmp_path / "out", *more) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert said in lines[-1]
        assert "Traceback" not in "".join(lines)
        assert not (tmp_path / "out" / "report.json").exists()

    refused("absent", folder=tmp_path / "absent")
    refused("judge", "--judge", str(tmp_path / "none"))
    refused("knows ['csf'", "--judge", str(next(Path(evaluation.__file__).parent.glob("assets/*"))))
    refused("--judge-steps is -1", "--judge-steps", "-1")
    (synthetic / "manifest.jsonl").write_text("{}\n")
    refused("manifest.jsonl")
    (synthetic / "manifest.jsonl").unlink()
    info = json.loads((synthetic / "dataset.json").read_text())
    info["labels"] = {"background": 0, "shell": 3, "other": 200}
    (synthetic / "dataset.json").write_text(json.dumps(info))
    refused("'other'")


def test_how_voxels_lie_on_disk_does_not_matter(synthetic: Path, prepared: Prepared, tmp_path: Path) -> None:
    """Axes turned and flipped, place and voxels the same: the judge sees the working grid, as for real cases."""
    assert evaluate(synthetic, prepared, tmp_path / "one") == 0
    for path in (*(synthetic / "imagesTr").iterdir(), *(synthetic / "labelsTr").iterdir()):
        volume = read(path)
        affine = volume.affine[:, [2, 0, 1, 3]].copy()
        affine[:3, 3] += affine[:3, 0] * (volume.grid[2] - 1)
        affine[:3, 0] *= -1
        write(Volume(np.ascontiguousarray(volume.data.transpose(0, 3, 1, 2)[:, ::-1]), affine), path)
    assert evaluate(synthetic, prepared, tmp_path / "two") == 0
    one, two = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("one", "two"))
    assert one["metrics"] == two["metrics"] and one["not_computed"] == two["not_computed"]
    assert "fidelity.ssim" in one["metrics"]  # real and synthetic share a grid


def test_samples_of_another_spacing_are_judged_on_the_working_grid(
    synthetic: Path, prepared: Prepared, tmp_path: Path
) -> None:
    for path in (synthetic / "imagesTr").iterdir():
        volume, mask = read(path), synthetic / "labelsTr" / path.name.replace("_0000", "")
        labels = read(mask, labels={"shell": 3, "core": 200})
        finer = volume.affine @ np.diag([0.5, 0.5, 0.5, 1.0])
        write(volume.resample_to((28, 24, 20), finer), path)
        write(labels.resample_to((28, 24, 20), finer), mask)
    assert evaluate(synthetic, prepared, tmp_path / "out") == 0
    assert "fidelity.ssim" in json.loads((tmp_path / "out" / "report.json").read_text())["metrics"]


def test_folders_of_volumes_are_judged_too(tmp_path: Path) -> None:
    for index in range(4):
        image, labels = phantom(index, (12, 12, 12))
        write(Volume(image[None]), tmp_path / "source" / "images" / f"c{index}.nii.gz")
        write(Volume(labels[None]), tmp_path / "source" / "masks" / f"c{index}.nii.gz")
    assert run("prepare", [str(tmp_path / "source"), "--out", str(tmp_path / "data")]) == 0
    assert evaluate(tmp_path / "source", Prepared.load(tmp_path / "data"), tmp_path / "out") == 0
    judged = json.loads((tmp_path / "out" / "report.json").read_text())["judged"]
    assert sorted(judged) == sorted(f"{kind}/c{i}.nii.gz" for kind in ("images", "masks") for i in range(4))


def test_other_dimensions_are_refused(synthetic: Path, prepared: Prepared, tmp_path: Path) -> None:
    for path in (*(synthetic / "imagesTr").iterdir(), *(synthetic / "labelsTr").iterdir()):
        write(Volume(read(path).data[..., 0], np.eye(4)), path)
    assert evaluate(synthetic, prepared, tmp_path / "out") == 2
