"""Whether samples are what was asked for: class, numbers, words of the prompt, size and spacing.

Classes are told by the bench's classifier, numbers and words of labels measured on the mask.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import ndimage
from scipy.stats import spearmanr

from evaluation.evidence import Evidence, Judged, Tell
from evaluation.functional import label_volumes
from evaluation.functional.statistics import clopper_pearson, mean_interval
from evaluation.report import Figure, Report
from evaluation.sections._anatomy import label_names
from evaluation.segmented import known_classes, patient_means, segmented, spacing_of
from synth.sample import AttributeValue

_VOLUME = ("_volume_ml", "_ml", "_volume")
_COUNT = ("_count", "_number")
_LEAST_RANKED = 5


def condition(evidence: Evidence, report: Report, tell: Tell) -> None:
    """Measure obedience to the class, the numeric attributes, the text, the size and the spacing asked for."""
    _classes(evidence, report, tell)
    _numbers(evidence, report)
    _labels_in_text(evidence, report)
    _geometry(evidence, report)


def _classes(evidence: Evidence, report: Report, tell: Tell) -> None:
    """Compare the class recognised with the one asked by attribute, and with the one that the text names."""
    model = evidence.bench.segmenter
    levels = _levels(evidence)
    named = [(item, _mentioned(item.text, levels)) for item in evidence.synthetic]
    told = {attribute for _, found in named for attribute in found}
    attribute = getattr(model.config, "attribute", "") if model is not None else ""
    for other in sorted(told - {attribute}):
        report.not_computed[f"condition.text.{other}"] = "no classifier of the bench knows it"
    if model is None:
        if any(item.asked for item in evidence.synthetic):
            report.not_computed["condition.class"] = evidence.bench.why_not
        return
    sides, classes = segmented(evidence, tell), known_classes(model)
    seen = {id(one.item): one.name for one in sides.synthetic}
    own = [
        (one.name == one.item.attributes[attribute], one.item.whose)
        for one in sides.holdout
        if one.item.attributes.get(attribute) in classes
    ]
    # its own errors on real patients, each counted once: no set can be asked to do better
    hits = patient_means(np.array([[hit] for hit, _ in own], dtype=np.float64).reshape(-1, 1), [who for _, who in own])
    floor = float(hits.mean()) if own else None
    asked = [(item.asked, seen[id(item)]) for item in evidence.synthetic if item.asked]
    said = [(found[attribute], seen[id(item)]) for item, found in named if attribute in found]
    for name, pairs, unit in (
        ("condition.class", asked, "recognised as asked"),
        (f"condition.text.{attribute}", said, "recognised as the text says"),
    ):
        _recognised(report, name, pairs, classes, (unit, floor))


def _recognised(
    report: Report,
    name: str,
    pairs: Sequence[tuple[str, str]],
    classes: Sequence[str],
    told: tuple[str, float | None],
) -> None:
    """Add the share of (asked, recognised) that agree; levels that the classifier cannot name are no errors of it."""
    unit, floor = told
    knows = f"the classifier of the bench knows {', '.join(classes) or 'no class'}"
    for level, count in sorted(Counter(level for level, _ in pairs if level not in classes).items()):
        report.not_computed[f"{name}.{level}"] = f"{count} samples ask for it, {knows}: left out"
    hits = [level == found for level, found in pairs if level in classes]
    if pairs and not hits:
        report.not_computed[name] = f"no sample asks for a class that is known; {knows}"
    _share(report, name, hits, unit, floor)


def _levels(evidence: Evidence) -> dict[str, set[str]]:
    """Return the levels of every categorical attribute that some case has, or that the bench knows."""
    out: dict[str, set[str]] = defaultdict(set)
    for item in (*evidence.synthetic, *evidence.training, *evidence.holdout):
        for name, value in item.attributes.items():
            if isinstance(value, str) and value:
                out[name].add(value)
    model = evidence.bench.segmenter
    attribute = getattr(model.config, "attribute", "") if model is not None else ""
    if attribute and model is not None:
        out[attribute] |= set(model.config.classes)
    return out


def _mentioned(text: str | None, levels: Mapping[str, set[str]]) -> dict[str, str]:
    """Return attribute -> its level in the text, where exactly one is named, as a whole word, and no other's is.

    A level that is a label of several attributes tells none of them.
    """
    if not text:
        return {}
    hits = {name: [level for level in sorted(known) if _says(text, level)] for name, known in levels.items()}
    shared = [level for name, known in hits.items() for level in known]
    return {name: known[0] for name, known in hits.items() if len(known) == 1 and shared.count(known[0]) == 1}


def _says(text: str, word: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) is not None


def _numbers(evidence: Evidence, report: Report) -> None:
    """Compare numbers asked for with what the mask holds, where the attribute's name is that of a label's measure."""
    names, spacing = label_names(evidence), spacing_of(evidence)
    asked = {
        name
        for item in evidence.synthetic
        for name, value in item.attributes.items()
        if not isinstance(value, (str, bool))
    }
    for attribute in sorted(asked):
        place = _measured(attribute, names)
        if place is None:
            report.not_computed[f"condition.{attribute}"] = "its name is not that of a label's volume or count"
            continue
        if place[1] == "volume" and len(evidence.spacing_mm) != 3:
            why = "the spacing is not known" if not evidence.spacing_mm else "a 2D mask has no volume"
            report.not_computed[f"condition.{attribute}"] = why
            continue
        pairs, floor = (_pairs(side, attribute, place, spacing) for side in (evidence.synthetic, evidence.holdout))
        error = np.abs(pairs[:, 0] - pairs[:, 1])
        report.metrics[f"condition.{attribute}"] = Figure(
            float(error.mean()),
            len(error),
            "lower",
            f"{'ml' if place[1] == 'volume' else 'lesions'}, mean |asked - measured on the mask|",
            mean_interval(error, seed=evidence.seed),
            float(np.abs(floor[:, 0] - floor[:, 1]).mean()) if len(floor) else None,
        )
        if len(pairs) >= _LEAST_RANKED and np.ptp(pairs[:, 0]) > 0 and np.ptp(pairs[:, 1]) > 0:
            rank = float(spearmanr(pairs[:, 0], pairs[:, 1])[0])  # pyright: ignore[reportArgumentType]
            report.metrics[f"condition.{attribute}.rank"] = Figure(
                rank, len(pairs), "higher", "rank correlation of asked and measured", _rank_interval(rank, len(pairs))
            )


def _rank_interval(rank: float, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a rank correlation: tanh(atanh r +- 1.96 sqrt((1 + r^2 / 2) / (n - 3))).

    (Bonett & Wright 2000.)

    >>> [round(end, 2) for end in _rank_interval(0.5, 40)]
    [0.2, 0.71]
    """
    middle = np.arctanh(np.clip(rank, -1 + 1e-9, 1 - 1e-9))
    half = 1.959964 * np.sqrt((1.0 + rank**2 / 2.0) / (n - 3))
    return float(np.tanh(middle - half)), float(np.tanh(middle + half))


