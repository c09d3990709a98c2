"""`synth train auto`: from a dataset to a model without a recipe, and what it says on the way."""

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import synth
from pipelines.cli import main
from pipelines.train import planned
from synth.data.preparation import voxels_for
from synth.data.prepared import Prepared
from tests.conftest import write_dataset

SMALL = [
    f"{part}.{field}.fit.{name}={value}"
    for part in ("image", "mask")
    for field in ("codec_training", "training")
    for name, value in (("precision", "fp32"), ("log_every", "100"))
] + [
    f"{part}.{field}=2"
    for part in ("image", "mask")
    for field in ("codec_training.batch", "training.patch_batch", "training.whole_batch")
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared 2D dataset of eight cases."""
    work = tmp_path_factory.mktemp("auto")
    write_dataset(work / "source", 8, (24, 20), np.diag([1.2, 1.2, 1.0, 1.0]), {"shell": 3, "core": 200})
    assert main(["prepare", str(work / "source"), "--out", str(work / "data"), "--budget", "20m"]) == 0
    return work / "data"


def _auto(data: Path, out: Path, *options: str) -> int:
    return main(["train", "auto", "--data", str(data), "--out", str(out), *options])


def test_prepare_writes_a_plan_that_trains(data: Path, tmp_path: Path) -> None:
    few = [f"{part}.{field}.fit.steps=2" for part in ("image", "mask") for field in ("codec_training", "training")]
    sets = [item for name in few for item in ("--set", name)]
    assert main(["train", str(data / "plan.yaml"), "--data", str(data), "--out", str(tmp_path / "run"), *sets]) == 0
    sample = next(synth.load(tmp_path / "run" / "model").generate([synth.Condition()], seeds=[0]))
    assert sample.image.grid == (24, 20)


def test_a_dry_run_says_hours_and_memory_and_writes_nothing(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(os.walk(data))
    assert _auto(data, tmp_path / "run", "--dry-run", "--budget", "30m") == 0
    said = capsys.readouterr().out
    assert all(stage in said for stage in ("image codec", "mask codec", "mask generator", "image generator"))
    assert "in all" in said and "GB of" in said
    assert not (tmp_path / "run").exists() and sorted(os.walk(data)) == before


def test_auto_plans_once_and_goes_on_with_its_plan(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for stage in ("image codec", "mask codec", "mask generator", "image generator"):
        monkeypatch.setitem(__import__("synth.training.plan", fromlist=["_"])._MOST_STEPS, stage, 41)
    sets = [item for name in SMALL for item in ("--set", name)]
    assert _auto(data, tmp_path / "run", "--budget", "30m", *sets) == 0
    said, plan = capsys.readouterr().out, (tmp_path / "run" / "plan.yaml").read_bytes()
    assert "s a step" in said and "model in" in said
    assert _auto(data, tmp_path / "run") == 0
    assert "going on with" in capsys.readouterr().out
    assert (tmp_path / "run" / "plan.yaml").read_bytes() == plan
    assert _auto(data, tmp_path / "run", "--budget", "30m", *sets) == 0, "the same command goes on"
    assert "going on with" in capsys.readouterr().out
    for other in (["--budget", "1h"], ["--set", "image.steps=3"]):
        assert _auto(data, tmp_path / "run", *other) == 2
        assert "was planned with" in capsys.readouterr().err
    assert (tmp_path / "run" / "plan.yaml").read_bytes() == plan


def test_auto_starts_from_the_datas_plan_and_budget(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(data, mine)
    plan = (mine / "plan.yaml").read_text()
    (mine / "plan.yaml").write_text(plan.replace("mask_width: 96", "mask_width: 40"))
    assert _auto(mine, tmp_path / "run", "--dry-run") == 0
    within = re.search(r"in all (\d+) min", capsys.readouterr().out)
    assert within is not None and int(within[1]) <= 22, "the budget is the one the data was prepared for"
    recipe = planned(Prepared.load(mine))
    assert recipe.image.conditioning.mask_width == 40
    (mine / "plan.yaml").write_text(plan.replace("mask_width: 96", "mask_wide: 96"))
    assert _auto(mine, tmp_path / "run", "--dry-run") == 2
    assert "mask_wide" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--budget", "soon"], "--budget is 'soon'"),
        (["--budget", "0m"], "--budget is '0m'"),
        (["--budget", "20x"], "--budget is '20x'"),
        (["--budget", "0"], "--budget is '0'"),
        (["--budget", ""], "--budget is ''"),
        (["--budget=-5m"], "--budget is '-5m'"),
    ],
)
def test_bad_budgets_are_refused_before_anything_is_read(
    tmp_path: Path, options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The data is not even there: what is said is of the budget."""
    assert _auto(tmp_path / "absent", tmp_path / "run", *options) == 2
    assert words in capsys.readouterr().err and not (tmp_path / "run").exists()
    assert main(["prepare", str(tmp_path / "absent"), "--out", str(tmp_path / "data"), *options]) == 2
    assert words in capsys.readouterr().err and not (tmp_path / "data").exists()


def test_a_bad_budget_of_the_data_is_refused_before_stages_are_timed(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = Path(shutil.copytree(data, tmp_path / "data"))
    (mine / "plan.json").write_text('{"budget": "20x"}')
    monkeypatch.setattr("pipelines.train._measured", lambda *_: pytest.fail("stages were timed"))
    assert _auto(mine, tmp_path / "run") == 2
    assert "--budget is '20x'" in capsys.readouterr().err
    for content, said in (
        ('{"budget": 2}', "budget should be"),
        ("{}", "budget"),
        ("[]", "it is no object"),
        ("{", ""),
    ):
        (mine / "plan.json").write_text(content)
        assert _auto(mine, tmp_path / "run") == 2
        told = capsys.readouterr().err
        assert f"{mine / 'plan.json'} line 1 is broken ({said}" in told and "give --budget, or prepare again" in told
    begun = tmp_path / "begun"
    begun.mkdir()
    shutil.copy(data / "plan.yaml", begun)
    (begun / "plan.json").write_text('{"budget": null,\n "set": 3}')  # a run's is read in the same words
    assert _auto(data, begun) == 2
    told = capsys.readouterr().err
    assert f"{begun / 'plan.json'} line 2 is broken (set should be" in told and "give another --out" in told


def test_precision_is_that_of_every_stage_and_belongs_to_the_ask(data: Path, tmp_path: Path) -> None:
    few = [f"{part}.{field}.fit.steps=2" for part in ("image", "mask") for field in ("codec_training", "training")]
    sets = [item for name in (*few, "image.training.fit.precision=fp32") for item in ("--set", name)]
    run = ("train", str(data / "plan.yaml"), "--data", str(data), "--out", str(tmp_path / "run"), *sets)
    assert main([*run, "--precision", "bf16"]) == 0
    recipe = synth.load(tmp_path / "run" / "model").model.recipe
    assert recipe.mask is not None
    stages = [recipe.image.codec_training, recipe.mask.codec_training, recipe.mask.training]
    assert [stage.fit.precision for stage in stages] == ["bf16"] * 3
    assert recipe.image.training.fit.precision == "fp32", "--set is the last word"
    assert main([*run, "--precision", "fp16"]) == 2


def test_a_recipe_has_no_budget(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "brain-tiny", "--data", str(data), "--out", str(tmp_path / "run"), "--budget", "1h"]) == 2
    assert "train auto" in capsys.readouterr().err


def test_fine_data_is_worked_on_coarser_and_written_on_its_own_grid(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    affine = np.diag([0.8, 0.8, 5.0, 1.0])
    write_dataset(tmp_path / "source", 3, (80, 80, 12), affine, {"shell": 3, "core": 200})
    data = str(tmp_path / "data")
    assert main(["prepare", str(tmp_path / "source"), "--out", data, "--budget", "30s"]) == 0
    schema = Prepared.load(data).schema
    assert np.prod(schema.grid) < 1.3 * voxels_for(30) and schema.spacing_mm[2] == 5.0 and schema.spacing_mm[0] > 0.8
    assert schema.native_grid == (80, 80, 12) and "coarser than the data" in capsys.readouterr().out
    few = [f"{part}.{field}.fit.steps=2" for part in ("image", "mask") for field in ("codec_training", "training")]
    sets = [item for name in few for item in ("--set", name)]
    run = str(tmp_path / "run")
    assert main(["train", str(Path(data) / "plan.yaml"), "--data", data, "--out", run, *sets]) == 0
    sample = next(synth.load(Path(run) / "model").generate([synth.Condition()], seeds=[0]))
    assert sample.mask is not None
    for volume in (sample.image, sample.mask):
        assert volume.grid == (80, 80, 12) and np.allclose(volume.spacing_mm, (0.8, 0.8, 5.0))
    assert set(np.unique(sample.mask.data)) <= {0, 3, 200}
