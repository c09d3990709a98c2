"""What a user can ask of samplers and of training's pairing of noise, by command."""

import json
from pathlib import Path

import pytest

from pipelines.cli import run
from synth.checkpoint import read_recipe
from synth.data.prepared import Prepared
from synth.sampler import SAMPLERS
from synth.training.config import Coupling
from tests.conftest import tiny_recipe


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_can_be_asked_for_by_name(name: str, model: Path, tmp_path: Path) -> None:
    asked = ["--count", "1", "--workers", "1", "--sampler", name, "--steps", "3"]
    images = []
    for out in (tmp_path / "one", tmp_path / "two"):
        assert run("generate", [str(model), "--out", str(out), *asked]) == 0
        images.append((out / "imagesTr" / "syn_00000_0000.nii.gz").read_bytes())
    assert json.loads((tmp_path / "one" / "manifest.jsonl").read_text())["sampler"] == name
    assert images[0] == images[1]  # fresh noise, too, is the seed's


def test_training_can_pair_noise_with_data(prepared: Prepared, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(tiny_recipe(3))
    stages = [f"{part}.{stage}.fit.steps=2" for part in ("image", "mask") for stage in ("codec_training", "training")]
    options = [word for stage in stages for word in ("--set", stage)]
    options += ["--set", "mask.training.coupling.kind=minibatch_ot"]
    command = [str(tmp_path / "tiny.yaml"), "--data", str(prepared.folder), "--out", str(tmp_path / "run"), *options]
    assert run("train", command) == 0
    recipe = read_recipe(tmp_path / "run" / "model")
    assert recipe.mask is not None and recipe.mask.training.coupling == Coupling()
    assert recipe.image.training.coupling is None
