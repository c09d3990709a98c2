"""A CT phantom from prepare to evaluate: HU, type, oblique geometry and labels 0, 1, 3, 200 come out as they went in."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from benchmarks.real_datasets import CT_LABELS, ct_phantom, files_of, write_ct
from pipelines.cli import main
from synth.data.intensity import Window
from synth.data.prepared import Prepared
from tests.conftest import tiny_recipe

GRID = (28, 22, 10)
PATIENTS = 6


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder after every command: source, data, run, given, free, report."""
    work = tmp_path_factory.mktemp("ct")
    source = str(write_ct(work / "source", PATIENTS, GRID))
    (work / "tiny.yaml").write_text(tiny_recipe(3))
    data, model = str(work / "data"), str(work / "run" / "model")
    labels = ["--set", "mask.codec.labels=4", "--set", "mask.codec.inner.in_channels=4"]
    made = ["--seed", "3", "--workers", "1"]
    assert main(["prepare", source, "--out", data, "--patients", r"(p\d+)_"]) == 0
    assert main(["train", str(work / "tiny.yaml"), "--data", data, "--out", str(work / "run"), *labels]) == 0
    asked = ["generate", model, "--out", str(work / "given"), "--count", str(PATIENTS + 1), "--masks", source]
    assert main([*asked, *made]) == 0
    assert main(["generate", model, "--out", str(work / "free"), "--count", "2", *made]) == 0
    judge = [
        "evaluate",
        "--synthetic",
        str(work / "given"),
        "--data",
        data,
        "--out",
        str(work / "report"),
        "--judge-steps",
        "5",
    ]
    assert main(judge) == 0
    return work


def test_geometry_and_type_are_those_of_the_masks(work: Path) -> None:
    made, source = files_of(work / "given"), files_of(work / "source")
    assert len(made) == PATIENTS + 1  # masks are followed in turn
    for number, pair in enumerate(made):
        asked = nibabel.load(source[number % PATIENTS][1])
        for path in pair:
            own = nibabel.load(path)
            assert own.shape == asked.shape == GRID
            assert np.abs(own.affine - asked.affine).max() <= 1e-4
            assert np.abs(own.get_qform() - asked.affine).max() <= 1e-4
        assert nibabel.load(pair[0]).get_data_dtype() == np.int16


def test_labels_come_back_by_name(work: Path) -> None:
    info = json.loads((work / "given" / "dataset.json").read_text())
    assert info["channel_names"] == {"0": "CT"}
    assert info["labels"] == {"background": 0, "lung": 1, "soft_tissue": 2, "bone": 3}
    assert info["synth_label_values"] == CT_LABELS == {"lung": 1, "soft_tissue": 3, "bone": 200}
    for number, (_, mask) in enumerate(files_of(work / "given")):
        own = np.asarray(nibabel.load(mask).dataobj)
        asked = np.asarray(nibabel.load(files_of(work / "source")[number % PATIENTS][1]).dataobj)
        for name, value in {"background": 0, **CT_LABELS}.items():
            assert np.array_equal(own == info["labels"][name], asked == value)
    assert main(["prepare", str(work / "given"), "--out", str(work / "again")]) == 0
    assert Prepared.load(work / "again").schema.label_values == {"lung": 1, "soft_tissue": 2, "bone": 3}


def test_units_are_hounsfield_inside_the_window(work: Path) -> None:
    prepared = Prepared.load(work / "data")
    (window,) = prepared.schema.intensities
    assert isinstance(window, Window) and window.low == -1024.0 and 700 < window.high < 1500
    for index, case in enumerate(prepared.cases):
        phantom = ct_phantom(index, GRID)
        values = window.invert(np.asarray(prepared.image(case)))
        assert float(values.max()) == pytest.approx(window.high) and phantom.image.max() == 3000
        native = np.sort(phantom.image[phantom.image < window.high].ravel())
        inside = np.sort(values[values < window.high - 0.25].ravel())
        assert np.abs(inside[-native.size :] - native).max() < 0.25  # what is more is air around the field of view
    for folder in ("given", "free"):
        for image, _ in files_of(work / folder):
            values = np.asarray(nibabel.load(image).dataobj)
            assert values.min() >= -1024 and values.max() <= round(window.high)


def test_generated_masks_and_report(work: Path) -> None:
    schema = Prepared.load(work / "data").schema
    for pair in files_of(work / "free"):
        for path in pair:
            own = nibabel.load(path)
            assert own.shape == schema.grid and np.abs(own.affine - schema.reference_affine).max() <= 1e-4
        assert set(np.unique(np.asarray(nibabel.load(pair[1]).dataobj))) <= {0, 1, 2, 3}
    report = json.loads((work / "report" / "report.json").read_text())
    assert report["population"] == "CT_phantom"
    assert len(report["judged"]) == 2 * (PATIENTS + 1) + 2, "pairs, dataset.json and manifest.jsonl"
