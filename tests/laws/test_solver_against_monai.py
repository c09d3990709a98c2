"""Laws of our solvers beside MONAI's, on a flow whose end is known."""

import pytest
import torch

pytest.importorskip("monai")

from benchmarks.solver import EULER, HEUN, PEERS, SHIFTS, Velocity, error, sum_of_steps  # noqa: E402

SHIFTED = SHIFTS["latent 128x128x192"]


def test_the_end_is_the_solution_of_the_flow() -> None:
    """m_t + s_t z has the velocity as its slope, and is the noise at t = 1 and the end at t = 0."""
    velocity, z = Velocity(0.7, 0.4), torch.tensor([[-1.3], [0.0], [0.8]], dtype=torch.float64)
    t = torch.linspace(0.0, 1.0, 9, dtype=torch.float64, requires_grad=True)
    x = (1 - t) * 0.7 + ((1 - t) ** 2 * 0.4**2 + t**2).sqrt() * z
    for row in x:
        (slope,) = torch.autograd.grad(row.sum(), t, retain_graph=True)
        assert torch.allclose(velocity(row, t), slope, atol=1e-12)
    assert torch.equal(x[:, -1:], z) and torch.allclose(x[:, :1], velocity.end(z))


def test_conventions_agree_where_monai_rounds_nothing() -> None:
    """Ten steps without shift fall on whole times: both Euler solvers are then one."""
    velocity, noise = Velocity(0.7, 0.4), torch.linspace(-2, 2, 5, dtype=torch.float64).reshape(5, 1, 1, 1, 1)
    ours = EULER(velocity, 10, 1.0, noise)
    for peer in PEERS.values():
        assert torch.allclose(peer(velocity, 10, 1.0, noise), ours, atol=1e-6)


@pytest.mark.parametrize("shift", [1.0, SHIFTED])
@pytest.mark.parametrize(("mean", "sd"), [(0.0, 1.0), (0.7, 0.4), (1.0, 0.2)])
def test_heun_at_ten_calls_is_below_monai_euler_at_thirty(mean: float, sd: float, shift: float) -> None:
    velocity = Velocity(mean, sd)
    assert error(HEUN, velocity, 10, shift) < min(error(peer, velocity, 30, shift) for peer in PEERS.values())


@pytest.mark.parametrize("shift", [1.0, SHIFTED])
def test_our_steps_sum_to_one_and_more_of_them_help(shift: float) -> None:
    calls = (10, 30, 100)
    assert all(abs(sum_of_steps(solver, n, shift) - 1.0) < 1e-12 for solver in (EULER, HEUN) for n in calls)
    errors = [error(EULER, Velocity(0.7, 0.4), n, shift) for n in calls]
    assert errors == sorted(errors, reverse=True)
