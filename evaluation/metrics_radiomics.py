"""The Frechet radiomics distance as a torchmetrics.Metric on volumes: update() with batches, compute() once."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from evaluation import functional as F  # noqa: N812 - the name users type
from evaluation.extractors import Extractor, radiomics_extractor
from evaluation.functional.radiomics import Log


class FrechetRadiomicsDistance(Metric):
    """Frechet radiomics distance between two sets of volumes; see functional.frechet_radiomics_distance.

    labels      labels 1..`labels` of the masks are measured
    spacing_mm  of the grid; empty: 1 mm
    extractor   weight-free radiomics by default
    """

    full_state_update = False
    higher_is_better = False
    real: list[Tensor]
    synthetic: list[Tensor]

    def __init__(
        self,
        *,
        labels: int = 0,
        spacing_mm: Sequence[float] = (),
        log: Log = "paper",
        debias: bool = False,
        extractor: Extractor | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.labels, self.spacing_mm, self.debias = labels, tuple(spacing_mm), debias
        self.log: Log = log
        self.extractor = extractor or radiomics_extractor()
        self.add_state("real", default=[], dist_reduce_fx="cat")
        self.add_state("synthetic", default=[], dist_reduce_fx="cat")

    def update(self, images: Tensor, masks: Tensor | None = None, *, real: bool) -> None:
        """Add mapped images (batch, channel, *grid) and label maps (batch, *grid) of the real or synthetic set."""
        pairs = zip(images.detach().cpu().numpy(), self._masks(masks, len(images)), strict=True)
        rows = [self.extractor(a, b, labels=self.labels, spacing_mm=self.spacing_mm) for a, b in pairs]
        (self.real if real else self.synthetic).append(torch.from_numpy(np.stack(rows)))

    def compute(self) -> Tensor:
        """Return the distance of the synthetic set to the real one."""
        if not len(self.real) or not len(self.synthetic):
            raise ValueError("update() with real=True and with real=False before compute()")
        made, real = (_joined(side) for side in (self.synthetic, self.real))
        value = F.frechet_radiomics_distance(made, real, log=self.log, debias=self.debias)
        return torch.tensor(value, dtype=torch.float64)

    @staticmethod
    def _masks(masks: Tensor | None, count: int) -> Sequence[np.ndarray | None]:
        return [None] * count if masks is None else list(masks.detach().cpu().numpy())


def _joined(state: "list[Tensor] | Tensor") -> Tensor:
    return state if isinstance(state, Tensor) else torch.cat(cast("list[Tensor]", state))
