"""The plan: sizes follow the data, steps fill the time, and what is timed leaves no trace."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from synth.backbone.config import UNetConfig
from synth.codec.autoencoder import Autoencoder
from synth.codec.config import AutoencoderConfig, OneHotConfig
from synth.data.prepared import Prepared
from synth.data.schema import Schema
from synth.errors import ConfigError
from synth.model import build
from synth.recipe import CodecTraining
from synth.training import plan
from synth.training.codec_stage import Pixels
from synth.training.config import FitConfig
from synth.training.experiment import complete
from synth.training.fit import Task
from synth.training.plan import STAGES, Estimate, at_grid, design, measure, nominal, schedule
from synth.training.timing import Cost
from synth.volume import Label

LABELS = tuple(Label(name=name, value=value) for value, name in enumerate("abc", start=1))


def schema(grid: tuple[int, ...], channels: int = 1) -> Schema:
    return Schema(
        population="Some Data, 3 T",
        channels=tuple(f"c{number}" for number in range(channels)),
        labels=LABELS,
        grid=grid,
        spacing_mm=(1.0,) * len(grid),
        affine=(1.0, 0, 0, 0, 0, 1.0, 0, 0, 0, 0, 1.0, 0, 0, 0, 0, 1.0),
    )


@pytest.mark.parametrize(
    ("grid", "channels"), [((64, 80, 64), 1), ((104, 104, 40), 2), ((512, 512), 3), ((64, 48), 1), ((100, 100, 8), 1)]
)
def test_designs_fit_the_data_and_can_be_built(grid: tuple[int, ...], channels: int) -> None:
    recipe = design(schema(grid, channels))
    assert recipe.name == "some-data-3-t" and recipe.mask is not None
    codec = recipe.image.codec
    assert isinstance(codec, AutoencoderConfig) and isinstance(recipe.mask.codec, OneHotConfig)
    assert (codec.in_channels, codec.spatial_dims, recipe.mask.codec.labels) == (channels, len(grid), 4)
    latent = [-(-n // codec.stride) for n in grid]
    for part in (recipe.image, recipe.mask):
        backbone = part.backbone
        assert isinstance(backbone, UNetConfig) and all(widths % 4 == 0 for widths in backbone.widths)
        assert all(size <= full for size, full in zip(part.training.patch, latent, strict=True))
        deepest = min(part.training.patch) // 2 ** (len(backbone.widths) - 1)
        assert part.training.fit.precision == ("bf16" if deepest >= 3 else "fp32")
    about = schema(grid, channels)
    build(complete(recipe, Prepared(folder=Path(), schema=about, cases=(), rows=(), stored=())))


def test_large_grids_attend_one_level_deeper() -> None:
    depth = [len(design(schema(grid)).image.backbone.widths) for grid in ((64, 80, 64), (160, 160, 160))]  # pyright: ignore[reportAttributeAccessIssue]
    assert depth == [2, 3]


def estimate(step_s: float, encoding_s: float = 10.0) -> Estimate:
    cost = Cost(step_s=step_s, validation_s=0.5, peak_gb=1.0, hours=0.0)
    return Estimate(stages=dict.fromkeys(STAGES, cost), encoding_s=encoding_s)


@pytest.mark.parametrize("budget_s", [600.0, 7200.0])
def test_steps_fill_the_budget(budget_s: float) -> None:
    recipe, will = schedule(design(schema((64, 80, 64))), estimate(0.4), budget_s=budget_s)
    assert will.hours * 3600 == pytest.approx(budget_s, rel=0.03)
    steps = [recipe.image.codec_training.fit.steps, recipe.image.training.fit.steps]
    assert steps[0] < steps[1] and recipe.mask is not None and recipe.mask.training.fit.steps < steps[1]
    for fit in (recipe.image.codec_training.fit, recipe.image.training.fit):
        assert fit.warmup <= fit.steps / 5 and fit.validate_every * 8 >= fit.steps and 0 < fit.ema < 1


def test_twice_the_machine_twice_the_steps() -> None:
    recipe = design(schema((64, 80, 64)))
    slow, _ = schedule(recipe, estimate(0.4, 0.0), budget_s=3600)
    fast, _ = schedule(recipe, estimate(0.2, 0.0), budget_s=3600)
    assert fast.image.training.fit.steps == pytest.approx(2 * slow.image.training.fit.steps, rel=0.01)


def test_too_little_time_says_how_much_is_needed() -> None:
    recipe, costs = design(schema((64, 80, 64))), estimate(2.0)
    with pytest.raises(ConfigError, match=r"steps; give (\d+) min or more") as caught:
        schedule(recipe, costs, budget_s=300)
    needed = float(str(caught.value).split("give ")[1].split()[0])
    schedule(recipe, costs, budget_s=60 * needed)


def test_without_masks_there_is_no_mask_stage() -> None:
    recipe = replace(design(schema((64, 80, 64))), mask=None)
    assert set(nominal(recipe).stages) == {"image codec", "image generator"}
    schedule(recipe, nominal(recipe), budget_s=3600)


def test_measuring_names_every_stage_and_leaves_no_file(prepared: Prepared) -> None:
    before = {path: path.stat().st_mtime_ns for path in prepared.folder.rglob("*")}
    told: list[str] = []
    will = measure(design(prepared.schema), prepared, steps=2, report=told.append)
    assert set(will.stages) == set(STAGES) and len(told) == 4
    assert will.hours > 0 and will.peak_gb > 0.05 and will.encoding_s > 0
    assert {path: path.stat().st_mtime_ns for path in prepared.folder.rglob("*")} == before


def test_a_volume_too_large_to_train_whole_is_planned_in_patches_and_windows() -> None:
    whole, patches = design(schema((64, 80, 64))).image, design(schema((512, 512, 40))).image
    assert whole.window is None and whole.training.whole_share > 0
    assert patches.window == patches.training.patch and patches.training.whole_share == 0.0
    assert math.prod(patches.training.patch) <= 10_240 and patches.training.patch[2] == 10


def test_a_small_volume_is_trained_whole_from_the_start() -> None:
    small, middling = (design(schema(grid)).image.training for grid in ((72, 72, 36), (128, 128, 96)))
    assert (small.whole_share, small.whole_batch) == (1.0, 1)
    assert 0.0 < middling.whole_share < 1.0
    assert design(schema((64, 48))).image.training.whole_batch == 15


@pytest.mark.parametrize(("grid", "precision"), [((100, 100, 8), "fp32"), ((100, 100, 12), "bf16")])
def test_codecs_of_thin_stacks_are_trained_in_float32(grid: tuple[int, ...], precision: str) -> None:
    """Two latent voxels along an axis are fewer than a kernel has."""
    thick = design(schema((100, 100, 64)))
    for recipe in (design(schema(grid)), at_grid(thick, schema(grid))):
        assert recipe.mask is not None
        found = [part.codec_training.fit.precision for part in (recipe.image, recipe.mask)]
        assert found == [precision, precision]
    critical = replace(thick.image.codec_training, adversarial=0.1)
    fine = replace(thick.image, codec=replace(thick.image.codec, stride=2, channels=4), codec_training=critical)
    tuned = at_grid(replace(thick, image=fine), schema(grid))
    assert tuned.image.codec_training.fit.precision == precision, "a critic's last layer is as coarse as a stride of 4"


def test_steps_that_hear_a_critic_are_timed_apart(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    def timed(task: Task, fit: FitConfig, *, seed: int, steps: int) -> Cost:
        heard = task.batch(0).heard
        return Cost(step_s=3.0 if heard else 1.0, validation_s=0.1, peak_gb=2.0 if heard else 1.0, hours=0.0)

    monkeypatch.setattr(plan, "time_steps", timed)
    training = CodecTraining(crop=8, batch=1, adversarial=0.1, critic_from=0.25)
    codec = Autoencoder(AutoencoderConfig(stride=2, channels=2, width=8))
    cost = plan._codec_cost(codec, training, Pixels(prepared, "image"), prepared.folder, 2)
    assert cost.step_s == pytest.approx(0.25 * 1.0 + 0.75 * 3.0) and cost.peak_gb == 2.0
