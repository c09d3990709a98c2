"""Configuration: what is written is read back, and every mistake is named with its place."""

from pathlib import Path

import pytest

from pipelines.configs import config_path, shipped
from synth import config
from synth.errors import ConfigError
from synth.recipe import Recipe


def test_shipped_recipes_are_complete_and_round_trip() -> None:
    assert "brain-tiny" in shipped()
    for path in shipped().values():
        recipe = config.load(Recipe, path)
        assert config.load(Recipe, config.dump(recipe)) == recipe


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: x\nimage: {process: {kind: rectified_flow, shfit: 3}}", "image.process.shfit.*did you mean 'shift'"),
        ("name: x\nimgae: {}", "imgae.*did you mean 'image'"),
        ("name: x\nimage: {training: {fit: {learning_rate: 1e-4}}}", "1.0e-4"),
        ("name: x\nimage: {codec: {kind: wavelet}}", "wavelet"),
        ("image: {}", "name: is missing"),
        ("name: x\nimage: {steps: 0}", "steps is 0"),
        ("name: [x", "not valid YAML"),
        ("- a", "no fields"),
    ],
)
def test_mistakes_are_named(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        config.load(Recipe, text)
    assert "\n" not in str(caught.value)


def test_overrides() -> None:
    recipe = config.load(Recipe, "name: x", overrides=["image.training.fit.steps=7", "seed=3"])
    assert recipe.image.training.fit.steps == 7 and recipe.seed == 3
    with pytest.raises(ConfigError, match="no value"):
        config.load(Recipe, "name: x", overrides=["seed"])


def test_unknown_recipes_name_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'brain-tiny'"):
        config_path("brain-tny")
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(Recipe, tmp_path / "gone.yaml")
