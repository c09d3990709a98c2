"""Comparisons of one volume with another as torchmetrics.Metric: means over samples of (batch, channel, *grid).

Knows no files and no models. States are float64, whatever comes in. update() takes preds, target and, where the
function does, a mask.
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from evaluation import functional as F
from evaluation.functional.paired import Sigma
from evaluation.metrics_base import MeanOverSamples


class _Masked(MeanOverSamples):
    """A mean over samples whose update() takes a mask too."""

    def update(self, preds: Tensor, target: Tensor, mask: Tensor | None = None) -> None:
        """Add a batch, compared inside `mask` (batch or 1, channel or 1, *grid) where given."""
        self._add(preds, target, mask)


class SSIM(_Masked):
    """Mean structural similarity of (batch, channel, *grid); see functional.ssim."""

    higher_is_better = True

    def __init__(self, *, data_range: float, sigma: Sigma = 1.5, **settings: Any) -> None:
        super().__init__(lambda x, y, m: F.ssim(x, y, data_range=data_range, mask=m, sigma=sigma), **settings)


class MultiScaleSSIM(_Masked):
    """Mean multi-scale similarity of (batch, channel, *grid); see functional.ms_ssim.

    `scales` is how many scales the last batch's grid carried.
    """

    higher_is_better = True

    def __init__(self, *, data_range: float, sigma: Sigma = 1.5, **settings: Any) -> None:
        super().__init__(lambda x, y, m: F.ms_ssim(x, y, data_range=data_range, mask=m, sigma=sigma), **settings)
        self.sigma, self.scales = sigma, 0

    def update(self, preds: Tensor, target: Tensor, mask: Tensor | None = None) -> None:
        """Add a batch, compared inside `mask` where given."""
        super().update(preds, target, mask)
        self.scales = F.ms_ssim_scales(preds.shape[2:], sigma=self.sigma)


class PSNR(_Masked):
    """Mean peak signal-to-noise ratio of (batch, channel, *grid) in dB; see functional.psnr."""

    higher_is_better = True

    def __init__(self, *, data_range: float, **settings: Any) -> None:
        super().__init__(lambda x, y, m: F.psnr(x, y, data_range=data_range, mask=m), **settings)


class MAE(_Masked):
    """Mean absolute error of (batch, channel, *grid) in their unit, HU for CT; see functional.mae."""

    higher_is_better = False

    def __init__(self, **settings: Any) -> None:
        super().__init__(lambda x, y, m: F.mae(x, y, mask=m), **settings)


class NCC(_Masked):
    """Mean normalised cross-correlation of (batch, channel, *grid); see functional.ncc."""

    higher_is_better = True

    def __init__(self, **settings: Any) -> None:
        super().__init__(lambda x, y, m: F.ncc(x, y, mask=m), **settings)


class FSIM(MeanOverSamples):
    """Mean feature similarity of (batch, channel, *grid), 3D slice by slice; see functional.fsim."""

    higher_is_better = True

    def __init__(self, *, data_range: float, axis: int = -1, **settings: Any) -> None:
        super().__init__(lambda x, y: F.fsim(x, y, data_range=data_range, axis=axis), **settings)


class PerceptualDistance(MeanOverSamples):
    """Mean distance of (batch, channel, *grid) in an extractor's features; see functional.perceptual_distance."""

    higher_is_better = False

    def __init__(
        self, extractor: Callable[[Any], Any], *, weights: Sequence[Any] | None = None, **settings: Any
    ) -> None:
        super().__init__(lambda x, y: F.perceptual_distance(x, y, extractor, weights=weights), **settings)
