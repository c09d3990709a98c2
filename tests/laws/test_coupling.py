"""Laws of pairing noise with data: within equal conditions only, at the least cost, nothing lost."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch

from synth import config
from synth.errors import ConfigError
from synth.model import FlowModel, build_part
from synth.ports import Window
from synth.recipe import Part, Recipe
from synth.rng import torch_rng
from synth.sample import Condition
from synth.training.config import Coupling
from synth.training.coupling import coupled
from synth.training.objectives import DenoisingObjective, LatentBatch
from synth.volume import Volume
from tests.conftest import tiny_recipe

GRIDS = [(3, 4), (2, 3, 4)]


def _pair(count: int, grid: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch_rng(1, "coupling")
    clean, noise = torch.randn(2, count, 2, *grid, generator=rng)
    return clean, noise


def _masks(values: list[int], grid: tuple[int, ...]) -> list[Condition]:
    return [Condition(mask=Volume(np.full((1, *grid), value, dtype=np.uint8))) for value in values]


@pytest.mark.parametrize("grid", GRIDS, ids=["2D", "3D"])
def test_noise_stays_within_equal_conditions(grid: tuple[int, ...]) -> None:
    kinds = [0, 1, 2, 0, 1, 0, 1, 0]
    clean, noise = _pair(len(kinds), grid)
    texts = [("round", "long", None)[kind] for kind in kinds]
    for conditions in (
        [Condition(text=text) for text in texts],
        [Condition(attributes={"size": kind}) for kind in kinds],
        _masks(kinds, grid),
    ):
        index = coupled(clean, noise, conditions, Window.whole(grid, len(kinds)))
        assert sorted(index.tolist()) == list(range(len(kinds)))
        assert [kinds[i] for i in index.tolist()] == kinds
        assert index.tolist() != list(range(len(kinds)))


def test_one_voxel_or_place_apart_is_another_condition() -> None:
    grid = (3, 4)
    clean, noise = _pair(2, grid)
    noise = noise.flip(0) * 0.01 + clean.flip(0)  # each noise is the other's nearest
    same = Window.whole(grid, 2)
    apart = replace(same, origin=torch.tensor([[0.0, 0.0], [0.0, 1.0]]))
    equal = _masks([1, 1], grid)
    data = np.full((1, *grid), 1, dtype=np.uint8)
    data[0, 2, 2] = 0
    unequal = [equal[0], Condition(mask=Volume(data))]
    assert coupled(clean, noise, equal, same).tolist() == [1, 0]
    assert coupled(clean, noise, equal, apart).tolist() == [0, 1]
    assert coupled(clean, noise, unequal, same).tolist() == [0, 1]


@pytest.mark.parametrize("grid", GRIDS, ids=["2D", "3D"])
def test_the_cost_is_the_least_there_is(grid: tuple[int, ...]) -> None:
    clean, noise = _pair(5, grid)
    index = coupled(clean, noise, [Condition()] * 5, Window.whole(grid, 5))

    def cost(order: tuple[int, ...]) -> float:
        return float((clean - noise[list(order)]).square().sum())

    assert abs(cost(tuple(index.tolist())) - min(map(cost, permutations(range(5))))) < 1e-4
    assert cost(tuple(index.tolist())) < cost((0, 1, 2, 3, 4))


def _part(dims: int) -> Part:
    part = config.load(Recipe, tiny_recipe(dims)).mask
    assert part is not None
    return part


def _losses(model: FlowModel, batch: LatentBatch, coupling: Coupling | None) -> torch.Tensor:
    objective = DenoisingObjective(torch.ones(batch.clean.shape[1]), coupling=coupling)
    with torch.no_grad():
        return objective(model, batch, torch_rng(3, "loss"))


@pytest.mark.parametrize("dims", [2, 3])
def test_a_batch_without_equal_conditions_trains_as_without_coupling(dims: int) -> None:
    torch.manual_seed(0)
    part, grid = _part(dims), (4,) * dims
    model = build_part(part).flow
    clean = torch.randn(3, 2, *grid, generator=torch_rng(2, "clean"))
    apart = Window(grid, torch.arange(3.0)[:, None].expand(3, dims).contiguous(), torch.full((3, dims), 9.0))
    batch = LatentBatch(clean, [Condition()] * 3, apart)
    assert torch.equal(_losses(model, batch, Coupling()), _losses(model, batch, None))
    together = replace(batch, window=Window.whole(grid, 3))
    assert not torch.equal(_losses(model, together, Coupling()), _losses(model, together, None))


def test_a_recipe_names_it_and_refuses_samplers_that_leave_the_flow() -> None:
    text = "name: x\nimage: {training: {coupling: {kind: minibatch_ot}}, sampler: {kind: SAMPLER}}"
    assert config.load(Recipe, text.replace("SAMPLER", "heun")).image.training.coupling == Coupling()
    with pytest.raises(ConfigError, match="learns a flow"):
        config.load(Recipe, text.replace("SAMPLER", "ancestral"))
