"""Laws of processes, samplers and guidance, by exact denoisers of known distributions."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from synth.denoiser import Bound, Denoiser, Guided
from synth.errors import ConfigError
from synth.ports import Ports
from synth.process import Estimate, RectifiedFlow
from synth.sampler import Euler, Heun

MEAN, SD = 0.7, 0.4


@dataclass(frozen=True)
class Exact:
    """The optimal denoiser of N(MEAN, SD^2): E[clean | x_t] in closed form."""

    process: RectifiedFlow = RectifiedFlow()

    def __call__(self, x: Tensor, t: Tensor, *, to: Tensor) -> Estimate:
        alpha, sigma = 1 - t, t
        gain = alpha * SD**2 / (alpha**2 * SD**2 + sigma**2)
        clean = MEAN + gain * (x - alpha * MEAN)
        return Estimate(clean, (x - alpha * clean) / sigma.clamp_min(1e-12), clean)


@pytest.mark.parametrize("kind", ["velocity", "clean"])
@pytest.mark.parametrize("grid", [(3, 4), (2, 3, 4)])
def test_corrupt_estimate_and_objective_agree(kind: str, grid: tuple[int, ...]) -> None:
    process = RectifiedFlow(prediction=kind)  # pyright: ignore[reportArgumentType]
    rng = torch.Generator().manual_seed(0)
    clean = torch.randn(5, 2, *grid, generator=rng, dtype=torch.float64)
    t = torch.tensor([0.01, 0.2, 0.5, 0.8, 1.0], dtype=torch.float64)
    x, noise = process.corrupt(clean, t, rng)
    truth = noise - clean if kind == "velocity" else clean
    estimate = process.estimate(x, truth, t)
    assert torch.allclose(estimate.clean, clean, atol=1e-9)
    assert torch.allclose(estimate.noise, noise, atol=1e-9)
    assert float(process.objective(truth, clean, noise, t).abs().max()) == 0.0
    assert torch.allclose(process.step(x, estimate, t, torch.zeros(5, dtype=torch.float64)), clean, atol=1e-9)


@pytest.mark.parametrize("shift", [1.0, 3.0, 0.5])
@pytest.mark.parametrize("steps", [1, 7, 30, 100])
def test_grid_ends_exactly_and_steps_sum_to_start(shift: float, steps: int) -> None:
    grid = RectifiedFlow(shift=shift).grid(steps)
    assert grid.dtype == torch.float64 and float(grid[0]) == 1.0 and float(grid[-1]) == 0.0
    assert bool((grid.diff() < 0).all())
    assert abs(float(-grid.diff().sum()) - 1.0) < 1e-12


def test_no_steps_is_refused() -> None:
    with pytest.raises(ConfigError, match="steps is 0"):
        RectifiedFlow().grid(0)


@pytest.mark.parametrize(("sampler", "steps", "tolerance"), [(Euler(), 256, 0.01), (Heun(), 64, 0.003)])
@pytest.mark.parametrize("shift", [1.0, 2.0])
def test_samplers_recover_a_gaussian(sampler: Euler | Heun, steps: int, tolerance: float, shift: float) -> None:
    process = RectifiedFlow(shift=shift)
    x = torch.randn(20_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))[:, None, None]
    out = sampler(Exact(process), process.grid(steps), x, None)
    expected = MEAN + SD * x  # the exact flow map of a Gaussian
    assert float((out - expected).abs().max()) < tolerance * 5
    assert abs(float(out.std()) - SD) < 0.01


def test_heun_at_ten_calls_beats_euler_at_thirty() -> None:
    process = RectifiedFlow()
    x = torch.linspace(-3, 3, 101, dtype=torch.float64)[:, None, None]
    expected = MEAN + SD * x
    heun, euler = Heun(), Euler()
    steps = heun.steps_for(10)
    assert heun.evaluations(steps) <= 10
    error = float((heun(Exact(), process.grid(steps), x, None) - expected).abs().max())
    assert error < float((euler(Exact(), process.grid(30), x, None) - expected).abs().max())


def test_training_times_lie_inside() -> None:
    times = RectifiedFlow(shift=3.0).draw(1000, torch.Generator().manual_seed(0))
    assert float(times.min()) > 0 and float(times.max()) < 1
    assert float(times.mean()) > 0.6


def test_renoise_keeps_the_law() -> None:
    process = RectifiedFlow()
    rng = torch.Generator().manual_seed(0)
    clean = torch.full((50_000, 1, 1), 0.5, dtype=torch.float64)
    s, t = (torch.tensor([v], dtype=torch.float64) for v in (0.3, 0.7))
    x, _ = process.corrupt(clean, s, rng)
    later = process.renoise(x, s, t, rng)
    assert abs(float(later.mean()) - 0.15) < 0.01 and abs(float(later.std()) - 0.7) < 0.01


class _Count(torch.nn.Module):
    """A backbone that says a constant per prefix and counts its calls."""

    def __init__(self, value: float, calls: list[float]) -> None:
        super().__init__()
        self.value, self.calls = value, calls

    def forward(self, x: Tensor, time: Tensor, ports: Ports) -> Tensor:
        self.calls.append(self.value)
        return torch.full_like(x, self.value)


def _prefixes(calls: list[float]) -> list[Bound]:
    process = RectifiedFlow()
    return [Bound(Denoiser(_Count(v, calls), process), Ports()) for v in (1.0, 2.0, 5.0)]


@pytest.mark.parametrize(
    ("scales", "value", "evaluated"),
    [([1.0, 1.0], 5.0, [5.0]), ([0.0, 0.0], 1.0, [1.0]), ([2.0, 2.0], 9.0, [1.0, 5.0]), ([1.0, 3.0], 11.0, [2.0, 5.0])],
)
def test_guidance_telescopes_and_skips_what_cancels(scales: list[float], value: float, evaluated: list[float]) -> None:
    calls: list[float] = []
    guided = Guided(_prefixes(calls), scales)
    x, t = torch.zeros(1, 1, 2, 2), torch.tensor(0.5, dtype=torch.float64)
    estimate = guided(x, t, to=t)
    assert torch.allclose(estimate.raw, torch.full_like(x, value)) and calls == evaluated
    assert torch.allclose(0.5 * estimate.clean + 0.5 * estimate.noise, x, atol=1e-6)


def test_a_frozen_process_cannot_change() -> None:
    with pytest.raises(AttributeError):
        RectifiedFlow().shift = 2.0  # pyright: ignore[reportAttributeAccessIssue]
    assert replace(RectifiedFlow(), shift=2.0).shift == 2.0
