"""`synth train --from`: from a model and other data to a model of both, resumed exactly, its patients told."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import synth
from pipelines.cli import main
from synth import config
from synth.data.prepared import Prepared
from synth.data.seen import read_seen
from synth.recipe import Recipe
from synth.training import plan
from synth.training.experiment import Experiment
from synth.training.finetune import continued
from synth.training.fit import Report
from synth.training.timing import Cost
from tests.conftest import write_dataset
from tests.laws.dying import files

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Six cases of other patients: `core` under another value, a label `rim` the model lacks, one level more."""
    work = tmp_path_factory.mktemp("other")
    write_dataset(work / "source", 6, (12, 14, 10), np.diag([2.0, 2.0, 3.0, 1.0]), {"core": 1, "rim": 2})
    table = work / "source" / "cases.csv"
    rows = list(csv.reader(table.read_text().splitlines()))
    changed = [[f"new {cell}" if cell == "a" else cell for cell in row] for row in rows]
    for row in changed[1:]:
        row[1] = f"other {row[1]}"
    table.write_text("\n".join(",".join(row) for row in changed) + "\n")
    assert main(["prepare", str(work / "source"), "--out", str(work / "data"), "--test", "0.34"]) == 0
    return Prepared.load(work / "data")


def train(data: Prepared, out: Path, *options: str) -> int:
    return main(["train", options[0], "--data", str(data.folder), "--out", str(out), *options[1:]])


