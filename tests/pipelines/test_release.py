"""From the verdict to the files that may go: exit codes of the gate, what is dropped, what a release copies."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.report import Report, Verdict
from pipelines.cli import run
from pipelines.evidence import digests
from pipelines.gate import pass_gate, sections
from synth.data.prepared import Prepared
from synth.formats import read as read_dataset
from synth.io import read, write
from synth.rng import numpy_rng


@pytest.fixture
def synthetic(dataset: Path, tmp_path: Path) -> Path:
    """A set with a manifest, and things beside it that are nobody's business."""
    folder = Path(shutil.copytree(dataset, tmp_path / "synthetic"))
    rows = [
        {"case": case.id, "condition": {"attributes": {}}, "model": {"name": "m", "sha256": "0"}, "secret": "p01"}
        for case in read_dataset(folder).cases
    ]
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    info = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**info, "came_from": "hospital"}))
    (folder / "internal").mkdir()
    (folder / "internal" / "exposure.csv").write_text("patient\n")
    return folder


@pytest.fixture
def reported(synthetic: Path, tmp_path: Path) -> Callable[..., Path]:
    """Write a report on the set with the verdicts given; return its folder."""

    def write(
        ok: bool | None, *, after: bool | None | str = "absent", flagged: tuple[str, ...] = (), **changes: Any
    ) -> Path:
        report = Report("phantoms", judged=digests(synthetic))
        report.verdicts["privacy.images"] = Verdict(ok, "the reason")
        if after != "absent":
            report.verdicts["privacy.images_after_drop"] = Verdict(after, "the other reason")  # pyright: ignore[reportArgumentType]
        report.samples = [{"case": f"c{i:02d}", "flagged": f"c{i:02d}" in flagged} for i in range(8)]
        for name, value in changes.items():
            setattr(report, name, value)
        report.write(tmp_path / "report")
        return tmp_path / "report"

    return write


def release(synthetic: Path, report: Path, out: Path, *more: str) -> int:
    return run("release", [str(synthetic), "--report", str(report), "--out", str(out), *more])


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_pass_lets_the_judged_files_go_and_nothing_else(
    synthetic: Path, reported: Callable[..., Path], tmp_path: Path
) -> None:
    report, out = reported(True), tmp_path / "out"
    assert release(synthetic, report, out) == 0
    judged = json.loads((report / "report.json").read_text())["judged"]
    written = {"dataset.json", "manifest.jsonl"}
    assert names(out) == {*judged, "RELEASE.json"} and written < set(judged)
    bound = json.loads((out / "RELEASE.json").read_text())
    assert bound["report_sha256"] == hashlib.sha256((report / "report.json").read_bytes()).hexdigest()
    assert {**bound["files"], **bound["written_from"]} == judged and set(bound["written_from"]) == written
    assert bound["verdict"] == {"ok": True, "why": "the reason"}
    for name, sha in {**bound["files"], **bound["written"]}.items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == sha
    assert len(read_dataset(out).cases) == 8, "what is released is a dataset"
    assert not any(word in (out / name).read_text() for name in bound["written"] for word in ("secret", "hospital"))
    assert not list(tmp_path.glob(".out*"))
    assert release(synthetic, report, out) == 2
    assert release(synthetic, report, out, "--overwrite") == 0


