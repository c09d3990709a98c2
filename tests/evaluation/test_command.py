"""synth evaluate: a report from folders, and every wrong input in one line."""

import json
import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

import evaluation
from evaluation.report import Report
from pipelines.cli import run
from pipelines.judges import train_bench
from synth.data.prepared import Prepared
from synth.errors import DataError
from synth.io import read, write
from synth.rng import numpy_rng
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
    assert len(content["judged"]) == 17 and "dataset.json" in content["judged"]
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
    refused(f"{tmp_path / 'none'} is no judge folder: it does not exist; give", "--judge", str(tmp_path / "none"))
    refused("is no judge folder: it has no judge.json; give one that was saved whole", "--judge", str(tmp_path))
    refused("knows ['csf'", "--judge", str(next(Path(evaluation.__file__).parent.glob("assets/*"))))
    refused("--judge-steps is -1", "--judge-steps", "-1")
    refused("--jobs is 0", "--jobs", "0")
    refused("did you mean 'radiomics'", "--extractor", "radiomic")
    refused("needs its weights as a TorchScript file", "--extractor", "medicalnet-resnet50")
    refused("is missing", "--extractor", "medicalnet-resnet50", "--extractor-file", str(tmp_path / "no.pt"))
    refused("--data stands for --real", "--real", str(synthetic))
    row = {"case": "c00", "condition": {"attributes": {}}, "model": {"sha256": "0"}}
    for line, said in (
        ("{}", "(case is missing)"),
        ("[]", "(it is no object but [])"),
        (json.dumps(row)[:20], "(not valid JSON: "),
        (json.dumps({**row, "condition": []}), "(condition should be a valid dictionary, got [])"),
        (
            json.dumps({**row, "condition": {"attributes": {"kind": [1]}}}),
            "(condition.attributes.kind should be a valid",
        ),
        (json.dumps({**row, "model": "m"}), "(model should be a valid dictionary, got 'm')"),
        (json.dumps({**row, "files": {"../../x": "0"}}), "is no file of the set"),
        (json.dumps(row), "(case 'c00' stands in line 1)"),
    ):
        (synthetic / "manifest.jsonl").write_text(f"{json.dumps(row)}\n{line}\n")
        refused(f"manifest.jsonl line 2 is broken {said}" if said[0] == "(" else said)
    (synthetic / "manifest.jsonl").write_bytes(b"\xff\n")
    refused("manifest.jsonl line 1 is broken (it is not UTF-8)")
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


