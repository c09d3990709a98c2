"""A backbone that is right: the posterior mean of a known Gaussian, said in the words of any process."""

import torch
from torch import Tensor, nn

from synth.denoiser import Bound, Denoiser
from synth.ports import Ports
from synth.process import EDM, GaussianProcess, RectifiedFlow, VariancePreserving

GRIDS = [(2, 3), (2, 2, 2)]
PROCESSES: list[GaussianProcess] = [
    RectifiedFlow(prediction="velocity"),
    RectifiedFlow(prediction="clean", shift=2.0),
    VariancePreserving(prediction="velocity"),
    VariancePreserving(schedule="linear", prediction="noise"),
    VariancePreserving(schedule="linear", prediction="clean"),
    VariancePreserving(schedule="scaled_linear", zero_terminal=True),
    EDM(),
    EDM(sigma_data=0.5, sigma_max=40.0),
]
NAMES = ["flow", "flow-clean", "cosine", "linear-noise", "linear-clean", "scaled-zero", "edm", "edm-half"]


def said(process: GaussianProcess, clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """What a network that knows both halves would say; written from the papers, not from the code under test."""
    t = t.reshape(-1, *([1] * (clean.ndim - 1)))
    if isinstance(process, EDM):
        x, s = clean + t * noise, process.sigma_data
        return (clean - s**2 / (t**2 + s**2) * x) * (t**2 + s**2).sqrt() / (t * s)
    assert isinstance(process, (RectifiedFlow, VariancePreserving))
    if process.prediction != "velocity":
        return clean if process.prediction == "clean" else noise
    if isinstance(process, RectifiedFlow):
        return noise - clean
    return process.alpha(t) * noise - process.sigma(t) * clean


class Gaussian(nn.Module):
    """N(mean, covariance) over the voxels of a grid, and as a backbone its exact denoiser."""

    def __init__(self, process: GaussianProcess, grid: tuple[int, ...]) -> None:
        super().__init__()
        self.process, self.grid = process, grid
        size = int(torch.tensor(grid).prod())
        rng = torch.Generator().manual_seed(1)
        mix = torch.randn(size, size, generator=rng, dtype=torch.float64) / size**0.5
        self.mean = torch.randn(size, generator=rng, dtype=torch.float64) * 0.5
        self.spread, self.axes = torch.linalg.eigh(mix @ mix.T + 0.1 * torch.eye(size, dtype=torch.float64))
        self.covariance = self.axes * self.spread @ self.axes.T

    def bound(self) -> Bound:
        """This backbone as samplers see it."""
        return Bound(Denoiser(self, self.process), Ports())

    def forward(self, x: Tensor, time: Tensor, ports: Ports) -> Tensor:
        """The exact prediction: x and time arrive as the process hands them to networks."""
        if isinstance(self.process, EDM):
            time = (4.0 * time).exp()
            x = x * (time.reshape(-1, *([1] * (x.ndim - 1))) ** 2 + self.process.sigma_data**2).sqrt()
        alpha, sigma = (level(time[:1]) for level in (self.process.alpha, self.process.sigma))
        flat = x.flatten(1)
        away = (flat - alpha * self.mean) @ self.axes
        clean = self.mean + (away * alpha * self.spread / (alpha**2 * self.spread + sigma**2)) @ self.axes.T
        noise = (flat - alpha * clean) / sigma
        return said(self.process, clean, noise, time).reshape(x.shape)

    def carried(self, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """Where the probability flow takes x from t to s, in closed form: each axis keeps its quantile."""

        def deviation(time: Tensor) -> Tensor:
            return (self.process.alpha(time) ** 2 * self.spread + self.process.sigma(time) ** 2).sqrt()

        away = (x.flatten(1) - self.process.alpha(t) * self.mean) @ self.axes
        there = self.process.alpha(s) * self.mean + (away / deviation(t) * deviation(s)) @ self.axes.T
        return there.reshape(x.shape)
