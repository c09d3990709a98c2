"""Whether the masks are those of the images: a segmenter trained on real volumes, edges at mask boundaries, anatomy.

Controls that must fail stand beside: masks swapped between samples, masks shifted by a few voxels.
"""

from collections.abc import Sequence
from math import ceil

import numpy as np

from evaluation.evidence import Evidence, Judged, Tell
from evaluation.functional.statistics import SMALLEST, expanded_tail, mean_interval
from evaluation.report import Figure, Report, Verdict
from evaluation.sections import _anatomy
from evaluation.segmented import dice_rows, relative, segmented, surface_rows, tolerance_of
from synth.rng import numpy_rng

NON_INFERIORITY = 0.95
SMALL = 50
"""Below so many samples a margin inside the interval leaves the verdict open; from there on it is not shown."""
_RESAMPLED = 2000
_MOST_SAID, _MOST_ASKED = 1000, 1e6
_UNIT = "of the segmenter's own held-out Dice"


def alignment(evidence: Evidence, report: Report, tell: Tell) -> None:
    """Measure the agreement of the bench's segmenter with the masks, edges at their boundaries, and their anatomy."""
    _anatomy.boundary(evidence, report)
    _anatomy.anatomy(evidence, report)
    made, bench, seed = evidence.synthetic, evidence.bench, evidence.seed
    model = bench.segmenter
    if model is None:
        report.not_computed["alignment.agreement"] = bench.why_not
        return
    names = model.config.labels
    labels = list(range(1, len(names) + 1))
    sides = segmented(evidence, tell)
    found = [one.labels for one in sides.synthetic]
    rows = dice_rows(found, [item.mask for item in made], labels)
    held = dice_rows([one.labels for one in sides.holdout], [one.item.mask for one in sides.holdout], labels)
    own = np.array([bench.held_out_dice[name] for name in names])
    for row, scores in zip(report.samples, rows, strict=True):
        if np.isfinite(scores).any():
            row["agreement"] = round(float(np.nanmean(scores)), 6)
    ratio = relative(rows, own)
    if ratio is None:
        report.not_computed["alignment.agreement"] = "no synthetic mask holds a label that the segmenter knows"
        return
    for column, name in enumerate(names):
        given = rows[np.isfinite(rows[:, column]), column]
        if len(given):
            interval = mean_interval(given, seed=seed)
            report.metrics[f"alignment.dice.{name}"] = Figure(
                float(given.mean()), len(given), "higher", interval=interval, floor=float(own[column])
            )
    report.draw("alignment", "Dice of the segmenter by label; dashed: its own on held-out patients", "alignment.dice.")
    drawn = _drawn(rows, held, own, seed)
    n = min(len(rows), len(held)) if len(held) >= SMALLEST else len(rows)
    interval = None if drawn is None else _bounds(drawn, 0.025, n)
    report.metrics["alignment.agreement"] = Figure(ratio, len(made), "higher", _UNIT, interval)
    report.verdicts["alignment"] = _non_inferiority(
        ratio, None if drawn is None else _bounds(drawn, 0.05, n), len(made), report.population
    )
    _surfaces(evidence, report, tell)
    _control(report, made, (found, labels, own), ratio, seed)


def _non_inferiority(ratio: float, bounds: tuple[float, float] | None, n: int, population: str) -> Verdict:
    """Judge by the one-sided 95 % bounds: shown above the margin, shown below it, or open at this number of samples."""
    said = (
        f"a segmenter trained on the population only ({population}) agrees with the masks at {ratio:.2f} of its own "
        f"held-out Dice"
    )
    margin = f"the non-inferiority margin {NON_INFERIORITY}"
    if bounds is None:
        need = f"{SMALLEST} samples are the least that can be judged, {n} there are"
        return Verdict(None, f"{said}; against {margin} {need}")
    low, high = bounds
    if low >= NON_INFERIORITY:
        return Verdict(True, f"{said}; the lower 95 % bound {low:.3f} is not below {margin}")
    if high < NON_INFERIORITY:
        return Verdict(False, f"{said}; the upper 95 % bound {high:.3f} is below {margin}")
    if n >= SMALL:
        return Verdict(False, f"{said}; the lower 95 % bound {low:.3f} is below {margin}, so it is not shown")
    # the bound nears the ratio as 1 / sqrt(n)
    reach = low if ratio > NON_INFERIORITY else high
    apart = max(abs(ratio - NON_INFERIORITY), 1e-9)
    more = max(ceil(n * min((reach - ratio) ** 2 / apart**2, _MOST_ASKED)), n + 1)
    need = f"more than {_MOST_SAID}" if more > _MOST_SAID else f"about {more}"
    return Verdict(
        None,
        f"{said}; the 95 % bounds {low:.3f} and {high:.3f} lie on both sides of {margin}: undecidable with {n} "
        f"samples, {need} (and hold-out volumes in proportion) would decide",
    )


