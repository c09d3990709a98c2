"""diffusers' schedulers drive a denoiser as diffusers' own loop would."""

from typing import Any

import pytest
import torch
from torch import Tensor

from synth.denoiser import Bound, Denoiser
from synth.errors import ConfigError
from synth.ports import Ports
from synth.process import EDM, GaussianProcess, RectifiedFlow, VariancePreserving
from synth.sampler import Ancestral, DPMSolver2M, Euler
from tests.laws.exact import Gaussian

pytest.importorskip("diffusers")

from synth.interop.diffusers import DiffusersSampler, form_of, scheduler_for  # noqa: E402

STEPS = 12
GRIDS = [(4, 5), (3, 4, 2)]


class _Network(torch.nn.Module):
    """Anything not linear; times are told apart."""

    def forward(self, x: Tensor, time: Tensor, ports: Ports) -> Tensor:
        return torch.tanh(0.7 * x + 0.2) - 0.3 * x * time.reshape(-1, *([1] * (x.ndim - 1)))


def _denoiser(process: GaussianProcess) -> Denoiser:
    return Denoiser(_Network(), process)


def _own_loop(scheduler: Any, denoiser: Denoiser, noise: Tensor, rng: torch.Generator, **options: Any) -> Tensor:
    """The loop of diffusers' pipelines: the network sees (index + 1) / 1000 for a scheduler's index."""
    run = type(scheduler).from_config(scheduler.config)
    run.set_timesteps(STEPS)
    x = noise * run.init_noise_sigma
    for stamp in run.timesteps:
        t = ((stamp.double() + 1.0) / len(run.alphas_cumprod)).expand(len(x))
        said = denoiser.predict(run.scale_model_input(x, stamp), t, Ports())
        x = run.step(said, stamp, x, **options, **({"generator": rng} if "DDPM" in type(run).__name__ else {}))[0]
    return x


