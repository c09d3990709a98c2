"""The cohort verb: a valid nnU-Net dataset, the same subjects whatever the count, and clear refusals."""

import csv
import hashlib
import json
from pathlib import Path

import pytest

import pipelines.cohort
from pipelines.cohort import Cohort
from synth.errors import ConfigError, OutputError, SynthError
from synth.formats.nnunet import read_dataset
from synth.io import read
from synth.simulate import BRAIN_LABELS
from synth.simulate.cohort import cohort_subject

SEED = 3


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cohort") / "three"
    assert Cohort(out=out, count=3, seed=SEED, workers=1).run() == 0
    return out


def test_files_form_a_dataset_with_truth(three: Path) -> None:
    info = json.loads((three / "dataset.json").read_text())
    assert info["numTraining"] == 3 and info["file_ending"] == ".nii.gz"
    assert info["channel_names"] == {"0": "MR"}
    assert info["labels"] == {"background": 0, **BRAIN_LABELS}
    assert info["population"] == "simulated cohort"
    dataset = read_dataset(three)
    assert [case.id for case in dataset.cases] == ["sim_0000", "sim_0001", "sim_0002"]
    assert [case.attributes["contrast"] for case in dataset.cases] == ["T1", "T2", "FLAIR"]
    assert all(case.truth is not None and case.text and case.patient == case.id for case in dataset.cases)


def test_files_hold_the_simulated_subject(three: Path) -> None:
    subject = cohort_subject(SEED, 1)
    for volume, path in (
        (subject.image, "imagesTr/sim_0001_0000.nii.gz"),
        (subject.truth, "truthTr/sim_0001.nii.gz"),
        (subject.mask, "labelsTr/sim_0001.nii.gz"),
    ):
        stored = read(three / path)
        assert stored.data.dtype == volume.data.dtype
        assert (stored.data == volume.data).all()
        assert stored.same_geometry(volume)
    with (three / "cases.csv").open(newline="") as file:
        row = list(csv.DictReader(file))[1]
    assert row["text"] == subject.text
    assert float(row["lesion_volume_ml"]) == subject.attributes["lesion_volume_ml"]


def test_prefix_extension_and_workers_give_the_same_bytes(three: Path, tmp_path: Path) -> None:
    out = tmp_path / "grown"
    Cohort(out=out, count=2, seed=SEED, workers=1).run()
    small, large = digests(out), digests(three)
    for name, digest in small.items():
        if name not in ("cases.csv", "dataset.json"):
            assert large[name] == digest
    Cohort(out=out, count=3, seed=SEED, workers=1).run()
    assert digests(out) == large


def test_two_processes_give_the_same_bytes(three: Path, tmp_path: Path) -> None:
    Cohort(out=tmp_path / "two", count=3, seed=SEED, workers=2).run()
    assert digests(tmp_path / "two") == digests(three)


def test_a_cut_short_run_is_completed_and_nothing_twice(
    three: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "cut"
    real, simulated = pipelines.cohort._subject, []

    def interrupted(folder: Path, seed: int, index: int) -> object:
        if index == 2 and not simulated.count(2):
            simulated.append(2)
            raise KeyboardInterrupt
        simulated.append(index)
        return real(folder, seed, index)

    monkeypatch.setattr(pipelines.cohort, "_subject", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Cohort(out=out, count=3, seed=SEED, workers=1).run()
    assert not (out / "dataset.json").exists()
    (out / "imagesTr" / ".sim_0002_0000.nii.gz.partial").write_bytes(b"half")
    Cohort(out=out, count=3, seed=SEED, workers=1).run()
    assert simulated == [0, 1, 2, 2]
    assert digests(out) == digests(three)


def test_a_lost_file_is_made_again(three: Path) -> None:
    before = digests(three)
    (three / "labelsTr" / "sim_0001.nii.gz").unlink()
    Cohort(out=three, count=3, seed=SEED, workers=1).run()
    assert digests(three) == before


@pytest.mark.parametrize(("count", "workers", "seed"), [(0, 1, 0), (-2, 1, 0), (1, -1, 0), (1, 1, -1)])
def test_numbers_out_of_range_are_refused(tmp_path: Path, count: int, workers: int, seed: int) -> None:
    with pytest.raises(ConfigError, match="give at least"):
        Cohort(out=tmp_path / "out", count=count, workers=workers, seed=seed).run()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("count", "seed"), [(3, SEED + 1), (2, SEED)])
def test_another_cohort_is_not_overwritten(three: Path, count: int, seed: int) -> None:
    before = digests(three)
    with pytest.raises(OutputError, match="--overwrite"):
        Cohort(out=three, count=count, seed=seed, workers=1).run()
    assert digests(three) == before


def test_overwrite_starts_over_and_keeps_other_files(tmp_path: Path) -> None:
    out = tmp_path / "out"
    Cohort(out=out, count=2, seed=SEED, workers=1).run()
    (out / "notes.txt").write_text("mine")
    Cohort(out=out, count=1, seed=SEED + 1, workers=1, overwrite=True).run()
    assert (out / "notes.txt").read_text() == "mine"
    assert [path.name for path in (out / "imagesTr").iterdir()] == ["sim_0000_0000.nii.gz"]
    assert (read(out / "truthTr" / "sim_0000.nii.gz").data == cohort_subject(SEED + 1, 0).truth.data).all()


@pytest.mark.parametrize("overwrite", [False, True])
def test_foreign_folders_and_files_are_refused(tmp_path: Path, overwrite: bool) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    for place in (folder, folder / "thesis.txt", folder / "thesis.txt" / "below"):
        with pytest.raises(SynthError):
            Cohort(out=place, count=1, workers=1, overwrite=overwrite).run()
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]
