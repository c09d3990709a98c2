"""Whether the segmenter's probabilities mean on synthetic volumes what they mean on real ones of other patients."""

from collections.abc import Mapping, Sequence

import numpy as np

from evaluation.charts import LEAST_DRAWN, Curves
from evaluation.evidence import Evidence, Tell
from evaluation.functional.statistics import mean_interval
from evaluation.report import Figure, Report
from evaluation.segmented import Calibration, segmented

_FEWEST = 50
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
    _draw(report, {"synthetic": made, "held out": held})


def _draw(report: Report, sides: Mapping[str, Sequence[Calibration]]) -> None:
    """Draw the reliability of each side, its volumes pooled; bins of few voxels are left out."""
    lines = {}
    for name, side in sides.items():
        some = [one.bins for one in side if one.bins.any()]
        if not some or (name == "held out" and len(some) < LEAST_DRAWN):
            continue
        count = np.sum([bins[2] for bins in some], axis=0)
        kept = count >= max(_FEWEST, 1e-3 * count.sum())
        summed = np.sum([bins[:2] * bins[2] for bins in some], axis=0)
        confidence, right = summed[:, kept] / count[kept]
        if kept.any():
            lines[name] = list(zip(confidence.tolist(), right.tolist(), strict=True))
    if lines:
        title = "Reliability of the segmenter near foreground; dashed: as sure as it is right"
        report.charts.append(("calibration", Curves(title, "confidence", "share right", lines, diagonal=True)))


def _values(one: Calibration) -> tuple[float, float, float]:
    return one.ece, one.brier, float(one.crps.mean()) if len(one.crps) else float("nan")
