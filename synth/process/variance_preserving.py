"""Variance-preserving diffusion: the schedules of DDPM, Stable Diffusion and Nichol & Dhariwal in continuous time."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from synth.errors import ConfigError
from synth.process.base import Estimate, GaussianProcess, expand

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

Schedule = Literal["linear", "scaled_linear", "cosine"]

_BETAS: dict[Schedule, tuple[float, float]] = {"linear": (1.0e-4, 0.02), "scaled_linear": (8.5e-4, 0.012)}
# The largest beta, as Nichol & Dhariwal (2021) cap it: the signal never quite vanishes, so every log-SNR is finite.
_LARGEST_BETA = 0.999
_COSINE_OFFSET = 0.008
# A clean prediction turns into noise through (x - alpha clean) / sigma; below this sigma the division is noise itself.
_SMALLEST_SIGMA = 1e-4
# A noise prediction turns into clean through (x - sigma noise) / alpha; below this alpha the division is noise itself.
_LEAST_SIGNAL = 1e-3
# Times are told apart to 2^-50 of a discrete step.
_HALVINGS = 50


@dataclass(frozen=True, kw_only=True)
class VariancePreserving(GaussianProcess):
    """Noise law of DDPM: x_t = cos(angle) clean + sin(angle) noise, cos(angle)^2 = a = alpha-bar (Ho et al. 2020).

    a(i / train_steps) is the product of 1 - beta over the first i discrete steps, so that the index i of a DDPM table
    (from 0) is t = (i + 1) / train_steps, and t = 0 is data. Between them angle^2 is a monotone cubic of continuous
    slope (Fritsch & Butland 1984). It is smooth at both ends, as log a is not at noise; corners would cost solvers of
    second order their order.
    schedule        of beta: linear (Ho et al. 2020), scaled_linear (its root is linear; Rombach et al. 2022),
                    cosine (Nichol & Dhariwal 2021)
    betas           first and last beta of a linear schedule; None = 1e-4, 0.02 (linear), 8.5e-4, 0.012 (scaled_linear)
    zero_terminal   rescale so that pure noise is reached (Lin et al. 2023). Samples start from pure noise, which
                    scaled_linear never shows in training: 7 % of the signal is left at t = 1
    prediction      velocity = alpha noise - sigma clean (Salimans & Ho 2022), the noise, or the clean latents
    weight_cap      the weight of velocity and noise is 1; that of clean is min(1 / sigma^2, weight_cap), the
                    velocity loss capped near data

    >>> VariancePreserving().grid(4).tolist()
    [1.0, 0.75, 0.5, 0.25, 0.0]
    """

    kind: Literal["variance_preserving"] = "variance_preserving"
    schedule: Schedule = "cosine"
    train_steps: int = 1000
    betas: tuple[float, float] | None = None
    zero_terminal: bool = False
    prediction: Literal["velocity", "noise", "clean"] = "velocity"
    weight_cap: float = 5.0

    def __post_init__(self) -> None:
        if self.train_steps < 2 or self.weight_cap < 1:
            raise ConfigError(
                "variance_preserving: train_steps is at least 2 and weight_cap at least 1; mend the recipe"
            )
        if self.betas is not None and self.schedule == "cosine":
            raise ConfigError("variance_preserving: a cosine schedule has no betas; leave them out")
        if self.betas is not None and not 0 < self.betas[0] <= self.betas[1] <= _LARGEST_BETA:
            raise ConfigError(
                f"variance_preserving: betas are {list(self.betas)}; give two rising values in (0, {_LARGEST_BETA}]"
            )
        if self.prediction == "noise" and (self.zero_terminal or self._last_signal < _LEAST_SIGNAL):
            why = "zero_terminal" if self.zero_terminal else f"this schedule, {self.schedule},"
            raise ConfigError(
                f"variance_preserving: with {why} the noise says nothing about the data at t = 1; "
                "predict velocity or clean"
            )

    def beta_table(self) -> list[float]:
        """Return the beta of every discrete step, as DDPM's table has it."""
        return beta_table(self.schedule, self.train_steps, self._ends, self.zero_terminal).tolist()

    def angle(self, t: "Tensor") -> "Tensor":
        """Return the angle between x_t and data, from 0 to at most pi / 2 (float64; Salimans & Ho 2022)."""
        return self._square(t)[0].sqrt()

    def alpha(self, t: "Tensor") -> "Tensor":
        """cos(angle)."""
        return self.angle(t).cos().to(t.dtype)

    def sigma(self, t: "Tensor") -> "Tensor":
        """sin(angle)."""
        return self.angle(t).sin().to(t.dtype)

    def alpha_slope(self, t: "Tensor") -> "Tensor":
        """-sin(angle) angle'."""
        import torch

        square, slope = self._square(t)
        return (-0.5 * slope * torch.sinc(square.sqrt() / torch.pi)).to(t.dtype)

    def sigma_slope(self, t: "Tensor") -> "Tensor":
        """cos(angle) angle'; infinite at t = 0, where sigma grows like a root."""
        square, slope = self._square(t)
        return (0.5 * slope * square.sqrt().cos() / square.sqrt()).to(t.dtype)

    def at_log_snr(self, value: "Tensor") -> "Tensor":
        """Return t with tan(angle) = exp(-value / 2), clamped to [0, 1]; found by halving within its discrete step."""
        import torch

        wanted = (-0.5 * value.double()).exp().atan() ** 2
        levels, _ = self._table(wanted)
        index = torch.searchsorted(levels, wanted).clamp(1, self.train_steps) - 1
        level, first, square, cube = self._cubic(index)
        low, high = torch.zeros_like(wanted), torch.ones_like(wanted)
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            later = level + middle * (first + middle * (square + middle * cube)) < wanted
            low, high = torch.where(later, middle, low), torch.where(later, high, middle)
        # data and the last level are met exactly
        place = torch.where(wanted <= 0.0, 0.0, torch.where(wanted >= levels[-1], self.train_steps, index + high))
        return (place / self.train_steps).to(value.dtype)

    def estimate(self, x: "Tensor", raw: "Tensor", t: "Tensor") -> Estimate:
        """Return clean and noise such that alpha clean + sigma noise = x."""
        alpha, sigma = expand(self.alpha(t), x), expand(self.sigma(t), x)
        if self.prediction == "velocity":
            return Estimate(clean=alpha * x - sigma * raw, noise=sigma * x + alpha * raw, raw=raw)
        if self.prediction == "noise":
            return Estimate(clean=(x - sigma * raw) / alpha, noise=raw, raw=raw)
        return Estimate(clean=raw, noise=(x - alpha * raw) / sigma.clamp_min(_SMALLEST_SIGMA), raw=raw)

    def objective(self, prediction: "Tensor", clean: "Tensor", other: "Tensor", t: "Tensor") -> "Tensor":
        """Return the unreduced squared error; that of clean latents is weighted to the velocity's scale."""
        if self.prediction == "noise":
            return (prediction - other) ** 2
        alpha, sigma = expand(self.alpha(t), clean), expand(self.sigma(t), clean)
        if self.prediction == "velocity":
            return (prediction - (alpha * other - sigma * clean)) ** 2
        weight = (1.0 / sigma.clamp_min(_SMALLEST_SIGMA) ** 2).clamp_max(self.weight_cap)
        return weight * (prediction - clean) ** 2

    def draw(self, count: int, rng: "torch.Generator") -> "Tensor":
        """Return `count` training times, uniform in (0, 1]."""
        import torch

        return 1.0 - torch.rand(count, generator=rng, dtype=torch.float64, device=rng.device)

    def grid(self, steps: int, shape: tuple[int, ...] = ()) -> "Tensor":
        """Return steps + 1 even times from exactly 1 to exactly 0 (float64): "trailing" in Lin et al. 2023."""
        import torch

        del shape
        if steps < 1:
            raise ConfigError(f"steps is {steps}; give at least 1")
        return torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64)

    def _table(self, like: "Tensor") -> "tuple[Tensor, Tensor]":
        """Return angle^2 at every discrete step and its slope a step: (train_steps + 1,) each, float64."""
        import torch

        levels, slopes = knots(self.schedule, self.train_steps, self._ends, self.zero_terminal)
        return torch.from_numpy(levels).to(like.device), torch.from_numpy(slopes).to(like.device)

    @property
    def _last_signal(self) -> float:
        """Return alpha at t = 1."""
        return math.cos(math.sqrt(knots(self.schedule, self.train_steps, self._ends, self.zero_terminal)[0][-1]))

    @property
    def _ends(self) -> tuple[float, float]:
        return self.betas or _BETAS.get(self.schedule, (0.0, 0.0))

    def _cubic(self, index: "Tensor") -> "tuple[Tensor, Tensor, Tensor, Tensor]":
        """Return the coefficients of angle^2 between discrete steps index and index + 1: Hermite's cubic."""
        levels, slopes = self._table(index)
        level, first, last = levels[index], slopes[index], slopes[index + 1]
        rise = levels[index + 1] - level
        return level, first, 3.0 * rise - 2.0 * first - last, first + last - 2.0 * rise

    def _square(self, t: "Tensor") -> "tuple[Tensor, Tensor]":
        """Return angle^2 and its derivative at t (float64)."""
        place = t.double().clamp(0.0, 1.0) * self.train_steps
        index = place.detach().floor().clamp_max(self.train_steps - 1).long()
        level, first, square, cube = self._cubic(index)
        u = place - index
        value = level + u * (first + u * (square + u * cube))
        return value, self.train_steps * (first + u * (2.0 * square + 3.0 * u * cube))


