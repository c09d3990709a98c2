"""Layouts crossed with batches: shards, plans, samples made again, dry runs and hand-overs of sets in any --format."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import synth
from pipelines.cli import main
from synth.data.orientation import axis_codes, turned_to
from synth.data.prepared import Prepared
from synth.data.reading import read_image, read_mask
from synth.formats import WRITERS, read
from synth.io import write
from synth.volume import Volume
from tests.pipelines.test_plan import content, generate, refused

QUICK = ("--steps", 1, "--prompts")
SAID = ("case", "grid", "prompts", "background_points", "caption")
SOME = ("bids", "dicom", "webdataset", "medmnist")


def verb(*words: object) -> int:
    return main([*map(str, words)])


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four samples of two kinds, one with a text."""
    path = tmp_path_factory.mktemp("plan") / "plan.csv"
    path.write_text("count,text,kind\n3,a round thing,a\n1,,b\n")
    return path


@pytest.fixture(scope="module", params=WRITERS)
def planned(request: pytest.FixtureRequest, model: Path, plan: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of a plan by one process, in each layout; its folder is called by that."""
    out = tmp_path_factory.mktemp("planned") / request.param
    assert generate(model, out, "--plan", plan, "--format", request.param, *QUICK) == 0
    return out


def test_shards_join_to_the_set_of_one_process(
    planned: Path, model: Path, plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, name = content(planned), planned.name
    shards = [tmp_path / "one", tmp_path / "two"]
    for number, folder in enumerate(shards):
        options = ["--plan", plan, "--format", name, "--shard", f"{number}/2"]
        assert generate(model, folder, *options, *QUICK) == 0
    out = tmp_path / "out"
    assert verb("merge", *shards[::-1], "--out", out) == 0 and content(out) == whole
    assert len(whole["prompts.jsonl"].splitlines()) == 4
    assert verb("merge", *shards, "--out", out) == 0 and content(out) == whole  # nothing is left to do
    (out / "records" / "syn_00002.json").unlink()  # as a kill would leave it
    assert verb("merge", *shards, "--out", out) == 0 and content(out) == whole
    prompts = shards[1] / "records" / "syn_00001.prompts"
    row = json.loads((shards[1] / "records" / "syn_00001.json").read_text())
    first = shards[1] / min(row["files"])
    for damaged in (prompts, first if first.is_file() else shards[1] / "parts" / "syn_00001.tar"):
        data = damaged.read_bytes()
        middle = len(data) // 2
        for number, wrong in enumerate((data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :], b"")):
            damaged.write_bytes(wrong)
            capsys.readouterr()
            assert verb("merge", *shards, "--out", tmp_path / f"{damaged.name}{number}") == 2
            told = refused(capsys)
            assert "is not as its record says" in told or (name == "webdataset" and "cannot be read" in told)
        damaged.write_bytes(data)


def test_samples_are_made_again(planned: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert verb("reproduce", planned, "--all", "--model", model) == 0
    assert capsys.readouterr().out.splitlines() == [f"syn_{index:05d}: identical" for index in range(4)]


@pytest.mark.parametrize("name", ["bids", "dicom", "webdataset", "folder"])
@pytest.mark.parametrize("flip", [1.0, -1.0])
def test_images_of_given_masks_are_made_again(
    name: str, flip: float, model: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where DICOM keeps the slices of a left-handed mask in the other order."""
    source = read(dataset)
    image = read_image(source.cases[0], source)
    mask = read_mask(source.cases[0], source, image)
    given = tmp_path / "masks"
    given.mkdir()
    affine = mask.affine @ np.diag([flip, 1.0, 1.0, 1.0])
    write(Volume(mask.data, affine), given / "m.nii.gz")
    out = tmp_path / "set"
    assert generate(model, out, "--count", 1, "--masks", given, "--format", name, "--steps", 1) == 0
    capsys.readouterr()
    assert verb("reproduce", out, "--all", "--model", model) == 0
    assert capsys.readouterr().out == "syn_00000: identical\n"


def test_masks_that_a_format_does_not_keep_are_told(
    model: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--masks", dataset, "--format", "medmnist", "--steps", 1]
    assert generate(model, tmp_path / "set", "--count", 1, *options) == 0
    assert verb("reproduce", tmp_path / "set", "--all", "--model", model) == 2
    assert "follows a mask, which medmnist does not keep" in refused(capsys)


@pytest.mark.parametrize("name", SOME)
def test_what_differs_is_said_in_any_format(
    name: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first sample's files stand for the second's: another image in the same environment."""
    out = tmp_path / "set"
    assert generate(model, out, "--count", 2, "--format", name, "--steps", 1) == 0
    rows = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    wrong = {**rows[0], "index": 1}
    (out / "manifest.jsonl").write_text(json.dumps(wrong) + "\n")
    capsys.readouterr()
    assert verb("reproduce", out, "--all", "--model", model) == 3
    told = capsys.readouterr().out
    assert told.startswith("syn_00000: different: ") and "of its range" in told
    assert "in the same environment" in told and "cannot be read" not in told and "lies elsewhere" not in told
    wrong = {**rows[1], "files": {}}
    (out / "manifest.jsonl").write_text(json.dumps(wrong) + "\n")
    assert verb("reproduce", out, "--all", "--model", model) == 3
    assert "the voxels are equal" in capsys.readouterr().out


def test_a_set_without_its_request_says_its_format(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "set"
    assert generate(model, out, "--count", 1, "--format", "bids", "--steps", 1) == 0
    (out / "request.json").unlink()
    capsys.readouterr()
    assert verb("reproduce", out, "--all", "--model", model, "--format", "bids") == 0
    assert capsys.readouterr().out == "syn_00000: identical\n"


def test_shards_of_other_formats_are_of_another_request(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, name in enumerate(("bids", "msd")):
        options = ["--count", 2, "--steps", 1, "--format", name, "--shard", f"{number}/2"]
        assert generate(model, tmp_path / name, *options) == 0
    assert verb("merge", tmp_path / "bids", tmp_path / "msd", "--out", tmp_path / "out") == 2
    assert "format is msd, not bids" in refused(capsys)
    for changes in (["--format", "msd"], ["--format", "bids", "--prompts"]):
        assert generate(model, tmp_path / "bids", "--count", 2, "--steps", 1, *changes) == 2
        assert "was begun with " in refused(capsys)


def test_a_merged_set_is_exported_and_its_samples_made_again(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = [tmp_path / "one", tmp_path / "two"]
    for number, folder in enumerate(shards):
        assert generate(model, folder, "--count", 3, *QUICK, "--shard", f"{number}/2") == 0
    joined = tmp_path / "joined"
    assert verb("merge", *shards, "--out", joined) == 0
    for name in ("bids", "dicom", "synthrad"):
        out = tmp_path / name
        assert verb("export", joined, "--out", out, "--format", name, "--prompts") == 0
        rows, again = ((folder / "prompts.jsonl").read_text().splitlines() for folder in (joined, out))
        assert len(again) == 3
        for row, other, told in zip(rows, again, (out / "manifest.jsonl").read_text().splitlines(), strict=True):
            # an affine of 32 bits may change the last digit of a size in questions
            assert [json.loads(row)[key] for key in SAID] == [json.loads(other)[key] for key in SAID]
            assert json.loads(told)["prompts"] == hashlib.sha256(other.encode()).hexdigest()
        capsys.readouterr()
        assert verb("reproduce", out, "--case", "syn_00001", "--model", model) == 0
        assert "syn_00001: identical" in capsys.readouterr().out
    assert verb("export", tmp_path / "bids", "--out", tmp_path / "back", "--format", "nnunet") == 0
    assert verb("reproduce", tmp_path / "back", "--all", "--model", model) == 0
    assert capsys.readouterr().out.count(": identical") == 3


@pytest.mark.parametrize("name", ["bids", "dicom"])
def test_sets_in_other_layouts_join_real_cases(
    name: str, model: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is handed over is nnU-Net's, whatever the layout of the set."""
    made, out = tmp_path / "set", tmp_path / "Dataset601_Mixed"
    assert generate(model, made, "--count", 2, "--steps", 1, "--format", name) == 0
    assert verb("merge", made, "--into", dataset, "--ratio", 0.25, "--out", out) == 0
    mixed, own = read(out), read(made)
    assert mixed.layout == "nnU-Net" and mixed.label_values == {"shell": 1, "core": 2}
    held = {case.id: case for case in mixed.cases}
    for case in own.cases:
        image, first = read_image(held[case.id], mixed), read_image(case, own)
        assert np.array_equal(turned_to(first, axis_codes(image.affine)).data, image.data)
    (made / ("dataset_description.json" if name == "bids" else "labels.json")).unlink()
    capsys.readouterr()
    assert verb("merge", made, "--into", dataset, "--ratio", 0.25, "--out", out) == 2
    assert "is no whole set (no manifest.jsonl and " in refused(capsys)


def test_masks_that_dicom_turned_keep_their_patients_out_of_validation(
    model: Path, dataset: Path, prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Left-handed data: a DICOM set holds the slices of the mask in the other order, and it is still the patient's."""
    real = Path(shutil.copytree(dataset, tmp_path / "real"))
    for path in (*real.glob("imagesTr/*"), *real.glob("labelsTr/*")):
        volume = synth.read(path)
        synth.write(volume.replace(affine=volume.affine @ np.diag([-1.0, 1.0, 1.0, 1.0])), path)
    masks = tmp_path / "masks"
    masks.mkdir()
    shutil.copy(real / "labelsTr" / f"{prepared.split('test')[0].case}.nii.gz", masks)
    options = ["--masks", masks, "--format", "dicom", "--steps", 1]
    assert generate(model, tmp_path / "set", "--count", 1, *options) == 0
    out = tmp_path / "Dataset601_Mixed"
    capsys.readouterr()
    assert verb("merge", tmp_path / "set", "--into", real, "--ratio", 0.1, "--out", out) == 2
    assert "nobody is left to validate on" in refused(capsys)


def test_archives_are_not_handed_over(
    model: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate(model, tmp_path / "set", "--count", 2, "--steps", 1, "--format", "webdataset") == 0
    out = tmp_path / "Dataset601_Mixed"
    assert verb("merge", tmp_path / "set", "--into", dataset, "--ratio", 0.25, "--out", out) == 2
    assert "holds archives of cases, not files" in refused(capsys) and not out.exists()
    for name in ("medmnist", "webdataset"):
        assert verb("quickstart", "--out", tmp_path / "quick", "--format", name) == 2
        assert "the judge does not read" in refused(capsys) and not (tmp_path / "quick").exists()


@pytest.mark.parametrize("name", SOME)
def test_a_dry_run_counts_what_the_layout_takes(
    name: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--format", name, *QUICK]
    capsys.readouterr()
    assert generate(model, tmp_path / "out", "--count", 8, *options, "--dry-run") == 0
    disk = re.search(r"disk +([\d.]+) (kB|MB) in", capsys.readouterr().out)
    assert disk and not (tmp_path / "out").exists()
    assert generate(model, tmp_path / "out", "--count", 8, *options) == 0
    real = sum(len(data) for data in content(tmp_path / "out").values())
    assert float(disk[1]) * {"kB": 1e3, "MB": 1e6}[disk[2]] == pytest.approx(real, rel=0.35)


@pytest.mark.parametrize("name", WRITERS)
def test_what_a_cut_of_power_left_empty_is_made_again(name: str, model: Path, tmp_path: Path) -> None:
    """A shard goes on from empty files, before the set is finished."""
    options = ["--count", 2, "--format", name, *QUICK]
    assert generate(model, tmp_path / "whole", *options) == 0
    out = tmp_path / "out"
    assert generate(model, out, *options, "--shard", "0/2") == 0
    own = [path for path in out.rglob("*syn*00000*") if path.is_file() and path.suffix != ".json"]
    own += list((out / "syn_00000").rglob("*.dcm")) if name == "dicom" else []
    assert own
    for path in own:
        path.write_bytes(b"")
    assert generate(model, out, *options) == 0 and content(out) == content(tmp_path / "whole")


def test_a_finished_shard_of_archives_takes_up_more(model: Path, tmp_path: Path) -> None:
    """A set of two goes on in two folders, the first of which holds its samples in their shard, not in parts."""
    options = ["--format", "webdataset", *QUICK]
    assert generate(model, tmp_path / "whole", "--count", 4, *options) == 0
    one, two = tmp_path / "one", tmp_path / "two"
    assert generate(model, one, "--count", 1, *options) == 0
    assert generate(model, one, "--count", 4, *options, "--shard", "0/2") == 0
    assert generate(model, two, "--count", 4, *options, "--shard", "1/2") == 0
    assert (one / "shard-00000.tar").is_file() and (one / "parts" / "syn_00002.tar").is_file()
    assert verb("merge", one, two, "--out", tmp_path / "out") == 0
    assert content(tmp_path / "out") == content(tmp_path / "whole")
