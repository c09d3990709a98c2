"""The judge: a synthetic set against real volumes -> a Report. Streams volumes; knows no model.

Everything is measured on mapped intensities, so that native units do not matter.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from evaluation import features as extractor
from evaluation.functional import dice, frechet_distance, ms_ssim, nearest_neighbours, ssim
from evaluation.pictures import mosaic, overlay
from evaluation.report import Figure, Report, Verdict
from evaluation.segmenter import Segmenter
from synth.rng import numpy_rng

SMALLEST_FRECHET = 50
NON_INFERIORITY = 0.95
_SHOWN = 8


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
    _agreement(report, made, bench, seed, tell)
    labels = max((int(item.mask.max(initial=0)) for item in (*made, *held, *train)), default=0)
    made_features, held_features, train_features = (_features(items, labels, tell) for items in (made, held, train))
    _distribution(report, made_features, held_features, seed)
    _neighbours(report, made_features, train_features, held_features)
    _similarity(report, made, held, seed)
    _pictures(report, made, held)
    report.samples = [{"case": item.case, "flagged": False} for item in made]
    for name in ("privacy.copy_test", "utility.dice_gain"):
        report.not_computed[name] = "not part of this evaluation"
    return report


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
    matched = _mean_dice(found, [item.mask for item in made], labels)
    own = np.array([bench.held_out_dice[name] for name in model.config.labels])
    kept = np.isfinite(matched)
    ratio = float(matched[kept].mean() / own[kept].mean())
    for name, value, floor in zip(model.config.labels, matched, own, strict=True):
        if np.isfinite(value):
            report.metrics[f"alignment.dice.{name}"] = Figure(float(value), len(made), "higher", floor=float(floor))
    report.metrics["alignment.agreement"] = Figure(ratio, len(made), "higher", "of the segmenter's own held-out Dice")
    good = ratio >= NON_INFERIORITY
    report.verdicts["alignment"] = Verdict(
        good,
        f"a segmenter trained on real volumes only agrees with the masks at {ratio:.2f} of its own held-out Dice "
        f"({'at least' if good else 'below'} {NON_INFERIORITY})",
    )
    if right:
        report.metrics["condition.class"] = Figure(float(np.mean(right)), len(right), "higher", "recognised as asked")
    if len(made) < 2:
        report.not_computed["alignment.permuted"] = "one sample has no other to be swapped with"
        return
    shift = 1 + int(numpy_rng(seed, "permuted").integers(len(made) - 1))
    swapped = _mean_dice(found, [made[(i + shift) % len(made)].mask for i in range(len(made))], labels)
    control = float(swapped[kept].mean() / own[kept].mean())
    report.metrics["alignment.permuted"] = Figure(control, len(made), "lower", "of the segmenter's own held-out Dice")
    fails = control < NON_INFERIORITY and control < ratio
    said = "fails, as it must" if fails else "does not fail"
    report.verdicts["control"] = Verdict(
        fails, f"with masks swapped between samples the agreement is {control:.2f}: {said}"
    )


def _mean_dice(found: Sequence[np.ndarray], masks: Sequence[np.ndarray], labels: list[int]) -> np.ndarray:
    """Return the mean Dice by label over the samples whose mask has it; NaN where none has."""
    rows = np.full((len(found), len(labels)), np.nan)
    for index, (a, b) in enumerate(zip(found, masks, strict=True)):
        if a.shape == b.shape:
            present = np.array([(b == label).any() for label in labels])
            rows[index] = np.where(present, dice(a, b, labels=labels), np.nan)
    count = np.isfinite(rows).sum(axis=0)
    total = np.nansum(rows, axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _features(items: Sequence[Judged], labels: int, tell: Callable[[str], None]) -> np.ndarray:
    out = []
    for item in items:
        out.append(extractor.features(item.image, item.mask, labels=labels))
        tell("measured")
    return np.stack(out) if out else np.zeros((0, 1))


def _distribution(report: Report, made: np.ndarray, held: np.ndarray, seed: int) -> None:
    if min(len(made), len(held)) < SMALLEST_FRECHET:
        report.not_computed["fidelity.frechet"] = (
            f"{len(made)} synthetic and {len(held)} real volumes; below {SMALLEST_FRECHET} on each side it says little"
        )
        return
    scale = held.std(axis=0) + 1e-6
    order = numpy_rng(seed, "floor").permutation(len(held))
    halves = held[order[::2]] / scale, held[order[1::2]] / scale
    report.metrics["fidelity.frechet"] = Figure(
        frechet_distance(made / scale, held / scale), len(made), "lower", floor=frechet_distance(*halves)
    )


def _neighbours(report: Report, made: np.ndarray, train: np.ndarray, held: np.ndarray) -> None:
    if min(len(made), len(train), len(held)) < 2:
        report.not_computed["privacy.nearest"] = "needs training and hold-out volumes, at least 2 of each"
        return
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


def _similarity(report: Report, made: Sequence[Judged], held: Sequence[Judged], seed: int) -> None:
    """MS-SSIM between synthetic pairs (diversity; the floor is real pairs) and SSIM to a random real volume."""
    if len(made) < 2:
        report.not_computed["diversity.ms_ssim"] = "needs at least 2 samples"
        return
    rng = numpy_rng(seed, "pairs")

    def pairs(items: Sequence[Judged]) -> float:
        values = []
        for _ in range(min(8, len(items))):
            a, b = rng.choice(len(items), size=2, replace=False)
            values.append(ms_ssim(items[a].image[None], items[b].image[None], data_range=1.0)[0])
        return float(np.mean(values))

    floor = pairs(held) if len(held) >= 2 else None
    report.metrics["diversity.ms_ssim"] = Figure(pairs(made), min(8, len(made)), "lower", "between pairs", floor=floor)
    if held and held[0].image.shape == made[0].image.shape:
        values = [
            ssim(item.image[None], held[int(rng.integers(len(held)))].image[None], data_range=1.0)[0]
            for item in made[:8]
        ]
        report.metrics["fidelity.ssim"] = Figure(
            float(np.mean(values)), len(values), "higher", "to a random real volume"
        )


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
        report.pictures.append((f"{min(len(held), len(shown))} real volumes, the same way", mosaic(rows), True))
