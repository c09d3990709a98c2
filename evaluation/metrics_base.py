"""What metrics of torchmetrics form share: means over samples, and states joined. Knows no particular metric."""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric


class MeanOverSamples(Metric):
    """Mean over samples of what `measure(preds, target, *more)` returns; rows (batch,) or (batch, labels).

    Entries that are NaN (not defined for that sample) are left out of the mean of their column.
    """

    full_state_update = False
    rows: list[Tensor]

    def __init__(self, measure: Callable[..., np.ndarray], **settings: Any) -> None:
        super().__init__(**settings)
        self.measure = measure
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch."""
        self._add(preds, target)

    def _add(self, *values: Any) -> None:
        self.rows.append(torch.from_numpy(np.asarray(self.measure(*values), dtype=np.float64)))

    def compute(self) -> Tensor:
        """Return the mean over all samples so far."""
        return joined(self.rows).nanmean(dim=0)


def each(measure: Callable[..., Any]) -> Callable[..., np.ndarray]:
    """Return `measure` of one sample as one of batches."""
    return lambda *batches: np.stack([np.asarray(measure(*one)) for one in zip(*batches, strict=True)])


def joined(state: "list[Tensor] | Tensor") -> Tensor:
    """Return a list state as one tensor. Errors: ValueError before the first update()."""
    # torchmetrics joins list states when it synchronises processes
    if isinstance(state, Tensor):
        return state
    if not state:
        raise ValueError("update() before compute()")
    return torch.cat(cast("list[Tensor]", state))
