"""Laws of a run's folder: it goes on with what it was begun with, and says what is other."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.cli import main
from synth import config
from synth.data.prepared import Prepared
from synth.data.seen import Seen
from synth.errors import ConfigError
from synth.recipe import Recipe
from synth.training.claim import claim, facts
from synth.training.experiment import complete
from synth.training.team import ALONE
from tests.conftest import tiny_recipe


def begin(path: Path, prepared: Prepared, *overrides: str) -> None:
    recipe = complete(config.load(Recipe, tiny_recipe(3), overrides=overrides), prepared)
    claim(path, facts(prepared, Seen.of(prepared, seed=recipe.seed), None, recipe), ALONE)


@pytest.mark.parametrize(
    "override",
    [
        "image.process.prediction=velocity",
        "image.conditioning.drop=0.2",
        "image.codec.kl=0.5",
        "mask.codec.balance=0.1",
        "mask.training.patch_batch=3",
        "image.codec_training.pca_volumes=2",
    ],
)
def test_another_recipe_is_refused_by_field(prepared: Prepared, tmp_path: Path, override: str) -> None:
    path, name = tmp_path / "data.json", override.split("=")[0]
    begin(path, prepared)
    begun = path.read_bytes()
    with pytest.raises(ConfigError, match=f"was begun with {name} = .*, now it is .*; go on with the config"):
        begin(path, prepared, override)
    assert path.read_bytes() == begun


def test_how_a_model_is_sampled_may_change(prepared: Prepared, tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    begin(path, prepared)
    begin(
        path, prepared, "image.steps=5", "image.sampler.kind=heun", "mask.guidance={class: 2.0}", "image.texture=false"
    )


def test_a_part_may_join_and_none_may_leave(prepared: Prepared, tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    begin(path, prepared, "mask=null")
    begin(path, prepared)
    with pytest.raises(ConfigError, match=r"mask\.process\.prediction"):
        begin(path, prepared, "mask.process.prediction=clean")
    with pytest.raises(ConfigError, match="was begun with a part 'mask', the config has none"):
        begin(path, prepared, "mask=null")


def test_a_run_that_does_not_say_its_recipe_goes_on(prepared: Prepared, tmp_path: Path) -> None:
    """As runs were begun before recipes stood in data.json, and before schemas said that 2D data were turned."""
    path = tmp_path / "data.json"
    prepared = replace(prepared, schema=replace(prepared.schema, directed=False))
    begin(path, prepared)
    told = json.loads(path.read_text())
    schema = config.plain(prepared.schema)
    assert schema.pop("directed") is False
    seen = Seen.of(prepared, seed=0).dump()
    assert told["data"] == hashlib.sha256(seen + config.dump(schema).encode()).hexdigest()
    path.write_text(json.dumps({name: told[name] for name in ("fold", "data")}))
    for override in ("image.process.prediction=velocity", "image.process.prediction=clean"):
        begin(path, prepared, override)


def test_mended_texts_are_other_data(prepared: Prepared, tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    begin(path, prepared)
    first = next(case for case in prepared.cases if case.split == "train")
    mended = replace(first, attributes={**first.attributes, "size": 2.5})
    cases = tuple(mended if case is first else case for case in prepared.cases)
    with pytest.raises(ConfigError, match="other masks, texts or attributes"):
        begin(path, replace(prepared, cases=cases))


def test_a_finished_run_is_not_written_over_by_another_recipe(
    model: Path, prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, recipe = tmp_path / "run", tmp_path / "r.yaml"
    shutil.copytree(model.parent, run)
    recipe.write_text(tiny_recipe(3))
    weights = (run / "model" / "weights.safetensors").read_bytes()
    command = ["train", str(recipe), "--data", str(prepared.folder), "--out", str(run)]
    assert main([*command, "--set", "image.process.prediction=velocity"]) == 2
    assert "image.process.prediction" in capsys.readouterr().err
    assert main(command) == 0
    assert (run / "model" / "weights.safetensors").read_bytes() == weights


def test_without_hold_out_patients_a_run_says_so_and_goes_to_its_end(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, recipe = tmp_path / "data", tmp_path / "r.yaml"
    assert main(["prepare", str(dataset), "--out", str(data), "--holdout", "0", "--test", "0.25"]) == 0
    recipe.write_text(tiny_recipe(3))
    command = ["train", str(recipe), "--data", str(data), "--out", str(tmp_path / "run")]
    assert main([*command, "--set", "image.training.fit.patience=1", "--set", "mask=null"]) == 0
    assert "no hold-out patients" in capsys.readouterr().out
    done = json.loads((tmp_path / "run" / "image" / "flow" / "done.json").read_text())
    assert done["steps"] == 6 and done["early"] is None
