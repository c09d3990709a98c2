"""Whether samples differ among themselves as real volumes do."""

from collections.abc import Sequence

import numpy as np

from evaluation.evidence import Evidence, Judged, Tell
from evaluation.functional import ms_ssim, ms_ssim_scales, vendi_score
from evaluation.functional.diversity import median_distance
from evaluation.report import Figure, Report
from evaluation.sections.distribution import halves, one_each, spread
from synth.rng import numpy_rng

_PAIRS = 8
_WINDOW = 10  # SSIM needs axes longer than this
_DRAWS = 8
SMALLEST_VENDI = 20


def diversity(evidence: Evidence, report: Report, tell: Tell) -> None:
    """Measure the effective number of different samples and MS-SSIM between pairs, beside those of real volumes."""
    _vendi(evidence, report, tell)
    _similarity(evidence, report)


def _vendi(evidence: Evidence, report: Report, tell: Tell) -> None:
    """Compare Vendi scores of equally many samples and real patients, in the real set's kernel width."""
    rows = evidence.features(tell)
    made, held = rows.synthetic, rows.holdout
    single = one_each(np.array([item.whose for item in evidence.holdout]), evidence.seed) if len(held) else []
    if min(len(made), len(single)) < SMALLEST_VENDI:
        report.not_computed["diversity.vendi"] = (
            f"{len(made)} synthetic volumes and {len(single)} held-out patients; below {SMALLEST_VENDI} of either it "
            "says little"
        )
        return
    scale = spread(held, made)
    made, held = made / scale, held[single] / scale
    width = median_distance(held) or 1.0
    size = min(len(made), len(held))

    def score(items: np.ndarray, size: int, name: str) -> float:
        draws = _DRAWS if len(items) > size else 1
        rngs = (numpy_rng(evidence.seed, "vendi", name, draw) for draw in range(draws))
        chosen = (items[rng.permutation(len(items))[:size]] for rng in rngs)
        return float(np.mean([vendi_score(some, bandwidth=width) for some in chosen]))

    splits = halves(np.arange(len(held)), evidence.seed)
    floors = [score(held[a], len(held) // 2, "a") / score(held[b], len(held) // 2, "b") for a, b in splits]
    report.metrics["diversity.vendi"] = Figure(
        score(made, size, "made") / score(held, size, "held"),
        size,
        "higher",
        "of the effective number of real volumes at equal n",
        floor=float(np.mean(floors)),
    )


def _similarity(evidence: Evidence, report: Report) -> None:
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
        one, other = (items[i] for i in rng.choice(len(items), size=2, replace=False))
        a, b = one.image, other.image
        if one.whose != other.whose and a.shape == b.shape and min(a.shape[1:]) > _WINDOW:
            values.append(float(ms_ssim(a[None], b[None], data_range=1.0)[0]))
    return values
