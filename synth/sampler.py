"""Samplers. Know steps, not networks: a denoise is a function (x, t, to=s) -> Estimate.

Each is a frozen value, both configuration and function; pure, no hidden step counter, no global RNG.
The union of the types here is the registry, and SAMPLERS gives each by its name. Free of torch until called.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, get_args

from synth.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from synth.denoiser import Denoise


class Sampler(Protocol):
    """A pure way from noise to data; what is here and what drives foreign solvers are samplers alike.

    stochastic   whether its steps draw fresh noise, which leaves the path of a flow
    """

    @property
    def kind(self) -> str: ...

    @property
    def stochastic(self) -> bool: ...

    def evaluations(self, steps: int) -> int: ...

    def steps_for(self, evaluations: int) -> int: ...

    def __call__(self, denoise: "Denoise", times: "Tensor", x: "Tensor", rng: "torch.Generator | None") -> "Tensor": ...


@dataclass(frozen=True, kw_only=True)
class Euler:
    """First order: x_s = step(x_t, estimate(x_t, t)); one evaluation a step.

    Under a variance-preserving process this is DDIM (Song et al. 2021).
    """

    kind: Literal["euler"] = "euler"
    stochastic = False

    def evaluations(self, steps: int) -> int:
        """NFE of `steps` steps."""
        return steps

    def steps_for(self, evaluations: int) -> int:
        """The most steps that stay within `evaluations`."""
        return max(evaluations, 1)

    def __call__(self, denoise: "Denoise", times: "Tensor", x: "Tensor", rng: "torch.Generator | None") -> "Tensor":
        """Return the state at times[-1], from x at times[0]."""
        for t, s in zip(times[:-1], times[1:], strict=True):
            x = denoise.process.step(x, denoise(x, t, to=s), t.reshape(1), s.reshape(1), rng)
        return x


@dataclass(frozen=True, kw_only=True)
class Heun:
    """Second order: the trapezoid of the velocities at both ends (Karras et al. 2022, algorithm 1).

    x' = x + (s - t) v(x, t);  x_s = x + (s - t) / 2 (v(x, t) + v(x', s)). The step that ends at 0, where an
    estimate of noise has no meaning, takes the velocity at its middle instead: x_0 = x - t v(x'', t / 2), of
    second order too. n steps cost 2 n evaluations.
    """

    kind: Literal["heun"] = "heun"
    stochastic = False

    def evaluations(self, steps: int) -> int:
        """NFE of `steps` steps."""
        return 2 * steps

    def steps_for(self, evaluations: int) -> int:
        """The most steps that stay within `evaluations`."""
        return max(evaluations // 2, 1)

    def __call__(self, denoise: "Denoise", times: "Tensor", x: "Tensor", rng: "torch.Generator | None") -> "Tensor":
        """Return the state at times[-1], from x at times[0]."""
        process = denoise.process
        for t, s in zip(times[:-1], times[1:], strict=True):
            now = denoise(x, t, to=s)
            if s > 0:
                ahead = process.step(x, now, t.reshape(1), s.reshape(1), rng)
                there = process.velocity(denoise(ahead, s, to=s), s.reshape(1))
                slope = 0.5 * (process.velocity(now, t.reshape(1)) + there)
            else:
                middle = t / 2
                halfway = process.step(x, now, t.reshape(1), middle.reshape(1), rng)
                slope = process.velocity(denoise(halfway, middle, to=s), middle.reshape(1))
            x = x + float(s - t) * slope
        return x


@dataclass(frozen=True, kw_only=True)
class Ancestral:
    """Stochastic first order: DDPM's ancestral sampling (Ho et al. 2020) for every Gaussian process.

    A step goes on beyond s, to the time r whose log-SNR lies as far above that of s as s lies above t, and noise is
    added back up to s: the signal is alpha(s) clean, the fresh noise has the variance of x_s given x_t and clean,
    v^2 = sigma(s)^2 (1 - SNR(t) / SNR(s)).
    eta   share of v that is fresh (Song et al. 2021, eq. 16): 1 is DDPM, 0 would be DDIM, which is Euler
    """

    kind: Literal["ancestral"] = "ancestral"
    eta: float = 1.0
    stochastic = True

    def __post_init__(self) -> None:
        if not 0 < self.eta <= 1:
            raise ConfigError(f"ancestral: eta is {self.eta}; give a share above 0, to 1 (for 0 take euler)")

    def evaluations(self, steps: int) -> int:
        """NFE of `steps` steps."""
        return steps

    def steps_for(self, evaluations: int) -> int:
        """The most steps that stay within `evaluations`."""
        return max(evaluations, 1)

    def __call__(self, denoise: "Denoise", times: "Tensor", x: "Tensor", rng: "torch.Generator | None") -> "Tensor":
        """Return the state at times[-1], from x at times[0]; fresh noise is drawn from `rng`."""
        process = denoise.process
        for t, s in zip(times[:-1], times[1:], strict=True):
            estimate = denoise(x, t, to=s)
            beyond = s
            if s > 0:
                now, then = process.log_snr(t), process.log_snr(s)
                beyond = process.at_log_snr(then - (self.eta**2 * (now - then).expm1()).log1p())
            x = process.step(x, estimate, t.reshape(1), beyond.reshape(1), rng)
            if s > 0:
                assert rng is not None, "ancestral sampling draws noise"
                x = process.renoise(x, beyond.reshape(1), s.reshape(1), rng)
        return x


@dataclass(frozen=True, kw_only=True)
class DPMSolver2M:
    """Second order in log-SNR with one evaluation a step: DPM-Solver++(2M) (Lu et al. 2022, algorithm 2).

    x_s = sigma_s / sigma_t x_t + (alpha_s - alpha_t sigma_s / sigma_t) D,  D = clean_t + (clean_t - clean_u) h / (2 g)
    with the log-SNR steps h from t to s and g from the time u before to t. It is exact while clean stays the same.
    A step from or to an infinite log-SNR, and the step after one from there, has D = clean_t: first order.
    """

    kind: Literal["dpm_solver_2m"] = "dpm_solver_2m"
    stochastic = False

    def evaluations(self, steps: int) -> int:
        """NFE of `steps` steps."""
        return steps

    def steps_for(self, evaluations: int) -> int:
        """The most steps that stay within `evaluations`."""
        return max(evaluations, 1)

    def __call__(self, denoise: "Denoise", times: "Tensor", x: "Tensor", rng: "torch.Generator | None") -> "Tensor":
        """Return the state at times[-1], from x at times[0]."""
        del rng
        process = denoise.process
        alphas, sigmas = process.alpha(times).tolist(), process.sigma(times).tolist()
        levels = process.log_snr(times).tolist()
        before = None
        for i in range(len(times) - 1):
            clean = denoise(x, times[i], to=times[i + 1]).clean
            ahead = clean
            if before is not None:
                share = (levels[i + 1] - levels[i]) / (2.0 * (levels[i] - levels[i - 1]))
                if math.isfinite(share):
                    ahead = clean + share * (clean - before)
            keep = sigmas[i + 1] / sigmas[i]
            x = keep * x + (alphas[i + 1] - alphas[i] * keep) * ahead
            before = clean
        return x


SamplerConfig = Euler | Heun | Ancestral | DPMSolver2M
SamplerName = Literal["euler", "heun", "ancestral", "dpm_solver_2m"]
SAMPLERS: dict[SamplerName, SamplerConfig] = {member().kind: member() for member in get_args(SamplerConfig)}
