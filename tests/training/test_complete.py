"""What does not fit the data is told before anything is trained."""

from dataclasses import replace
from pathlib import Path

import pytest

from synth import config
from synth.data.prepared import Prepared
from synth.errors import ConfigError
from synth.recipe import Recipe
from synth.training.experiment import Experiment, complete, settled
from tests.conftest import tiny_recipe


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("image.training.patch=[4, 4]", r"image.training.patch is \[4, 4\], the data is 3D; give 3 numbers"),
        ("mask.training.patch=[4, 4, 4, 4]", r"mask.training.patch is \[4, 4, 4, 4\], the data is 3D"),
        ("mask.window=[4, 4]", r"mask.window is \[4, 4\], the data is 3D"),
        ("image.codec={kind: onehot, labels: 1, inner: {kind: identity}}", "image.codec is onehot, which is for masks"),
        ("mask.codec={kind: identity, in_channels: 3}", "mask.codec is identity, masks are label maps; give onehot"),
        ("image.conditioning.width=100", "conditioning.width is 100; where texts are read, give a multiple of 32"),
    ],
)
def test_what_does_not_fit_is_refused(prepared: Prepared, override: str, words: str) -> None:
    recipe = config.load(Recipe, tiny_recipe(3), overrides=[override])
    with pytest.raises(ConfigError, match=words):
        complete(recipe, prepared)


def test_sizes_are_checked_where_a_model_is_tuned_too(prepared: Prepared, model: Path) -> None:
    import synth

    source = synth.load(model).model
    recipe = config.load(Recipe, tiny_recipe(3), overrides=["image.training.patch=[4, 4]"])
    with pytest.raises(ConfigError, match="the data is 3D"):
        settled(recipe, prepared, source)


@pytest.mark.parametrize("said", ["?!", "{patient}"])
def test_texts_without_a_shared_word_are_refused(prepared: Prepared, said: str) -> None:
    cases = tuple(replace(case, text=said.format(patient=case.patient)) for case in prepared.cases)
    silent = replace(prepared, cases=cases)
    recipe = config.load(Recipe, tiny_recipe(3))
    with pytest.raises(ConfigError, match="no word of the training texts is said of two patients"):
        complete(recipe, silent)
    greek = replace(prepared, cases=tuple(replace(case, text="μία βλάβη") for case in prepared.cases))
    assert set(complete(recipe, greek).image.conditioning.vocabulary) == {"μία", "βλάβη"}


def test_a_network_that_cannot_be_is_told_before_the_first_stage(prepared: Prepared, tmp_path: Path) -> None:
    dit = "mask.backbone={kind: dit, width: 8, depth: 1, head: 4}"
    recipe = config.load(Recipe, tiny_recipe(3), overrides=[dit])
    with pytest.raises(ConfigError, match="head is 4; 3D needs at least 6"):
        Experiment(recipe, prepared, tmp_path / "run", lambda _: lambda *_: None).run()
    assert not (tmp_path / "run").exists()
