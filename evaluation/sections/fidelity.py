"""Whether samples are distributed as real volumes are."""

import numpy as np

from evaluation.charts import Dots
from evaluation.evidence import Evidence, Tell
from evaluation.functional import ssim
from evaluation.report import Figure, Report
from evaluation.sections.distribution import distribution
from synth.rng import numpy_rng

Row = tuple[str, float, tuple[float, float] | None, float | None]
_SHOWN = 8
_WINDOW = 10  # SSIM needs axes longer than this


def fidelity(evidence: Evidence, report: Report, tell: Tell) -> None:
    """Measure distances between the sets of features beside their floors, and SSIM to random volumes."""
    distribution(evidence, report, tell)
    _ssim(evidence, report)
    _draw(report)


def _draw(report: Report) -> None:
    """Draw the figures that have a floor: shares as they are, distances each on a scale of its own."""
    known = [(name.partition(".")[2], one) for name, one in report.metrics.items() if name.startswith("fidelity.")]
    shares: list[Row] = []
    distances: list[Row] = []
    for name, one in known:
        if one.floor is None:
            continue
        if one.better == "higher":
            shares.append((name, one.value, one.interval, one.floor))
            continue
        scale = max(abs(value) for value in (one.value, one.floor, *(one.interval or ()))) or 1.0
        interval = None if one.interval is None else (one.interval[0] / scale, one.interval[1] / scale)
        distances.append((name, one.value / scale, interval, one.floor / scale))
    for title, rows in (
        ("Shares, higher is better", shares),
        ("Distances, lower is better, each over the largest of its own numbers", distances),
    ):
        if rows:
            report.charts.append(("fidelity", Dots(f"{title}; dashed: what real patients reach", rows)))


def _ssim(evidence: Evidence, report: Report) -> None:
    rng, held = numpy_rng(evidence.seed, "ssim"), evidence.holdout
    values = []
    for item in evidence.synthetic[:_SHOWN] if held else ():
        other = held[int(rng.integers(len(held)))]
        if item.image.shape == other.image.shape and min(item.image.shape[1:]) > _WINDOW:
            values.append(ssim(item.image[None], other.image[None], data_range=1.0)[0])
    if values:
        report.metrics["fidelity.ssim"] = Figure(float(np.mean(values)), len(values), "higher", "to a random volume")
    else:
        report.not_computed["fidelity.ssim"] = "needs hold-out volumes of the samples' grid, longer than the window"
