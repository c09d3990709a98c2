"""Distances of sets of features as torchmetrics.Metric: update() with batches, compute() once.

Knows no files and no models. States are kept in float64 on the CPU's precision, whatever comes in.
"""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from evaluation import functional as F  # noqa: N812 - the name users type
from evaluation.metrics_base import joined


class _Features(Metric):
    """Gathers feature rows of both sets."""

    full_state_update = False
    real: list[Tensor]
    synthetic: list[Tensor]

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.add_state("real", default=[], dist_reduce_fx="cat")
        self.add_state("synthetic", default=[], dist_reduce_fx="cat")

    def update(self, features: Tensor, *, real: bool) -> None:
        """Add rows (n, d) of the real or the synthetic set."""
        rows = features.detach().double()
        (self.real if real else self.synthetic).append(rows)

    def _sets(self) -> tuple[Tensor, Tensor]:
        if not len(self.real) or not len(self.synthetic):
            raise ValueError("update() with real=True and with real=False before compute()")
        return joined(self.synthetic), joined(self.real)


class FrechetDistance(_Features):
    """Frechet distance between features of two sets; see functional.frechet_distance."""

    higher_is_better = False

    def __init__(self, *, debias: bool = False, **settings: Any) -> None:
        super().__init__(**settings)
        self.debias = debias

    def compute(self) -> Tensor:
        """Return the distance."""
        return torch.tensor(F.frechet_distance(*self._sets(), debias=self.debias), dtype=torch.float64)


class KernelDistance(_Features):
    """Unbiased kernel distance (KID) between features of two sets; see functional.kernel_distance."""

    higher_is_better = False

    def compute(self) -> Tensor:
        """Return the squared distance."""
        return torch.tensor(F.kernel_distance(*self._sets()), dtype=torch.float64)
