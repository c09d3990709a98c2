"""Recipes with a page: phantoms of their shape go in, and come out in native units, geometry and labels."""

import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.cli import main
from pipelines.configs import shipped
from synth import config
from synth.backbone.config import UNetConfig
from synth.codec.config import AutoencoderConfig, OneHotConfig
from synth.data.intensity import Percentiles, Window
from synth.data.prepared import Prepared
from synth.formats import read as read_dataset
from synth.io import read, write
from synth.model import PartModel, build
from synth.ports import Ports
from synth.recipe import Part, Recipe
from synth.simulate.phantoms import Pair, chest_xray, retina
from synth.training.experiment import complete
from synth.volume import Volume
from tests.smoke.recipes import SHAPES, Shape, quick
from tests.smoke.test_readme import BLOCK, require_options

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
            # PNG keeps whole pixels a metre
            assert np.allclose(own.spacing_mm[: len(grid)], real.image.spacing_mm[: len(grid)], rtol=3e-3)
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
    _check_set(tmp_path / "given", shape, real, prepared, like=shape.mask(source, 0))


def _told(part: Part, labels: int) -> Part:
    """Return an image part that is told of its masks, as training does."""
    return replace(part, conditioning=replace(part.conditioning, labels=labels, stride=4))


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
    recipe = replace(recipe, image=_told(recipe.image, len(shape.labels) + 1))
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


def _page(name: str) -> str:
    return (PAGES / f"{name}.md").read_text()


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_its_page_says_what_runs(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    page = _page(name)
    commands = [
        shlex.split(line) for m in BLOCK.finditer(page) for line in m["text"].splitlines() if line.startswith("synth ")
    ]
    assert [words[1] for words in commands] == ["prepare", "train", "train", "generate", "evaluate"]
    for _, *words in commands:
        require_options(words, capsys)
    assert all(words[2] == name for words in commands if words[1] == "train")
    assert "not yet run" in page.lower() and f"({name}.md)" in _page("README") and "(../data-layouts.md)" in page


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_the_changes_of_its_page_build(name: str) -> None:
    """Every span of --set options is one change; N stands for a number of the reader's."""
    spans = re.findall(r"`(--set [^`]+)`", _page(name))
    assert len(spans) >= 5
    for span in spans:
        sets = [word for word in shlex.split(span.replace("=N", "=7")) if word != "--set"]
        recipe = config.load(Recipe, shipped()[name], overrides=sets)
        with torch.device("meta"):
            build(recipe)


def test_pictures_are_brought_to_one_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (snippet,) = [m["text"] for m in BLOCK.finditer(_page("README")) if m["language"] == "python"]
    for number, pair in enumerate((chest_xray(1, size=300), retina(1, size=320))):
        cut = pair.image.data[:, :, 20:], pair.mask.data[:, :, 20:]  # wider than high
        write(Volume(cut[0]), tmp_path / "pictures" / "images" / f"p{number}.png")
        write(Volume(cut[1] * np.uint8(100)), tmp_path / "pictures" / "masks" / f"p{number}.png")
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet.replace("recode = {}", "recode = {100: 1, 200: 2}"), "README.md", "exec"), {})
    for number, (channels, kind) in enumerate(((1, np.uint16), (3, np.uint8))):
        image = read(tmp_path / "Dataset" / "images" / f"p{number}.png")
        mask = read(tmp_path / "Dataset" / "masks" / f"p{number}.png", labels={"one": 1, "two": 2})
        assert image.data.shape == (channels, 256, 256) and image.data.dtype == kind
        assert mask.grid == (256, 256) and set(np.unique(mask.data)) == {0, 1, 2}
