"""Laws of samplers under every noise law, by exact denoisers of known distributions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

import pytest
import torch
from torch import Tensor

from synth.denoiser import Bound, Denoiser, Guided
from synth.errors import ConfigError
from synth.ports import Ports
from synth.process import EDM, Estimate, GaussianProcess, RectifiedFlow, VariancePreserving
from synth.sampler import SAMPLERS, Ancestral, DPMSolver2M, Euler, Heun, Sampler, SamplerName
from tests.laws.exact import GRIDS, NAMES, PROCESSES, Gaussian

STEPS = {"euler": 400, "heun": 60, "ancestral": 100, "dpm_solver_2m": 80}
each_process = pytest.mark.parametrize("process", PROCESSES, ids=NAMES)
each_sampler = pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS.keys())


def _whitened(count: int, grid: tuple[int, ...]) -> Tensor:
    """Draws whose own mean is 0 and own covariance 1, so that few of them show a law."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(count, int(torch.tensor(grid).prod()), generator=rng, dtype=torch.float64)
    x = x - x.mean(dim=0)
    return torch.linalg.solve_triangular(torch.linalg.cholesky(x.T.cov()), x.T, upper=False).T.reshape(-1, 1, *grid)


@each_process
@each_sampler
@pytest.mark.parametrize("grid", GRIDS, ids=["2D", "3D"])
def test_every_sampler_recovers_a_gaussian(process: GaussianProcess, sampler: Sampler, grid: tuple[int, ...]) -> None:
    exact, rng = Gaussian(process, grid), torch.Generator().manual_seed(0)
    drawn = isinstance(sampler, Ancestral)  # fresh noise needs many draws, four standard errors are allowed for
    start = float(process.start((50_000,), rng).std())
    x = start * _whitened(3000 if drawn else 64, grid)
    out = sampler(exact.bound(), process.grid(STEPS[sampler.kind]), x, rng).flatten(1)
    slack = 0.1 if drawn else 0.04
    assert float((out.mean(dim=0) - exact.mean).abs().max()) < 0.02 + slack / 2
    assert float((out.T.cov() - exact.covariance).abs().max()) < slack * float(exact.covariance.max())


@pytest.mark.parametrize("process", [RectifiedFlow(), VariancePreserving(schedule="linear"), EDM()])
def test_ancestral_variance_comes_right_with_more_steps(process: GaussianProcess) -> None:
    """DDPM's posterior forgets that clean is uncertain, an error of first order in the step."""
    exact = Gaussian(process, (1, 2))
    x = _whitened(10_000, (1, 2)) * (process.t_start if isinstance(process, EDM) else 1.0)

    def ratio(steps: int) -> float:
        out = Ancestral()(exact.bound(), process.grid(steps), x, torch.Generator().manual_seed(0))
        return float((out.flatten(1).var(dim=0) / exact.covariance.diag()).mean())

    few, many = ratio(16), ratio(200)
    assert abs(many - 1.0) < 0.1 and abs(many - 1.0) < 0.3 * abs(few - 1.0)


def _inside(process: GaussianProcess, steps: int) -> Tensor:
    """Times away from both ends, where a law is as smooth as its formula."""
    if isinstance(process, EDM):
        return torch.linspace(20.0 ** (1 / 7), 0.1 ** (1 / 7), steps + 1, dtype=torch.float64) ** 7
    return torch.linspace(0.9, 0.2, steps + 1, dtype=torch.float64)


def _error(exact: Gaussian, sampler: Sampler, times: Tensor) -> float:
    rng = torch.Generator().manual_seed(0)
    x = exact.process.sigma(times[0]) * torch.randn(64, 1, *exact.grid, generator=rng, dtype=torch.float64)
    out = sampler(exact.bound(), times, x, None)
    return float((out - exact.carried(x, times[0], times[-1])).abs().max())


@each_process
@pytest.mark.parametrize(("sampler", "order"), [(Euler(), 1), (Heun(), 2), (DPMSolver2M(), 2)])
def test_orders_of_convergence(process: GaussianProcess, sampler: Sampler, order: int) -> None:
    exact = Gaussian(process, (2, 2))
    coarse, fine = (_error(exact, sampler, _inside(process, n)) for n in (40, 80))
    assert 0.8 * 2**order < coarse / fine < 1.35 * 2**order


@pytest.mark.parametrize("sampler", [Heun(), DPMSolver2M()])
def test_second_order_holds_to_both_ends_of_a_flow(sampler: Sampler) -> None:
    """From no signal (log-SNR -inf) to no noise (+inf)."""
    exact = Gaussian(RectifiedFlow(), (2, 2))
    coarse, fine = (_error(exact, sampler, exact.process.grid(n)) for n in (48, 96))
    assert 2.7 < coarse / fine < 4.4  # multistep: up to a logarithm, as log-SNR steps do not shrink at the very ends


@pytest.mark.parametrize("process", [VariancePreserving(), EDM(), RectifiedFlow()])
def test_multistep_beats_euler_at_equal_calls(process: GaussianProcess) -> None:
    exact = Gaussian(process, (2, 2, 2))
    for steps in (12, 24):
        times = process.grid(steps)
        assert _error(exact, DPMSolver2M(), times) < 0.65 * _error(exact, Euler(), times)


@dataclass(frozen=True)
class Known:
    """A denoise that is told the truth."""

    process: GaussianProcess
    clean: Tensor

    def __call__(self, x: Tensor, t: Tensor, *, to: Tensor) -> Estimate:
        noise = (x - self.process.alpha(t) * self.clean) / self.process.sigma(t)
        return Estimate(self.clean, noise, self.clean)


