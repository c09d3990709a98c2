"""Whether the masks are those of the images: a segmenter trained on real volumes, and swapped masks as the control."""

from collections.abc import Sequence

import numpy as np

from evaluation.evidence import Evidence, Judged, Tell
from evaluation.functional import dice
from evaluation.report import Figure, Report, Verdict
from synth.rng import numpy_rng

NON_INFERIORITY = 0.95
_SMALLEST_INTERVAL, _RESAMPLED = 5, 1000


def alignment(evidence: Evidence, report: Report, tell: Tell) -> None:
    """Measure the agreement of the bench's segmenter with the masks, and the same with swapped masks."""
    made, bench, seed = evidence.synthetic, evidence.bench, evidence.seed
    model = bench.segmenter
    if model is None:
        report.not_computed["alignment.agreement"] = bench.why_not
        return
    labels = list(range(1, len(model.config.labels) + 1))
    found: list[np.ndarray] = []
    right: list[bool] = []
    for item in made:
        labelled, name = model.label(item.image)
        found.append(labelled)
        if item.asked:
            right.append(name == item.asked)
        tell("segmented")
    if right:
        report.metrics["condition.class"] = Figure(float(np.mean(right)), len(right), "higher", "recognised as asked")
    rows = _dice_rows(found, [item.mask for item in made], labels)
    own = np.array([bench.held_out_dice[name] for name in model.config.labels])
    for row, scores in zip(report.samples, rows, strict=True):
        if np.isfinite(scores).any():
            row["agreement"] = round(float(np.nanmean(scores)), 6)
    ratio = _relative(rows, own)
    if ratio is None:
        report.not_computed["alignment.agreement"] = "no synthetic mask holds a label that the segmenter knows"
        return
    for column, name in enumerate(model.config.labels):
        given = rows[np.isfinite(rows[:, column]), column]
        if len(given):
            floor = float(own[column])
            report.metrics[f"alignment.dice.{name}"] = Figure(float(given.mean()), len(given), "higher", floor=floor)
    unit = "of the segmenter's own held-out Dice"
    interval = _interval(rows, own, seed)
    report.metrics["alignment.agreement"] = Figure(ratio, len(made), "higher", unit, interval)
    good = ratio >= NON_INFERIORITY
    report.verdicts["alignment"] = Verdict(
        good,
        f"a segmenter trained on the population only ({report.population}) agrees with the masks at {ratio:.2f} of "
        f"its own held-out Dice ({'at least' if good else 'below'} {NON_INFERIORITY})",
    )
    _control(report, made, (found, labels, own), ratio, seed)


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
    swapped = _dice_rows(found, [made[(i + shift) % len(made)].mask for i in range(len(made))], labels)
    control = _relative(swapped, own)
    if control is None:
        report.not_computed["alignment.permuted"] = "no two samples share a grid, so that masks cannot be swapped"
        return
    report.metrics["alignment.permuted"] = Figure(control, len(made), "lower", "of the segmenter's own held-out Dice")
    fails = control < NON_INFERIORITY and control < ratio
    said = "fails, as it must" if fails else "does not fail"
    report.verdicts["control"] = Verdict(
        fails, f"with masks swapped between samples the agreement is {control:.2f}: {said}"
    )


def _dice_rows(found: Sequence[np.ndarray], masks: Sequence[np.ndarray], labels: list[int]) -> np.ndarray:
    """Return Dice (samples, labels); NaN where the mask lacks the label or the grids differ."""
    rows = np.full((len(found), len(labels)), np.nan)
    for index, (a, b) in enumerate(zip(found, masks, strict=True)):
        if a.shape == b.shape:
            present = np.array([(b == label).any() for label in labels])
            rows[index] = np.where(present, dice(a, b, labels=labels), np.nan)
    return rows


def _relative(rows: np.ndarray, own: np.ndarray) -> float | None:
    """Return the mean over labels of mean Dice, over the same mean of the segmenter's own; None without a label."""
    count = np.isfinite(rows).sum(axis=0)
    kept = (count > 0) & (own > 0)
    if not kept.any():
        return None
    return float((np.nansum(rows, axis=0)[kept] / count[kept]).mean() / own[kept].mean())


def _interval(rows: np.ndarray, own: np.ndarray, seed: int) -> tuple[float, float] | None:
    """Return the 95 % bootstrap interval over samples; None below 5, where it would say nothing."""
    if len(rows) < _SMALLEST_INTERVAL:
        return None
    rng = numpy_rng(seed, "interval")
    drawn = [_relative(rows[rng.integers(len(rows), size=len(rows))], own) for _ in range(_RESAMPLED)]
    values = [value for value in drawn if value is not None]
    return float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975))
