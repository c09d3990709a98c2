"""Denoiser: a backbone read through a process. Guided: several prefixes of a condition, nested.

Knows no sampler and no file. Everything here maps (x, t, ports) to an Estimate.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from synth.ports import Ports
from synth.process.base import Estimate, GaussianProcess


class Denoise(Protocol):
    """A denoiser already bound to its ports, guidance and edits: what a sampler sees."""

    @property
    def process(self) -> GaussianProcess: ...

    def __call__(self, x: Tensor, t: Tensor, *, to: Tensor) -> Estimate: ...


class Denoiser(nn.Module):
    """Return the Estimate of clean and noise in x at time t (batch,), given ports."""

    def __init__(self, backbone: nn.Module, process: GaussianProcess) -> None:
        super().__init__()
        self.backbone = backbone
        self.process = process

    def forward(self, x: Tensor, t: Tensor, ports: Ports) -> Estimate:
        """One evaluation of the backbone."""
        return self.process.estimate(x, self.predict(x, t, ports), t)

    def predict(self, x: Tensor, t: Tensor, ports: Ports) -> Tensor:
        """Return the backbone's raw prediction, as x is (dtype, device), for the inputs that the process asks for."""
        scaled, time = self.process.inputs(x, t)
        return self.backbone(scaled, time.to(x), ports).to(x.dtype)


@dataclass(frozen=True, eq=False)
class Bound:
    """A denoiser with its ports: a Denoise. One evaluation a call."""

    denoiser: Denoiser
    ports: Ports

    @property
    def process(self) -> GaussianProcess:
        """The denoiser's noise law."""
        return self.denoiser.process

    def __call__(self, x: Tensor, t: Tensor, *, to: Tensor) -> Estimate:
        """Estimate at t; `to`, the time stepped to, only matters to edits that wrap this."""
        del to
        return self.denoiser(x, t.expand(x.shape[0]), self.ports)


def prefix_weights(scales: Sequence[float]) -> list[float]:
    """Return the coefficient of each of len(scales) + 1 prefixes; they sum to 1 and a zero one costs nothing."""
    full = [1.0, *scales, 0.0]
    return [full[k] - full[k + 1] for k in range(len(full) - 1)]


@dataclass(frozen=True, eq=False)
class Guided:
    """Nested guidance over prefixes null -> mask -> class -> text, telescoping:

    E = E_0 + sum_k scale_k (E_k - E_{k-1})    (Ho & Salimans 2022, one scale for each added condition)

    `prefixes` are len(scales) + 1 bound denoisers. Equal neighbouring scales cancel the prefix between
    them, which is then not evaluated: with every scale 1 this *is* the last prefix, with every scale 0 the first.
    """

    prefixes: Sequence[Denoise]
    scales: Sequence[float]

    def __post_init__(self) -> None:
        assert len(self.prefixes) == len(self.scales) + 1

    @property
    def process(self) -> GaussianProcess:
        """The denoisers' shared noise law."""
        return self.prefixes[0].process

    def __call__(self, x: Tensor, t: Tensor, *, to: Tensor) -> Estimate:
        """Estimate at t; clean, noise and raw are all combined linearly, so x = alpha clean + sigma noise holds."""
        parts = [
            (w, p(x, t, to=to)) for w, p in zip(prefix_weights(self.scales), self.prefixes, strict=True) if w != 0.0
        ]
        if len(parts) == 1:
            return parts[0][1]
        return Estimate(
            clean=sum((w * e.clean for w, e in parts[1:]), parts[0][0] * parts[0][1].clean),
            noise=sum((w * e.noise for w, e in parts[1:]), parts[0][0] * parts[0][1].noise),
            raw=sum((w * e.raw for w, e in parts[1:]), parts[0][0] * parts[0][1].raw),
        )
