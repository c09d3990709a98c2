"""Whether samples are distributed as real volumes are."""

import numpy as np

from evaluation.evidence import Evidence, Tell
from evaluation.functional import ssim
from evaluation.report import Figure, Report
from evaluation.sections.distribution import distribution
from synth.rng import numpy_rng

_SHOWN = 8
_WINDOW = 10  # SSIM needs axes longer than this


def fidelity(evidence: Evidence, report: Report, tell: Tell) -> None:
    """Measure distances between the sets of features beside their floors, and SSIM to random volumes."""
    distribution(evidence, report, tell)
    _ssim(evidence, report)


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
