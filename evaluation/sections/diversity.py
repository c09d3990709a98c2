"""Whether samples differ among themselves as real volumes do."""

from collections.abc import Sequence

import numpy as np

from evaluation.evidence import Evidence, Judged, Tell
from evaluation.functional import ms_ssim, ms_ssim_scales
from evaluation.report import Figure, Report
from synth.rng import numpy_rng

_PAIRS = 8
_WINDOW = 10  # SSIM needs axes longer than this


def diversity(evidence: Evidence, report: Report, tell: Tell) -> None:
    """Measure MS-SSIM between synthetic pairs; the floor is that of real pairs."""
    made, held = evidence.synthetic, evidence.holdout
    if len(made) < 2:
        report.not_computed["diversity.ms_ssim"] = "needs at least 2 samples"
        return
    rng = numpy_rng(evidence.seed, "pairs")
    floors = _pairs(held, rng) if len(held) >= 2 else []
    found = _pairs(made, rng)
    if not found:
        report.not_computed["diversity.ms_ssim"] = "needs samples of one grid, longer than the window of 11 voxels"
        return
    scales = ms_ssim_scales(made[0].image.shape[1:])
    report.metrics["diversity.ms_ssim"] = Figure(
        float(np.mean(found)),
        len(found),
        "lower",
        f"between pairs, {scales} scales",
        floor=float(np.mean(floors)) if floors else None,
    )


def _pairs(items: Sequence[Judged], rng: np.random.Generator) -> list[float]:
    values = []
    for _ in range(min(_PAIRS, len(items))):
        a, b = (items[i].image for i in rng.choice(len(items), size=2, replace=False))
        if a.shape == b.shape and min(a.shape[1:]) > _WINDOW:
            values.append(float(ms_ssim(a[None], b[None], data_range=1.0)[0]))
    return values
