"""Rectified flow: straight lines between data and noise."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from synth.errors import ConfigError
from synth.process.base import Estimate, GaussianProcess, expand

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# A clean prediction turns into noise through (x - (1 - t) clean) / t; below this t the division is noise itself.
_SMALLEST_TIME = 1e-4


@dataclass(frozen=True, kw_only=True)
class RectifiedFlow(GaussianProcess):
    """Noise law of rectified flow: x_t = (1 - t) clean + t noise, velocity = noise - clean (Liu et al. 2023).

    Training times are logit-normal, t = sigmoid(location + scale n) (Esser et al. 2024), then shifted
    like the sampling grid: t -> shift t / (1 + (shift - 1) t). shift > 1 spends more steps on noisy times.
    prediction   what the network says: the velocity, or the clean latents
    weight_cap   a clean prediction is weighted min(1 / t^2, weight_cap), the velocity loss capped near data

    >>> RectifiedFlow().grid(4).tolist()
    [1.0, 0.75, 0.5, 0.25, 0.0]
    """

    kind: Literal["rectified_flow"] = "rectified_flow"
    prediction: Literal["velocity", "clean"] = "velocity"
    shift: float = 1.0
    location: float = 0.0
    scale: float = 1.0
    weight_cap: float = 5.0

    def __post_init__(self) -> None:
        if self.shift <= 0 or self.scale <= 0 or self.weight_cap < 1:
            raise ConfigError(
                "rectified_flow: shift and scale are above 0 and weight_cap is at least 1; mend the recipe"
            )

    def alpha(self, t: "Tensor") -> "Tensor":
        """1 - t."""
        return 1.0 - t

    def sigma(self, t: "Tensor") -> "Tensor":
        """t."""
        return t

    def alpha_slope(self, t: "Tensor") -> "Tensor":
        """-1."""
        return -t.new_ones(t.shape)

    def sigma_slope(self, t: "Tensor") -> "Tensor":
        """1."""
        return t.new_ones(t.shape)

    def at_log_snr(self, value: "Tensor") -> "Tensor":
        """1 / (1 + exp(value / 2))."""
        return (-0.5 * value).sigmoid()

    def estimate(self, x: "Tensor", raw: "Tensor", t: "Tensor") -> Estimate:
        """Return clean and noise such that (1 - t) clean + t noise = x exactly."""
        time = expand(t, x)
        if self.prediction == "velocity":
            return Estimate(clean=x - time * raw, noise=x + (1.0 - time) * raw, raw=raw)
        return Estimate(clean=raw, noise=(x - (1.0 - time) * raw) / time.clamp_min(_SMALLEST_TIME), raw=raw)

    def objective(self, prediction: "Tensor", clean: "Tensor", other: "Tensor", t: "Tensor") -> "Tensor":
        """Return the unreduced squared error, weighted so that both kinds see the velocity's scale."""
        if self.prediction == "velocity":
            return (prediction - (other - clean)) ** 2
        weight = (1.0 / expand(t, clean).clamp_min(_SMALLEST_TIME) ** 2).clamp_max(self.weight_cap)
        return weight * (prediction - clean) ** 2

    def draw(self, count: int, rng: "torch.Generator") -> "Tensor":
        """Return `count` training times in (0, 1)."""
        import torch

        normal = torch.randn(count, generator=rng, dtype=torch.float64, device=rng.device)
        return self._shifted(torch.sigmoid(self.location + self.scale * normal))

    def grid(self, steps: int, shape: tuple[int, ...] = ()) -> "Tensor":
        """Return steps + 1 descending times, exactly 1 first and exactly 0 last (float64)."""
        import torch

        del shape
        if steps < 1:
            raise ConfigError(f"steps is {steps}; give at least 1")
        return self._shifted(torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64))

    def _shifted(self, t: "Tensor") -> "Tensor":
        return self.shift * t / (1.0 + (self.shift - 1.0) * t)
