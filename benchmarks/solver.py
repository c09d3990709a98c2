"""Error of our samplers and of MONAI's rectified flow on a flow whose solution is known. JSON out.

python -m benchmarks.solver benchmarks/results/solver.json

Data N(mean, sd^2), noise N(0, 1), x_t = (1 - t) data + t noise: the marginal at t is N(m_t, s_t^2) with
m_t = (1 - t) mean and s_t^2 = (1 - t)^2 sd^2 + t^2, the probability-flow ODE moves x = m_t + s_t z at fixed z,

    v(x, t) = dx/dt = -mean + (t - (1 - t) sd^2) / s_t^2 (x - m_t),

and its exact end at t = 0 is mean + sd z for the noise z. All solvers get this velocity in float64. As it is
affine in x, so is what they return, and the mean over z = -1 and +1 is the mean over z ~ N(0, 1).

Ours runs as generation does: Denoiser, Bound, sampler. MONAI's runs in its own DiffusionInferer, with its sign (data
minus noise) and clock (1000 is noise), once with the continuous times of MAISI's configuration and once with
the whole-number times of RFlowScheduler's defaults. Where a figure sets us against MONAI, the better one counts.
"""

import argparse
import json
import platform
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import monai
import torch
from monai.inferers.inferer import DiffusionInferer
from monai.networks.schedulers.rectified_flow import RFlowScheduler
from torch import Tensor, nn

from synth.denoiser import Bound, Denoiser
from synth.io import write_bytes
from synth.ports import Ports
from synth.process import RectifiedFlow
from synth.sampler import Euler, Heun

LATENT = (128, 128, 192)
SHIFTS = {"1": 1.0, "latent 128x128x192": (prod(LATENT) / 32**3) ** (1 / 3)}
CALLS = (1, 2, 4, 6, 8, 10, 12, 16, 20, 24, 30, 40, 50, 60, 80, 100, 150, 200)
DATA = ((0.0, 1.0), (0.7, 0.4), (1.0, 0.2), (0.5, 0.1), (0.0, 0.05))
"""(mean, sd): the first is the law of whitened latents; small ones stand for what is left under strong conditions."""
Solver = Callable[[nn.Module, int, float, Tensor], Tensor]


class Velocity(nn.Module):
    """The exact v(x, t) of N(mean, sd^2), as a backbone."""

    def __init__(self, mean: float, sd: float) -> None:
        super().__init__()
        self.mean, self.sd = mean, sd

    def forward(self, x: Tensor, t: Tensor, ports: Ports | None = None) -> Tensor:
        """Return dx/dt at x (batch, ...) and times (batch,)."""
        t = t.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
        variance = (1 - t) ** 2 * self.sd**2 + t**2
        return -self.mean + (t - (1 - t) * self.sd**2) / variance * (x - (1 - t) * self.mean)

    def end(self, noise: Tensor) -> Tensor:
        """Return the exact solution at t = 0."""
        return self.mean + self.sd * noise


class _Constant(nn.Module):
    """dx/dt = 1 everywhere: what a solver moves by is the negative sum of its steps."""

    def forward(self, x: Tensor, t: Tensor, ports: Ports | None = None) -> Tensor:
        return torch.ones_like(x)


class _Monai(nn.Module):
    """A velocity in MONAI's convention: data minus noise, at times 0..1000."""

    def __init__(self, velocity: nn.Module) -> None:
        super().__init__()
        self.velocity = velocity

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor | None = None) -> Tensor:
        return -self.velocity(x, timesteps / 1000)


@dataclass(frozen=True)
class Ours:
    """One of our samplers, run as the generator runs it."""

    sampler: Euler | Heun

    def __call__(self, velocity: nn.Module, calls: int, shift: float, noise: Tensor) -> Tensor:
        """Return the end of `noise` after `calls` evaluations."""
        process = RectifiedFlow(prediction="velocity", shift=shift)
        denoise = Bound(Denoiser(velocity, process), Ports())
        return self.sampler(denoise, process.grid(self.sampler.steps_for(calls)), noise, None)


@dataclass(frozen=True)
class Monai:
    """MONAI's RFlowScheduler in MONAI's DiffusionInferer."""

    whole_times: bool

    def __call__(self, velocity: nn.Module, calls: int, shift: float, noise: Tensor) -> Tensor:
        """Return the end of `noise` after `calls` evaluations."""
        scheduler = RFlowScheduler(use_discrete_timesteps=self.whole_times, use_timestep_transform=shift != 1.0)
        scheduler.set_timesteps(calls, input_img_size_numel=round(shift**3 * 32**3))
        inferer: Any = DiffusionInferer(scheduler)  # its types know MONAI's own network alone
        return inferer.sample(noise, _Monai(velocity), scheduler, verbose=False)


