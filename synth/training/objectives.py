"""Objectives: per-sample losses of a batch. Own voxel and channel weights; know no loop and no file."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from synth.conditioning.conditioner import draw_drops
from synth.model import FlowModel
from synth.ports import Window
from synth.process import RectifiedFlow
from synth.sample import Condition


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
    which hardly moves the first.
    """

    channel_weight: Tensor
    pooled: float = 0.0

    def __call__(self, model: FlowModel, batch: LatentBatch, rng: torch.Generator) -> Tensor:
        """Draw times, noise and drop-out from `rng`, and return the loss of each sample."""
        process = model.denoiser.process
        assert isinstance(process, RectifiedFlow)
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
        assert isinstance(process, RectifiedFlow)
        ports = model.conditioner(batch.conditions, window=batch.window, drop=drop)
        noisy, noise = process.corrupt(batch.clean, times, rng)
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
