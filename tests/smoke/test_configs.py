"""Every shipped recipe builds, takes two steps of each stage on data of its kind, and makes a sample.

Those with a page in docs/recipes have phantoms of their own shape: test_recipes.py.
"""

import json
from pathlib import Path

import numpy as np
import pytest

import synth
from pipelines.cli import run
from pipelines.configs import shipped
from synth import config
from synth.codec.config import OneHotConfig
from synth.recipe import Recipe
from synth.volume import Volume
from tests.conftest import phantom
from tests.smoke.recipes import SHAPES


def _dataset(folder: Path, recipe: Recipe, *, side: int) -> None:
    """Write phantoms with the channels, dimensions and number of labels that the recipe asks for."""
    codec = recipe.image.codec
    assert not isinstance(codec, OneHotConfig)
    labels = recipe.mask.codec.labels if recipe.mask and isinstance(recipe.mask.codec, OneHotConfig) else 3
    names = {f"label{value}": value for value in range(1, labels)}
    for index in range(4):
        image, core = phantom(index, (side,) * codec.spatial_dims)
        mask = (core * ((index + np.arange(side)) % max(labels // 2, 1) + 1)).clip(0, labels - 1)
        for channel in range(codec.in_channels):
            path = folder / "imagesTr" / f"c{index}_{channel:04d}.nii.gz"
            synth.write(Volume(image[None], np.eye(4)), path)
        synth.write(Volume(mask.astype(np.uint8)[None], np.eye(4)), folder / "labelsTr" / f"c{index}.nii.gz")
    channels = {str(channel): f"channel{channel}" for channel in range(codec.in_channels)}
    info = {"channel_names": channels, "labels": {"background": 0, **names}, "numTraining": 4, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(info))


def _two_steps(recipe: Recipe) -> list[str]:
    parts = ["image"] if recipe.mask is None else ["image", "mask"]
    stages = [f"{part}.{stage}.fit" for part in parts for stage in ("codec_training", "training")]
    return [option for stage in stages for option in ("--set", f"{stage}.steps=2", "--set", f"{stage}.warmup=1")]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(shipped()) - set(SHAPES)))
def test_recipe_takes_two_steps_and_makes_a_sample(name: str, tmp_path: Path) -> None:
    recipe = config.load(Recipe, shipped()[name])
    _dataset(tmp_path / "source", recipe, side=32)
    assert run("prepare", [str(tmp_path / "source"), "--out", str(tmp_path / "data")]) == 0
    command = [name, "--data", str(tmp_path / "data"), "--out", str(tmp_path / "run"), *_two_steps(recipe)]
    assert run("train", command) == 0
    sample = next(synth.load(tmp_path / "run" / "model").generate([synth.Condition()], seeds=[0]))
    assert np.isfinite(sample.image.data).all()
    assert sample.mask is not None and sample.image.grid == sample.mask.grid
