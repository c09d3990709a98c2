"""A run with MONAI's autoencoder: what starts at random is trained, timed and can be tuned, as ours is."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import synth
from pipelines.cli import run
from synth import codec, config
from synth.codec.config import AutoencoderConfig, MonaiConfig, OneHotConfig, PatchPCAConfig
from synth.data.prepared import Prepared
from synth.recipe import Recipe
from synth.training.finetune import Origin
from synth.training.plan import measure
from tests.conftest import tiny_recipe

OURS = "{kind: autoencoder, in_channels: 1, spatial_dims: 3, stride: 2, channels: 2, width: 8, encoder_blocks: 1, decoder_blocks: 1}"
MONAIS = "{kind: monai_autoencoder, channels: 2, widths: [8, 8], groups: 4}"
FIT = {"steps": 40, "validate_every": 10, "learning_rate": "3.0e-3"}


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    pytest.importorskip("monai")
    assert OURS in tiny_recipe(3)
    overrides = [f"image.codec_training.fit.{name}={value}" for name, value in FIT.items()]
    return config.load(Recipe, tiny_recipe(3).replace(OURS, MONAIS, 1), overrides=overrides)


def test_monais_autoencoder_learns(recipe: Recipe, prepared: Prepared, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(config.dump(recipe))
    command = [str(tmp_path / "recipe.yaml"), "--data", str(prepared.folder), "--out", str(tmp_path / "run")]
    assert run("train", command) == 0
    log = (tmp_path / "run" / "image" / "codec" / "train.jsonl").read_text().splitlines()
    scores = [row["holdout.score"] for row in map(json.loads, log) if "holdout.score" in row]
    assert len(scores) == 4 and scores[-1] < 0.85 * scores[0]
    model = synth.load(tmp_path / "run" / "model").model
    training = replace(model.recipe.image.codec_training, tune=True)
    assert Origin.of(model, prepared).tunes("image", replace(model.recipe.image, codec_training=training))


def test_its_training_is_in_the_plan(recipe: Recipe, prepared: Prepared) -> None:
    assert measure(recipe, prepared, steps=2).stages["image codec"].step_s > 0


def test_a_codec_says_whether_it_is_trained() -> None:
    ours = AutoencoderConfig(in_channels=2, width=8, channels=4)
    linear = PatchPCAConfig(in_channels=2)
    made = [codec.build(kind) for kind in (ours, OneHotConfig(labels=2, inner=ours))]
    assert all(one.trained for one in made)
    assert not any(codec.build(kind).trained for kind in (linear, OneHotConfig(labels=2, inner=linear)))
    pytest.importorskip("monai")
    with torch.device("meta"):
        assert codec.build(MonaiConfig()).trained
