"""Laws against leaks: with a fold, no stage reads a validation or test patient, and nothing of theirs decides a bit."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from pipelines.cli import main
from synth.data.prepared import Prepared
from synth.io import read, write
from tests.conftest import OBLIQUE, tiny_recipe, write_dataset

ROOT = Path(__file__).parents[2]
LABELS = {"shell": 3, "core": 200}
DIVISION = ("--holdout", "0.34", "--test", "0.17", "--folds", "2")
TRACED = """
import json, sys
import torch
torch.set_num_threads(1)
opened = set()
sys.addaudithook(lambda event, told: opened.add(str(told[0])) if event == "open" else None)
from pipelines.cli import main
code = main(sys.argv[1:])
print(json.dumps([code, sorted(opened)]))
"""


def prepared_of(source: Path, out: Path) -> Prepared:
    assert main(["prepare", str(source), "--out", str(out), *DIVISION]) == 0
    return Prepared.load(out)


def spoil(source: Path, cases: Iterable[str]) -> None:
    """Change everything about cases but their geometry: type, voxels, labels, text and attributes."""
    lines = (source / "cases.csv").read_text().splitlines()
    for number, case in enumerate(sorted(cases)):
        image, mask = source / f"imagesTr/{case}_0000.nii.gz", source / f"labelsTr/{case}.nii.gz"
        volume, labels = read(image), read(mask, labels=LABELS)
        loud = np.random.default_rng(number).normal(3e4, 1e4, volume.data.shape)
        write(volume.replace(data=loud.astype(np.float32)), image)
        write(labels.replace(data=np.where(labels.data > 0, 200, 0).astype(np.int16)), mask)
        place = next(place for place, line in enumerate(lines) if line.startswith(f"{case},"))
        patient = lines[place].split(",")[1]
        lines[place] = f"{case},{patient},words nobody else says,{'unknown' if number % 2 else 1e6},kind_{case}"
    (source / "cases.csv").write_text("\n".join(lines) + "\n")


def sides(prepared: Prepared) -> dict[str, set[str]]:
    view = prepared.at_fold(0)
    return {side: {case.case for case in view.split(side)} for side in ("train", "holdout", "val", "test")}


def whole_numbers(source: Path) -> None:
    """Store every image as int16, so that the type is something to be learned."""
    for path in (source / "imagesTr").iterdir():
        volume = read(path)
        write(volume.replace(data=np.rint(volume.data).astype(np.int16)), path)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Prepared, Prepared]:
    """The same patients prepared twice; the second time the unseen ones of fold 0 are others in all but geometry."""
    work = tmp_path_factory.mktemp("leaks")
    source = write_dataset(work / "source", 12, (14, 12, 10), OBLIQUE, LABELS)
    whole_numbers(source)
    one = prepared_of(source, work / "one")
    spoil(source, sides(one)["val"] | sides(one)["test"])
    return one, prepared_of(source, work / "two")


def command(prepared: Prepared, out: Path) -> list[str]:
    recipe = out.with_suffix(".yaml")
    recipe.write_text(tiny_recipe(3))
    return ["train", str(recipe), "--data", str(prepared.folder), "--out", str(out), "--fold", "0"]


def traced(prepared: Prepared, out: Path) -> list[str]:
    """Train on fold 0 in a process of its own; return every file it opened."""
    done = subprocess.run(
        [sys.executable, "-c", TRACED, *command(prepared, out)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    code, opened = json.loads(done.stdout.splitlines()[-1])
    assert code == 0, done.stderr
    return opened


def test_no_stage_opens_an_unseen_patient_and_none_decides_a_bit(
    two: tuple[Prepared, Prepared], tmp_path: Path
) -> None:
    one, other = two
    apart = sides(one)
    assert sides(other) == apart and all(apart.values())
    arrays = [Path(path) for path in traced(one, tmp_path / "first") if path.endswith(".npy")]
    opened = {path.stem for path in arrays if one.folder in path.parents}
    cached = {path.stem for path in (tmp_path / "first").rglob("latents/*.npy")}
    assert opened == cached == apart["train"] | apart["holdout"]
    assert main(command(other, tmp_path / "second")) == 0
    first, second = (
        {path.name: path.read_bytes() for path in (tmp_path / name / "model").iterdir()} for name in ("first", "second")
    )
    assert sorted(first) == ["README.md", "patients.json", "recipe.yaml", "weights.safetensors"]
    assert first == second


def test_a_model_folder_names_no_one(model: Path, prepared: Prepared) -> None:
    text = "".join(path.read_bytes().decode("latin-1") for path in sorted(model.iterdir()))
    for case in prepared.cases:
        assert not re.search(rf"\b({case.case}|{case.patient})\b", text)
        assert prepared.digest(case) not in text, "a hash without salt is a name too"
    assert str(prepared.folder) not in text


@pytest.mark.parametrize("channel", ["MR", "CT"])
def test_what_is_learned_is_learned_from_the_fold(channel: str, tmp_path: Path) -> None:
    source = write_dataset(tmp_path / "source", 12, (10, 8, 6), OBLIQUE, LABELS)
    info = json.loads((source / "dataset.json").read_text())
    (source / "dataset.json").write_text(json.dumps({**info, "channel_names": {"0": channel}}))
    whole_numbers(source)
    one = prepared_of(source, tmp_path / "one")
    apart = sides(one)
    spoil(source, apart["val"] | apart["test"])
    other = prepared_of(source, tmp_path / "two")
    assert one.schema != other.schema, "without the fold, its validation patients are trained on"
    first, second = one.at_fold(0), other.at_fold(0)
    assert first.schema == second.schema and first.schema.dtype == "int16"
    assert first.schema.attributes[0].kind == "number"  # although an unseen patient's cell is a word
    for case, twin in zip(first.split("train"), second.split("train"), strict=True):
        assert case == twin
        assert np.array_equal(first.image(case), second.image(twin))


def test_a_ct_image_is_seen_in_the_window_of_its_fold(tmp_path: Path) -> None:
    source = write_dataset(tmp_path / "source", 6, (10, 8, 6), np.eye(4), LABELS)
    info = json.loads((source / "dataset.json").read_text())
    (source / "dataset.json").write_text(json.dumps({**info, "channel_names": {"0": "CT"}}))
    view = prepared_of(source, tmp_path / "data").at_fold(1)
    (window,) = view.schema.intensities
    for case in view.cases:
        native = read(source / f"imagesTr/{case.case}_0000.nii.gz").data
        seen = view.image(case)
        inside = window.invert(seen[:, 1:-1, :, 1:-1])  # the grid is 12 x 8 x 8 around 10 x 8 x 6
        assert np.abs(inside - np.clip(native, window.low, window.high)).max() < 0.01
        part = (slice(2, 5), slice(0, 8), slice(1, 4))
        assert np.array_equal(view.image(case, part), seen[(slice(None), *part)])
