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
        FrechetDistance,
        KernelDistance,
        MultiScaleSSIM,
        SurfaceDice,
    )
    from evaluation.metrics_radiomics import FrechetRadiomicsDistance

__all__ = [
    "HD95",
    "PSNR",
    "SSIM",
    "CalibrationError",
    "Dice",
    "FrechetDistance",
    "FrechetRadiomicsDistance",
    "KernelDistance",
    "MultiScaleSSIM",
    "SurfaceDice",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'evaluation' has no attribute {name!r}")
    if name == "FrechetRadiomicsDistance":
        from evaluation.metrics_radiomics import FrechetRadiomicsDistance

        return FrechetRadiomicsDistance
    from evaluation import metrics

    return getattr(metrics, name)
