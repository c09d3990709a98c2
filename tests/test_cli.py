"""User journeys through the command line, and malformed data: exit code 2, one line, nothing written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

import synth
from pipelines.cli import main
from synth.data.prepared import Prepared
from synth.volume import Volume
from tests.conftest import tiny_recipe, write_dataset


def test_help_and_unknown_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0 and "quickstart" in capsys.readouterr().out
    assert main(["generat"]) == 2 and "did you mean 'generate'" in capsys.readouterr().err
    assert main(["generate", "--help"]) == 0


def test_prepare_splits_by_patient(prepared: Prepared) -> None:
    sides = {case.patient: {c.split for c in prepared.cases if c.patient == case.patient} for case in prepared.cases}
    assert all(len(side) == 1 for side in sides.values()) and len(sides) == 4
    assert prepared.schema.label_values == {"shell": 3, "core": 200}
    assert set(np.unique(prepared.mask(prepared.cases[0]))) == {0, 1, 2}


def test_evaluate_and_info(model: Path, prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "syn"
    assert main(["generate", str(model), "--out", str(out), "--count", "3", "--workers", "1"]) == 0
    for name in ("a", "b"):
        line = ["evaluate", "--synthetic", str(out), "--data", str(prepared.folder), "--out", str(tmp_path / name)]
        line += ["--judge-steps", "20"]
        assert main(line) == 0
    report = json.loads((tmp_path / "a" / "report.json").read_text())
    assert report["schema"] == 1 and "fidelity.frechet" in report["not_computed"]
    assert (tmp_path / "a" / "report.json").read_bytes() == (tmp_path / "b" / "report.json").read_bytes()
    assert "data:image/png" in (tmp_path / "a" / "index.html").read_text()
    assert main(line) == 2  # never overwritten unasked
    for thing in (model, prepared.folder, out, tmp_path / "a", out / "labelsTr" / "syn_00000.nii.gz"):
        assert main(["info", str(thing)]) == 0
        assert main(["info", str(thing), "--json"]) == 0
    assert main(["info", str(tmp_path / "nothing")]) == 2


def test_two_dimensions_end_to_end(tmp_path: Path) -> None:
    """Slices as DICOM and ITK lay them, to the left and back: samples lie so, and a mask stored otherwise is turned."""
    source = write_dataset(tmp_path / "source", 6, (13, 16), np.diag([-0.7, -1.2, 1.0, 1.0]), {"shell": 1, "core": 2})
    (tmp_path / "tiny.yaml").write_text(tiny_recipe(2))
    assert main(["prepare", str(source), "--out", str(tmp_path / "data")]) == 0
    line = ["train", str(tmp_path / "tiny.yaml"), "--data", str(tmp_path / "data"), "--out", str(tmp_path / "run")]
    assert main(line) == 0
    model = str(tmp_path / "run" / "model")
    assert main(["generate", model, "--out", str(tmp_path / "syn"), "--count", "2", "--workers", "1"]) == 0
    sample = synth.read(tmp_path / "syn" / "imagesTr" / "syn_00000_0000.nii.gz")
    assert sample.grid == (16, 16) and np.allclose(np.diag(sample.affine), [-0.7, -1.2, 1, 1])
    mask = synth.read(source / "labelsTr" / "c00.nii.gz")
    affine = np.diag([0.7, -1.2, 1.0, 1.0])
    affine[0, 3] = mask.affine[0, 3] - 0.7 * 12
    synth.write(Volume(mask.data[:, ::-1], affine), tmp_path / "masks" / "odd.nii.gz")
    given = ["--out", str(tmp_path / "given"), "--count", "1", "--workers", "1", "--masks", str(tmp_path / "masks")]
    assert main(["generate", model, *given]) == 0
    followed = synth.read(tmp_path / "given" / "labelsTr" / "syn_00000.nii.gz")
    assert np.array_equal(followed.data, mask.data) and followed.same_geometry(mask)
    odd = Volume(mask.data[:, ::-1], affine)
    conditions = [synth.Condition(mask=one, attributes={"kind": "a"}) for one in (mask, odd)]
    one, other = synth.load(model).generate(conditions, seeds=[3, 3])
    assert other.image.same_geometry(odd), "from Python the sample lies as its mask"
    assert np.allclose(other.image.data[:, ::-1], one.image.data), "and shows the same, however that is stored"


def test_ct_keeps_hounsfield_units(tmp_path: Path) -> None:
    source = write_dataset(tmp_path / "source", 4, (12, 12, 8), np.diag([2.0, 2.0, 5.0, 1.0]), {"shell": 1, "core": 2})
    info = json.loads((source / "dataset.json").read_text())
    (source / "dataset.json").write_text(json.dumps({**info, "channel_names": {"0": "CT"}}))
    for path in (source / "imagesTr").iterdir():
        volume = synth.read(path)
        hounsfield = np.where(volume.data < 200, -1000, volume.data / 8).astype(np.int16)
        hounsfield[0, 0, 0, 0] = 20_000  # metal
        synth.write(volume.replace(data=hounsfield), path)
    assert main(["prepare", str(source), "--out", str(tmp_path / "data")]) == 0
    prepared = Prepared.load(tmp_path / "data")
    schema = prepared.schema
    assert schema.dtype == "int16" and schema.intensities[0].kind == "window"
    case = prepared.cases[0]
    native = schema.intensities[0].invert(np.asarray(prepared.image(case)))
    truth = synth.read(source / "imagesTr" / f"{case.case}_0000.nii.gz").data
    inside = truth < 20_000
    assert np.abs(native[inside] - truth[inside]).max() < 0.5


def _edit_json(folder: Path, **fields: object) -> None:
    info = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**info, **fields}))


def _voxels(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    image = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image(change(np.asarray(image.dataobj).copy()), image.affine), path)


def _nan(data: np.ndarray) -> np.ndarray:
    data[0, 0, 0] = np.nan
    return data


def _strange(data: np.ndarray) -> np.ndarray:
    data[0, 0, 0] = 7
    return data


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "broken json": (lambda f: (f / "dataset.json").write_text("{"), "JSON"),
    "no json": (lambda f: (f / "dataset.json").unlink(), "dataset.json"),
    "no channel names": (
        lambda f: (f / "dataset.json").write_text('{"labels": {}, "file_ending": ".nii.gz"}'),
        "channel_names",
    ),
    "unknown ending": (lambda f: _edit_json(f, file_ending=".tif"), "file_ending"),
    "label is text": (lambda f: _edit_json(f, labels={"background": 0, "shell": "one"}), "whole number"),
    "background alone": (lambda f: _edit_json(f, labels={"background": 0}), "no label but the background"),
    "listed series is absent": (
        lambda f: _edit_json(
            f, dataset={f"c{n:02d}": {"images": ["none.dcm"], "label": f"labelsTr/c{n:02d}.nii.gz"} for n in range(3)}
        ),
        "none.dcm does not exist",
    ),
    "missing mask": (lambda f: (f / "labelsTr" / "c01.nii.gz").unlink(), "c01"),
    "missing channel": (lambda f: _edit_json(f, channel_names={"0": "MR", "1": "T2"}), "channels"),
    "extra channel": (
        lambda f: shutil.copy(f / "imagesTr" / "c01_0000.nii.gz", f / "imagesTr" / "c01_0001.nii.gz"),
        "c01",
    ),
    "no images": (lambda f: shutil.rmtree(f / "imagesTr"), "imagesTr"),
    "misnamed": (
        lambda f: shutil.copy(f / "imagesTr" / "c01_0000.nii.gz", f / "imagesTr" / "c9.nii.gz"),
        "channel number",
    ),
    "truncated": (
        lambda f: (f / "imagesTr" / "c01_0000.nii.gz").write_bytes(
            (f / "imagesTr" / "c01_0000.nii.gz").read_bytes()[:900]
        ),
        "c01",
    ),
    "not a volume": (lambda f: (f / "imagesTr" / "c01_0000.nii.gz").write_text("x"), "c01"),
    "nan": (lambda f: _voxels(f / "imagesTr" / "c01_0000.nii.gz", _nan), "NaN"),
    "constant": (lambda f: _voxels(f / "imagesTr" / "c01_0000.nii.gz", lambda d: d * 0 + 5), "constant"),
    "four axes": (
        lambda f: _voxels(f / "imagesTr" / "c01_0000.nii.gz", lambda d: np.stack([d, d], axis=-1)),
        "holds 2 channels",
    ),
    "strange label": (lambda f: _voxels(f / "labelsTr" / "c01.nii.gz", _strange), "value 7"),
    "other grid": (lambda f: _voxels(f / "labelsTr" / "c01.nii.gz", lambda d: d[:-1]), "grid"),
    "other affine": (
        lambda f: synth.write(
            synth.read(f / "labelsTr" / "c01.nii.gz").replace(affine=np.diag([3.0, 2, 2, 1])),
            f / "labelsTr" / "c01.nii.gz",
        ),
        "affine",
    ),
    "stray row": (lambda f: (f / "cases.csv").write_text("case,patient\nghost,p\n"), "ghost"),
    "table without case": (lambda f: (f / "cases.csv").write_text("a,b\n1,2\n"), "'case'"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_malformed_datasets(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_dataset(tmp_path / "source", 3, (8, 8, 6), np.eye(4), {"shell": 1, "core": 2})
    spoil, words = FAULTS[name]
    spoil(source)
    assert words in refusal(source, capsys)


def refusal(source: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Prepare `source`, which must end in exit code 2 and write nothing beside it; return the one line it says."""
    capsys.readouterr()
    assert main(["prepare", str(source), "--out", str(source.parent / "out")]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("synth: ")]
    assert len(said) == 1
    assert sorted(path.name for path in source.parent.iterdir()) == [source.name]
    return said[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--count", "0"], "count is 0"),
        (["--count", "1", "--steps", "0"], "steps is 0"),
        (["--count", "1", "--set", "colour=red"], "colour"),
        (["--count", "1", "--set", "kind=z"], "kind"),
        (["--count", "1", "--shard", "2/2"], "shard"),
        (["--count", "1", "--masks", "/nonexistent"], "nonexistent"),
        (["--count", "1", "--spread", "colour"], "spread"),
        ([], "give --count"),
    ],
)
def test_bad_asks(
    model: Path, options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", str(model), "--out", str(tmp_path / "out"), *options]) == 2
    assert words in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_one_patient_works_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_dataset(tmp_path / "source", 2, (8, 8, 6), np.eye(4), {"shell": 1, "core": 2})
    assert main(["prepare", str(source), "--out", str(tmp_path / "out")]) == 0
    assert "cannot be judged" in capsys.readouterr().out


def test_volume_is_what_write_reads(tmp_path: Path) -> None:
    synth.write(Volume(np.zeros((1, 4, 4, 4), np.int16)), tmp_path / "v.nii.gz")
    assert main(["info", str(tmp_path / "v.nii.gz")]) == 0