def test_flagged_samples_stay_where_the_rest_passes(
    synthetic: Path, reported: Callable[..., Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert release(synthetic, reported(False, after=True, flagged=("c02", "c05")) / "report.json", out) == 0
    assert [case.id for case in read_dataset(out).cases] == [f"c{i:02d}" for i in (0, 1, 3, 4, 6, 7)]
    assert not [name for name in names(out) if "c02" in name or "c05" in name]
    bound = json.loads((out / "RELEASE.json").read_text())
    assert bound["left_out"] == ["c02", "c05"] and bound["verdict"]["why"] == "the other reason"
    assert bound["verdict_before_drop"]["ok"] is False
    rows = [json.loads(line)["case"] for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert len(rows) == 6 and "c02" not in rows


@pytest.mark.parametrize(
    ("ok", "after", "code"),
    [(False, "absent", 3), (False, False, 3), (False, None, 3), (None, "absent", 4), (None, True, 4)],
)
def test_what_did_not_pass_stays(
    ok: bool | None,
    after: Any,
    code: int,
    synthetic: Path,
    reported: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert release(synthetic, reported(ok, after=after, flagged=("c02",)), tmp_path / "out") == code
    assert "not released: the reason" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_a_report_that_does_not_say_what_is_flagged_lets_nothing_go(
    synthetic: Path, reported: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"case": f"c{i:02d}", "flagged": None if i == 3 else False} for i in range(8)]
    assert release(synthetic, reported(True, samples=rows), tmp_path / "out") == 2
    assert "does not say whether case c03 is flagged" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("of_synthetic", [False, True])
def test_edits_go_only_where_they_are_of_samples(
    synthetic: Path,
    reported: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    *,
    of_synthetic: bool,
) -> None:
    rows = [json.loads(line) for line in (synthetic / "manifest.jsonl").read_text().splitlines()]
    rows[3]["condition"]["edit"] = {"task": "inpaint", **({"of_synthetic": "0/syn_00003"} if of_synthetic else {})}
    (synthetic / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert release(synthetic, reported(True), tmp_path / "out") == (0 if of_synthetic else 2)
    assert of_synthetic or "case c03 is an edit of an image not known to be synthetic" in capsys.readouterr().err
    assert of_synthetic == (tmp_path / "out").exists()
    if not of_synthetic:
        left = reported(False, after=True, flagged=("c03",))
        assert release(synthetic, left, tmp_path / "out") == 0


def test_edits_of_patients_fail_the_gate_though_masks_of_theirs_are_allowed(
    synthetic: Path, prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [json.loads(line) for line in (synthetic / "manifest.jsonl").read_text().splitlines()]
    for row in rows:
        row["condition"]["edit"] = {"task": "inpaint"}
    (synthetic / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ["--synthetic", str(synthetic), "--data", str(prepared.folder), "--only", "privacy", "--gate"]
    assert run("evaluate", [*options, "--out", str(tmp_path / "report"), "--allow-real-masks"]) == 3
    assert "8 of 8 samples are edits of images not known to be synthetic" in capsys.readouterr().out
    utility = ["--only", "utility", "--judge-steps", "0"]
    assert run("evaluate", [*options[:4], "--out", str(tmp_path / "other"), *utility]) == 0
    assert "whose patients may be those to test on" in capsys.readouterr().out


def test_other_files_than_those_judged_are_refused(
    synthetic: Path, reported: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(said: str, report: Path, out: Path = tmp_path / "out") -> None:
        capsys.readouterr()
        assert release(synthetic, report, out) == 2
        told = capsys.readouterr().err
        assert said in told and len(told.splitlines()) == 1
        assert not (out / "RELEASE.json").exists() and not list(tmp_path.glob(".out*"))

    refused("is no report", tmp_path / "absent")
    refused("lie in one another", reported(True), synthetic / "out")
    refused("no privacy verdict", reported(True, verdicts={}))
    few = reported(True, samples=[{"case": "c00", "flagged": False}])
    refused("the report is of another set", few)
    image = synthetic / "imagesTr" / "c03_0000.nii.gz"
    report = reported(True, judged={k: v for k, v in digests(synthetic).items() if "c03" not in k})
    refused("does not stand in the report", report)
    report, data = reported(True), image.read_bytes()
    shutil.copy(synthetic / "imagesTr" / "c04_0000.nii.gz", image)
    refused("is not the file that was judged", report)
    image.write_bytes(data)
    for name, old, new in (
        ("dataset.json", '"shell"', '"tumour"'),
        ("manifest.jsonl", '"sha256": "0"', '"sha256": "1"'),
    ):
        text = (synthetic / name).read_text()
        assert old in text
        (synthetic / name).write_text(text.replace(old, new))
        refused(f"{name} is not the file that was judged", report)
        (synthetic / name).unlink()
        refused("c", report)
        (synthetic / name).write_text(text)
    splits = synthetic / "splits_final.json"
    splits.write_text("[]")
    refused("splits_final.json does not stand in the report", report)
    splits.unlink()
    rows = (synthetic / "manifest.jsonl").read_text()
    name = "labelsTr/c00.nii.gz"
    (synthetic / "manifest.jsonl").write_text(
        rows.replace('"case": "c00"', f'"files": {{"{name}": "0"}}, "case": "c00"')
    )
    refused(f"manifest.jsonl line 1: {name} is another file there than the one judged", reported(True))
    (synthetic / "manifest.jsonl").write_text(rows)
    report = reported(True)
    elsewhere = tmp_path / "elsewhere.nii.gz"
    image.rename(elsewhere)
    image.symlink_to(elsewhere)
    refused("leads out of", report)


def test_a_folder_that_is_no_release_is_not_replaced(
    synthetic: Path, reported: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    assert release(synthetic, reported(True), tmp_path / "out", "--overwrite") == 2
    assert (tmp_path / "out" / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("images", "weights", "asked", "code"),
    [
        (True, None, False, 0),
        (True, None, True, 4),
        (False, True, True, 3),
        (None, True, False, 4),
        (None, False, True, 3),
    ],
)
def test_the_gate_has_the_code_of_the_worst_verdict(
    images: bool | None, weights: bool | None, asked: bool, code: int, tmp_path: Path
) -> None:
    report = Report("phantoms", samples=[{"case": "a", "flagged": True}, {"case": "b", "flagged": False}])
    report.verdicts = {"privacy.images": Verdict(images, ""), "privacy.weights": Verdict(weights, "")}
    assert pass_gate(report, tmp_path, weights=asked) == code
    assert (tmp_path / "drop.txt").read_text() == "a\n"


def test_sections_are_read_with_commas_and_repeats() -> None:
    assert sections(("fidelity, privacy", "privacy")) == ("fidelity", "privacy") and sections(()) == ()


def test_training_volumes_passed_off_as_samples_fail_the_gate(
    dataset: Path, prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the command: copies are found, listed, and not released; without --gate the code is 0."""
    options = ["--synthetic", str(dataset), "--data", str(prepared.folder), "--only", "privacy"]
    report = tmp_path / "report"
    assert run("evaluate", [*options, "--out", str(report), "--gate"]) == 3
    said = capsys.readouterr().out
    assert "voxel for voxel" in said and "gate: failed" in said and "training a judge" not in said
    content = json.loads((report / "report.json").read_text())
    train = {case.case for case in prepared.split("train")}
    assert set((report / "drop.txt").read_text().split()) == train
    assert {name.split(".")[0] for name in content["verdicts"]} == {"privacy"}
    assert len((report / "internal" / "exposure.csv").read_text().splitlines()) == 1 + len(
        {c.patient for c in prepared.split("train")}
    )
    assert release(dataset, report, tmp_path / "out") == 3
    assert run("evaluate", [*options, "--out", str(tmp_path / "other")]) == 0


def test_real_masks_fail_the_gate_and_few_patients_leave_it_undecided(
    dataset: Path, prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Path(shutil.copytree(dataset, tmp_path / "made"))
    for index, path in enumerate(sorted((made / "imagesTr").iterdir())):
        volume = read(path)
        grain = numpy_rng("made", index).normal(0, 300, volume.data.shape)
        write(volume.replace(data=(volume.data + grain).astype(np.float32)), path)
    options = ["--synthetic", str(made), "--data", str(prepared.folder), "--only", "privacy", "--gate"]
    assert run("evaluate", [*options, "--out", str(tmp_path / "one")]) == 3
    assert "carry the mask of a real patient" in capsys.readouterr().out
    assert run("evaluate", [*options, "--out", str(tmp_path / "two"), "--allow-real-masks"]) == 4
    said = capsys.readouterr().out
    assert "gate: undecidable" in said and "which was allowed" in said
    assert release(made, tmp_path / "two", tmp_path / "out") == 4


def test_options_that_do_not_go_together_are_refused(
    dataset: Path, prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["--synthetic", str(dataset), "--data", str(prepared.folder), "--out", str(tmp_path / "out")]
    for more, said in (
        (["--only", "fidelity", "--gate"], "add privacy to --only"),
        (["--only", "fidelty"], "did you mean 'fidelity'?"),
        (["--only", ","], "no section of a report is called ''; known: "),
        (["--only", ""], "no section of a report is called ''"),
        (["--only", "fidelity,,privacy"], "no section of a report is called ''"),
        (["--only", "fidelty", "--nnunet", str(tmp_path)], "did you mean 'fidelity'?"),
        (["--only", "privacy", "--model", str(tmp_path)], "is not a model folder"),
    ):
        assert run("evaluate", [*base, *more]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_a_row_says_in_rows_is_released_by_known_keys(
    synthetic: Path, reported: Callable[..., Path], tmp_path: Path
) -> None:
    """How near a sample lies to its nearest training volume is nobody's business."""
    path = synthetic / "manifest.jsonl"
    told = {"judge": "j", "segmenter": "s", "rejected": {"artefact": 1}}
    inside = {"agreement": 0.5, "p_values": {"near_copy": 0.06}}
    asked = {"attributes": {"age": 3}, "text": "a"}
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    more = {"condition": {**asked, "from": "p01"}, "acceptance": {**told, **inside}}
    path.write_text("".join(json.dumps({**row, **more}) + "\n" for row in rows))
    assert release(synthetic, reported(True), tmp_path / "out") == 0
    kept = [json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]
    assert [(row["condition"], row["acceptance"]) for row in kept] == [(asked, told)] * len(rows)
