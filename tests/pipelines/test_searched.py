"""What a report says that it did not do: families not asked for, samples not judged, patients not searched."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.cli import run
from pipelines.gate import IMAGES
from pipelines.origins import not_searched, other_models, seen_beside
from synth.data.prepared import Prepared
from synth.data.seen import Seen, require_trained_on
from synth.errors import DataError
from synth.io import read, write
from synth.rng import numpy_rng
from tests.conftest import write_dataset

Evaluated = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Flat phantoms of ten patients, some held out and some to test on."""
    work = tmp_path_factory.mktemp("searched")
    write_dataset(work / "source", 20, (16, 12), np.eye(4), {"shell": 1, "core": 2})
    sides = ["--holdout", "0.3", "--test", "0.3"]
    assert run("prepare", [str(work / "source"), "--out", str(work / "data"), *sides]) == 0
    return Prepared.load(work / "data")


@pytest.fixture(scope="module")
def made(prepared: Prepared) -> Path:
    """The phantoms with noise, as a set of model `own`, which says that it was trained on the prepared data."""
    folder = Path(shutil.copytree(prepared.folder.parent / "source", prepared.folder.parent / "made"))
    (folder / "cases.csv").unlink()
    for index, path in enumerate(sorted((folder / "imagesTr").iterdir())):
        volume = read(path)
        noise = numpy_rng(index).normal(0, 60, volume.data.shape)
        write(volume.replace(data=(volume.data + noise).astype(np.float32)), path)
    rows = [row(f"c{index:02d}") for index in range(20)]
    (folder / "manifest.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    (folder / "patients.json").write_bytes(Seen.of(prepared, seed=0).of_model("own").dump())
    return folder


def row(case: str, **edit: Any) -> dict[str, Any]:
    """A row of the manifest, of an edit where something is said of one."""
    condition = {"attributes": {}, **({"edit": edit} if edit else {})}
    return {"case": case, "condition": condition, "model": {"name": "m", "sha256": "own"}}


@pytest.fixture
def evaluated(prepared: Prepared, tmp_path: Path) -> Evaluated:
    """Judge a set; return the report."""

    def judge(folder: Path, *only: str, name: str = "report") -> dict[str, Any]:
        line = ["--synthetic", str(folder), "--data", str(prepared.folder), "--out", str(tmp_path / name)]
        assert run("evaluate", [*line, "--judge-steps", "0", *(["--only", ",".join(only)] if only else [])]) == 0
        return json.loads((tmp_path / name / "report.json").read_text())

    return judge


def test_what_was_not_asked_is_not_called_judged(
    made: Path, evaluated: Evaluated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    private, other = evaluated(made, "privacy", name="private"), evaluated(made, "fidelity", "pictures", name="other")
    assert all(isinstance(one["flagged"], bool) and 0 < one["copy_p"] <= 1 for one in private["samples"])
    assert [one["flagged"] for one in other["samples"]] == [None] * 20
    families = {"alignment", "condition", "calibration", "fidelity", "diversity", "privacy", "artefact", "utility"}
    for report, asked in ((private, "privacy"), (other, "fidelity,pictures")):
        left = {name: why for name, why in report["not_computed"].items() if "." not in name}
        assert left == dict.fromkeys(families - set(asked.split(",")), f"not asked for (--only {asked})")
    assert (
        "not computed: alignment, artefact, calibration, condition, diversity, privacy, utility: not asked for ("
        in (capsys.readouterr().out)
    )
    assert "Whether they are copies was not judged" not in (tmp_path / "private" / "index.html").read_text()
    assert run("compare", [str(tmp_path / "private"), str(tmp_path / "other")]) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and "no figure in common (families: privacy in a, fidelity in b)" in told[0]
    assert run("compare", [str(tmp_path / "other"), str(tmp_path / "other")]) == 0, "null is read"
    assert run("release", [str(made), "--report", str(tmp_path / "other"), "--out", str(tmp_path / "out")]) == 2
    assert "has no privacy verdict" in capsys.readouterr().err


def test_the_privacy_verdict_says_whom_it_did_not_search(made: Path, evaluated: Evaluated, tmp_path: Path) -> None:
    """Of a fine-tuned model the patients of its source; of edits whoever trained the model of what was edited."""
    plain = evaluated(made, "privacy", name="plain")
    assert "looked for among" not in plain["verdicts"][IMAGES]["why"], "whom the model saw is all here"
    tuned = Path(shutil.copytree(made, tmp_path / "tuned"))
    seen = Seen.of(Prepared.load(made.parent / "data"), seed=0)
    source = Seen(salt="s", training=("a", "b", "c"))
    (tuned / "patients.json").write_bytes(seen.after(source, "first").of_model("own").dump())
    rows = [json.loads(line) for line in (tuned / "manifest.jsonl").read_text().splitlines()]
    rows[0] = row("c00", of={"images": [], "masks": [], "models": ["own", "else"]}, of_synthetic="else/syn_00000")
    (tuned / "manifest.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    report = evaluated(tuned, "privacy", name="report")
    count = len(seen.training)
    said = (
        f"copies were looked for among {count} training cases, and not among 3 cases that are not among these training"
    )
    for name in (name for name in report["verdicts"] if name.startswith("privacy.")):
        assert said in report["verdicts"][name]["why"]
        assert "nor among whoever trained the 1 other models whose samples" in report["verdicts"][name]["why"]
        assert report["verdicts"][name]["ok"] == plain["verdicts"][name]["ok"], "a note, no other verdict"
    assert report["metrics"] == plain["metrics"]
    utility = evaluated(tuned, "utility", name="utility")["not_computed"]["utility.dice_gain"]
    assert utility.startswith("1 of 20 samples are edits of samples of another model, and whom that saw is not told")


def test_a_fine_tuned_model_is_judged_on_the_patients_of_both_its_trainings(
    made: Path, prepared: Prepared, evaluated: Evaluated, tmp_path: Path
) -> None:
    """Whom its source saw may be searched too, and then nothing says that somebody was not."""
    first, last = _in_two(prepared)
    require_trained_on(prepared, last.after(first, "first"))
    tuned = Path(shutil.copytree(made, tmp_path / "tuned"))
    (tuned / "patients.json").write_bytes(last.after(first, "first").of_model("own").dump())
    report = evaluated(tuned, "privacy")
    assert "not among" not in report["verdicts"][IMAGES]["why"]
    assert not any("fine-tuned" in note for note in report["notes"])


def test_patients_of_no_training_or_not_all_of_the_last_are_refused(prepared: Prepared) -> None:
    first, last = _in_two(prepared)
    count = len(first.training)
    with pytest.raises(DataError, match=rf"{len(last.training)} of its .*, and {count} there never trained it"):
        require_trained_on(prepared, last)
    chose = replace(first, training=(), holdout=first.training)
    with pytest.raises(DataError, match="never trained it"):
        require_trained_on(prepared, last.after(chose, "first"))
    more = replace(last, training=(*last.training, "another"))
    with pytest.raises(DataError, match="there; give the data it was trained on"):
        require_trained_on(prepared, more.after(first, "first"))


def _in_two(prepared: Prepared) -> tuple[Seen, Seen]:
    """What a model saw of one half of the training patients, and one fine-tuned from it of the others."""
    train = prepared.split("train")
    halves = train[: len(train) // 2], train[len(train) // 2 :]
    first, last = (Seen.of(replace(prepared, cases=half, rows=half), seed=0) for half in halves)
    return first, last


def test_whom_a_search_leaves_out_in_words(prepared: Prepared) -> None:
    digests = [prepared.digest(case) for case in prepared.split("train")]
    seen = Seen.of(prepared, seed=0)
    assert seen_beside(seen, digests) == [] and not_searched(seen, digests, []) == not_searched(None, digests, []) == ""
    assert seen_beside(seen.after(seen, "first"), digests) == [], "its source saw the same"
    untold = not_searched(seen.after(None, "brain-tiny"), digests, [])
    assert "not among those of brain-tiny, its source, which does not say whom it saw" in untold
    assert seen_beside(replace(seen, training=(*seen.training, "z")), digests)[0].startswith("1 cases")
    assert other_models([row("a"), row("b", of_synthetic="x/y")]) == set()
