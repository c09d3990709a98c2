"""Laws of processes, samplers and guidance, by exact denoisers of known distributions."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from synth.denoiser import Bound, Denoiser, Guided
from synth.errors import ConfigError
from synth.ports import Ports
from synth.process import EDM, Estimate, GaussianProcess, Process, RectifiedFlow, VariancePreserving
from synth.process.variance_preserving import Schedule
from synth.sampler import Euler, Heun
from tests.laws.exact import GRIDS, NAMES, PROCESSES, said

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


each_process = pytest.mark.parametrize("process", PROCESSES, ids=NAMES)


@each_process
@pytest.mark.parametrize("grid", GRIDS, ids=["2D", "3D"])
def test_corrupt_estimate_objective_and_step_agree(process: GaussianProcess, grid: tuple[int, ...]) -> None:
    assert isinstance(process, Process)
    rng = torch.Generator().manual_seed(0)
    clean = torch.randn(5, 2, *grid, generator=rng, dtype=torch.float64)
    t = torch.tensor([0.01, 0.2, 0.5, 0.8, 1.0], dtype=torch.float64) * process.t_start
    x, noise = process.corrupt(clean, t, rng)
    truth = said(process, clean, noise, t)
    estimate = process.estimate(x, truth, t)
    assert torch.allclose(estimate.clean, clean, atol=1e-9)
    assert torch.allclose(estimate.noise, noise, atol=1e-9)
    assert float(process.objective(truth, clean, noise, t).abs().max()) < 1e-20
    assert float(process.objective(truth + 1.0, clean, noise, t).min()) > 0.9
    assert torch.allclose(process.step(x, estimate, t, torch.zeros(5, dtype=torch.float64)), clean, atol=1e-9)
    halfway = process.step(x, estimate, t, t / 2)
    assert torch.allclose(halfway, process.corrupt(clean, t / 2, rng, other=noise)[0], atol=1e-9)


@each_process
def test_slopes_are_derivatives(process: GaussianProcess) -> None:
    t = torch.linspace(0.0123, 0.987, 40, dtype=torch.float64) * process.t_start
    for level, slope in ((process.alpha, process.alpha_slope), (process.sigma, process.sigma_slope)):
        where = t.clone().requires_grad_()
        value = level(where).sum() + 0.0 * where.sum()  # a constant level has the slope 0
        assert torch.allclose(torch.autograd.grad(value, where)[0], slope(t), rtol=1e-9, atol=1e-12)
        step = 1e-7 * process.t_start
        assert torch.allclose((level(t + step) - level(t - step)) / (2 * step), slope(t), rtol=1e-5, atol=1e-6)


@each_process
def test_log_snr_falls_and_is_inverted(process: GaussianProcess) -> None:
    t = process.grid(37)
    levels = process.log_snr(t)
    assert bool((levels.diff() > 0).all()) and float(levels[-1]) == float("inf")
    assert torch.allclose(process.at_log_snr(levels), t, rtol=1e-9, atol=1e-12)
    assert float(process.at_log_snr(levels[-1:])) == 0.0


@each_process
@pytest.mark.parametrize("steps", [1, 7, 30, 100])
def test_grids_fall_from_the_start_to_exactly_zero(process: GaussianProcess, steps: int) -> None:
    grid = process.grid(steps)
    assert grid.dtype == torch.float64 and len(grid) == steps + 1
    assert float(grid[0]) == process.t_start and float(grid[-1]) == 0.0
    assert bool((grid.diff() < 0).all())
    assert abs(float(-grid.diff().sum()) - process.t_start) < 1e-12 * process.t_start
    with pytest.raises(ConfigError, match="steps is 0"):
        process.grid(0)


@each_process
def test_what_a_network_sees_and_says_has_unit_variance(process: GaussianProcess) -> None:
    """At the times of training, for data of the deviation that codecs promise (EDM: that it is told)."""
    rng = torch.Generator().manual_seed(0)
    deviation = process.sigma_data if isinstance(process, EDM) else 1.0
    clean = deviation * torch.randn(4000, 1, 3, 3, generator=rng, dtype=torch.float64)
    t = process.draw(4000, rng)
    assert float(t.min()) > 0 and t.dtype == torch.float64 and bool(torch.isfinite(process.log_snr(t)).all())
    x, noise = process.corrupt(clean, t, rng)
    scaled, time = process.inputs(x, t)
    assert time.shape == t.shape and float(time.abs().max()) < 4
    if not isinstance(process, RectifiedFlow):  # straight lines pass through less
        assert abs(float(scaled.var()) - 1.0) < 0.03
        assert abs(float(said(process, clean, noise, t).var()) - 1.0) < 0.03


@each_process
def test_shares_rise_from_data_to_noise(process: GaussianProcess) -> None:
    shares = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9], dtype=torch.float64)
    times = process.at_share(shares)
    assert bool((times.diff() > 0).all()) and float(times[0]) > 0 and float(times[-1]) < process.t_start
    if not isinstance(process, EDM):
        assert torch.equal(times, shares)


def test_edm_is_variance_preserving_velocity_seen_from_outside() -> None:
    """With unit data, c_in x is the variance-preserving state of equal SNR and F is minus its velocity."""
    rng, outer, inner = torch.Generator().manual_seed(0), EDM(), VariancePreserving()
    clean, noise = torch.randn(2, 3, 1, 4, 4, generator=rng, dtype=torch.float64)
    t = torch.tensor([0.05, 1.0, 30.0], dtype=torch.float64)
    same = inner.at_log_snr(outer.log_snr(t))
    seen, _ = outer.inputs(outer.mix(clean, noise, t), t)
    assert torch.allclose(seen, inner.mix(clean, noise, same), atol=1e-9)
    f = -said(inner, clean, noise, same)
    assert torch.allclose(outer.estimate(outer.mix(clean, noise, t), f, t).clean, clean, atol=1e-9)


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "cosine"])
@pytest.mark.parametrize("steps", [1000, 50])
def test_alpha_bar_is_the_table_of_ddpm(schedule: Schedule, steps: int) -> None:
    process = VariancePreserving(schedule=schedule, train_steps=steps)
    if schedule == "cosine":
        f = torch.cos((torch.arange(steps + 1, dtype=torch.float64) / steps + 0.008) / 1.008 * torch.pi / 2) ** 2
        betas = (1 - f[1:] / f[:-1]).clamp_max(0.999)
    elif schedule == "linear":
        betas = torch.linspace(1e-4, 0.02, steps, dtype=torch.float64)
    else:
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, steps, dtype=torch.float64) ** 2
    t = torch.arange(1, steps + 1, dtype=torch.float64) / steps
    assert torch.allclose(process.alpha(t) ** 2, (1 - betas).cumprod(0), rtol=1e-9, atol=1e-14)
    assert torch.allclose(process.alpha(t) ** 2 + process.sigma(t) ** 2, torch.ones_like(t))
    assert torch.allclose(torch.tensor(process.beta_table(), dtype=torch.float64), betas)


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "cosine"])
@pytest.mark.parametrize("zero", [False, True])
def test_alpha_bar_is_the_table_of_diffusers(schedule: Schedule, zero: bool) -> None:
    scheduling = pytest.importorskip("diffusers.schedulers.scheduling_ddim")
    names = {"linear": "linear", "scaled_linear": "scaled_linear", "cosine": "squaredcos_cap_v2"}
    betas = {"linear": (1e-4, 0.02), "scaled_linear": (0.00085, 0.012), "cosine": (1e-4, 0.02)}[schedule]
    peer = scheduling.DDIMScheduler(
        beta_start=betas[0], beta_end=betas[1], beta_schedule=names[schedule], rescale_betas_zero_snr=zero
    )
    t = torch.arange(1, 1001, dtype=torch.float64) / 1000
    ours = VariancePreserving(schedule=schedule, zero_terminal=zero).alpha(t) ** 2
    assert float((ours - peer.alphas_cumprod).abs().max()) < 1e-6


def test_zero_terminal_leaves_no_signal_and_keeps_the_first_step() -> None:
    plain, zero = (VariancePreserving(schedule="scaled_linear", zero_terminal=z) for z in (False, True))
    first, last = torch.tensor([0.001, 1.0], dtype=torch.float64)
    assert float(plain.alpha(last)) > 0.06 and float(zero.alpha(last)) < 1e-4
    assert abs(float(plain.alpha(first) - zero.alpha(first))) < 1e-12
    assert bool(torch.isfinite(zero.log_snr(zero.grid(1000)[:-1])).all())


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: VariancePreserving(train_steps=1), "train_steps"),
        (lambda: VariancePreserving(betas=(0.1, 0.2)), "cosine schedule has no betas"),
        (lambda: VariancePreserving(schedule="linear", betas=(0.2, 0.1)), "two rising values"),
        (lambda: VariancePreserving(zero_terminal=True, prediction="noise"), "predict velocity or clean"),
        (lambda: VariancePreserving(prediction="noise"), "cosine, the noise says nothing about the data at t = 1"),
        (lambda: EDM(sigma_min=90.0), "0 < sigma_min < sigma_max"),
        (lambda: EDM(rho=0.0), "rho"),
    ],
)
def test_laws_that_cannot_be_are_refused(wrong: Callable[[], object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        wrong()


@each_process
def test_renoising_keeps_each_law(process: GaussianProcess) -> None:
    rng = torch.Generator().manual_seed(0)
    clean = torch.full((50_000, 1, 1), 0.5, dtype=torch.float64)
    t = process.at_share(torch.tensor([0.7], dtype=torch.float64))
    for s in (process.at_share(torch.tensor([0.3], dtype=torch.float64)), torch.zeros_like(t)):
        later = process.renoise(process.corrupt(clean, s, rng)[0], s, t, rng)
        assert abs(float(later.mean() - process.alpha(t) * 0.5)) < 0.02 * float(process.sigma(t))
        assert abs(float(later.std() / process.sigma(t)) - 1.0) < 0.01


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
