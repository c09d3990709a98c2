"""What every noise law promises (Process) and what a denoiser tells it (Estimate).

Knows no network: predictions come in as tensors. Torch is imported for annotations only, so
that recipes load without it.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Estimate:
    """Best guess of both halves of x_t; `raw` keeps the network's own prediction."""

    clean: "Tensor"
    noise: "Tensor"
    raw: "Tensor"


def expand(t: "Tensor", like: "Tensor") -> "Tensor":
    """Return times (batch,) or (batch, parts) shaped to multiply `like` (batch, ...), in its dtype on its device."""
    return t.to(like).reshape(*t.shape, *([1] * (like.ndim - t.ndim)))


@runtime_checkable
class Process(Protocol):
    """A noising law, frozen and stateless; t = 0 is data and t_start the noisiest time."""

    @property
    def t_start(self) -> float: ...

    def start(self, shape: tuple[int, ...], rng: "torch.Generator", source: "Tensor | None" = None) -> "Tensor": ...

    def corrupt(
        self, clean: "Tensor", t: "Tensor", rng: "torch.Generator", other: "Tensor | None" = None
    ) -> "tuple[Tensor, Tensor]": ...

    def inputs(self, x: "Tensor", t: "Tensor") -> "tuple[Tensor, Tensor]": ...

    def estimate(self, x: "Tensor", raw: "Tensor", t: "Tensor") -> Estimate: ...

    def step(
        self, x: "Tensor", estimate: Estimate, t: "Tensor", s: "Tensor", rng: "torch.Generator | None" = None
    ) -> "Tensor": ...

    def renoise(self, x: "Tensor", s: "Tensor", t: "Tensor", rng: "torch.Generator") -> "Tensor": ...

    def objective(self, prediction: "Tensor", clean: "Tensor", other: "Tensor", t: "Tensor") -> "Tensor": ...

    def draw(self, count: int, rng: "torch.Generator") -> "Tensor": ...

    def at_share(self, share: "Tensor") -> "Tensor": ...

    def grid(self, steps: int, shape: tuple[int, ...] = ()) -> "Tensor": ...


class GaussianProcess(ABC):
    """x_t = alpha(t) clean + sigma(t) noise, with noise ~ N(0, 1).

    A law gives alpha and sigma with their slopes, the inverse of its log-SNR, what its network says and how that is
    trained, training times and sampling grids.
    """

    @property
    def t_start(self) -> float:
        """The noisiest time: where a sample starts and a grid begins."""
        return 1.0

    @abstractmethod
    def alpha(self, t: "Tensor") -> "Tensor":
        """Signal level at t."""

    @abstractmethod
    def sigma(self, t: "Tensor") -> "Tensor":
        """Noise level at t."""

    @abstractmethod
    def alpha_slope(self, t: "Tensor") -> "Tensor":
        """d alpha / d t."""

    @abstractmethod
    def sigma_slope(self, t: "Tensor") -> "Tensor":
        """d sigma / d t."""

    @abstractmethod
    def at_log_snr(self, value: "Tensor") -> "Tensor":
        """Return the time whose log_snr is `value`; +inf is data."""

    @abstractmethod
    def estimate(self, x: "Tensor", raw: "Tensor", t: "Tensor") -> Estimate:
        """Return clean and noise of x at t from the network's prediction, such that mix gives x again."""

    @abstractmethod
    def objective(self, prediction: "Tensor", clean: "Tensor", other: "Tensor", t: "Tensor") -> "Tensor":
        """Return the unreduced, weighted squared error of a prediction."""

    @abstractmethod
    def draw(self, count: int, rng: "torch.Generator") -> "Tensor":
        """Return `count` training times (float64)."""

    @abstractmethod
    def grid(self, steps: int, shape: tuple[int, ...] = ()) -> "Tensor":
        """Return steps + 1 descending times, exactly t_start first and exactly 0 last (float64)."""

    def at_share(self, share: "Tensor") -> "Tensor":
        """Return the times at these shares of the way from data (0) to noise (1): where hold-out scores are taken."""
        return share * self.t_start

    def inputs(self, x: "Tensor", t: "Tensor") -> "tuple[Tensor, Tensor]":
        """Return what the network is given for x and t; a law that scales them says so here."""
        return x, t

    def log_snr(self, t: "Tensor") -> "Tensor":
        """Return log(alpha^2 / sigma^2), +inf at data and -inf where no signal is left."""
        return 2.0 * (self.alpha(t).log() - self.sigma(t).log())

    def mix(self, clean: "Tensor", noise: "Tensor", t: "Tensor") -> "Tensor":
        """Return alpha(t) clean + sigma(t) noise."""
        return expand(self.alpha(t), clean) * clean + expand(self.sigma(t), clean) * noise

    def velocity(self, estimate: Estimate, t: "Tensor") -> "Tensor":
        """Return dx/dt = alpha'(t) clean + sigma'(t) noise, the right side of the probability-flow ODE."""
        like = estimate.clean
        return expand(self.alpha_slope(t), like) * like + expand(self.sigma_slope(t), like) * estimate.noise

    def start(self, shape: tuple[int, ...], rng: "torch.Generator", source: "Tensor | None" = None) -> "Tensor":
        """Return the state at the noisiest time: pure noise, or `source` for processes that bridge from data."""
        import torch

        if source is not None:
            return source
        return torch.randn(shape, generator=rng, device=rng.device)

    def corrupt(
        self, clean: "Tensor", t: "Tensor", rng: "torch.Generator", other: "Tensor | None" = None
    ) -> "tuple[Tensor, Tensor]":
        """Return (x_t, noise); `other` gives the noise, else it is drawn."""
        import torch

        if other is None:
            other = torch.randn(clean.shape, generator=rng, device=rng.device).to(clean)
        return self.mix(clean, other, t), other

    def step(
        self, x: "Tensor", estimate: Estimate, t: "Tensor", s: "Tensor", rng: "torch.Generator | None" = None
    ) -> "Tensor":
        """Return the state at s < t on the line through the estimate: Euler for flows, DDIM for VP."""
        del x, t, rng
        return self.mix(estimate.clean, estimate.noise, s)

    def renoise(self, x: "Tensor", s: "Tensor", t: "Tensor", rng: "torch.Generator") -> "Tensor":
        """Return a draw of x_t given x_s, for t >= s: scaled by alpha(t)/alpha(s), the missing variance added."""
        import torch

        ratio = expand(self.alpha(t) / self.alpha(s), x)
        spread = (expand(self.sigma(t), x) ** 2 - (ratio * expand(self.sigma(s), x)) ** 2).clamp_min(0.0).sqrt()
        return ratio * x + spread * torch.randn(x.shape, generator=rng, device=rng.device).to(x)
