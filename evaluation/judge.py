"""The judge: a synthetic set against real volumes -> a Report. Streams volumes; knows no model.

Everything is measured on mapped intensities, so that native units do not matter.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from evaluation import features as extractor
from evaluation.functional import (
    copy_test,
    dice,
    frechet_distance,
    ms_ssim,
    ms_ssim_scales,
    nearest_neighbours,
    ssim,
)
from evaluation.pictures import mosaic, overlay
from evaluation.report import Figure, Report, Verdict
from evaluation.segmenter import Segmenter
from synth.errors import DataError
from synth.rng import numpy_rng

SMALLEST_FRECHET = 50
NON_INFERIORITY = 0.95
_SHOWN = 8
_WINDOW = 10  # SSIM needs axes longer than this
_SMALLEST_INTERVAL, _RESAMPLED = 5, 1000


@dataclass(frozen=True, eq=False)
class Judged:
    """One volume to judge: mapped image (channel, *grid), labels (*grid) 0..K, asked class (or empty)."""

    case: str
    image: np.ndarray
    mask: np.ndarray
    asked: str = ""


@dataclass(frozen=True, eq=False)
class Bench:
    """What a set is judged with: the segmenter and its own held-out Dice by label, the class attribute it knows."""

    segmenter: Segmenter | None = None
    held_out_dice: dict[str, float] = field(default_factory=dict)
    why_not: str = "no segmenter was given"


def judge(
    synthetic: Iterable[Judged],
    *,
    real: Iterable[Judged],
    training: Iterable[Judged],
    population: str,
    bench: Bench,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Report:
    """Return the report on `synthetic`: agreement with its permuted control, fidelity, similarity, neighbours."""
    report = Report(population)
    report.fingerprint = {"features": f"{extractor.NAME} {extractor.fingerprint()}", "intensity": "mapped 0.5/99.5 %"}
    tell = progress or (lambda _: None)
    made, train, held = list(synthetic), list(training), list(real)
    _check(made, [*train, *held])
    _agreement(report, made, bench, seed, tell)
    labels = max((int(item.mask.max(initial=0)) for item in (*made, *held, *train)), default=0)
    made_features, held_features, train_features = (_features(items, labels, tell) for items in (made, held, train))
    _distribution(report, made_features, held_features, seed)
    flagged = _neighbours(report, made_features, train_features, held_features)
    _similarity(report, made, held, seed)
    _pictures(report, made, held)
    report.samples = [{"case": item.case, "flagged": index in flagged} for index, item in enumerate(made)]
    report.not_computed["utility.dice_gain"] = "not part of this evaluation"
    return report


def _check(made: Sequence[Judged], reference: Sequence[Judged]) -> None:
    """Errors: DataError for no sample, voxels that are no numbers, other channels or dimensions."""
    if not made:
        raise DataError("the synthetic set holds no case; generate some first")
    for item in [*made, *reference]:
        if item.image.shape[1:] != item.mask.shape:
            raise DataError(f"case {item.case}: image grid {item.image.shape[1:]} is not mask grid {item.mask.shape}")
        if not np.isfinite(item.image).all():
            raise DataError(f"case {item.case} holds NaN or infinite voxels; mend or drop it")
        if item.image.ndim != made[0].image.ndim or len(item.image) != len(made[0].image):
            raise DataError(
                f"case {item.case} has {len(item.image)} channels in {item.mask.ndim}D, {made[0].case} has "
                f"{len(made[0].image)} channels in {made[0].mask.ndim}D; judge like with like"
            )


def _agreement(report: Report, made: Sequence[Judged], bench: Bench, seed: int, tell: Callable[[str], None]) -> None:
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


def _features(items: Sequence[Judged], labels: int, tell: Callable[[str], None]) -> np.ndarray:
    out = []
    for item in items:
        out.append(extractor.features(item.image, item.mask, labels=labels))
        tell("measured")
    return np.stack(out) if out else np.zeros((0, 1))


def _distribution(report: Report, made: np.ndarray, held: np.ndarray, seed: int) -> None:
    if min(len(made), len(held)) < SMALLEST_FRECHET:
        report.not_computed["fidelity.frechet"] = (
            f"{len(made)} synthetic and {len(held)} held-out volumes; below {SMALLEST_FRECHET} a side it says little"
        )
        return
    scale = held.std(axis=0) + 1e-6
    order = numpy_rng(seed, "floor").permutation(len(held))
    halves = held[order[::2]] / scale, held[order[1::2]] / scale
    report.metrics["fidelity.frechet"] = Figure(
        frechet_distance(made / scale, held / scale), len(made), "lower", floor=frechet_distance(*halves)
    )


def _neighbours(report: Report, made: np.ndarray, train: np.ndarray, held: np.ndarray) -> frozenset[int]:
    """Measure distances to training beside those of hold-out volumes; return the samples flagged as copies."""
    if min(len(made), len(train), len(held)) < 2:
        report.not_computed["privacy.nearest"] = "needs training and hold-out volumes, at least 2 of each"
        report.not_computed["privacy.copy_test"] = report.not_computed["privacy.nearest"]
        return frozenset()
    scale = train.std(axis=0) + 1e-6
    to_train = nearest_neighbours(made / scale, train / scale)
    reference = nearest_neighbours(held / scale, train / scale)
    report.metrics["privacy.nearest"] = Figure(
        float(np.median(to_train)),
        len(made),
        "higher",
        "feature distance to training",
        floor=float(np.median(reference)),
    )
    report.metrics["privacy.closer_than_holdout"] = Figure(
        float((to_train < reference.min()).mean()), len(made), "lower", "share nearer than any hold-out volume"
    )
    test = copy_test(made / scale, train / scale, held / scale)
    if not test.decidable:
        report.not_computed["privacy.copy_test"] = test.note
        return frozenset()
    share = len(test.flagged) / len(made)
    report.metrics["privacy.copy_test"] = Figure(share, len(made), "lower", "share flagged at a false rate of 10 %")
    return frozenset(int(index) for index in test.flagged)


def _similarity(report: Report, made: Sequence[Judged], held: Sequence[Judged], seed: int) -> None:
    """MS-SSIM between synthetic pairs (diversity; the floor is real pairs) and SSIM to a random real volume."""
    if len(made) < 2:
        report.not_computed["diversity.ms_ssim"] = "needs at least 2 samples"
        report.not_computed["fidelity.ssim"] = "needs at least 2 samples"
        return
    rng = numpy_rng(seed, "pairs")

    def pairs(items: Sequence[Judged]) -> list[float]:
        values = []
        for _ in range(min(8, len(items))):
            a, b = (items[i].image for i in rng.choice(len(items), size=2, replace=False))
            if a.shape == b.shape and min(a.shape[1:]) > _WINDOW:
                values.append(float(ms_ssim(a[None], b[None], data_range=1.0)[0]))
        return values

    floors = pairs(held) if len(held) >= 2 else []
    found = pairs(made)
    if found:
        scales = ms_ssim_scales(made[0].image.shape[1:])
        report.metrics["diversity.ms_ssim"] = Figure(
            float(np.mean(found)),
            len(found),
            "lower",
            f"between pairs, {scales} scales",
            floor=float(np.mean(floors)) if floors else None,
        )
    else:
        report.not_computed["diversity.ms_ssim"] = "needs samples of one grid, longer than the window of 11 voxels"
    values = []
    for item in made[:8] if held else ():
        other = held[int(rng.integers(len(held)))]
        if item.image.shape == other.image.shape and min(item.image.shape[1:]) > _WINDOW:
            values.append(ssim(item.image[None], other.image[None], data_range=1.0)[0])
    if values:
        report.metrics["fidelity.ssim"] = Figure(float(np.mean(values)), len(values), "higher", "to a random volume")
    else:
        report.not_computed["fidelity.ssim"] = "needs hold-out volumes of the samples' grid, longer than the window"


def _pictures(report: Report, made: Sequence[Judged], held: Sequence[Judged]) -> None:
    def row(item: Judged) -> np.ndarray:
        return overlay(item.image[0], item.mask, low=0.0, high=1.05)

    def bare(item: Judged) -> np.ndarray:
        return overlay(item.image[0], None, low=0.0, high=1.05)

    shown = made[:_SHOWN]
    rows = [part for item in shown for part in (bare(item), row(item))]
    report.pictures.append((f"{len(shown)} synthetic volumes, without and with mask contours", mosaic(rows), False))
    if held:
        rows = [part for item in held[: len(shown)] for part in (bare(item), row(item))]
        report.pictures.append(
            (
                f"{min(len(held), len(shown))} volumes of the population ({report.population}), the same way",
                mosaic(rows),
                True,
            )
        )
