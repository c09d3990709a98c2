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
    """Mean over voxels and channels of the process's objective, channels weighted; returns (batch,)."""

    channel_weight: Tensor

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
        error = process.objective(raw.float(), batch.clean, noise, times)
        return (weight * error).flatten(1).mean(dim=1)


def channel_weights(scale: Tensor, power: float) -> Tensor:
    """Return scale ** power, normalised to a mean of 1: what a channel's error weighs in pixels."""
    weight = scale.float() ** power
    return weight / weight.mean()
