"""synth evaluate: a report from folders, and every wrong input in one line."""

import json
import shutil
from pathlib import Path

import pytest

from pipelines.cli import run
from synth.data.prepared import Prepared


@pytest.fixture
def synthetic(dataset: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(dataset, tmp_path / "synthetic"))


def evaluate(synthetic: Path, prepared: Prepared, out: Path, *more: str) -> int:
    return run("evaluate", ["--synthetic", str(synthetic), "--data", str(prepared.folder), "--out", str(out), *more])


def test_a_report_is_written_and_repeats(synthetic: Path, prepared: Prepared, tmp_path: Path) -> None:
    assert evaluate(synthetic, prepared, tmp_path / "one") == 0
    assert evaluate(synthetic, prepared, tmp_path / "two") == 0
    first, second = ((tmp_path / name / "report.json").read_bytes() for name in ("one", "two"))
    assert first == second
    content = json.loads(first)
    assert "alignment.agreement" in content["not_computed"]
    assert len(content["judged"]) == 16
    assert evaluate(synthetic, prepared, tmp_path / "one") == 2
    assert evaluate(synthetic, prepared, tmp_path / "one", "--overwrite") == 0


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
    (synthetic / "manifest.jsonl").write_text("{}\n")
    refused("manifest.jsonl")
    (synthetic / "manifest.jsonl").unlink()
    info = json.loads((synthetic / "dataset.json").read_text())
    info["labels"] = {"background": 0, "shell": 3, "other": 200}
    (synthetic / "dataset.json").write_text(json.dumps(info))
    refused("'other'")
