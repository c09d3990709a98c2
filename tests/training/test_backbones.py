"""A run of a few steps with each other backbone: training, model folder and samples go through as with ours."""

from pathlib import Path

import numpy as np
import pytest

import synth
from pipelines.cli import run
from synth.data.prepared import Prepared
from synth.sample import Condition
from tests.conftest import tiny_recipe

UNET = "{kind: unet, widths: [8, 8], blocks: [1, 1], attention: [1], head: 8, time_width: 16}"
OTHERS = {
    "dit": "{kind: dit, width: 16, depth: 1, head: 8, hidden: 2, time_width: 16, checkpoint: true}",
    "monai_unet": "{kind: monai_unet, widths: [8, 8], blocks: [1, 1], attention: [1], head: 8, groups: 4, context: 8}",
}


@pytest.mark.parametrize("kind", OTHERS)
def test_two_steps_and_the_same_sample_after_a_journey(prepared: Prepared, tmp_path: Path, kind: str) -> None:
    if kind == "monai_unet":
        pytest.importorskip("einops")
    recipe = tiny_recipe(3)
    assert UNET in recipe
    recipe = recipe.replace(UNET, OTHERS[kind]).replace(
        "{mask_width: 8, width: 8}", "{mask_width: 8, width: 8, geometry: true}"
    )
    (tmp_path / "recipe.yaml").write_text(recipe)
    options = ["--data", str(prepared.folder), "--out", str(tmp_path / "run")]
    for part in ("image", "mask"):
        options += ["--set", f"{part}.codec_training.fit.steps=2", "--set", f"{part}.training.fit.steps=2"]
    assert run("train", [str(tmp_path / "recipe.yaml"), *options]) == 0
    generator = synth.load(tmp_path / "run" / "model")
    assert generator.model.recipe.image.backbone.kind == kind
    synth.save(generator, tmp_path / "copy")
    ask = [Condition(text="a round thing", attributes={"kind": "a"})]
    first = next(generator.generate(ask, seeds=[1]))
    second = next(synth.load(tmp_path / "copy").generate(ask, seeds=[1]))
    assert np.isfinite(first.image.data).all() and first.image.data.tobytes() == second.image.data.tobytes()