EULER, HEUN = Ours(Euler()), Ours(Heun())
PEERS: dict[str, Solver] = {
    "monai euler, continuous times": Monai(whole_times=False),
    "monai euler, whole times": Monai(whole_times=True),
}
SOLVERS: dict[str, Solver] = {**PEERS, "synth euler": EULER, "synth heun": HEUN}


def error(solver: Solver, velocity: Velocity, calls: int, shift: float) -> float:
    """Return the root mean square distance to the exact end over noise ~ N(0, 1)."""
    noise = torch.tensor([-1.0, 1.0], dtype=torch.float64).reshape(2, 1, 1, 1, 1)
    return float((solver(velocity, calls, shift, noise) - velocity.end(noise)).square().mean().sqrt())


def sum_of_steps(solver: Solver, calls: int, shift: float) -> float:
    """Return the time that a solver covers: 1 for one that ends where the data is."""
    return -float(solver(_Constant(), calls, shift, torch.zeros(1, 1, 1, 1, 1, dtype=torch.float64)))


def measure(mean: float, sd: float, shift: float) -> dict[str, Any]:
    """Return the curves of error over calls on one data law and shift, and what they say."""
    velocity = Velocity(mean, sd)
    curves = {
        name: {
            calls: error(solver, velocity, calls, shift) for calls in CALLS if name != "synth heun" or calls % 2 == 0
        }
        for name, solver in SOLVERS.items()
    }
    peer = min(curves[name][30] for name in PEERS)
    needed = (calls for calls, value in curves["synth heun"].items() if value < peer)
    return {
        "mean": mean,
        "sd": sd,
        "heun_at_10_below_monai_euler_at_30": curves["synth heun"][10] < peer,
        "monai_at_30_to_heun_at_10": round(peer / curves["synth heun"][10], 2),
        "monai_at_30_to_heun_at_30": round(peer / curves["synth heun"][30], 2),
        "fewest_heun_calls_below_monai_euler_at_30": next(needed, None),
        "falls_with_every_more_calls": {name: _falls(list(curve.values())) for name, curve in curves.items()},
        "error": {
            name: {str(calls): float(f"{value:.4g}") for calls, value in curve.items()}
            for name, curve in curves.items()
        },
    }


def _falls(values: list[float]) -> bool:
    return all(later < before for before, later in zip(values, values[1:], strict=False))


def _verdict(flows: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return where Heun at 10 calls is below MONAI's better Euler at 30."""
    below = {
        f"N({row['mean']:g}, {row['sd']:g}^2), shift {shift}": row["heun_at_10_below_monai_euler_at_30"]
        for shift, rows in flows.items()
        for row in rows
    }
    plain, shifted = flows.values()
    own = [
        ours["error"]["synth heun"]["10"] < min(theirs["error"][name]["30"] for name in PEERS)
        for ours, theirs in zip(plain, shifted, strict=True)
    ]
    return {
        "same shift": f"{sum(below.values())} of {len(below)} flows",
        "same shift, whitened latents N(0, 1)": all(
            held for flow, held in below.items() if flow.startswith("N(0, 1^2)")
        ),
        "same shift, not on": [flow for flow, held in below.items() if not held],
        "each with its default shift (ours 1, MAISI's by size)": f"{sum(own)} of {len(own)} flows",
    }


def main(options: argparse.Namespace) -> None:
    """Measure and write the JSON."""
    flows = {name: [measure(mean, sd, shift) for mean, sd in DATA] for name, shift in SHIFTS.items()}
    sums = {
        name: {
            solver: {str(n): round(sum_of_steps(SOLVERS[solver], n, shift), 9) for n in (10, 30, 100, 200)}
            for solver in SOLVERS
        }
        for name, shift in SHIFTS.items()
    }
    result = {
        "command": f"python -m benchmarks.solver {options.out}",
        "environment": {"torch": torch.__version__, "monai": monai.__version__, "processor": platform.machine()},
        "error": "root mean square distance to the exact end, noise ~ N(0, 1), float64",
        "shift": {name: round(shift, 4) for name, shift in SHIFTS.items()},
        "heun_at_10_below_monai_euler_at_30": _verdict(flows),
        "sum_of_steps": sums,
        "flows": flows,
    }
    write_bytes(options.out, (json.dumps(result, indent=2) + "\n").encode())
    print(json.dumps({name: result[name] for name in list(result)[3:6]}, indent=2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    main(parser.parse_args())
