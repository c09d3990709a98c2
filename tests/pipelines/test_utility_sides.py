"""Utility of the command line: whom the generator saw, reasons that name no place, a benchmark that names none."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

from benchmarks.utility import Options
from evaluation.utility.arms import Known
from pipelines.cli import run
from pipelines.utility import known_of
from synth.data.prepared import Prepared
from synth.data.seen import Seen
from synth.io import read, write


def test_whom_the_generator_saw_is_read_from_its_hashes(prepared: Prepared) -> None:
    patients = frozenset(case.patient for case in prepared.split("train"))
    seen = Seen.of(prepared, seed=3)
    assert known_of(prepared, None) == Known()
    assert known_of(prepared, seen) == Known(patients, chose=len(prepared.split("holdout")))
    left = replace(seen, training=seen.training[:1])
    assert known_of(prepared, left).patients and known_of(prepared, left).patients != patients
    tuned = seen.after(Seen(salt="s", training=("a", "b")), "first")
    assert known_of(prepared, tuned).elsewhere == "2 cases that are not among these training patients"
    assert known_of(prepared, tuned).patients == patients
    again = known_of(prepared, seen.after(None, "brain-tiny")).elsewhere
    assert again == "those of brain-tiny, its source, which does not say whom it saw"


def test_a_reason_in_a_report_names_no_place_of_the_machine(dataset: Path, tmp_path: Path) -> None:
    """Without --data the real volumes are prepared in a temporary folder, which a report must not name."""
    out, made = tmp_path / "report", Path(shutil.copytree(dataset, tmp_path / "made"))
    for path in (made / "imagesTr").iterdir():  # a set is not judged by itself
        volume = read(path)
        write(volume.replace(data=volume.data + volume.data.dtype.type(1)), path)
    options = ["--synthetic", str(made), "--real", str(dataset), "--out", str(out), "--judge-steps", "0"]
    assert run("evaluate", [*options, "--only", "utility"]) == 0
    told = (out / "report.json").read_text()
    assert json.loads(told)["not_computed"]["utility.dice_gain"].startswith("no real test patients; give --data")
    for text in (told, (out / "index.html").read_text(), (out / "internal" / "index.html").read_text()):
        assert "synth-evaluate-" not in text and str(tmp_path) not in text


def test_the_benchmark_asks_for_the_ceiling_and_names_no_place() -> None:
    options = Options(work=Path("/somewhere/work"), out=Path("/somewhere/else/utility.json"), model="/somewhere/model")
    assert "somewhere" not in options.command and "benchmarks/results/utility.json" in options.command
    (config,) = options.configs()
    assert {"G", "S", "R", "RS"} <= set(config.arms) and len(config.seeds) == 3
    names = {job.name for job in config.jobs()}
    assert {"segmentation_R_real10_seed0", "segmentation_R_real100_seed0", "segmentation_S_all_seed0"} <= names
    assert [one.task for one in replace(options, classes=True).configs()] == ["segmentation", "classification"]