def test_a_model_takes_up_other_data(
    model: Path, other: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert train(other, run, "same", "--from", str(model)) == 0
    told = capsys.readouterr().out
    assert "new to the model: rim" in told and "image codec: the model's, kept; mean error" in told
    assert not (run / "image" / "codec").exists() and (run / "mask" / "codec" / "done.json").is_file()
    generator = synth.load(run)
    schema = generator.model.recipe.schema
    assert schema is not None and generator.model.recipe.name == "tiny-tuned"
    assert schema.label_values == {"shell": 3, "core": 1, "rim": 2}
    assert schema.population == "source" and schema.grid == other.schema.grid
    asks = [synth.Condition(attributes={"kind": kind}, text="round thing") for kind in ("a", "new a", "b")]
    for sample in generator.generate(asks, seeds=range(3)):
        assert sample.mask is not None and np.isfinite(sample.image.data).all()
    assert main(["info", str(run / "model")]) == 0
    assert "; fine-tuned from a model of 4 cases" in capsys.readouterr().out
    assert main(["generate", str(run), "--out", str(tmp_path / "set"), "--count", "2", "--workers", "1"]) == 0
    mine, before = read_seen(tmp_path / "set"), read_seen(model)
    assert mine is not None and before is not None and mine.source == before
    evaluated = ["evaluate", "--synthetic", str(tmp_path / "set"), "--data", str(other.folder)]
    capsys.readouterr()
    code = main([*evaluated, "--out", str(tmp_path / "report"), "--judge-steps", "0"])
    assert code == 2 and "label 'shell' of case" in capsys.readouterr().err  # made by a model of few steps


def test_training_on_the_same_data_is_judged_on_it(model: Path, prepared: Prepared, tmp_path: Path) -> None:
    tune = ("--set", "image.codec_training.tune=true")
    assert train(prepared, tmp_path / "run", "same", "--from", str(model.parent), *tune) == 0
    assert (tmp_path / "run" / "image" / "codec" / "done.json").is_file()
    before, after = (synth.load(folder).model.image.codec for folder in (model, tmp_path / "run"))
    assert np.array_equal(before.latent_std, after.latent_std), "the flow knows the latents by this whitening"
    assert main(["generate", str(tmp_path / "run"), "--out", str(tmp_path / "set"), "--count", "2"]) == 0
    evaluated = ["evaluate", "--synthetic", str(tmp_path / "set"), "--data", str(prepared.folder)]
    assert main([*evaluated, "--out", str(tmp_path / "report"), "--judge-steps", "0"]) == 0
    notes = json.loads((tmp_path / "report" / "report.json").read_text())["notes"]
    assert not any("fine-tuned" in note for note in notes), "whom its source saw is all there"


def test_a_generator_of_no_steps_is_kept_and_says_how_it_was_trained(
    model: Path, other: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep = ("--set", "image.training.fit.steps=0")
    assert train(other, tmp_path / "dry", "same", "--from", str(model), *keep, "--dry-run") == 0
    assert "image generator" not in capsys.readouterr().out
    assert train(other, tmp_path / "run", "same", "--from", str(model), *keep) == 0
    assert "image generator: the model's, kept" in capsys.readouterr().out
    assert not (tmp_path / "run" / "image" / "latents").exists()
    before, after = (synth.load(folder).model for folder in (model, tmp_path / "run"))
    assert after.recipe.image.training == before.recipe.image.training
    assert before.mask is not None and after.mask is not None
    for part, same in (("image", True), ("mask", False)):
        old, new = (parts.parts()[part].flow.denoiser.state_dict() for parts in (before, after))
        assert all(torch.equal(old[name], new[name]) for name in old) == same


def test_no_steps_without_a_model_to_keep_are_refused(
    model: Path, prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = str(prepared.folder.parent / "tiny.yaml")
    codec = "image.codec_training.fit.steps"
    for steps, more in (("mask.training.fit.steps", ()), (codec, ()), (codec, ("--from", str(model)))):
        assert train(prepared, tmp_path / "run", tiny, "--set", f"{steps}=0", *more) == 2
        assert f"{steps} is 0, which keeps the generator of a model to start from" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_stopped_in_any_stage_and_resumed_equals_uninterrupted(model: Path, other: Prepared, tmp_path: Path) -> None:
    source = synth.load(model).model
    recipe = config.load(Recipe, config.dump(continued(source.recipe)))

    def quiet(_stage: str) -> Report:
        return lambda *_: None

    def stopping(at: str, step: int):  # noqa: ANN202 - a StageReport
        def report(stage: str) -> Report:
            def told(done: int, *_: object) -> None:
                if (stage, done) == (at, step):
                    raise KeyboardInterrupt

            return told

        return report

    Experiment(recipe, other, tmp_path / "whole", quiet, source=source).run()
    for at, step in (("mask codec", 3), ("mask latents", 2), ("mask generator", 1), ("image generator", 4)):
        with pytest.raises(KeyboardInterrupt):
            Experiment(recipe, other, tmp_path / "cut", stopping(at, step), source=source).run()
    Experiment(recipe, other, tmp_path / "cut", quiet, source=source).run()
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


def test_a_run_goes_on_only_from_its_own_model(
    model: Path, other: Prepared, prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, few = tmp_path / "run", ("--set", "image.training.fit.steps=1", "--set", "mask.training.fit.steps=1")
    assert train(other, run, "same", "--from", str(model), *few) == 0
    before = files(run)
    tiny = str(prepared.folder.parent / "tiny.yaml")
    for options, words in (
        (("same", "--from", str(run), *few), "was begun from model"),
        ((tiny, "--set", "mask.codec.labels=3"), "was begun on other data|was begun from model .* from no model"),
        (
            ("same", "--from", str(model), *few, "--set", "image.codec_training.tune=true"),
            "training on the codecs mask",
        ),
        (("same",), "`same` is the recipe of the model to start from; give --from MODEL"),
        (("same", "--from", str(tmp_path / "nothing")), "no model folder or bundled model"),
    ):
        capsys.readouterr()
        assert train(other, run, *options) == 2
        said = capsys.readouterr().err
        assert re.search(words, said), said
        assert said.count("\n") == 1
    assert files(run) == before
    anew = prepared.folder.parent / "run"
    capsys.readouterr()
    assert train(prepared, anew, tiny, "--from", str(model)) == 2
    assert "was begun from no model" in capsys.readouterr().err


def test_auto_plans_with_the_models_networks(
    model: Path,
    other: Prepared,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    assert train(other, run, "auto", "--from", str(model), "--budget", "1h", "--dry-run") == 0
    told = capsys.readouterr().out
    assert "mask codec" in told and "image codec" not in told and not run.exists()
    cost = Cost(step_s=1.0, validation_s=0.0, peak_gb=0.1, hours=0.0)
    stages = dict.fromkeys(("mask codec", "mask generator", "image generator"), cost)
    monkeypatch.setattr(plan, "measure", lambda *_, **__: plan.Estimate(stages=stages, encoding_s=0.0))
    monkeypatch.setattr(plan, "_LEAST_STEPS", 12)
    assert train(other, run, "auto", "--from", str(model), "--budget", "160s") == 0
    planned = config.load(Recipe, run / "plan.yaml")
    source = synth.load(model).model.recipe
    assert planned.image.backbone == source.image.backbone and planned.image.training.fit.patience == 3
    assert train(other, run, "auto", "--from", str(model)) == 0  # goes on: done
    assert synth.load(run).model.recipe.image.codec == source.image.codec


@pytest.mark.skipif(not (ROOT / "synth" / "assets" / "brain-tiny").is_dir(), reason="the bundled model is not here")
@pytest.mark.parametrize("records", [True, False])
def test_the_bundled_model(tmp_path: Path, capsys: pytest.CaptureFixture[str], *, records: bool) -> None:
    named = "brain-tiny"
    if not records:  # as models of before are
        named = str(shutil.copytree(ROOT / "synth" / "assets" / "brain-tiny", tmp_path / "brain-tiny"))
        (tmp_path / "brain-tiny" / "patients.json").unlink()
    source = write_dataset(tmp_path / "source", 4, (16, 16, 16), 2.6 * np.eye(4), {"lesion": 1, "oedema": 2})
    assert main(["prepare", str(source), "--out", str(tmp_path / "data")]) == 0
    stages = ("mask.codec_training", "mask.training", "image.training")
    few = [word for stage in stages for word in ("--set", f"{stage}.fit.steps=2")]
    capsys.readouterr()
    line = ["train", "same", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "run"), "--from", named]
    assert main([*line, *few]) == 0
    told = capsys.readouterr().out
    assert ("brain-tiny does not record whom it was trained on" in told) != records and "oedema" in told
    schema = synth.load(tmp_path / "run").model.recipe.schema
    assert schema is not None and schema.population == "source, after simulated cohort"
    assert schema.label_values == {"csf": 5, "gm": 6, "wm": 3, "lesion": 1, "oedema": 2}
    assert main(["info", str(tmp_path / "run" / "model")]) == 0
    told = capsys.readouterr().out
    source_told = "fine-tuned from a model of 288 cases" if records else "fine-tuned from brain-tiny ("
    assert source_told in told and ("whose cases are not recorded" in told) != records
    flat = write_dataset(tmp_path / "flat", 4, (16, 16), np.eye(4), {"lesion": 1, "x": 2})
    assert main(["prepare", str(flat), "--out", str(tmp_path / "flat data")]) == 0
    line = [
        "train",
        "auto",
        "--data",
        str(tmp_path / "flat data"),
        "--out",
        str(tmp_path / "no"),
        "--from",
        "brain-tiny",
    ]
    capsys.readouterr()
    assert main(line) == 2
    assert "the model is 3D, the data 2D" in capsys.readouterr().err and not (tmp_path / "no").exists()
