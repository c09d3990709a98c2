"""Calibration of probabilities as torchmetrics.Metric. Knows no files and no models."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from evaluation import functional as F
from evaluation.metrics_base import MeanOverSamples, each, joined


class _Rows(Metric):
    """Gathers probabilities and what was true."""

    full_state_update = False
    higher_is_better = False
    prob: list[Tensor]
    target: list[Tensor]

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.add_state("prob", default=[], dist_reduce_fx="cat")
        self.add_state("target", default=[], dist_reduce_fx="cat")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add probabilities (n,) or (n, classes) and what was true (n,)."""
        self.prob.append(preds.detach().double())
        self.target.append(target.detach().double())


class CalibrationError(_Rows):
    """Expected calibration error over all batches; see functional.expected_calibration_error.

    debias   subtract what a calibrated predictor shows by chance at this n; see functional.calibration_test
    """

    def __init__(self, *, bins: int = 15, debias: bool = False, seed: int = 0, **settings: Any) -> None:
        super().__init__(**settings)
        self.bins, self.debias, self.seed = bins, debias, seed

    def compute(self) -> Tensor:
        """Return the error."""
        prob, target = joined(self.prob), joined(self.target)
        if self.debias:
            value = F.calibration_test(prob, target, bins=self.bins, seed=self.seed).debiased
        else:
            value = F.expected_calibration_error(prob, target, bins=self.bins)
        return torch.tensor(value, dtype=torch.float64)


class BrierScore(_Rows):
    """Brier score over all batches; see functional.brier_score."""

    def compute(self) -> Tensor:
        """Return the score."""
        return torch.tensor(F.brier_score(joined(self.prob), joined(self.target)), dtype=torch.float64)


class ROICalibrationError(MeanOverSamples):
    """Mean calibration error near predicted or true foreground; see functional.roi_calibration_error.

    update() takes probabilities (batch, *grid) or (batch, classes, *grid) and label maps (batch, *grid); cases where
    neither holds foreground are left out.
    """

    higher_is_better = False

    def __init__(
        self, *, bins: int = 15, margin: float = 2.0, spacing_mm: Sequence[float] | None = None, **settings: Any
    ) -> None:
        def measure(prob: Any, ref: Any) -> float:
            rows, truth = F.roi_rows(prob, ref, margin=margin, spacing_mm=spacing_mm)
            return F.expected_calibration_error(rows, truth, bins=bins) if len(truth) else float("nan")

        super().__init__(each(measure), **settings)


class VolumeCRPS(MeanOverSamples):
    """Mean CRPS of each label's volume in ml: (labels,); see functional.volume_crps.

    update() takes probabilities (batch, classes, *grid) and label maps (batch, *grid) or (batch, raters, *grid).
    """

    higher_is_better = False

    def __init__(self, *, labels: Sequence[int], spacing_mm: Sequence[float], **settings: Any) -> None:
        super().__init__(each(lambda p, r: F.volume_crps(p, r, labels=labels, spacing_mm=spacing_mm)), **settings)
