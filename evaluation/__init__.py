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
    from evaluation.privacy.audit import audit, pool

__all__ = [
    "HD95",
    "PSNR",
    "SSIM",
    "CalibrationError",
    "Dice",
    "FrechetDistance",
    "KernelDistance",
    "MultiScaleSSIM",
    "SurfaceDice",
    "audit",
    "pool",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'evaluation' has no attribute {name!r}")
    if name in ("audit", "pool"):
        from evaluation.privacy import audit as room

        return getattr(room, name)
    from evaluation import metrics

    return getattr(metrics, name)
