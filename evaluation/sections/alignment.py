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
from evaluation.segmented import (
    OwnScore,
    dice_rows,
    own_score,
    relative,
    segmented,
    surface_rows,
    tolerance_of,
    why_no_score,
)
from synth.rng import numpy_rng

NON_INFERIORITY = 0.95
SMALL = 50
"""Below so many samples a margin inside the interval leaves the verdict open; from there on it is not shown."""
_RESAMPLED = 2000
_MOST_SAID, _MOST_ASKED = 1000, 1e6
_SWAPPED = "of the segmenter's own Dice"


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
    found = [one.labels for one in segmented(evidence, tell).synthetic]
    rows = dice_rows(found, [item.mask for item in made], labels)
    own = own_score(evidence, tell)
    _say_who(report, evidence, own)
    for row, scores in zip(report.samples, rows, strict=True):
        if np.isfinite(scores).any():
            row["agreement"] = round(float(np.nanmean(scores)), 6)
    for column, name in enumerate(names):
        given = rows[np.isfinite(rows[:, column]), column]
        if len(given):
            interval, floor = mean_interval(given, seed=seed), None if own is None else float(own.mean[column])
            report.metrics[f"alignment.dice.{name}"] = Figure(
                float(given.mean()), len(given), "higher", interval=interval, floor=floor
            )
    report.draw("alignment", "Dice of the segmenter by label; dashed: its own on held-out patients", "alignment.dice.")
    _surfaces(evidence, report, tell)
    ratio = None if own is None else relative(rows, own.mean)
    if own is None or ratio is None:
        no_label = "no synthetic mask holds a label that the segmenter finds in real volumes"
        report.not_computed["alignment.agreement"] = why_no_score(evidence) if own is None else no_label
        return
    _agreement(report, rows, own, ratio, seed)
    _control(report, made, (found, labels, own.mean), ratio, seed)


def _say_who(report: Report, evidence: Evidence, own: OwnScore | None) -> None:
    """Note the held-out patients who trained the segmenter."""
    bench, known = evidence.bench, {item.whose for item in evidence.holdout}
    if own is not None and known & bench.saw:
        report.notes.append(
            f"{len(known & bench.saw)} of {len(known)} held-out patients trained the segmenter: what it is compared "
            "with is measured on the others"
        )


def _agreement(report: Report, rows: np.ndarray, own: OwnScore, ratio: float, seed: int) -> None:
    """Add the agreement as a share of the segmenter's own score, both moving in its interval, and the verdict on it."""
    given = rows[np.isfinite(rows).any(axis=1)]
    n = len(given), len(own.rows)
    drawn, least = _drawn(given, own.rows, seed), min(n)
    report.metrics["alignment.agreement"] = Figure(
        ratio, n[0], "higher", _unit(own), None if drawn is None else _bounds(drawn, 0.025, least)
    )
    bounds = None if drawn is None else _bounds(drawn, 0.05, least)
    report.verdicts["alignment"] = _non_inferiority(ratio, bounds, n, report.population, recorded=own.recorded)


def _unit(own: OwnScore) -> str:
    where = ", as recorded with it" if own.recorded else ""
    missed = int((~(own.mean > 0)).sum())
    left = f"; {missed} labels that it finds in none are left out" if missed else ""
    return f"of the segmenter's own Dice on {len(own.rows)} held-out patients{where}{left}"


def _non_inferiority(
    ratio: float, bounds: tuple[float, float] | None, n: tuple[int, int], population: str, *, recorded: bool = False
) -> Verdict:
    """Judge by the one-sided 95 % bounds: shown above the margin, shown below it, or open at this number.

    n          samples, and held-out patients on whom the segmenter's own score was measured
    recorded   these are patients of the cohort that the segmenter was made on
    """
    where = "where it was made, as recorded with it, " if recorded else ""
    measured = f"Dice on {n[1]} held-out patients {where}whom it was not trained on"
    said = (
        f"a segmenter trained on the population only ({population}) agrees with the masks at {ratio:.2f} of its own "
        f"{measured}"
    )
    margin = f"the non-inferiority margin {NON_INFERIORITY}"
    if bounds is None:
        there = f"with {n[0]} samples and {n[1]} held-out patients; it takes {SMALLEST} of each"
        return Verdict(None, f"{said}; {margin} cannot be judged {there}")
    low, high = bounds
    if low >= NON_INFERIORITY:
        return Verdict(True, f"{said}; the lower 95 % bound {low:.3f} is not below {margin}")
    if high < NON_INFERIORITY:
        return Verdict(False, f"{said}; the upper 95 % bound {high:.3f} is below {margin}")
    least = min(n)
    if least >= SMALL:
        return Verdict(False, f"{said}; the lower 95 % bound {low:.3f} is below {margin}, so it is not shown")
    # the bound nears the ratio as 1 / sqrt(n)
    reach = low if ratio > NON_INFERIORITY else high
    apart = max(abs(ratio - NON_INFERIORITY), 1e-9)
    more = max(ceil(least * min((reach - ratio) ** 2 / apart**2, _MOST_ASKED)), least + 1)
    need = f"more than {_MOST_SAID}" if more > _MOST_SAID else f"about {more}"
    return Verdict(
        None,
        f"{said}; the 95 % bounds {low:.3f} and {high:.3f} lie on both sides of {margin}: undecidable with {n[0]} "
        f"samples and {n[1]} held-out patients, {need} of both would decide",
    )


def _bounds(drawn: np.ndarray, alpha: float, n: int) -> tuple[float, float]:
    """Return what a share `alpha` of draws lies beyond on each side, widened for a small n."""
    tail = expanded_tail(alpha, n)
    return float(np.quantile(drawn, tail)), float(np.quantile(drawn, 1 - tail))


def _drawn(rows: np.ndarray, held: np.ndarray, seed: int) -> np.ndarray | None:
    """Return bootstrap draws of the agreement; None below 5 samples or held-out patients, where they say nothing.

    Samples (n, labels) and patients (m, labels) are drawn again each: the segmenter's own score is known no better.
    """
    if min(len(rows), len(held)) < SMALLEST:
        return None
    rng = numpy_rng(seed, "interval")
    mean, there = _resampled(rows, rng)
    score, held_there = _resampled(held, rng)
    kept = there & held_there & (score > 0)
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
    others = [made[(i + shift) % len(made)].mask for i in range(len(made))]
    # a mask that two samples share is no wrong one
    wrong = [place for place, item in enumerate(made) if not np.array_equal(item.mask, others[place])]
    control = relative(dice_rows([found[i] for i in wrong], [others[i] for i in wrong], labels), own) if wrong else None
    if control is None:
        report.not_computed["alignment.permuted"] = "no two samples with unlike masks share a grid, to be swapped"
        return
    report.metrics["alignment.permuted"] = Figure(control, len(wrong), "lower", _SWAPPED)
    fails = control < NON_INFERIORITY and control < ratio
    said = "fails, as it must" if fails else "does not fail"
    report.verdicts["control"] = Verdict(
        fails, f"with masks swapped between samples the agreement is {control:.2f}: {said}"
    )
