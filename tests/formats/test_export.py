"""A finished set laid out anew holds what was generated, resumes, and is refused where it is not known as synthetic."""

import json
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest

from pipelines.cli import run
from synth.data.reading import read_image, read_mask
from synth.formats import WRITERS, read, webdataset
from tests.formats.test_writers import content


@pytest.fixture(scope="module")
def made(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three generated pairs as nnU-Net, whose numbering of labels is not the source's."""
    out = tmp_path_factory.mktemp("made") / "set"
    ask = [str(model), "--out", str(out), "--count", "3", "--steps", "1", "--workers", "1", "--spread", "kind"]
    assert run("generate", [*ask, "--set", "size=3"]) == 0
    return out


@pytest.mark.parametrize("name", WRITERS)
def test_every_layout_holds_what_was_generated(name: str, made: Path, tmp_path: Path) -> None:
    line = [str(made), "--out", str(tmp_path / "out"), "--format", name, "--prompts"]
    assert run("export", line) == 0
    whole = content(tmp_path / "out")
    rows = [json.loads(text) for text in whole["manifest.jsonl"].splitlines()]
    source = [json.loads(text) for text in (made / "manifest.jsonl").read_text().splitlines()]
    assert all(len(row.pop("prompts")) == 64 for row in rows)
    assert [{**row, "files": 0} for row in rows] == [{**row, "files": 0} for row in source]
    assert (
        len(whole["prompts.jsonl"].splitlines()) == 3
        and whole["patients.json"] == (made / "patients.json").read_bytes()
    )
    assert run("export", line) == 0 and content(tmp_path / "out") == whole  # again: nothing changes
    (tmp_path / "out" / "records" / "syn_00001.json").unlink()  # as a kill would leave it
    assert run("export", line) == 0 and content(tmp_path / "out") == whole
    if name in ("medmnist", "webdataset"):
        return
    before, after = read(made), read(tmp_path / "out")
    for one, two in zip(before.cases, after.cases, strict=True):
        first, second = read_image(one, before), read_image(two, after)
        if name == "dicom":  # the order of slices follows their normal
            assert np.abs(np.sort(first.data, axis=None) - np.sort(second.data, axis=None)).max() < 0.05
        else:
            assert np.array_equal(first.data, second.data) and np.abs(first.affine - second.affine).max() < 1e-4
            labels = [
                read_mask(case, held, image).data for case, held, image in ((one, before, first), (two, after, second))
            ]
            for label, value in before.label_values.items():
                assert np.array_equal(labels[0] == value, labels[1] == after.label_values[label])
        assert name == "nnunet" or two.attributes == json.loads((made / "manifest.jsonl").read_text().splitlines()[0])[
            "condition"
        ]["attributes"] | {"kind": two.attributes["kind"]}


@pytest.mark.parametrize("name", WRITERS)
def test_cut_anywhere_it_completes_to_the_same_bytes(
    name: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run ends before the n-th file is in its place, for some n; the same command then completes the set."""
    import os

    replace, calls = os.replace, [0]

    def counting(source: Path, target: Path) -> None:
        calls[0] += 1
        if calls[0] == calls[1]:
            raise KeyboardInterrupt
        replace(source, target)

    def export(out: Path, stop: int) -> int:
        calls[:] = [0, stop]
        return run("export", [str(made), "--out", str(out), "--format", name, "--prompts"])

    monkeypatch.setattr(os, "replace", counting)
    assert export(tmp_path / "whole", 0) == 0
    total, whole = calls[0], content(tmp_path / "whole")
    rng = np.random.default_rng(len(name))
    out = tmp_path / "cut"
    for stop in sorted({int(n) for n in rng.integers(1, total + 1, size=3)} | {total}):
        shutil.rmtree(out, ignore_errors=True)
        assert export(out, stop) == 130
        assert export(out, 0) == 0 and content(out) == whole


def test_exported_is_generated_in_that_layout(model: Path, made: Path, tmp_path: Path) -> None:
    ask = [str(model), "--count", "3", "--steps", "1", "--workers", "1", "--spread", "kind", "--set", "size=3"]
    for name in ("folder", "msd", "synthrad"):
        assert run("generate", [*ask, "--out", str(tmp_path / f"g-{name}"), "--format", name]) == 0
        assert run("export", [str(made), "--out", str(tmp_path / f"e-{name}"), "--format", name]) == 0
        one, two = content(tmp_path / f"g-{name}"), content(tmp_path / f"e-{name}")
        differ = [path for path in one if one[path] != two.get(path)]
        # ITK writes the affine in full, NIfTI in 32 bits: through NIfTI a last digit is lost
        assert all(path == "request.json" or path.endswith(".mha") or name == "synthrad" for path in differ), differ
    uids = []
    assert run("generate", [*ask, "--out", str(tmp_path / "g-dicom"), "--format", "dicom"]) == 0
    assert run("export", [str(made), "--out", str(tmp_path / "e-dicom"), "--format", "dicom"]) == 0
    for folder in ("g-dicom", "e-dicom"):
        files = sorted((tmp_path / folder).rglob("*.dcm"))
        uids.append([str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in files])
    assert uids[0] == uids[1] and len(set(uids[0])) == len(uids[0])
    assert run("export", [str(made), "--out", str(tmp_path / "w"), "--format", "webdataset"]) == 0
    image, mask, said = next(webdataset.pairs(tmp_path / "w"))
    assert said["case"] == "syn_00000" and dict(mask.labels or {}) == {"shell": 3, "core": 200} and image.channels == 1


def test_sets_that_are_not_known_as_synthetic_are_refused(
    made: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "out"), "--format", "bids"]
    assert run("export", [str(dataset), *out]) == 2
    assert "no manifest.jsonl of synthetic samples" in capsys.readouterr().err
    lost = tmp_path / "lost"
    shutil.copytree(made, lost)
    (lost / "manifest.jsonl").write_text("".join((made / "manifest.jsonl").read_text().splitlines(keepends=True)[:2]))
    assert run("export", [str(lost), *out]) == 2
    assert "'syn_00002' stands in the images alone" in capsys.readouterr().err
    (lost / "manifest.jsonl").write_text("{broken\n")
    assert run("export", [str(lost), *out]) == 2 and "manifest.jsonl line 1 is broken" in capsys.readouterr().err
    assert run("export", [str(tmp_path / "nowhere"), *out]) == 2 and not (tmp_path / "out").exists()


def test_an_export_and_its_set_lie_apart(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(made.rglob("*"))
    for out in (made, made / "export", made.parent):
        assert run("export", [str(made), "--out", str(out), "--format", "msd"]) == 2
        assert "lie in one another" in capsys.readouterr().err
    assert sorted(made.rglob("*")) == before


def test_another_export_in_the_folder_is_refused(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = [str(made), "--out", str(tmp_path / "out"), "--format"]
    assert run("export", [*line, "folder"]) == 0
    assert run("export", [*line, "msd"]) == 2 and "holds another export" in capsys.readouterr().err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")
    assert run("export", [str(made), "--out", str(tmp_path / "full"), "--format", "msd"]) == 2
    assert "is not empty" in capsys.readouterr().err


def test_changed_files_and_empty_records_are_not_vouched_for(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = [str(made), "--out", str(tmp_path / "out"), "--format", "msd"]
    assert run("export", line) == 0
    whole = content(tmp_path / "out")
    (tmp_path / "out" / "records" / "syn_00001.json").write_bytes(b"")  # as a cut of power may leave it
    assert run("export", line) == 0 and content(tmp_path / "out") == whole
    changed = Path(shutil.copytree(made, tmp_path / "changed"))
    names = sorted((changed / "imagesTr").iterdir())
    shutil.copy(names[1], names[0])
    capsys.readouterr()
    assert run("export", [str(changed), "--out", str(tmp_path / "new"), "--format", "msd"]) == 2
    assert "is not the file that manifest.jsonl names" in capsys.readouterr().err
