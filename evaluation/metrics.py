"""The functions of evaluation.functional as torchmetrics.Metric: update() with batches, compute() once.

Knows no files and no models. States are kept in float64 on the CPU's precision, whatever comes in.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from evaluation import functional as F  # noqa: N812 - the name users type


class _Mean(Metric):
    """Mean over samples of what `measure` returns; rows (batch,) or (batch, labels)."""

    full_state_update = False
    rows: list[Tensor]

    def __init__(self, measure: Callable[[Any, Any], np.ndarray], **settings: Any) -> None:
        super().__init__(**settings)
        self.measure = measure
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch."""
        self.rows.append(torch.from_numpy(np.asarray(self.measure(preds, target), dtype=np.float64)))

    def compute(self) -> Tensor:
        """Return the mean over all samples so far."""
        return _joined(self.rows).mean(dim=0)


class SSIM(_Mean):
    """Mean structural similarity of (batch, channel, *grid); see functional.ssim."""

    higher_is_better = True

    def __init__(self, *, data_range: float, **settings: Any) -> None:
        super().__init__(lambda x, y: F.ssim(x, y, data_range=data_range), **settings)


class MultiScaleSSIM(_Mean):
    """Mean multi-scale similarity of (batch, channel, *grid); see functional.ms_ssim."""

    higher_is_better = True

    def __init__(self, *, data_range: float, **settings: Any) -> None:
        super().__init__(lambda x, y: F.ms_ssim(x, y, data_range=data_range), **settings)


class PSNR(_Mean):
    """Mean peak signal-to-noise ratio of (batch, channel, *grid) in dB; see functional.psnr."""

    higher_is_better = True

    def __init__(self, *, data_range: float, **settings: Any) -> None:
        super().__init__(lambda x, y: F.psnr(x, y, data_range=data_range), **settings)


class Dice(_Mean):
    """Mean Dice by label of label maps (batch, *grid): (labels,); see functional.dice."""

    higher_is_better = True

    def __init__(self, *, labels: Sequence[int], **settings: Any) -> None:
        super().__init__(_each(lambda a, b: F.dice(a, b, labels=labels)), **settings)


class HD95(_Mean):
    """Mean 95 % surface distance by label of label maps (batch, *grid), mm: (labels,); see functional.hd95."""

    higher_is_better = False

    def __init__(self, *, labels: Sequence[int], spacing_mm: Sequence[float], **settings: Any) -> None:
        super().__init__(_each(lambda a, b: F.hd95(a, b, labels=labels, spacing_mm=spacing_mm)), **settings)


class SurfaceDice(_Mean):
    """Mean surface Dice by label of label maps (batch, *grid): (labels,); see functional.surface_dice."""

    higher_is_better = True

    def __init__(
        self, *, labels: Sequence[int], spacing_mm: Sequence[float], tolerance_mm: float = 1.0, **settings: Any
    ) -> None:
        def measure(a: Any, b: Any) -> np.ndarray:
            return F.surface_dice(a, b, labels=labels, spacing_mm=spacing_mm, tolerance_mm=tolerance_mm)

        super().__init__(_each(measure), **settings)


class CalibrationError(Metric):
    """Expected calibration error over all batches; see functional.expected_calibration_error."""

    full_state_update = False
    higher_is_better = False
    prob: list[Tensor]
    target: list[Tensor]

    def __init__(self, *, bins: int = 15, **settings: Any) -> None:
        super().__init__(**settings)
        self.bins = bins
        self.add_state("prob", default=[], dist_reduce_fx="cat")
        self.add_state("target", default=[], dist_reduce_fx="cat")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add probabilities (n,) or (n, classes) and what was true (n,)."""
        self.prob.append(preds.detach().double())
        self.target.append(target.detach().double())

    def compute(self) -> Tensor:
        """Return the error."""
        value = F.expected_calibration_error(_joined(self.prob), _joined(self.target), bins=self.bins)
        return torch.tensor(value, dtype=torch.float64)


def _each(measure: Callable[[Any, Any], np.ndarray]) -> Callable[[Any, Any], np.ndarray]:
    return lambda preds, target: np.stack([measure(a, b) for a, b in zip(preds, target, strict=True)])


def _joined(state: "list[Tensor] | Tensor") -> Tensor:
    # torchmetrics joins list states when it synchronises processes
    if isinstance(state, Tensor):
        return state
    if not state:
        raise ValueError("update() before compute()")
    return torch.cat(cast("list[Tensor]", state))