def _noise(grid: tuple[int, ...]) -> Tensor:
    return torch.randn(1, 2, *grid, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("grid", GRIDS, ids=["2D", "3D"])
@pytest.mark.parametrize("prediction", ["velocity", "noise", "clean"])
@pytest.mark.parametrize("spacing", ["trailing", "leading"])
def test_ddim_is_bit_equal_to_its_own_loop(prediction: str, spacing: str, grid: tuple[int, ...]) -> None:
    process = VariancePreserving(schedule="linear", prediction=prediction)  # pyright: ignore[reportArgumentType]
    scheduler = scheduler_for(process, "DDIMScheduler", {"timestep_spacing": spacing})
    denoiser, noise = _denoiser(process), _noise(grid)
    ours = DiffusersSampler(scheduler)(Bound(denoiser, Ports()), process.grid(STEPS), noise, None)
    assert torch.equal(ours, _own_loop(scheduler, denoiser, noise, torch.Generator()))


@pytest.mark.parametrize(
    "name",
    ["DPMSolverMultistepScheduler", "EulerDiscreteScheduler", "DDPMScheduler", "UniPCMultistepScheduler"],
)
@pytest.mark.parametrize("schedule", ["linear", "scaled_linear"])
def test_other_schedulers_follow_their_own_loop(name: str, schedule: str) -> None:
    process = VariancePreserving(schedule=schedule, prediction="velocity")  # pyright: ignore[reportArgumentType]
    if name == "UniPCMultistepScheduler":
        process = VariancePreserving(schedule=schedule, prediction="noise")  # pyright: ignore[reportArgumentType]
    scheduler = scheduler_for(process, name)
    denoiser, noise = _denoiser(process), _noise((3, 4, 2))
    ours = DiffusersSampler(scheduler)(
        Bound(denoiser, Ports()), process.grid(STEPS), noise, torch.Generator().manual_seed(3)
    )
    peer = _own_loop(scheduler, denoiser, noise, torch.Generator().manual_seed(3))
    assert float((ours - peer).abs().max()) <= 1e-4 * float(peer.abs().max())
    again = DiffusersSampler(scheduler)(
        Bound(denoiser, Ports()), process.grid(STEPS), noise, torch.Generator().manual_seed(3)
    )
    assert torch.equal(ours, again)  # no state is left from one call to the next


def test_our_own_ddim_ancestral_and_multistep_are_those_of_diffusers() -> None:
    """Trailing times are ours: index 999 is t = 1. diffusers ends at index -1, which is t = 0."""
    process = VariancePreserving(schedule="linear", prediction="velocity")
    denoise, noise = Bound(_denoiser(process), Ports()), _noise((3, 4)).double()
    times = process.grid(20)
    for name, options, sampler in (
        ("DDIMScheduler", {}, Euler()),
        ("DPMSolverMultistepScheduler", {"final_sigmas_type": "zero", "solver_order": 2}, DPMSolver2M()),
    ):
        peer = DiffusersSampler(scheduler_for(process, name, options))(denoise, times, noise, None)
        ours = sampler(denoise, times, noise, None)
        assert float((ours - peer).abs().max()) < 2e-4 * float(peer.abs().max()), name


@pytest.mark.parametrize("eta", [0.4, 1.0])
def test_our_ancestral_step_is_the_one_of_ddim_with_eta(eta: float) -> None:
    process = VariancePreserving(schedule="linear", prediction="velocity")
    denoiser, x = _denoiser(process), _noise((3, 4)).double()
    peer = scheduler_for(process, "DDIMScheduler")
    peer.set_timesteps(20)
    times = process.grid(20)[4:6]
    ours = Ancestral(eta=eta)(Bound(denoiser, Ports()), times, x, torch.Generator().manual_seed(5))
    fresh = torch.randn(x.shape, generator=torch.Generator().manual_seed(5)).double()
    said = denoiser.predict(x, times[:1], Ports())
    theirs = peer.step(said, int(peer.timesteps[4]), x, eta=eta, variance_noise=fresh).prev_sample
    assert abs(float(times[0]) - (int(peer.timesteps[4]) + 1) / 1000) < 1e-12
    assert float((ours - theirs).abs().max()) < 1e-5


@pytest.mark.parametrize(
    ("process", "name"),
    [
        (RectifiedFlow(), "FlowMatchEulerDiscreteScheduler"),
        (RectifiedFlow(prediction="clean"), "FlowMatchEulerDiscreteScheduler"),
        (RectifiedFlow(), "FlowMatchHeunDiscreteScheduler"),
        (EDM(), "EDMEulerScheduler"),
        (EDM(sigma_data=0.5), "EDMDPMSolverMultistepScheduler"),
        (VariancePreserving(schedule="linear"), "HeunDiscreteScheduler"),
        (VariancePreserving(prediction="clean"), "DDIMScheduler"),
    ],
)
def test_each_form_recovers_a_gaussian(process: GaussianProcess, name: str) -> None:
    exact = Gaussian(process, (2, 2))
    _reaches_the_end(exact, DiffusersSampler(scheduler_for(process, name)))


@pytest.mark.parametrize("process", [RectifiedFlow(), EDM(), VariancePreserving()])
def test_a_scheduler_of_another_law_meets_a_process_at_equal_log_snr(process: GaussianProcess) -> None:
    other = VariancePreserving(schedule="linear", prediction="velocity")
    flow = RectifiedFlow(), "FlowMatchEulerDiscreteScheduler"
    for law, name in ((other, "DDIMScheduler"), (other, "EulerDiscreteScheduler"), (EDM(), "EDMEulerScheduler"), flow):
        _reaches_the_end(Gaussian(process, (2, 2)), DiffusersSampler(scheduler_for(law, name)))


def _reaches_the_end(exact: Gaussian, sampler: DiffusersSampler) -> None:
    """Pure noise of the process ends where the probability flow takes unit noise, to the scheduler's own accuracy."""
    process = exact.process
    unit = torch.randn(64, 1, *exact.grid, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    out = sampler(exact.bound(), process.grid(100), unit * (process.t_start if isinstance(process, EDM) else 1.0), None)
    expected = exact.mean + (unit.flatten(1) @ exact.axes * exact.spread.sqrt()) @ exact.axes.T
    assert float((out.flatten(1).double() - expected).abs().max()) < 0.15


def test_what_does_not_fit_is_refused() -> None:
    process = VariancePreserving()
    with pytest.raises(ConfigError, match="did you mean 'DDIMScheduler'"):
        scheduler_for(process, "DDIMScheduller")
    with pytest.raises(ConfigError, match="another noise law"):
        scheduler_for(process, "FlowMatchEulerDiscreteScheduler")
    with pytest.raises(ConfigError, match="no Gaussian scheduler"):
        form_of(object())
    sampler = DiffusersSampler(scheduler_for(process, "DDIMScheduler"))
    with pytest.raises(ConfigError, match="starts at pure noise"):
        sampler(Bound(_denoiser(process), Ports()), process.grid(4)[1:], _noise((2, 2)), None)


def test_evaluations_are_the_schedulers() -> None:
    process = VariancePreserving(schedule="linear")
    heun = DiffusersSampler(scheduler_for(process, "HeunDiscreteScheduler"))
    assert heun.kind == "diffusers.HeunDiscreteScheduler" and heun.evaluations(5) == 9 and heun.steps_for(9) == 5


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("DDIMScheduler", {}, False),
        ("DDPMScheduler", {}, True),
        ("EulerDiscreteScheduler", {}, False),
        ("EulerAncestralDiscreteScheduler", {}, True),
        ("UniPCMultistepScheduler", {}, False),
        ("DPMSolverMultistepScheduler", {}, False),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}, True),
    ],
)
def test_a_scheduler_that_draws_noise_is_found_out(name: str, options: dict[str, object], expected: bool) -> None:
    before = torch.get_rng_state()
    assert DiffusersSampler(scheduler_for(VariancePreserving(schedule="linear"), name, options)).stochastic == expected
    assert torch.equal(torch.get_rng_state(), before)


def test_deterministic_schedulers_of_other_laws_are_known_as_such() -> None:
    for process, name in ((RectifiedFlow(), "FlowMatchEulerDiscreteScheduler"), (EDM(), "EDMEulerScheduler")):
        assert not DiffusersSampler(scheduler_for(process, name)).stochastic