@lru_cache(maxsize=16)
def knots(
    schedule: Schedule, steps: int, betas: tuple[float, float], zero_terminal: bool
) -> "tuple[np.ndarray, np.ndarray]":
    """Return angle^2 after each discrete step, 0 first, and its slopes: (steps + 1,) each, not to be written to.

    A slope is the harmonic mean of the rises on both sides (Fritsch & Butland 1984), which keeps the cubic rising.

    >>> import numpy as np
    >>> (np.cos(np.sqrt(knots("linear", 2, (0.1, 0.2), False)[0])) ** 2).round(5).tolist()
    [1.0, 0.9, 0.72]
    """
    import numpy as np

    log_a = np.log1p(-beta_table(schedule, steps, betas, zero_terminal)).cumsum()
    levels = np.concatenate([np.zeros(1), np.arctan2(np.sqrt(-np.expm1(log_a)), np.exp(0.5 * log_a)) ** 2])
    rises = np.diff(levels)
    inner = 2.0 * rises[:-1] * rises[1:] / (rises[:-1] + rises[1:])
    return levels, np.concatenate([2.0 * rises[:1] - inner[:1], inner, 2.0 * rises[-1:] - inner[-1:]])


def beta_table(schedule: Schedule, steps: int, betas: tuple[float, float], zero_terminal: bool) -> "np.ndarray":
    """Return the beta of every discrete step, (steps,), at most 0.999."""
    import numpy as np

    if schedule == "cosine":
        turn = (np.arange(steps + 1) / steps + _COSINE_OFFSET) / (1.0 + _COSINE_OFFSET)
        levels = np.cos(0.5 * np.pi * turn) ** 2
        table = 1.0 - levels[1:] / levels[:-1]
    else:
        power = 2.0 if schedule == "scaled_linear" else 1.0
        table = np.linspace(betas[0] ** (1.0 / power), betas[1] ** (1.0 / power), steps) ** power
    table = np.minimum(table, _LARGEST_BETA)
    if zero_terminal:  # sqrt(a) moved and stretched to end at 0 (Lin et al. 2023, algorithm 1)
        roots = np.sqrt((1.0 - table).cumprod())
        moved = (roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])
        table = np.concatenate([table[:1], 1.0 - (moved[1:] / moved[:-1]) ** 2])
    return np.minimum(table, _LARGEST_BETA)
