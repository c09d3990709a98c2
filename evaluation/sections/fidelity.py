"""Whether samples are distributed as real volumes are."""

import numpy as np

from evaluation.evidence import Evidence, Tell
from evaluation.functional import frechet_distance, ssim
from evaluation.report import Figure, Report
from synth.rng import numpy_rng

SMALLEST_FRECHET = 50
_SHOWN = 8
_WINDOW = 10  # SSIM needs axes longer than this


def fidelity(evidence: Evidence, report: Report, tell: Tell) -> None:
    """Measure the Frechet distance of features beside its floor, and SSIM to random volumes."""
    _frechet(evidence, report, tell)
    _ssim(evidence, report)


def _frechet(evidence: Evidence, report: Report, tell: Tell) -> None:
    rows = evidence.features(tell)
    made, held = rows.synthetic, rows.holdout
    if min(len(made), len(held)) < SMALLEST_FRECHET:
        report.not_computed["fidelity.frechet"] = (
            f"{len(made)} synthetic and {len(held)} held-out volumes; below {SMALLEST_FRECHET} a side it says little"
        )
        return
    scale = held.std(axis=0) + 1e-6
    order = numpy_rng(evidence.seed, "floor").permutation(len(held))
    halves = held[order[::2]] / scale, held[order[1::2]] / scale
    report.metrics["fidelity.frechet"] = Figure(
        frechet_distance(made / scale, held / scale), len(made), "lower", floor=frechet_distance(*halves)
    )


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