def test_a_second_run_measures_no_feature_and_jobs_change_no_byte(
    synthetic: Path, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only = ("--only", "fidelity,pictures")
    assert evaluate(synthetic, prepared, tmp_path / "two", *only, "--jobs", "2") == 0
    kept = list((tmp_path / "two-features").glob("*.npy"))
    assert len(kept) == 8, "beside the report; real and synthetic volumes are the same here"
    assert evaluate(synthetic, prepared, tmp_path / "one", *only, "--cache", str(tmp_path / "kept")) == 0
    assert (tmp_path / "one" / "report.json").read_bytes() == (tmp_path / "two" / "report.json").read_bytes()
    assert {path.name: path.read_bytes() for path in kept} == {
        path.name: path.read_bytes() for path in (tmp_path / "kept").iterdir()
    }

    def broken(*_: object) -> np.ndarray:
        raise AssertionError("measured again")

    monkeypatch.setattr("evaluation.extractors.radiomics._vector", broken)
    assert evaluate(synthetic, prepared, tmp_path / "again", *only, "--cache", str(tmp_path / "kept")) == 0
    assert evaluate(synthetic, prepared, tmp_path / "anew", *only) == 1
    assert (tmp_path / "again" / "report.json").read_bytes() == (tmp_path / "one" / "report.json").read_bytes()


def test_a_network_of_ones_own_measures(synthetic: Path, prepared: Prepared, tmp_path: Path) -> None:
    import torch

    class Means(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([x, x * x], dim=1)

    torch.jit.script(Means()).save(str(tmp_path / "net.pt"))
    digest = sha256((tmp_path / "net.pt").read_bytes()).hexdigest()
    more = ("--extractor", "medicalnet-resnet50", "--extractor-file", str(tmp_path / "net.pt"), "--only", "diversity")
    assert evaluate(synthetic, prepared, tmp_path / "without", *more) == 2
    for jobs in ("1", "2"):
        asked = ("--extractor-sha256", digest, "--jobs", jobs)
        assert evaluate(synthetic, prepared, tmp_path / f"with{jobs}", *more, *asked) == 0
    one, two = ((tmp_path / f"with{jobs}" / "report.json").read_bytes() for jobs in ("1", "2"))
    assert one == two
    found = json.loads(one)["fingerprint"]
    assert found["features"].startswith("medicalnet-resnet50") and found["features_sha256"] == digest


def test_the_fingerprint_says_how_intensities_were_mapped(synthetic: Path, prepared: Prepared, tmp_path: Path) -> None:
    assert evaluate(synthetic, prepared, tmp_path / "out", "--only", "fidelity") == 0
    rule = prepared.schema.intensities[0]
    said = json.loads((tmp_path / "out" / "report.json").read_text())["fingerprint"]["intensity"]
    assert said == f"own 0.5 and 99.5 % of each volume (median of the training volumes: {rule.low:g}..{rule.high:g})"
    info = json.loads((synthetic / "dataset.json").read_text())
    (synthetic / "dataset.json").write_text(json.dumps({**info, "channel_names": {"0": "CT"}}))
    real = Path(shutil.copytree(synthetic, tmp_path / "real"))
    grain(real)
    asked = ["--synthetic", str(synthetic), "--real", str(real), "--out", str(tmp_path / "ct")]
    assert run("evaluate", [*asked, "--only", "fidelity"]) == 0
    said = json.loads((tmp_path / "ct" / "report.json").read_text())["fingerprint"]["intensity"]
    assert said.startswith("CT window -1024..") and said.endswith("HU, the middle half -160..240 HU")


def test_real_volumes_spelled_out(
    dataset: Path, synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One folder: no privacy. Training and holdout: as prepared. The working folder is gone afterwards."""
    grain(synthetic)
    common, gate = ["--synthetic", str(synthetic), "--judge-steps", "0"], ["--gate", "--only", "privacy"]
    assert run("evaluate", [*common, "--real", str(dataset), "--out", str(tmp_path / "real")]) == 0
    alone = json.loads((tmp_path / "real" / "report.json").read_text())
    assert "fidelity.ssim" in alone["metrics"] and "alignment.boundary" in alone["metrics"]
    assert "give --training and --holdout" in alone["not_computed"]["privacy.nearest"]
    assert alone["verdicts"]["privacy.images"]["ok"] is None
    assert alone["fingerprint"]["n"] == "8 synthetic, 4 training, 4 held out"
    assert run("evaluate", [*common, "--real", str(dataset), "--out", str(tmp_path / "gate"), *gate]) == 4
    for name, kept in (("training", "0123"), ("holdout", "46")):
        shutil.copytree(dataset, tmp_path / name)
        for path in (*(tmp_path / name / "imagesTr").iterdir(), *(tmp_path / name / "labelsTr").iterdir()):
            if path.name[2] not in kept:
                path.unlink()
        rows = (dataset / "cases.csv").read_text().splitlines()
        kept_rows = [rows[0], *(row for row in rows[1:] if row[2] in kept)]
        (tmp_path / name / "cases.csv").write_text("\n".join(kept_rows) + "\n")
        info = json.loads((dataset / "dataset.json").read_text())
        (tmp_path / name / "dataset.json").write_text(json.dumps({**info, "numTraining": len(kept)}))
    rest = ["--only", "pictures"]
    sides = ["--training", str(tmp_path / "training"), "--holdout", str(tmp_path / "holdout")]
    assert run("evaluate", [*common, *sides, "--out", str(tmp_path / "sides")]) == 0
    both = json.loads((tmp_path / "sides" / "report.json").read_text())
    assert both["fingerprint"]["n"] == "8 synthetic, 4 training, 2 held out"
    assert "privacy.nearest" in both["metrics"]
    assert run("evaluate", [*common, *sides, "--real", str(dataset), "--out", str(tmp_path / "all"), *rest]) == 0
    whole = json.loads((tmp_path / "all" / "report.json").read_text())
    assert whole["fingerprint"]["n"] == "8 synthetic, 4 training, 4 held out", "what is in neither is held out too"
    capsys.readouterr()
    for wrong, said in (
        ([], "needs real volumes"),
        (["--training", str(dataset)], "go together"),
        (["--training", str(dataset), "--holdout", str(dataset)], "have the same voxels"),
    ):
        code = run("evaluate", [*common, *wrong, "--out", str(tmp_path / "wrong")])
        told = capsys.readouterr().err
        assert code == 2 and (said in told or "both" in told), told


def grain(folder: Path) -> None:
    """Make every image of a set another one, by a little noise."""
    for index, path in enumerate(sorted((folder / "imagesTr").iterdir())):
        volume = read(path)
        noise = numpy_rng("grain", index).normal(0, 5, volume.data.shape)
        write(volume.replace(data=(volume.data + noise).astype(np.float32)), path)


def test_a_set_is_not_judged_by_itself(
    synthetic: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link = tmp_path / "link"
    link.symlink_to(synthetic)
    inside = Path(shutil.copytree(dataset, synthetic / "part"))
    one = Path(shutil.copytree(dataset, tmp_path / "one"))
    grain(one)
    shutil.copy(synthetic / "imagesTr" / "c03_0000.nii.gz", one / "imagesTr" / "c03_0000.nii.gz")
    for real, said in (
        (synthetic, "the judged set lie in one another"),
        (link, "the judged set lie in one another"),
        (inside, "the judged set lie in one another"),
        (synthetic.parent, "the judged set lie in one another"),
        (dataset, "8 of 8 samples, c00 first, are volumes of --real"),
        (one, "1 of 8 samples, c03 first, are volumes of --real"),
    ):
        line = [
            "--synthetic",
            str(synthetic),
            "--real",
            str(real),
            "--out",
            str(tmp_path / "out"),
            "--judge-steps",
            "0",
        ]
        assert run("evaluate", line) == 2
        told = capsys.readouterr().err
        assert said in told.splitlines()[-1] and not (tmp_path / "out" / "report.json").exists()


def test_a_set_that_changes_while_it_is_judged_has_no_report(
    synthetic: Path,
    prepared: Prepared,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def judge(*_: object, **__: object) -> object:
        (synthetic / "dataset.json").write_text((synthetic / "dataset.json").read_text() + " ")
        return Report("phantoms")

    monkeypatch.setattr("evaluation.judge.judge", judge)
    assert evaluate(synthetic, prepared, tmp_path / "out") == 2
    assert "dataset.json was changed while the set was judged" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_reports_are_compared_or_refused(
    synthetic: Path, prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(synthetic, prepared, tmp_path / "a", "--only", "alignment,fidelity") == 0
    for path in (synthetic / "imagesTr").iterdir():
        volume = read(path)
        write(volume.replace(data=volume.data[:, ::-1].copy()), path)
    assert evaluate(synthetic, prepared, tmp_path / "b", "--only", "alignment,fidelity") == 0
    capsys.readouterr()
    line = [str(tmp_path / "a"), str(tmp_path / "b" / "report.json"), "--out", str(tmp_path / "table.md")]
    assert run("compare", line) == 0
    table = capsys.readouterr().out
    assert "| alignment.boundary |" in table and (tmp_path / "table.md").read_text() == table
    assert run("compare", line) == 2, "never overwritten"
    content = json.loads((tmp_path / "b" / "report.json").read_text())
    content["fingerprint"]["features"] = "others"
    (tmp_path / "b" / "report.json").write_text(json.dumps(content))
    assert run("compare", line[:2]) == 2
    assert "features" in capsys.readouterr().err
    assert run("compare", [str(tmp_path), str(tmp_path / "b")]) == 2


def test_a_report_does_not_lie_among_its_inputs(
    synthetic: Path, prepared: Prepared, capsys: pytest.CaptureFixture[str]
) -> None:
    """internal/ shows real volumes: in the set, it would go where the set goes."""
    for out in (synthetic, synthetic / "report", prepared.folder, synthetic.parent):
        assert evaluate(synthetic, prepared, out, "--overwrite") == 2
        assert "lie in one another" in capsys.readouterr().err


def test_a_report_that_replaces_another_leaves_nothing_of_it(
    synthetic: Path, prepared: Prepared, tmp_path: Path
) -> None:
    out = tmp_path / "report"
    evaluate(synthetic, prepared, out, "--only", "privacy", "--gate")
    assert (out / "drop.txt").is_file()
    assert evaluate(synthetic, prepared, out, "--only", "diversity", "--overwrite") == 0
    assert not (out / "drop.txt").exists() and [f.name for f in (out / "internal").iterdir()] == ["index.html"]


def test_channels_in_another_order_are_refused(prepared: Prepared, synthetic: Path) -> None:
    from pipelines.evidence import synthetic_set

    info = json.loads((synthetic / "dataset.json").read_text())
    info["channel_names"] = {"0": "T1", "1": "T2"}
    (synthetic / "dataset.json").write_text(json.dumps(info))
    for path in list((synthetic / "imagesTr").iterdir()):
        shutil.copy(path, path.with_name(path.name.replace("_0000.", "_0001.")))
    turned = replace(prepared.schema, channels=("T2", "T1"))
    with pytest.raises(DataError, match="reorder them"):
        synthetic_set(synthetic, turned, attribute="")
