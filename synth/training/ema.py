"""Exponential moving average of weights: what is validated and kept. Knows no loop and no file."""

import torch
from torch import Tensor, nn


class MovingAverage:
    """mean <- mean + (1 - d) (weights - mean), d = min(decay, (1 + n) / (10 + n)) at update n (from 0).

    The ramp lets the average forget the random start; decay 0 is the weights themselves. Buffers are not averaged.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.tensors = {name: p.detach().clone() for name, p in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Take in the weights after optimiser step number `step` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        current: list[Tensor] = [p.detach() for _, p in module.named_parameters()]
        torch._foreach_lerp_(list(self.tensors.values()), current, 1.0 - decay)  # noqa: SLF001 - torch's public-in-practice batch op

    @torch.no_grad()
    def swap(self, module: nn.Module) -> None:
        """Exchange the module's weights with the average; a second call puts them back, bit for bit."""
        for name, parameter in module.named_parameters():
            kept = parameter.detach().clone()
            parameter.copy_(self.tensors[name])
            self.tensors[name].copy_(kept)
