"""Figures by level of every attribute that was asked for, and the gap between the best and the worst level."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from evaluation.evidence import Evidence, Judged, Tell
from evaluation.functional.statistics import SMALLEST, clopper_pearson, mean_interval, simultaneous_gap
from evaluation.report import Figure, Report
from evaluation.segmented import (
    dice_rows,
    known_classes,
    own_score,
    relative,
    segmented,
    surface_rows,
    why_no_score,
)
from synth.rng import numpy_rng

LEAST = SMALLEST
"""Samples that a level needs to enter a gap."""
_MOST_LEVELS, _RESAMPLED = 12, 1000
_AGREEMENT = "alignment.agreement"
_LOWER = ("alignment.hd95.", "calibration.")


def subgroups(evidence: Evidence, report: Report, tell: Tell) -> None:
    """Add rows of every figure that has a value for each sample, and `alignment.gap.<attribute>` with its floor."""
    asked = _attributes(evidence.synthetic)
    if evidence.bench.segmenter is None:
        for name in asked:
            report.not_computed[f"alignment.gap.{name}"] = evidence.bench.why_not
        return
    scores = _scores(evidence, tell) if asked else {}
    for name in asked:
        levels = _divided(evidence.synthetic, name)
        if not levels:
            report.not_computed[f"alignment.gap.{name}"] = "one level only, or nearly as many as there are samples"
            continue
        for figure, values in scores.items():
            for level, places in levels.items():
                _row(report, (name, level, figure), values[places], evidence.seed)
        if _AGREEMENT in scores:
            _gap(report, name, scores[_AGREEMENT], levels, evidence.seed)
        else:
            report.not_computed[f"alignment.gap.{name}"] = why_no_score(evidence)


def _row(report: Report, key: tuple[str, str, str], values: np.ndarray, seed: int) -> None:
    """Add one row of the table; a level without a value has a row too, of n 0."""
    values = values[np.isfinite(values)]
    if key[2] == "condition.class" and len(values):
        interval = clopper_pearson(int(values.sum()), len(values))
    else:
        interval = mean_interval(values, seed=seed)
    report.subgroups.append(
        {
            "attribute": key[0],
            "level": key[1],
            "figure": key[2],
            "value": _rounded(float(values.mean())) if len(values) else None,
            "n": len(values),
            "interval": None if interval is None else [_rounded(v) for v in interval],
            "better": "lower" if key[2].startswith(_LOWER) else "higher",
        }
    )


def _gap(report: Report, name: str, values: np.ndarray, levels: Mapping[str, np.ndarray], seed: int) -> None:
    """Measure how far the best level's mean agreement lies above the worst's; levels of few samples left out.

    The largest of several differences is above 0 by chance: the floor is its mean with levels shuffled between samples,
    the interval is simultaneous over all pairs of levels and may reach below 0.
    """
    groups = {level: values[places][np.isfinite(values[places])] for level, places in levels.items()}
    groups = {level: group for level, group in groups.items() if len(group) >= LEAST}
    if len(groups) < 2:
        report.not_computed[f"alignment.gap.{name}"] = f"needs 2 levels of {LEAST} samples with a known label at least"
        return
    means = {level: float(group.mean()) for level, group in groups.items()}
    best, worst = max(means, key=lambda level: means[level]), min(means, key=lambda level: means[level])
    rng = numpy_rng(seed, "gap", name)
    sizes, pool = np.cumsum([len(group) for group in groups.values()])[:-1], np.concatenate(list(groups.values()))
    chance = []
    for _ in range(_RESAMPLED):
        mixed = [part.mean() for part in np.split(pool[rng.permutation(len(pool))], sizes)]
        chance.append(max(mixed) - min(mixed))
    found = means[best] - means[worst]
    p = (1 + int((np.array(chance) >= found - 1e-12).sum())) / (_RESAMPLED + 1)
    report.metrics[f"alignment.gap.{name}"] = Figure(
        found,
        len(pool),
        "lower",
        f"best ({best}) less worst ({worst}), p = {p:.3f}" if found > 0 else "all levels alike",
        simultaneous_gap(list(groups.values()), (list(groups).index(best), list(groups).index(worst))),
        float(np.mean(chance)),
        p,
    )


def _scores(evidence: Evidence, tell: Tell) -> dict[str, np.ndarray]:
    """Return figure -> its value for each sample, NaN where it has none."""
    model, made = evidence.bench.segmenter, evidence.synthetic
    assert model is not None
    sides = segmented(evidence, tell).synthetic
    names = model.config.labels
    rows = dice_rows([one.labels for one in sides], [item.mask for item in made], list(range(1, len(names) + 1)))
    out, own = {}, own_score(evidence, tell)
    if own is not None:
        agreement = [relative(row[None], own.mean) for row in rows]
        out[_AGREEMENT] = np.array([np.nan if value is None else value for value in agreement])
    out.update({f"alignment.dice.{name}": rows[:, column] for column, name in enumerate(names)})
    surfaces = surface_rows(evidence, tell)[0]
    for row, family in enumerate(("nsd", "hd95")):
        out.update({f"alignment.{family}.{name}": surfaces[:, row, column] for column, name in enumerate(names)})
    classes = known_classes(model)
    if any(item.asked in classes for item in made):
        right = [float(one.name == one.item.asked) if one.item.asked in classes else np.nan for one in sides]
        out["condition.class"] = np.array(right)
    for name in ("ece", "brier"):
        values = [np.nan if one.calibration is None else float(getattr(one.calibration, name)) for one in sides]
        if np.isfinite(values).any():
            out[f"calibration.{'ece_roi' if name == 'ece' else name}"] = np.array(values)
    return out


def _attributes(items: Sequence[Judged]) -> list[str]:
    return sorted({name for item in items for name in item.attributes})


def _divided(items: Sequence[Judged], name: str) -> dict[str, np.ndarray]:
    """Return level -> places of its samples: words as they are, numbers in thirds; empty where nothing is divided."""
    told = [(place, item.attributes[name]) for place, item in enumerate(items) if name in item.attributes]
    numbers = [value for _, value in told if isinstance(value, (int, float)) and not isinstance(value, bool)]
    if told and len(numbers) == len(told) and len(set(numbers)) > 3:
        low, high = (float(v) for v in np.quantile(np.array(numbers, dtype=np.float64), (1 / 3, 2 / 3)))
        named = {f"up to {low:.3g}": [], f"{low:.3g} to {high:.3g}": [], f"above {high:.3g}": []}
        keys = list(named)
        for place, value in told:
            named[keys[int(float(value) > low) + int(float(value) > high)]].append(place)
    else:
        named = {level: [] for level in sorted({_word(value) for _, value in told})}
        for place, value in told:
            named[_word(value)].append(place)
    named = {level: places for level, places in named.items() if places}
    common = Counter(_word(value) for _, value in told)
    if len(named) < 2 or (len(named) > _MOST_LEVELS and common.most_common(1)[0][1] < LEAST):
        return {}
    return {level: np.array(places, dtype=np.int64) for level, places in named.items()}


def _word(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
