"""EDM: noise added without shrinking the data, and a network whose inputs and outputs keep unit variance."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from synth.errors import ConfigError
from synth.process.base import Estimate, GaussianProcess, expand

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# c_noise is a logarithm: below this noise level the network is told this one.
_SMALLEST_SIGMA = 1e-5


@dataclass(frozen=True, kw_only=True)
class EDM(GaussianProcess):
    """Noise law of Karras et al. 2022: x_t = clean + t noise; the time is the noise level, from 0 to sigma_max.

    The network F sees c_in x and c_noise = log(t) / 4 and says the rest of clean (their table 1), with s = sigma_data:
        clean = c_skip x + c_out F,  c_skip = s^2 / (t^2 + s^2),  c_out = t s / sqrt(t^2 + s^2),
        c_in = 1 / sqrt(t^2 + s^2)
    sigma_data      deviation of the data: 1, since codecs give unit variance (0.5 in the paper, for its pixels)
    location, scale log t ~ N(location, scale^2) in training: -0.5 keeps the paper's -1.2 relative to sigma_data
    sigma_min, sigma_max, rho   the sampling grid, even in t^(1/rho) from sigma_max to sigma_min and then 0

    >>> [round(t, 3) for t in EDM().grid(4).tolist()]
    [80.0, 9.723, 0.47, 0.002, 0.0]
    """

    kind: Literal["edm"] = "edm"
    sigma_data: float = 1.0
    location: float = -0.5
    scale: float = 1.2
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        if min(self.sigma_data, self.scale, self.rho) <= 0:
            raise ConfigError("edm: sigma_data, scale and rho are above 0; mend the recipe")
        if not 0 < self.sigma_min < self.sigma_max:
            raise ConfigError(
                f"edm: sigma_min is {self.sigma_min} and sigma_max {self.sigma_max}; give 0 < sigma_min < sigma_max"
            )

    @property
    def t_start(self) -> float:
        """sigma_max."""
        return self.sigma_max

    def alpha(self, t: "Tensor") -> "Tensor":
        """1."""
        return t.new_ones(t.shape)

    def sigma(self, t: "Tensor") -> "Tensor":
        """t."""
        return t

    def alpha_slope(self, t: "Tensor") -> "Tensor":
        """0."""
        return t.new_zeros(t.shape)

    def sigma_slope(self, t: "Tensor") -> "Tensor":
        """1."""
        return t.new_ones(t.shape)

    def at_log_snr(self, value: "Tensor") -> "Tensor":
        """exp(-value / 2)."""
        return (-0.5 * value).exp()

    def start(self, shape: tuple[int, ...], rng: "torch.Generator", source: "Tensor | None" = None) -> "Tensor":
        """Return noise of deviation sigma_max, beside which the data do not count."""
        return super().start(shape, rng) * self.sigma_max if source is None else source

    def inputs(self, x: "Tensor", t: "Tensor") -> "tuple[Tensor, Tensor]":
        """Return c_in x and c_noise."""
        return x / expand(self._spread(t), x), t.clamp_min(_SMALLEST_SIGMA).log() / 4.0

    def estimate(self, x: "Tensor", raw: "Tensor", t: "Tensor") -> Estimate:
        """Return clean and noise such that clean + t noise = x; the noise needs no division by t."""
        time, spread, data = expand(t, x), expand(self._spread(t), x), self.sigma_data
        clean = (data / spread) ** 2 * x + time * data / spread * raw
        return Estimate(clean=clean, noise=time / spread**2 * x - data / spread * raw, raw=raw)

    def objective(self, prediction: "Tensor", clean: "Tensor", other: "Tensor", t: "Tensor") -> "Tensor":
        """Return (F - target)^2, unreduced: the clean error weighted by 1 / c_out^2 = (t^2 + s^2) / (t s)^2.

        target = (clean - c_skip x) / c_out = (t clean / s - s noise) / sqrt(t^2 + s^2), of unit variance.
        """
        time, spread, data = expand(t, clean), expand(self._spread(t), clean), self.sigma_data
        return (prediction - (time / data * clean - data * other) / spread) ** 2

    def draw(self, count: int, rng: "torch.Generator") -> "Tensor":
        """Return `count` training noise levels, log-normal."""
        import torch

        normal = torch.randn(count, generator=rng, dtype=torch.float64, device=rng.device)
        return (self.location + self.scale * normal).exp()

    def at_share(self, share: "Tensor") -> "Tensor":
        """Return the quantiles of the training noise levels: shares of 80 would all be far beyond the data."""
        import torch

        return (self.location + self.scale * torch.special.ndtri(share)).exp()

    def grid(self, steps: int, shape: tuple[int, ...] = ()) -> "Tensor":
        """Return steps + 1 noise levels, exactly sigma_max first and exactly 0 last (float64; Karras et al., eq. 5)."""
        import torch

        del shape
        if steps < 1:
            raise ConfigError(f"steps is {steps}; give at least 1")
        high, low = self.sigma_max ** (1.0 / self.rho), self.sigma_min ** (1.0 / self.rho)
        levels = torch.linspace(high, low, steps, dtype=torch.float64) ** self.rho
        levels[0] = self.sigma_max
        return torch.cat([levels, levels.new_zeros(1)])

    def _spread(self, t: "Tensor") -> "Tensor":
        """Return the deviation of x_t, sqrt(t^2 + s^2)."""
        return (t**2 + self.sigma_data**2).sqrt()
