"""Whether samples are distributed as real volumes are."""

from collections.abc import Sequence

import numpy as np

from evaluation.charts import Dots
from evaluation.evidence import Evidence, Judged, Tell
from evaluation.functional import ssim
from evaluation.functional.statistics import mean_interval
from evaluation.report import Figure, Report
from evaluation.sections.distribution import distribution, one_each
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
        if one.floor is None or not one.better:
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
    """Measure SSIM of random samples to random real volumes, no volume twice; its floor between real patients.

    Two volumes of a population are alike to a degree, and no set is better for being more so.
    """
    rng, held = numpy_rng(evidence.seed, "ssim"), evidence.holdout
    whose = np.array([item.whose for item in held])
    real = [held[place] for place in rng.permutation(one_each(whose, evidence.seed))] if held else []
    made = [evidence.synthetic[place] for place in rng.permutation(len(evidence.synthetic))]
    values = _between(made[:_SHOWN], real)
    if not values:
        report.not_computed["fidelity.ssim"] = "needs hold-out volumes of the samples' grid, longer than the window"
        return
    floors = _between(real[: 2 * _SHOWN : 2], real[1::2])
    report.metrics["fidelity.ssim"] = Figure(
        float(np.mean(values)),
        len(values),
        "",
        "to a random volume",
        mean_interval(values, seed=evidence.seed),
        float(np.mean(floors)) if floors else None,
    )


def _between(first: Sequence[Judged], second: Sequence[Judged]) -> list[float]:
    """Return SSIM of volumes in turn, of those pairs that share a grid longer than the window."""
    return [
        float(ssim(one.image[None], other.image[None], data_range=1.0)[0])
        for one, other in zip(first, second, strict=False)
        if one.image.shape == other.image.shape and min(one.image.shape[1:]) > _WINDOW
    ]
