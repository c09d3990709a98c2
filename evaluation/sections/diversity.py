"""Whether samples differ among themselves as real volumes do."""

from collections.abc import Sequence

import numpy as np

from evaluation.evidence import Evidence, Judged, Tell
from evaluation.functional import ms_ssim, ms_ssim_scales, vendi_score
from evaluation.functional.diversity import median_distance
from evaluation.functional.statistics import mean_interval
from evaluation.report import Figure, Report
from evaluation.sections.distribution import Sides, one_each, real_pairs, singled, spread
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
    whose = np.array([item.whose for item in evidence.holdout])
    patients = len(np.unique(whose))
    if min(len(rows.synthetic), patients) < SMALLEST_VENDI:
        report.not_computed["diversity.vendi"] = (
            f"{len(rows.synthetic)} synthetic volumes and {patients} held-out patients; below {SMALLEST_VENDI} of "
            "either it says little"
        )
        return
    scale = spread(rows.holdout, rows.synthetic)
    sets = [Sides(rows.synthetic, rows.holdout, None, whose), *real_pairs(evidence, tell)]
    sides, *pairs = (singled(some, evidence.seed).scaled(scale) for some in sets)
    width = median_distance(sides.second) or 1.0

    def relative(some: Sides) -> float:
        size = min(len(some.first), len(some.second))
        return _score(some.first, size, width, evidence.seed) / _score(some.second, size, width, evidence.seed)

    report.metrics["diversity.vendi"] = Figure(
        relative(sides),
        min(len(sides.first), len(sides.second)),
        "",
        "of the effective number of real volumes at equal n; noise adds to it as differences do",
        floor=float(np.mean([relative(some) for some in pairs])),
    )


def _score(rows: np.ndarray, size: int, width: float, seed: int) -> float:
    """Return the Vendi score of `size` rows, over several draws where there are more."""
    draws = (numpy_rng(seed, "vendi", draw) for draw in range(_DRAWS if len(rows) > size else 1))
    chosen = (rows[rng.permutation(len(rows))[:size]] for rng in draws)
    return float(np.mean([vendi_score(some, bandwidth=width) for some in chosen]))


def _similarity(evidence: Evidence, report: Report) -> None:
    """Measure MS-SSIM between random pairs of samples, no sample twice, beside that between real patients."""
    made, seed = evidence.synthetic, evidence.seed
    if len(made) < 2:
        report.not_computed["diversity.ms_ssim"] = "needs at least 2 samples"
        return
    whose = np.array([item.whose for item in evidence.holdout])
    held = [evidence.holdout[place] for place in one_each(whose, seed)] if len(whose) else []
    found, floors = (_pairs(side, numpy_rng(seed, "pairs", name)) for name, side in (("made", made), ("held", held)))
    if not found:
        report.not_computed["diversity.ms_ssim"] = "needs samples of one grid, longer than the window of 11 voxels"
        return
    scales = ms_ssim_scales(made[0].image.shape[1:])
    report.metrics["diversity.ms_ssim"] = Figure(
        float(np.mean(found)),
        len(found),
        "",
        f"between pairs, {scales} scales",
        mean_interval(found, seed=seed),
        float(np.mean(floors)) if floors else None,
    )


def _pairs(items: Sequence[Judged], rng: np.random.Generator) -> list[float]:
    """Return MS-SSIM of pairs that share no volume, so that they are independent."""
    order = rng.permutation(len(items))
    values = []
    for one, other in zip(order[: 2 * _PAIRS : 2], order[1 : 2 * _PAIRS : 2], strict=False):
        a, b = items[one].image, items[other].image
        if a.shape == b.shape and min(a.shape[1:]) > _WINDOW:
            values.append(float(ms_ssim(a[None], b[None], data_range=1.0)[0]))
    return values