@dataclass(frozen=True)
class Told:
    """A denoise that always says the same."""

    process: GaussianProcess
    said: Estimate

    def __call__(self, x: Tensor, t: Tensor, *, to: Tensor) -> Estimate:
        return self.said


@each_process
@each_sampler
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_a_known_volume_is_reached_in_any_number_of_steps(
    process: GaussianProcess, sampler: Sampler, steps: int
) -> None:
    rng = torch.Generator().manual_seed(0)
    clean = torch.randn(2, 1, 3, 4, generator=rng, dtype=torch.float64)
    x, _ = process.corrupt(clean, torch.full((2,), process.t_start, dtype=torch.float64), rng)
    out = sampler(Known(process, clean), process.grid(steps), x, rng)
    assert torch.allclose(out, clean, atol=1e-9) if not isinstance(sampler, Heun) else bool(out.isfinite().all())


@each_process
def test_multistep_is_exact_on_a_constant_estimate(process: GaussianProcess) -> None:
    rng, times = torch.Generator().manual_seed(0), _inside(process, 3)
    clean = torch.randn(2, 1, 3, 4, generator=rng, dtype=torch.float64)
    x, noise = process.corrupt(clean, times[:1], rng)
    out = DPMSolver2M()(Known(process, clean), times, x, None)
    assert torch.allclose(out, process.mix(clean, noise, times[-1:]), atol=1e-9)


@each_process
@pytest.mark.parametrize("eta", [0.3, 1.0])
@pytest.mark.parametrize("first", [0, 1], ids=["from the start", "inside"])
def test_an_ancestral_step_keeps_the_law_and_renews_the_noise(process: GaussianProcess, eta: float, first: int) -> None:
    """x_s has the mean and variance of the process, and the share of x_t's noise that Song et al. 2021, eq. 16, leave."""
    t, s = process.grid(8)[first], process.grid(8)[first + 1]
    rng = torch.Generator().manual_seed(0)
    clean = torch.full((40_000, 1, 1), 0.7, dtype=torch.float64)
    x, noise = process.corrupt(clean, t.reshape(1), rng)
    estimate = Estimate(clean, noise, clean)  # at the start of a flow, x alone would not tell
    out = Ancestral(eta=eta)(Told(process, estimate), torch.stack([t, s]), x, rng)
    alpha, sigma = float(process.alpha(s)), float(process.sigma(s))
    fresh = sigma**2 * (1.0 - float((process.log_snr(t) - process.log_snr(s)).exp()))
    kept = (sigma**2 - eta**2 * fresh) ** 0.5
    assert abs(float(out.mean()) - alpha * 0.7) < 0.025 * sigma
    assert abs(float(out.std()) / sigma - 1.0) < 0.02
    assert abs(float(((out - alpha * clean) * noise).mean()) - kept) < 0.025 * sigma


def test_ancestral_draws_from_its_generator_alone() -> None:
    process = VariancePreserving()
    exact, x = Gaussian(process, (2, 2)), torch.ones(1, 1, 2, 2, dtype=torch.float64)

    def made(seed: int) -> Tensor:
        return Ancestral()(exact.bound(), process.grid(5), x, torch.Generator().manual_seed(seed))

    assert torch.equal(made(3), made(3)) and not torch.equal(made(3), made(4))
    for eta in (0.0, 1.1, float("nan")):
        with pytest.raises(ConfigError, match="eta"):
            Ancestral(eta=eta)


class _Linear(torch.nn.Module):
    """A backbone that says a multiple of what it is given, and its time."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, x: Tensor, time: Tensor, ports: Ports) -> Tensor:
        return self.gain * x + 0.1 * time.reshape(-1, *([1] * (x.ndim - 1)))


@each_process
@each_sampler
@pytest.mark.parametrize("grid", GRIDS, ids=["2D", "3D"])
def test_guidance_of_scale_one_is_the_plain_model(
    process: GaussianProcess, sampler: Sampler, grid: tuple[int, ...]
) -> None:
    null, plain = (Bound(Denoiser(_Linear(gain), process), Ports()) for gain in (0.3, -0.2))
    x = process.start((1, 1, *grid), torch.Generator().manual_seed(0))

    def made(denoise: Bound | Guided) -> Tensor:
        return sampler(denoise, process.grid(4), x, torch.Generator().manual_seed(1))

    assert torch.equal(made(Guided([null, plain], [1.0])), made(plain))
    assert torch.equal(made(Guided([null, plain], [0.0])), made(null))
    assert not torch.equal(made(Guided([null, plain], [2.0])), made(plain))


@each_sampler
def test_evaluations_are_counted(sampler: Sampler) -> None:
    calls: list[int] = []
    process = VariancePreserving()
    inner = Gaussian(process, (2, 2)).bound()

    @dataclass(frozen=True)
    class Counted:
        process: GaussianProcess
        inner: Callable[..., Estimate]

        def __call__(self, x: Tensor, t: Tensor, *, to: Tensor) -> Estimate:
            calls.append(1)
            return self.inner(x, t, to=to)

    x, rng = torch.ones(1, 1, 2, 2, dtype=torch.float64), torch.Generator().manual_seed(0)
    sampler(Counted(process, inner), process.grid(6), x, rng)
    assert len(calls) == sampler.evaluations(6) and sampler.steps_for(len(calls)) == 6


def test_names_are_the_kinds() -> None:
    assert set(SAMPLERS) == set(get_args(SamplerName))
    assert all(sampler.kind == name for name, sampler in SAMPLERS.items())
