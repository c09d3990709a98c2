"""Previews: what is real stands beside what is made, in 2D and 3D, and says the same each time."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from synth import config
from synth.codec import build as build_codec
from synth.codec.config import AutoencoderConfig, PatchPCAConfig
from synth.codec.patch_pca import PatchPCA
from synth.data.prepared import Prepared
from synth.model import build_part
from synth.recipe import Recipe
from synth.training.codec_stage import Pixels, cache_latents, train_codec
from synth.training.config import FitConfig
from synth.training.experiment import complete
from synth.training.fit import Task
from synth.training.flow_stage import Crop, Latents
from synth.training.preview import codec_preview, flow_preview, mosaic
from synth.training.timing import time_steps
from tests.conftest import tiny_recipe


def test_mosaic_lays_out_the_middle_planes():
    volume = torch.arange(4 * 6 * 8, dtype=torch.float32).reshape(1, 4, 6, 8)
    picture = mosaic([(volume, volume), (volume,)])
    widths = 2 * (4 + 4 + 6) + 5 * 2
    assert picture.shape == (8 + 2 + 8, widths) and picture.dtype == torch.uint8
    plane = 255.0 * volume[0, :, :, 4].T.flip(0) / volume.max()
    assert torch.equal(picture[:6, :4], plane.round().to(torch.uint8))
    assert int(picture[:, 14 + 2 * 3 - 2 : 14 + 2 * 3].max()) == 0  # the gap between the first and the second volume


@pytest.mark.parametrize("grid", [(8, 12), (8, 12, 10)])
def test_codec_preview_is_a_picture_of_both(tmp_path: Path, grid: tuple[int, ...]):
    rng = torch.Generator().manual_seed(0)
    volumes = [torch.rand((1, *grid), generator=rng) for _ in range(2)]
    codec = PatchPCA(PatchPCAConfig(spatial_dims=len(grid), stride=2, channels=2 ** len(grid)))
    codec.fit(iter(volumes))
    show = codec_preview(codec, volumes, tmp_path / "previews")
    with torch.no_grad():
        show(200)
    path = tmp_path / "previews/0000200.png"
    first = path.read_bytes()
    picture = np.asarray(Image.open(path)).astype(int)
    half = (picture.shape[1] - 2) // 2
    assert np.abs(picture[:, :half] - picture[:, -half:]).max() <= 1  # as many channels as pixels: nothing is lost
    with torch.no_grad():
        show(200)
    assert path.read_bytes() == first


def test_flow_preview_shows_the_same_noise_at_every_step(tmp_path: Path, prepared: Prepared):
    path = tmp_path / "tiny.yaml"
    path.write_text(tiny_recipe(3))
    recipe = complete(config.load(Recipe, path), prepared)
    model = build_part(recipe.image)
    pixels = Pixels(prepared, "image")
    train_codec(model.codec, recipe.image.codec_training, pixels, tmp_path / "codec", seed=0)
    cache_latents(model.codec, pixels, tmp_path / "latents")
    latents = Latents(prepared, tmp_path / "latents", model.codec.stride, masks=True)
    wholes = []
    for case in prepared.split("holdout"):
        grid = tuple(latents.of(case).shape[1:])
        wholes.append(latents.batch([Crop(case, (0,) * len(grid))], grid))
    show = flow_preview(model, wholes, tmp_path / "previews")
    with torch.no_grad():
        show(1)
        show(2)
    one, two = (tmp_path / f"previews/000000{step}.png" for step in (1, 2))
    assert one.read_bytes() == two.read_bytes()
    assert np.asarray(Image.open(one)).std() > 5


def test_cost_of_a_real_stage_is_measured(prepared: Prepared):
    codec = build_codec(AutoencoderConfig(stride=2, channels=2, width=8, decoder_blocks=1))
    volume = Pixels(prepared, "image").tensor(prepared.split("train")[0])[None]
    task = Task(
        name="codec",
        module=codec,
        loss=lambda module, batch, rng: module.loss(batch, rng),  # pyright: ignore[reportCallIssue]
        batch=lambda _number: volume,
        validate=lambda: {"score": 0.0},
    )
    assert time_steps(task, FitConfig(precision="bf16"), seed=0, steps=3).hours > 0
