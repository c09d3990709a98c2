"""Overlapped denoising: windows cover the grid, agree with the whole where they must, and say what seam they leave."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import synth
from pipelines.cli import run
from synth import config
from synth.data.prepared import Prepared
from synth.denoiser import Bound, Denoiser
from synth.generator import Sampling
from synth.ports import Ports, Window
from synth.process import GaussianProcess
from synth.recipe import Recipe
from synth.rng import torch_rng
from synth.sample import Condition
from synth.sampler import SAMPLERS
from synth.training.experiment import Experiment
from synth.volume import Volume
from synth.windows import Windowed, places, seam
from tests.conftest import tiny_recipe
from tests.laws.exact import NAMES, PROCESSES

GRIDS = [(13, 9), (9, 11, 6)]
LABELS = {"one": 1, "two": 2}


class Pointwise(nn.Module):
    """A backbone that looks at one voxel at a time, so that windows change nothing."""

    def forward(self, x: Tensor, time: Tensor, ports: Ports) -> Tensor:
        del ports
        return (0.3 * x + 0.1).tanh() * time.reshape(-1, *([1] * (x.ndim - 1)))


@given(st.lists(st.tuples(st.integers(1, 24), st.integers(3, 30)), min_size=1, max_size=3))
def test_windows_cover_every_voxel_and_overlap_by_a_third(axes: list[tuple[int, int]]) -> None:
    grid, window = zip(*axes, strict=True)
    covered = np.zeros(grid, dtype=int)
    found = places(grid, window)
    for place in found:
        covered[place] += 1
        assert all(0 <= p.start < p.stop <= n and p.stop - p.start <= w for p, n, w in zip(place, grid, window))
    assert covered.min() >= 1
    for axis, side in enumerate(window):
        starts = sorted({place[axis].start for place in found})
        assert all(2 * side - (b - a + side) >= side // 3 for a, b in zip(starts, starts[1:]))


@pytest.mark.parametrize("process", PROCESSES, ids=NAMES)
@pytest.mark.parametrize("grid", GRIDS)
def test_windows_give_the_whole_where_the_network_sees_single_voxels(
    process: GaussianProcess, grid: tuple[int, ...]
) -> None:
    whole = Bound(Denoiser(Pointwise(), process), Ports())
    windowed = Windowed([(place, whole) for place in places(grid, (5,) * len(grid))])
    assert len(windowed.windows) > 4
    x = process.start((1, 2, *grid), torch_rng(0)).double()
    times = process.grid(4)
    for name in ("euler", "heun"):
        apart = SAMPLERS[name](windowed, times, x, torch_rng(1)) - SAMPLERS[name](whole, times, x, torch_rng(1))
        assert float(apart.abs().max()) < 1e-9
    t = times[1]
    estimate = windowed(x, t, to=times[2])
    again = process.mix(estimate.clean, estimate.noise, t.reshape(1))
    assert float((again - x).abs().max()) < 1e-9 * float(x.abs().max())


@pytest.mark.parametrize("grid", [(40, 40), (20, 18, 16)])
def test_the_seam_is_one_for_noise_and_grows_with_steps_between_windows(grid: tuple[int, ...]) -> None:
    found = places(grid, (9,) * len(grid))
    noise = torch.randn((1, 4, *grid), generator=torch_rng(3))
    level = seam(noise, found)
    assert level is not None and 0.9 < level < 1.2
    edge = sorted({place[0].start for place in found})[1]
    stepped = noise.clone()
    stepped[:, :, edge:] += 6.0
    worse = seam(stepped, found)
    assert worse is not None and worse > 1.3
    assert seam(noise, places(grid, grid)) is None


def test_a_window_is_told_its_own_mask_and_place(model: Path) -> None:
    generator = synth.load(model)
    part = generator.model.image
    grid = part.codec.latent_grid(generator.model.recipe.schema.grid)  # pyright: ignore[reportOptionalMemberAccess]
    stride = part.codec.stride
    labels = torch.randint(0, 3, tuple(n * stride for n in grid), generator=torch_rng(4)).to(torch.uint8).numpy()
    whole = part.flow.conditioner([Condition(mask=Volume(labels[None]))], window=Window.whole(grid))
    for place in places(grid, tuple(max(n - 1, 2) for n in grid)):
        cut = labels[tuple(slice(p.start * stride, p.stop * stride) for p in place)]
        ports = part.flow.conditioner([Condition(mask=Volume(cut[None]))], window=Window.at(place, grid))
        for (here, _), (all_of_it, _) in zip(ports.spatial, whole.spatial, strict=True):
            assert torch.allclose(here, all_of_it[(..., *place)], atol=1e-6)


def test_generate_in_windows_says_the_seam_and_keeps_bytes_across_workers(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def made(name: str, *options: str) -> list[dict[str, object]]:
        out = tmp_path / name
        assert run("generate", [str(model), "--out", str(out), "--count", "2", *options]) == 0
        return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]

    whole = made("whole", "--workers", "1")
    assert "across windows" not in capsys.readouterr().out
    assert all(row["seam"] is None for row in whole)
    cut = made("cut", "--workers", "1", "--window", "3,3,3")
    assert "across windows latents step at most" in capsys.readouterr().out
    assert all(isinstance(row["seam"], float) for row in cut)
    assert [row["files"] for row in made("two", "--workers", "2", "--window", "3,3,3")] == [r["files"] for r in cut]
    assert [row["files"] for row in made("large", "--workers", "1", "--window", "99,99,99")] == [
        row["files"] for row in whole
    ]
    generator = synth.load(model).with_sampling(Sampling(window=(3, 3, 3)))
    sample = next(generator.generate([Condition()], seeds=[synth.Seed(0, 1)]))
    assert sample.provenance.seam == cut[1]["seam"]


@pytest.mark.parametrize(
    ("window", "words"),
    [
        ("3,3", "window (3, 3) has 2 axes, the model's latents have 3"),
        ("3;3", "--window is '3;3'; write latent voxels along each axis"),
        ("1,3,3", "window is (1, 3, 3); give at least 2 latent voxels"),
    ],
)
def test_a_wrong_window_is_refused_before_anything_is_written(
    model: Path, tmp_path: Path, window: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run("generate", [str(model), "--out", str(out), "--count", "1", "--window", window]) == 2
    assert words in capsys.readouterr().err
    assert not out.exists()


def test_a_model_of_patches_never_sees_more_than_one_while_it_trains(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[tuple[int, ...]] = set()
    predict = Denoiser.predict

    def told(self: Denoiser, x: Tensor, t: Tensor, ports: Ports) -> Tensor:
        seen.add(tuple(x.shape[2:]))
        return predict(self, x, t, ports)

    monkeypatch.setattr(Denoiser, "predict", told)
    patches = [
        f"{part}.{field}" for part in ("image", "mask") for field in ("window=[4,4,4]", "training.whole_share=0")
    ]
    recipe = config.load(Recipe, tiny_recipe(3), overrides=patches)
    Experiment(recipe, prepared, tmp_path, lambda _: lambda *_: None).run()
    assert seen == {(4, 4, 4)}
    assert all(list((tmp_path / part / "flow" / "previews").glob("*.png")) for part in ("image", "mask"))
