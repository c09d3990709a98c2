"""Comparisons of label maps (batch, *grid), and of images with their masks, as torchmetrics.Metric.

Knows no files and no models. What a case cannot give is NaN and left out of its label's mean; a structure that is
missed is not left out but scores the worst.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from evaluation import functional as F
from evaluation.metrics_base import MeanOverSamples, each


class Dice(MeanOverSamples):
    """Mean Dice by label of label maps (batch, *grid): (labels,); see functional.dice."""

    higher_is_better = True

    def __init__(self, *, labels: Sequence[int], **settings: Any) -> None:
        super().__init__(each(lambda a, b: F.dice(a, b, labels=labels)), **settings)


class HD95(MeanOverSamples):
    """Mean 95 % surface distance by label of label maps (batch, *grid), mm: (labels,); see functional.hd95."""

    higher_is_better = False

    def __init__(self, *, labels: Sequence[int], spacing_mm: Sequence[float], **settings: Any) -> None:
        super().__init__(each(lambda a, b: F.hd95(a, b, labels=labels, spacing_mm=spacing_mm)), **settings)


class SurfaceDice(MeanOverSamples):
    """Mean surface Dice (NSD) by label of label maps (batch, *grid): (labels,); see functional.surface_dice."""

    higher_is_better = True

    def __init__(
        self, *, labels: Sequence[int], spacing_mm: Sequence[float], tolerance_mm: float = 1.0, **settings: Any
    ) -> None:
        settings_of = {"labels": labels, "spacing_mm": spacing_mm, "tolerance_mm": tolerance_mm}
        super().__init__(each(lambda a, b: F.surface_dice(a, b, **settings_of)), **settings)


class LesionDetection(Metric):
    """Detection of one label's lesions over label maps (batch, *grid), by size; see functional.detection.

    compute() returns {"sensitivity": (bins,), NaN where no lesion is so large, "lesions": (bins,),
    "false_positives": mean per case}.
    """

    full_state_update = False
    higher_is_better = None
    lesions: Tensor
    found: Tensor
    false_positives: Tensor
    cases: Tensor

    def __init__(
        self,
        *,
        label: int,
        spacing_mm: Sequence[float],
        edges_ml: Sequence[float] = (0.0, 0.1, 1.0, 10.0),
        overlap: float = 0.0,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.asked = {"labels": [label], "spacing_mm": spacing_mm, "edges_ml": edges_ml, "overlap": overlap}
        for name, size in (("lesions", len(edges_ml)), ("found", len(edges_ml)), ("false_positives", 1), ("cases", 1)):
            self.add_state(name, default=torch.zeros(size, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch."""
        for pred, ref in zip(preds, target, strict=True):
            one = F.detection(pred, ref, **self.asked)[0]
            self.lesions += torch.from_numpy(one.lesions).to(self.lesions)
            self.found += torch.from_numpy(one.found).to(self.found)
            self.false_positives += one.false_positives
            self.cases += 1

    def compute(self) -> dict[str, Tensor]:
        """Return sensitivity, lesions and false positives per case."""
        if not float(self.cases):
            raise ValueError("update() before compute()")
        return {
            "sensitivity": self.found / self.lesions,
            "lesions": self.lesions,
            "false_positives": self.false_positives[0] / self.cases[0],
        }


class BoundaryAlignment(MeanOverSamples):
    """Mean ratio of image edges at mask boundaries to those at shifted ones; see functional.boundary_alignment.

    update() takes images (batch, channel, *grid) and masks (batch, *grid).
    """

    higher_is_better = True

    def __init__(self, *, spacing_mm: Sequence[float], shifts: Sequence[int] = (1, 2, 3), **settings: Any) -> None:
        super().__init__(
            each(lambda image, mask: F.boundary_alignment(image, mask, spacing_mm=spacing_mm, shifts=shifts)),
            **settings,
        )


class LabelVolumeError(MeanOverSamples):
    """Mean absolute difference of each label's volume in ml of label maps (batch, *grid): (labels,)."""

    higher_is_better = False

    def __init__(self, *, labels: Sequence[int], spacing_mm: Sequence[float], **settings: Any) -> None:
        asked = {"labels": labels, "spacing_mm": spacing_mm}
        super().__init__(each(lambda a, b: abs(F.label_volumes(a, **asked) - F.label_volumes(b, **asked))), **settings)
