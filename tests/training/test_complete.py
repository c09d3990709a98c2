"""What does not fit the data is told before anything is trained."""

import re
import sys
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
        ("mask.window=[4, 4, 4, 4]", r"mask.window is \[4, 4, 4, 4\], the data is 3D"),
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


def test_a_patch_of_more_axes_is_cut_as_the_default_is_in_2d(prepared: Prepared) -> None:
    flat = replace(prepared, schema=replace(prepared.schema, grid=(16, 16), spacing_mm=(1.0, 1.0)))
    recipe = config.load(Recipe, re.sub(r"patch: \[[^\]]*\], ", "", tiny_recipe(2)))
    assert len(complete(recipe, flat).image.training.patch) == 3


def test_sizes_are_checked_where_a_model_is_tuned_too(prepared: Prepared, model: Path) -> None:
    import synth

    source = synth.load(model).model
    recipe = config.load(Recipe, tiny_recipe(3), overrides=["image.training.patch=[4, 4]"])
    with pytest.raises(ConfigError, match="the data is 3D"):
        settled(recipe, prepared, source)


@pytest.mark.parametrize("said", ["?!", "{patient}"])
def test_texts_without_a_shared_word_are_none(
    prepared: Prepared, tmp_path: Path, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = tuple(replace(case, text=said.format(patient=case.patient)) for case in prepared.cases)
    silent = replace(prepared, cases=cases)
    recipe = config.load(Recipe, tiny_recipe(3))
    assert complete(recipe, silent).image.conditioning.vocabulary == ()
    told: list[str] = []
    begun = Experiment(recipe, silent, tmp_path, lambda _: lambda *_: None, told.append)
    monkeypatch.setattr(Experiment, "_codec", lambda *_: sys.exit())
    with pytest.raises(SystemExit):
        begun.run()
    assert told == ["no word of the texts is said of two patients: the model reads no texts"]
    encoded = config.load(Recipe, tiny_recipe(3), overrides=[f"image.conditioning.text_encoder={tmp_path}"])
    with pytest.raises(ConfigError, match="no texts in which two patients share a word"):
        complete(encoded, silent)
    greek = replace(prepared, cases=tuple(replace(case, text="μία βλάβη") for case in prepared.cases))
    assert set(complete(recipe, greek).image.conditioning.vocabulary) == {"μία", "βλάβη"}


def test_a_network_that_cannot_be_is_told_before_the_first_stage(prepared: Prepared, tmp_path: Path) -> None:
    dit = "mask.backbone={kind: dit, width: 8, depth: 1, head: 4}"
    recipe = config.load(Recipe, tiny_recipe(3), overrides=[dit])
    with pytest.raises(ConfigError, match="head is 4; 3D needs at least 6"):
        Experiment(recipe, prepared, tmp_path / "run", lambda _: lambda *_: None).run()
    assert not (tmp_path / "run").exists()
