"""Laws of the denoising objective: what the pooled term adds, and that it moves no optimum."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from synth.denoiser import Denoiser
from synth.ports import Ports, Window
from synth.process import RectifiedFlow
from synth.rng import torch_rng
from synth.sample import Condition
from synth.training.objectives import DenoisingObjective, LatentBatch

GRIDS = [(6, 4), (6, 4, 5)]


class _Off(nn.Module):
    """A backbone that says the clean latents plus a fixed error."""

    def __init__(self, clean: Tensor, error: Tensor) -> None:
        super().__init__()
        self.said = clean + error

    def forward(self, x: Tensor, time: Tensor, ports: Ports) -> Tensor:
        return self.said


def _loss(grid: tuple[int, ...], error: Tensor, pooled: float, weight: Tensor) -> Tensor:
    clean = torch.randn(2, 3, *grid, generator=torch_rng("clean"))
    process = RectifiedFlow(prediction="clean", weight_cap=1.0)  # the weight of every time is then 1
    flow = SimpleNamespace(denoiser=Denoiser(_Off(clean, error), process), conditioner=lambda *_, **__: Ports())
    batch = LatentBatch(clean, [Condition()] * 2, Window.whole(grid))
    times = torch.tensor([0.3, 0.8], dtype=torch.float64)
    return DenoisingObjective(weight, pooled).at(flow, batch, times, torch_rng(0))


@pytest.mark.parametrize("grid", GRIDS)
def test_the_pooled_term_is_the_error_of_the_mean_times_the_voxels(grid: tuple[int, ...]) -> None:
    weight = torch.tensor([0.5, 1.0, 1.5])
    error = torch.randn(2, 3, *grid, generator=torch_rng("error"))
    by_hand = (weight.reshape(1, 3, *[1] * len(grid)) * error**2).flatten(1).mean(dim=1)
    torch.testing.assert_close(_loss(grid, error, 0.0, weight), by_hand)
    whole = (weight * error.flatten(2).mean(dim=2) ** 2).mean(dim=1) * error[0, 0].numel()
    torch.testing.assert_close(_loss(grid, error, 0.25, weight), by_hand + 0.25 * whole)


@pytest.mark.parametrize("grid", GRIDS)
def test_errors_that_cancel_over_the_window_cost_no_more(grid: tuple[int, ...]) -> None:
    error = torch.randn(2, 3, *grid, generator=torch_rng("error"))
    error = error - error.mean(dim=tuple(range(2, error.ndim)), keepdim=True)
    weight = torch.ones(3)
    torch.testing.assert_close(_loss(grid, error, 1.0, weight), _loss(grid, error, 0.0, weight))
