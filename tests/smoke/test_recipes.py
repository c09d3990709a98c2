"""Recipes with a page: phantoms of their shape go in, and come out in native units, geometry and labels."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.cli import VERBS, main
from pipelines.configs import shipped
from synth import config
from synth.backbone.config import UNetConfig
from synth.codec.config import AutoencoderConfig, OneHotConfig
from synth.data.intensity import Percentiles, Window
from synth.data.prepared import Prepared
from synth.formats import read as read_dataset
from synth.io import read
from synth.model import PartModel, build
from synth.ports import Ports
from synth.recipe import Part, Recipe
from synth.simulate.phantoms import Pair
from synth.training.experiment import complete
from tests.smoke.recipes import SHAPES, Shape, quick

PAGES = Path(__file__).parents[2] / "docs" / "recipes"
CASES = 3


def _check_schema(prepared: Prepared, shape: Shape) -> None:
    schema = prepared.schema
    assert schema.channels == shape.channels and schema.label_values == dict(shape.labels)
    assert np.allclose(schema.spacing_mm, shape.spacing, rtol=3e-3) and bool(schema.native_grid) == shape.coarser
    kind = Window if shape.channels == ("CT",) else Percentiles
    assert all(isinstance(rule, kind) for rule in schema.intensities)


def _check_set(folder: Path, shape: Shape, real: Pair, prepared: Prepared, *, like: Path | None) -> None:
    """Native type, units, geometry and labels; the very masks of `like` where the set follows it."""
    made = read_dataset(folder)
    assert dict(made.label_values) == {name: n for n, name in enumerate(shape.labels, start=1)}
    assert made.channels == shape.channels
    for case in made.cases:
        image = np.concatenate([read(path).data for path in case.images])
        own, mask = read(case.images[0]), read(case.mask, labels=shape.labels)
        assert image.dtype == real.image.data.dtype
        assert own.same_geometry(mask) and len(image) == len(shape.channels)
        for channel, true in zip(image.astype(float), real.image.data.astype(float), strict=True):
            span = true.max() - true.min()
            assert abs(channel.mean() - true.mean()) < 0.25 * span and channel.std() > 0
        assert set(np.unique(mask.data)) <= {0, *range(1, len(shape.labels) + 1)}
        if like is None:
            grid = real.image.grid if shape.coarser else prepared.schema.grid
            assert own.grid == grid
            assert np.allclose(own.spacing_mm[: len(grid)], real.image.spacing_mm[: len(grid)], rtol=1e-3)
        else:
            given = read(like, labels=shape.labels)
            assert mask.same_geometry(given, tolerance_mm=1e-3)
            assert shape.coarser or np.array_equal(mask.data, given.data)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SHAPES))
def test_phantoms_of_its_shape_pass_through(name: str, tmp_path: Path) -> None:
    shape, (source, data, run) = SHAPES[name], (tmp_path / part for part in ("source", "data", "run"))
    real = shape.write(source, CASES)[0]
    assert main(["prepare", str(source), "--out", str(data), "--holdout", "0.3", "--test", "0", *shape.prepare]) == 0
    prepared = Prepared.load(data)
    _check_schema(prepared, shape)
    complete(config.load(Recipe, shipped()[name]), prepared)  # channels, labels and dimensions as shipped
    assert main(["train", name, "--data", str(data), "--out", str(run), *quick()]) == 0
    ask = ["generate", str(run / "model"), "--workers", "1", "--count", "1"]
    assert main([*ask, "--out", str(tmp_path / "free")]) == 0
    assert main([*ask, "--out", str(tmp_path / "given"), "--masks", str(source)]) == 0
    _check_set(tmp_path / "free", shape, real, prepared, like=None)
    _check_set(tmp_path / "given", shape, real, prepared, like=source / "labelsTr" / f"case_0{shape.file_ending}")


def _levels(part: Part, grid: tuple[int, ...]) -> int:
    """Return the shortest side of the deepest level of a network on a latent grid."""
    assert isinstance(part.backbone, UNetConfig)
    return min(-(-n // 2 ** (len(part.backbone.widths) - 1)) for n in grid)


def _forward(model: PartModel, grid: tuple[int, ...]) -> None:
    """One evaluation of the network and one decoding on a latent grid, on the device that holds no values."""
    spec, latents = model.flow.conditioner.spec, torch.empty(1, model.codec.channels, *grid)
    spatial = tuple((torch.empty(1, count, *(n * s for n in grid)), s) for count, s in spec.spatial)
    vector = {slot: torch.empty(1, width) for slot, width in spec.vector.items()}
    assert model.flow.denoiser.predict(latents, torch.ones(1), Ports(spatial, None, vector)).shape == latents.shape
    assert model.codec.raw_decode(latents).shape[2:] == tuple(n * model.codec.stride for n in grid)


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_the_shipped_sizes_build_and_fit_the_grid_they_are_for(name: str) -> None:
    shape, recipe = SHAPES[name], config.load(Recipe, shipped()[name])
    assert recipe.name == name and recipe.mask is not None
    labels = {"labels": len(shape.labels) + 1, "stride": 4}
    image = config.plain(recipe.image)
    image["conditioning"].update(labels)
    recipe = config.build(Recipe, {**config.plain(recipe), "image": image})
    for part in (recipe.image, recipe.mask):
        assert part is not None
        inner = part.codec.inner if isinstance(part.codec, OneHotConfig) else part.codec
        assert isinstance(inner, AutoencoderConfig) and all(n % inner.stride == 0 for n in shape.full)
        latent = tuple(n // inner.stride for n in shape.full)
        assert len(part.training.patch) == len(latent)
        patch = tuple(min(p, n) for p, n in zip(part.training.patch, latent, strict=True))
        # bfloat16 gradients of convolutions over grids shorter than the kernel are wrong on a CPU
        assert part.training.fit.precision == "fp32" or min(_levels(part, patch), _levels(part, latent)) >= 3
        assert part.codec_training.fit.precision == "fp32" or part.codec_training.crop // inner.stride >= 3
    with torch.device("meta"), torch.no_grad():
        model = build(recipe)
        for part in model.parts().values():
            _forward(part, tuple(n // part.codec.stride for n in shape.full))