def _bounds(drawn: np.ndarray, alpha: float, n: int) -> tuple[float, float]:
    """Return what a share `alpha` of draws lies beyond on each side, widened for a small n."""
    tail = expanded_tail(alpha, n)
    return float(np.quantile(drawn, tail)), float(np.quantile(drawn, 1 - tail))


def _drawn(rows: np.ndarray, held: np.ndarray, own: np.ndarray, seed: int) -> np.ndarray | None:
    """Return bootstrap draws of the agreement; None below 5 samples, where they would say nothing.

    Where the hold-out is there, the segmenter's own score moves with its resampling too: it is known no better.
    """
    if len(rows) < SMALLEST:
        return None
    rng = numpy_rng(seed, "interval")
    mean, there = _resampled(rows, rng)
    score = np.broadcast_to(own, mean.shape)
    known = np.isfinite(held).sum(axis=0) >= SMALLEST if len(held) else np.zeros(len(own), dtype=bool)
    if known.any():
        again, held_there = _resampled(held[:, known], rng)
        moved = np.where(held_there, again - np.nanmean(held[:, known], axis=0), 0.0)
        score = score.copy()
        score[:, known] = np.clip(score[:, known] + moved, 1e-6, 1.0)
    kept = there & (own > 0)
    some = kept.any(axis=1)
    return np.where(kept, mean, 0.0)[some].sum(axis=1) / np.where(kept, score, 0.0)[some].sum(axis=1)


def _resampled(rows: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of each column over rows drawn again, and whether it has one: (draws, labels) each."""
    drawn = rows[rng.integers(len(rows), size=(_RESAMPLED, len(rows)))]
    count = np.isfinite(drawn).sum(axis=1)
    return np.nansum(drawn, axis=1) / np.maximum(count, 1), count > 0


def _surfaces(evidence: Evidence, report: Report, tell: Tell) -> None:
    """Measure surface Dice within one voxel's longest side, and HD95, of labels that the mask holds."""
    model = evidence.bench.segmenter
    assert model is not None
    made, held = surface_rows(evidence, tell)
    unit = "mm" if evidence.spacing_mm else "voxels"
    within = f"within {tolerance_of(evidence):.3g} {unit}"
    for column, name in enumerate(model.config.labels):
        for row, family in enumerate(("nsd", "hd95")):
            values, floor = (side[np.isfinite(side[:, row, column]), row, column] for side in (made, held))
            if len(values):
                report.metrics[f"alignment.{family}.{name}"] = Figure(
                    float(values.mean()),
                    len(values),
                    "higher" if family == "nsd" else "lower",
                    within if family == "nsd" else unit,
                    mean_interval(values, seed=evidence.seed),
                    float(floor.mean()) if len(floor) else None,
                )


def _control(
    report: Report,
    made: Sequence[Judged],
    judged: tuple[Sequence[np.ndarray], list[int], np.ndarray],
    ratio: float,
    seed: int,
) -> None:
    """Judge again with the masks swapped between samples, which must fail."""
    found, labels, own = judged
    if len(made) < 2:
        report.not_computed["alignment.permuted"] = "one sample has no other to be swapped with"
        return
    shift = 1 + int(numpy_rng(seed, "permuted").integers(len(made) - 1))
    swapped = dice_rows(found, [made[(i + shift) % len(made)].mask for i in range(len(made))], labels)
    control = relative(swapped, own)
    if control is None:
        report.not_computed["alignment.permuted"] = "no two samples share a grid, so that masks cannot be swapped"
        return
    report.metrics["alignment.permuted"] = Figure(control, len(made), "lower", _UNIT)
    fails = control < NON_INFERIORITY and control < ratio
    said = "fails, as it must" if fails else "does not fail"
    report.verdicts["control"] = Verdict(
        fails, f"with masks swapped between samples the agreement is {control:.2f}: {said}"
    )
