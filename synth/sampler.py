"""Samplers. Know steps, not networks: a denoise is a function (x, t, to=s) -> Estimate.

Each is a frozen value, both configuration and function; pure, no hidden step counter, no global RNG.
The union of the types here is the registry.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from synth.denoiser import Denoise


@dataclass(frozen=True, kw_only=True)
class Euler:
    """First order: x_s = step(x_t, estimate(x_t, t)); one evaluation a step (DDIM under a VP process)."""

    kind: Literal["euler"] = "euler"

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


SamplerConfig = Euler | Heun
