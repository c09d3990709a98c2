"""Objectives: per-sample losses of a batch. Own voxel and channel weights; know no loop and no file."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from synth.conditioning.conditioner import draw_drops
from synth.model import FlowModel
from synth.ports import Window
from synth.sample import Condition
from synth.training.config import Coupling
from synth.training.coupling import coupled


@dataclass(frozen=True, eq=False)
class LatentBatch:
    """Clean latents (batch, channel, *grid), what they are conditioned on, and where they lie in their volumes."""

    clean: Tensor
    conditions: Sequence[Condition]
    window: Window


@dataclass(frozen=True, eq=False)
class DenoisingObjective:
    """Mean over voxels and channels of the process's objective, channels weighted; returns (batch,).

    loss = mean_x |e(x)|^2 + pooled n |mean_x e(x)|^2, e the error at each of n voxels. The second term has the same
    minimum, the conditional mean; it makes what only a whole window shows (how much lesion in all) worth learning,
    which hardly moves the first. With a coupling, noise is drawn as without one and then changes hands within equal
    conditions.
    """

    channel_weight: Tensor
    pooled: float = 0.0
    coupling: Coupling | None = None

    def __call__(self, model: FlowModel, batch: LatentBatch, rng: torch.Generator) -> Tensor:
        """Draw times, noise and drop-out from `rng`, and return the loss of each sample."""
        process = model.denoiser.process
        conditioner = model.conditioner
        times = process.draw(len(batch.clean), rng)
        drop = draw_drops(len(batch.clean), conditioner.config, conditioner.groups, rng)
        return self.at(model, batch, times, rng, drop)

    def at(
        self,
        model: FlowModel,
        batch: LatentBatch,
        times: Tensor,
        rng: torch.Generator,
        drop: Sequence[frozenset[str]] | None = None,
    ) -> Tensor:
        """Return the loss of each sample at given times; what hold-out validation bins by time."""
        process = model.denoiser.process
        ports = model.conditioner(batch.conditions, window=batch.window, drop=drop)
        other = None
        if self.coupling is not None:
            drawn = torch.randn(batch.clean.shape, generator=rng, device=rng.device).to(batch.clean)
            other = drawn[coupled(batch.clean, drawn, batch.conditions, batch.window)]
        noisy, noise = process.corrupt(batch.clean, times, rng, other)
        raw = model.denoiser.predict(noisy, times, ports)
        weight = self.channel_weight.reshape(1, -1, *([1] * (batch.clean.ndim - 2)))
        raw = raw.float()
        loss = (weight * process.objective(raw, batch.clean, noise, times)).flatten(1).mean(dim=1)
        if self.pooled:  # the objective is a weighted square of an error linear in each, so means go through it
            of_means = process.objective(_mean(raw), _mean(batch.clean), _mean(noise), times)
            whole = (weight * of_means).flatten(1).mean(dim=1)
            loss = loss + self.pooled * raw[0, 0].numel() * whole
        return loss


def _mean(tensor: Tensor) -> Tensor:
    """Return the mean over the grid, its axes kept with length 1."""
    return tensor.mean(dim=tuple(range(2, tensor.ndim)), keepdim=True)


def channel_weights(scale: Tensor, power: float) -> Tensor:
    """Return scale ** power, normalised to a mean of 1: what a channel's error weighs in pixels."""
    weight = scale.float() ** power
    return weight / weight.mean()
