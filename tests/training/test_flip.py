"""Flips: a flipped volume brings its own latents, mask and place, and no others do."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from synth import config
from synth.codec import IdentityConfig, build
from synth.data.prepared import Prepared
from synth.data.seen import Seen
from synth.errors import ConfigError
from synth.recipe import FlowTraining, Recipe
from synth.training.claim import claim, facts
from synth.training.codec_stage import Pixels, cache_latents, latents_path
from synth.training.config import FitConfig
from synth.training.experiment import complete, settled
from synth.training.flow_stage import Crop, Latents, plan_windows
from synth.training.team import ALONE
from tests.conftest import tiny_recipe


def test_a_flipped_window_is_the_window_of_the_flipped_volume(prepared: Prepared, tmp_path: Path) -> None:
    codec = build(IdentityConfig(in_channels=len(prepared.schema.channels), spatial_dims=3))
    cache_latents(codec, Pixels(prepared, "image"), tmp_path, flip=(0, 2))
    latents = Latents(prepared, tmp_path, 1, masks=True)
    case, origin, grid = prepared.split("train")[0], (1, 2, 3), (4, 5, 6)
    for axes in ((), (0,), (2,), (0, 2)):
        batch = latents.batch([Crop(case, origin, axes)], grid)
        box = tuple(slice(o, o + n) for o, n in zip(origin, grid, strict=True))
        image = np.flip(np.asarray(prepared.image(case)), [axis + 1 for axis in axes])[(slice(None), *box)]
        mask = np.flip(np.asarray(prepared.mask(case)), axes)[box]
        torch.testing.assert_close(batch.clean[0], torch.from_numpy(image.astype(np.float32)))
        assert batch.conditions[0].mask is not None
        np.testing.assert_array_equal(batch.conditions[0].mask.data[0], mask)
        assert batch.window.origin.tolist() == [list(map(float, origin))]  # where it lies, as it is seen


def test_hold_out_patients_are_scored_as_they_are(prepared: Prepared, tmp_path: Path) -> None:
    codec = build(IdentityConfig(in_channels=len(prepared.schema.channels), spatial_dims=3))
    cache_latents(codec, Pixels(prepared, "image"), tmp_path, flip=(1,))
    assert all(latents_path(tmp_path, case, (1,)).is_file() for case in prepared.split("train"))
    assert not any(latents_path(tmp_path, case, (1,)).is_file() for case in prepared.split("holdout"))


def test_each_axis_is_flipped_half_of_the_time_and_none_unasked(prepared: Prepared, tmp_path: Path) -> None:
    codec = build(IdentityConfig(in_channels=len(prepared.schema.channels), spatial_dims=3))
    cache_latents(codec, Pixels(prepared, "image"), tmp_path)
    latents = Latents(prepared, tmp_path, 1, masks=False)

    def crops(**options: tuple[int, ...]) -> list[Crop]:
        training = FlowTraining(fit=FitConfig(steps=100), patch=(4, 4, 4), whole_share=0.0, **options)
        return [crop for step in range(50) for crop in plan_windows(latents, training, step, seed=0)[0]]

    flipped, plain = crops(flip=(0, 2)), crops()
    assert {crop.axes for crop in plain} == {()}
    assert [crop[:2] for crop in flipped] == [crop[:2] for crop in plain]  # flips change nothing else that is drawn
    for axis, share in ((0, 0.5), (1, 0.0), (2, 0.5)):
        assert np.mean([axis in crop.axes for crop in flipped]) == pytest.approx(share, abs=0.06 if share else 0.0)


@pytest.mark.parametrize("flip", [(1, 0), (0, 0), (3,), (-1,)])
def test_axes_that_cannot_be_are_refused(flip: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="training.flip"):
        FlowTraining(flip=flip)


def test_an_axis_that_the_data_lacks_is_one_line(prepared: Prepared) -> None:
    flat = replace(prepared, schema=replace(prepared.schema, grid=(16, 16), spacing_mm=(1.0, 1.0)))
    recipe = config.load(Recipe, tiny_recipe(2), overrides=["image.training.flip=[2]"])
    with pytest.raises(ConfigError, match="training.flip names axis 2, the data is 2D"):
        complete(recipe, flat)


def test_an_axis_that_the_data_lacks_is_refused_of_a_model_to_start_from(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    flat = replace(prepared, schema=replace(prepared.schema, grid=(16, 16), spacing_mm=(1.0, 1.0)))
    recipe = config.load(Recipe, tiny_recipe(2), overrides=["mask.training.flip=[2]"])
    origin = SimpleNamespace(prepared=flat, complete=lambda given: given)
    monkeypatch.setattr("synth.training.experiment.Origin", SimpleNamespace(of=lambda *_: origin))
    with pytest.raises(ConfigError, match=r"mask\.training\.flip names axis 2, the data is 2D"):
        settled(recipe, flat, cast(Any, object()))


@pytest.mark.parametrize("told", ["parts without flip", "no parts", "no file"])
def test_a_run_of_before_flips_goes_on_without_and_not_with_them(told: str, prepared: Prepared, tmp_path: Path) -> None:
    def begin(*overrides: str) -> None:
        recipe = complete(config.load(Recipe, tiny_recipe(3), overrides=overrides), prepared)
        claim(path, facts(prepared, Seen.of(prepared, seed=recipe.seed), None, recipe), ALONE)

    path = tmp_path / "data.json"
    begin()
    content = json.loads(path.read_text())
    for fields in content["parts"].values():
        assert fields.pop("training.flip") == []
    if told == "no parts":
        del content["parts"]
    path.write_text(json.dumps(content))
    if told == "no file":
        path.unlink()
        (tmp_path / "image").mkdir()
    with pytest.raises(ConfigError, match=r"was begun with mask\.training\.flip = \[\], now it is \[0\]"):
        begin("mask.training.flip=[0]")
    begin()


def test_a_part_that_joins_a_run_may_flip(prepared: Prepared, tmp_path: Path) -> None:
    for overrides in (["mask=null"], ["mask.training.flip=[0]"]):
        recipe = complete(config.load(Recipe, tiny_recipe(3), overrides=overrides), prepared)
        claim(tmp_path / "data.json", facts(prepared, Seen.of(prepared, seed=0), None, recipe), ALONE)
    assert json.loads((tmp_path / "data.json").read_text())["parts"]["mask"]["training.flip"] == [0]


@pytest.mark.slow
def test_a_model_trains_on_flipped_volumes(prepared: Prepared, tmp_path: Path, capsys) -> None:  # noqa: ANN001
    from pipelines.cli import run

    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(tiny_recipe(3))
    flips = [f"{part}.training.flip=[0]" for part in ("image", "mask")]
    line = [str(recipe), "--data", str(prepared.folder), "--out", str(tmp_path / "run")]
    assert run("train", [*line, *(word for flip in flips for word in ("--set", flip))]) == 0
    said = capsys.readouterr().out
    for part in ("image", "mask"):
        assert f"{part} generator: training volumes are flipped along axes [0]" in said
        assert len(list((tmp_path / "run" / part / "latents" / "flip-0").glob("*.npy"))) == len(prepared.split("train"))
    assert run("train", line) == 2  # a run begun with flips goes on with none other
