"""Evaluation: judges samples, never models. Metrics stand alone; everything is offline and on the CPU.

Of synth it knows value types, io, rng, data and formats only. `evaluation.functional` holds pure functions; the
names below are torchmetrics.Metric, imported when first asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evaluation.metrics import (
        HD95,
        PSNR,
        SSIM,
        CalibrationError,
        Dice,
        MultiScaleSSIM,
        SurfaceDice,
    )
    from evaluation.metrics_distribution import (
        DensityCoverage,
        FrechetDistance,
        KernelDistance,
        PrecisionRecall,
        SlicedWasserstein,
        VendiScore,
    )

__all__ = [
    "HD95",
    "PSNR",
    "SSIM",
    "CalibrationError",
    "DensityCoverage",
    "Dice",
    "FrechetDistance",
    "KernelDistance",
    "MultiScaleSSIM",
    "PrecisionRecall",
    "SlicedWasserstein",
    "SurfaceDice",
    "VendiScore",
]
_DISTRIBUTION = (
    "DensityCoverage",
    "FrechetDistance",
    "KernelDistance",
    "PrecisionRecall",
    "SlicedWasserstein",
    "VendiScore",
)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'evaluation' has no attribute {name!r}")
    if name in _DISTRIBUTION:
        from evaluation import metrics_distribution

        return getattr(metrics_distribution, name)
    from evaluation import metrics

    return getattr(metrics, name)
