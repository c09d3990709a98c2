"""Evaluation: judges samples, never models. Metrics stand alone; everything is offline and on the CPU.

Of synth it knows value types, io, rng, data and formats only. `evaluation.functional` holds pure functions; the
names below are torchmetrics.Metric, audits and the judge of single samples, imported when first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evaluation.acceptance import Acceptance
    from evaluation.metrics_calibration import BrierScore, CalibrationError, ROICalibrationError, VolumeCRPS
    from evaluation.metrics_distribution import (
        DensityCoverage,
        FrechetDistance,
        KernelDistance,
        PrecisionRecall,
        SlicedWasserstein,
        VendiScore,
    )
    from evaluation.metrics_paired import FSIM, MAE, NCC, PSNR, SSIM, MultiScaleSSIM, PerceptualDistance
    from evaluation.metrics_radiomics import FrechetRadiomicsDistance
    from evaluation.metrics_segmentation import (
        HD95,
        BoundaryAlignment,
        Dice,
        LabelVolumeError,
        LesionDetection,
        SurfaceDice,
    )
    from evaluation.privacy.audit import audit, pool

_HOMES = {
    "acceptance": ("Acceptance",),
    "privacy.audit": ("audit", "pool"),
    "metrics_radiomics": ("FrechetRadiomicsDistance",),
    "metrics_calibration": ("BrierScore", "CalibrationError", "ROICalibrationError", "VolumeCRPS"),
    "metrics_distribution": (
        "DensityCoverage",
        "FrechetDistance",
        "KernelDistance",
        "PrecisionRecall",
        "SlicedWasserstein",
        "VendiScore",
    ),
    "metrics_paired": ("FSIM", "MAE", "MultiScaleSSIM", "NCC", "PSNR", "PerceptualDistance", "SSIM"),
    "metrics_segmentation": ("BoundaryAlignment", "Dice", "HD95", "LabelVolumeError", "LesionDetection", "SurfaceDice"),
}
__all__ = [
    "FSIM",
    "HD95",
    "MAE",
    "NCC",
    "PSNR",
    "SSIM",
    "Acceptance",
    "BoundaryAlignment",
    "BrierScore",
    "CalibrationError",
    "DensityCoverage",
    "Dice",
    "FrechetDistance",
    "FrechetRadiomicsDistance",
    "KernelDistance",
    "LabelVolumeError",
    "LesionDetection",
    "MultiScaleSSIM",
    "PerceptualDistance",
    "PrecisionRecall",
    "ROICalibrationError",
    "SlicedWasserstein",
    "SurfaceDice",
    "VendiScore",
    "VolumeCRPS",
    "audit",
    "pool",
]


def __getattr__(name: str) -> Any:
    home = next((home for home, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module 'evaluation' has no attribute {name!r}")
    return getattr(import_module(f"evaluation.{home}"), name)
