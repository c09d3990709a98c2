"""Whether the segmenter's probabilities mean on synthetic volumes what they mean on real ones of other patients."""

import numpy as np

from evaluation.evidence import Evidence, Tell
from evaluation.functional.statistics import mean_interval
from evaluation.report import Figure, Report
from evaluation.segmented import Calibration, segmented

_FAMILIES = ("ece_roi", "brier", "volume_crps")


def calibration(evidence: Evidence, report: Report, tell: Tell) -> None:
    """Measure calibration error and Brier score near foreground, and the CRPS of volumes, beside hold-out values."""
    model = evidence.bench.segmenter
    if model is None or not hasattr(model, "probabilities"):
        why = evidence.bench.why_not if model is None else "the segmenter gives labels only, no probabilities"
        report.not_computed.update({f"calibration.{family}": why for family in _FAMILIES})
        return
    sides = segmented(evidence, tell)
    made, held = (
        [one.calibration for one in side if one.calibration is not None] for side in (sides.synthetic, sides.holdout)
    )
    volumes = "ml" if evidence.synthetic[0].mask.ndim == 3 else "cm2"
    volumes = f"{volumes}, mean over labels" if evidence.spacing_mm else "voxels / 1000, mean over labels"
    units = ("2 voxels around foreground", "0 to 2, 2 voxels around foreground", volumes)
    for number, (family, unit) in enumerate(zip(_FAMILIES, units, strict=True)):
        values, floor = (np.array([_values(one)[number] for one in side]) for side in (made, held))
        values, floor = values[np.isfinite(values)], floor[np.isfinite(floor)]
        if not len(values):
            report.not_computed[f"calibration.{family}"] = "no sample holds foreground, given or found"
            continue
        report.metrics[f"calibration.{family}"] = Figure(
            float(values.mean()),
            len(values),
            "lower",
            unit,
            mean_interval(values, seed=evidence.seed),
            float(floor.mean()) if len(floor) else None,
        )


def _values(one: Calibration) -> tuple[float, float, float]:
    return one.ece, one.brier, float(one.crps.mean()) if len(one.crps) else float("nan")