def _measured(attribute: str, names: Sequence[str]) -> tuple[int, str] | None:
    """Return the label (1..K) and the measure that an attribute names.

    >>> _measured("lesion_volume_ml", ("wm", "lesion")), _measured("age", ("wm",))
    ((2, 'volume'), None)
    """
    for kind, endings in (("volume", _VOLUME), ("count", _COUNT)):
        for ending in endings:
            label = attribute.lower().removesuffix(ending)
            known = [name.lower().replace(" ", "_") for name in names]
            if label != attribute.lower() and label in known:
                return known.index(label) + 1, kind
    return None


def _pairs(side: Sequence[Judged], attribute: str, place: tuple[int, str], spacing: tuple[float, ...]) -> np.ndarray:
    """Return (asked or recorded, measured) of each case that has the attribute: (n, 2)."""
    label, kind = place
    out = []
    for item in side:
        value = _number(item.attributes.get(attribute))
        if value is None:
            continue
        if kind == "volume":
            found = float(label_volumes(item.mask, labels=[label], spacing_mm=spacing)[0])
        else:
            structure = np.ones((3,) * item.mask.ndim)
            found = float(ndimage.label(item.mask == label, structure)[1])  # pyright: ignore[reportIndexIssue]
        out.append((value, found))
    return np.array(out).reshape(-1, 2)


def _number(value: AttributeValue | None) -> float | None:
    try:
        return None if value is None else float(value)
    except ValueError:
        return None


def _labels_in_text(evidence: Evidence, report: Report) -> None:
    """Check labels that a text names: there where it is named, absent where the text says no or without."""
    right: dict[str, list[bool]] = defaultdict(list)
    for item in evidence.synthetic:
        for value, name in enumerate(label_names(evidence), start=1):
            wanted = _presence(item.text, name)
            if wanted is not None:
                right[name].append(bool((item.mask == value).any()) == wanted)
    for name, hits in sorted(right.items()):
        _share(report, f"condition.text.{name}", hits, "there or absent as the text says")


def _presence(text: str | None, label: str) -> bool | None:
    """Return whether a text asks for a label (True), for none of it (False), or does not name it (None).

    >>> [_presence(text, "lesion") for text in ("two large lesions", "T1, no lesion", "without any lesions", "a brain")]
    [True, False, False, None]
    """
    word = rf"{re.escape(label)}(?:s|es)?(?!\w)"
    if not text or not re.search(rf"(?<!\w){word}", text, re.IGNORECASE):
        return None
    return re.search(rf"(?<!\w)(?:no|without|free of)\s+(?:any\s+)?{word}", text, re.IGNORECASE) is None


def _geometry(evidence: Evidence, report: Report) -> None:
    """Compare size and spacing with what was asked, of samples that say both; layouts may turn the axes."""
    sizes = [
        sorted(i.native_grid) == sorted(i.asked_grid) for i in evidence.synthetic if i.asked_grid and i.native_grid
    ]
    _share(report, "condition.size", sizes, "of the size asked for")
    told = [i for i in evidence.synthetic if i.asked_spacing_mm and i.native_spacing_mm]
    if told:
        off = [np.abs(np.subtract(sorted(i.native_spacing_mm), sorted(i.asked_spacing_mm))).max() for i in told]
        report.metrics["condition.spacing"] = Figure(
            float(np.mean(off)), len(off), "lower", "mm, largest |asked - got| of the axes"
        )


def _share(report: Report, name: str, hits: Sequence[bool], unit: str, floor: float | None = None) -> None:
    if hits:
        interval = clopper_pearson(sum(hits), len(hits))
        report.metrics[name] = Figure(sum(hits) / len(hits), len(hits), "higher", unit, interval, floor)
