"""Whether networks trained with the set do better on real patients that were never trained on."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from evaluation.charts import Curves, Dots
from evaluation.evidence import Evidence, Tell
from evaluation.report import Figure, Report, Verdict
from evaluation.utility.compare import Comparison, Scores, in_words
from evaluation.utility.config import ARMS, NON_INFERIORITY, SYNTHETIC, TUNING
from evaluation.utility.knowledge import Knowledge
from evaluation.utility.nnunet import compare_arms
from evaluation.utility.run import Cell, Result, UtilityScores
from evaluation.utility.tables import (
    FURTHER,
    LOWER,
    by_arm,
    class_calibration,
    compared,
    detection,
    false_lesions,
    further,
    in_ml,
    lesions_of,
    measure,
    results_of,
    size_bins,
)
from synth.errors import DataError

NOT_ASKED = "not part of this evaluation"
RELEVANT = 0.01
"""Gain of Dice or accuracy below which a gain is none: an interval that ends below says so."""
TRAINED = 0.5
"""Score of the real arm below which its networks are not trained enough to tell arms apart."""
LEAST_SEEDS = 3
LESIONS = "utility-lesions.csv"
_UNITS = {"dice": "Dice", "nsd": "surface Dice", "hd95": "mm", "accuracy": "share right"}


def utility(evidence: Evidence, report: Report, tell: Tell) -> None:
    """Write the figures, comparisons and verdicts of each experiment that was run."""
    del tell
    if not evidence.utility:
        report.not_computed["utility.dice_gain"] = NOT_ASKED
    for scores in evidence.utility:
        family = "dice" if scores.config.task == "segmentation" else "accuracy"
        if scores.why_not:
            report.not_computed[f"utility.{family}_gain"] = scores.why_not
            continue
        try:
            _experiment(scores, family, report, evidence.seed)
        except DataError as error:
            report.not_computed[f"utility.{family}_gain"] = error.unnamed


def _experiment(scores: UtilityScores, family: str, report: Report, seed: int) -> None:
    config = scores.config
    cells = {cell: by_arm(scores, cell, measure(family)) for cell in scores.cells()}
    headline = scores.cells()[0]
    report.notes += [_plan(scores), *dict.fromkeys(f"utility: {one.words}" for one in _known(scores))]
    for cell, why in scores.left_out.items():
        report.not_computed[f"utility.{family}_gain.{_cell_name(cell)}"] = why
    told: set[tuple[str, str]] = set()
    for cell, arms in cells.items():
        end = _end(cell, headline)
        for arm, table in arms.items():
            results = results_of(scores, arm, cell)
            if (arm, results[0].job.name) in told:
                continue  # R does not depend on the ratio, nor S on the fraction
            told.add((arm, results[0].job.name))
            _arm(report, f"{arm}{end}", (family, table), results, (scores.known(cell), seed))
            if cell == headline:
                _details(report, scores, arm, results, seed)
    whole = _whole(scores, family)
    if whole is not None and whole.by_case.mean() < TRAINED:
        report.notes.append(
            f"utility ({config.task}): the real arm itself scores {whole.by_case.mean():.2f}; with more steps or width "
            "arms may compare otherwise"
        )
    _draw(report, scores, family, cells, seed)
    found = compared(cells, whole, seed=seed)
    floors = {cell: _floor(arms) for cell, arms in cells.items()}
    for (cell, arm, other), one in found.items():
        _comparison(report, family, (arm, other), one, (_end(cell, headline), floors[cell], scores.known(cell)))
    _further(report, scores, seed)
    _verdicts(report, family, found, headline, scores.known(headline))
    if config.task == "segmentation" and not any(name.startswith("utility.detection") for name in report.metrics):
        report.not_computed["utility.detection"] = "no label is called a lesion; name some with --utility-lesions"


def _whole(scores: UtilityScores, family: str) -> Scores | None:
    """Return the real arm of the most patients: what the synthetic set alone is held against."""
    fraction, ratio = max(scores.cells(), key=lambda cell: cell[0])
    arms = by_arm(scores, (fraction, ratio), measure(family))
    return arms.get("G", arms.get("R"))


def _known(scores: UtilityScores) -> list[Knowledge]:
    """Return what is known at each fraction that was run, where an arm has synthetic volumes."""
    shares = {fraction for fraction, _ in scores.cells()}
    synthetic = set(SYNTHETIC) & set(scores.config.arms)
    return [one for one in scores.knowledge if one.fraction in shares] if synthetic else []


def _arm(
    report: Report,
    name: str,
    scored: tuple[str, Scores],
    results: list[Result],
    told: tuple[Knowledge | None, int],
) -> None:
    """Write an arm's own score, with the patients that its network and its generator had."""
    (family, table), (known, seed) = scored, told
    one, arm = results[0], name.partition(".")[0]
    volumes = f"{one.real} real" + (f" + {one.synthetic} others" if one.synthetic else "")
    whose = ""
    if known is not None and arm in SYNTHETIC:
        claimed = "" if known.recorded else " as claimed"
        whose = f"; {known.short}" if arm != "S" else f"; the generator had {known.generator} real patients{claimed}"
    unit = f"{_UNITS[family]}, {ARMS[arm]} ({volumes} volumes, {len(results)} seeds{whose})"
    report.metrics[f"utility.{family}.{name}"] = _mean_of(table, unit, seed=seed)


def _draw(
    report: Report, scores: UtilityScores, family: str, cells: Mapping[Cell, Mapping[str, Scores]], seed: int
) -> None:
    """Draw the arms of the first cell, and every arm over the share of real patients, and over ratios, of several."""
    first = scores.cells()[0]
    unit, rows = _UNITS[family], cells[first].items()
    title = f"{unit} on real test patients by arm ({', '.join(f'{arm} {ARMS[arm]}' for arm, _ in rows)})"
    dots = [(arm, float(one.by_case.mean()), one.interval(seed=seed), None) for arm, one in rows]
    report.charts.append(("utility", Dots(title, dots)))
    for axis, over in enumerate(("share of real training patients", "ratio of synthetic to real volumes")):
        line = {cell[axis]: arms for cell, arms in sorted(cells.items()) if cell[1 - axis] == first[1 - axis]}
        if len(line) > 1:
            title = f"{unit} on real test patients over the {over}, with 95 % intervals"
            report.charts.append(("utility", _curves(title, (over, unit), line, seed)))


def _curves(title: str, axes: tuple[str, str], line: Mapping[float, Mapping[str, Scores]], seed: int) -> Curves:
    """Return every arm's scores along one axis of the cells."""
    lines: dict[str, list[tuple[float, float]]] = {}
    bands: dict[str, list[tuple[float, float, float]]] = {}
    for place, arms in line.items():
        for arm, one in arms.items():
            lines.setdefault(arm, []).append((place, float(one.by_case.mean())))
            between = one.interval(seed=seed)
            if between is not None:
                bands.setdefault(arm, []).append((place, *between))
    return Curves(title, *axes, lines, bands)


def _mean_of(table: Scores, unit: str, better: Literal["lower", "higher"] = "higher", *, seed: int) -> Figure:
    """Return the mean score of a table over its cases, with its interval over patients."""
    return Figure(float(table.values.mean()), len(table.cases), better, unit, table.interval(seed=seed))


def _details(report: Report, scores: UtilityScores, arm: str, results: list[Result], seed: int) -> None:
    """Write what else an arm scores: by label, surface, calibration, lesions found."""
    segments = scores.config.task == "segmentation"
    for name in FURTHER[scores.config.task]:
        table = by_arm(scores, scores.cells()[0], measure(name)).get(arm)
        if table is None:
            continue
        kind, unit = _kind(name, segments, scores.dims)
        better = "lower" if name in LOWER else "higher"
        report.metrics[f"utility.{kind}.{arm}"] = _mean_of(table, unit, better, seed=seed)
    if not segments:
        stated = class_calibration(results)
        report.metrics[f"utility.ece_class.{arm}"] = Figure(stated, len(results[0].rows), "lower", "of the level named")
    for number, label in enumerate(scores.labels if segments and len(scores.labels) > 1 else ()):
        table = by_arm(scores, scores.cells()[0], measure("dice", number)).get(arm)
        if table is not None:  # else no test mask holds the label
            report.metrics[f"utility.dice.{arm}.{label}"] = _mean_of(table, "Dice", seed=seed)
    _lesions(report, arm, results, scores.dims, seed)


def _kind(name: str, segments: bool, dims: int) -> tuple[str, str]:
    """Return what a further score is called in the report, and its unit."""
    if not segments:
        return f"{name}_class", "over levels"
    volume = "ml, mean over labels" if dims == 3 else "cm^2, mean over labels"
    return name, volume if name == "crps" else _UNITS.get(name, "in the region of each label")


def _lesions(report: Report, arm: str, results: list[Result], dims: int, seed: int) -> None:
    """Write the share of lesions found by size, in fixed sizes; exact ones go to internal/ alone."""
    told = lesions_of(results)
    if told is not None:
        found, sizes = told
        bins = size_bins(sizes.tolist())
        for size, table in detection(results).items():
            unit = f"share of test lesions {in_ml(bins[size], dims)} found"
            report.metrics[f"utility.detection.{arm}.{size}"] = _mean_of(table, unit, seed=seed)
        rows = [
            f"{arm},{name},{patient},{size:g},{share:g}"
            for name, patient, size, share in zip(found.cases, found.patients, sizes, found.by_case, strict=True)
        ]
        head = "arm,lesion,patient,size,share_of_seeds_that_found_it\n"
        report.internal[LESIONS] = report.internal.get(LESIONS, head) + "".join(f"{row}\n" for row in rows)
    false = false_lesions(results)
    if false is not None:
        count = len(results[0].rows)
        report.metrics[f"utility.false_lesions.{arm}"] = Figure(false, count, "lower", "false lesions a case")


def _further(report: Report, scores: UtilityScores, seed: int) -> None:
    """Write the gain of R + S over R in every further score; above 0 is better, whichever way the score goes."""
    segments, cell = scores.config.task == "segmentation", scores.cells()[0]
    found = further(scores, cell, "RS", "R", seed=seed)
    sizes = detection(results_of(scores, "R", cell)) if found else {}
    for size in sizes:
        if f"detection.{size}" not in found:
            report.not_computed[f"utility.detection_gain.{size}"] = "fewer than 5 test patients have such lesions"
    for name, one in found.items():
        score, _, size = name.partition(".")
        kind, unit = _kind(score, segments, scores.dims)
        unit = "share of lesions found" if score == "detection" else unit
        sign = "R - RS" if score in LOWER else "RS - R"
        tested = f"p {one.p:.2g}, {one.p_holm:.2g} after Holm over further scores; above in {one.seeds[0]} of "
        report.metrics[f"utility.{kind}_gain{f'.{size}' if size else ''}"] = Figure(
            one.value, one.n, "higher", f"{unit}, {sign}; {tested}{one.seeds[1]} seeds", one.interval
        )


def _comparison(
    report: Report,
    family: str,
    arms: tuple[str, str],
    one: Comparison,
    told: tuple[str, float | None, Knowledge | None],
) -> None:
    """Write a comparison and its adjusted p; the floor of the gain is what repeating real volumes gains."""
    pair, (end, floor, known) = "_".join(arms), told
    tested = f"p {one.p:.2g}, {one.p_holm:.2g} after Holm; above in {one.seeds[0]} of {one.seeds[1]} seeds"
    if known is not None and arms[0] in ("RS", "RSA"):
        tested += f"; {known.short}"
    kind = "" if family == "dice" else "_class"
    if one.kind == "ratio":
        name, unit = f"utility.synthetic_only{kind}{end}", f"S over R, against {one.margin:g}; {tested}"
    else:
        own = "" if arms == ("RS", "R") else f".{pair}"
        name, unit = f"utility.{family}_gain{own}{end}", f"{_UNITS[family]}, {arms[0]} - {arms[1]}; {tested}"
    report.metrics[name] = Figure(
        one.value, one.n, "higher", unit, one.interval, floor if arms == ("RS", "R") else None
    )
    report.metrics[f"utility.p_holm{kind}.{pair}{end}"] = Figure(one.p_holm, one.patients, "lower", "adjusted p")


def _verdicts(
    report: Report,
    family: str,
    found: dict[tuple[Cell, str, str], Comparison],
    headline: Cell,
    known: Knowledge | None,
) -> None:
    kind = "" if family == "dice" else "_class"
    one = found.get((headline, "RS", "R"))
    if one is None:
        report.not_computed[f"utility.{family}_gain"] = "needs the arms R and RS"
    else:
        verdict = gain_verdict(one, _UNITS[family], "R + S against R", more=found.get((headline, "G", "R")))
        report.verdicts[f"utility{kind}"] = verdict if known is None else replace(verdict, why=_whose(verdict, known))
    only = next((value for (_, *pair), value in found.items() if pair == ["S", "R"]), None)
    if only is not None:
        said = {True: "reaches", False: "stays below", None: "cannot be told from"}[only.found]
        why = f"trained on the synthetic set alone, a network {said} {NON_INFERIORITY:g} of the real arm's score: "
        report.verdicts[f"synthetic_only{kind}"] = Verdict(only.found, why + in_words(only))


def _whose(verdict: Verdict, known: Knowledge) -> str:
    """Return a verdict's words with the patients behind it."""
    said = {True: "clean", False: "mixed, see the notes", None: "not recorded whether the same"}[known.clean]
    return f"{verdict.why}; {known.short} ({said})"


def nnunet_figures(arms: Mapping[str, Mapping[str, Scores]], report: Report, *, seed: int) -> None:
    """Write the figures, comparisons and verdicts of arms that nnU-Net trained and scored (`nnunet.read_arms`)."""
    whole = {arm: tables["dice"] for arm, tables in arms.items()}
    report.fingerprint = {"utility": "nnU-Net summary.json"}
    for arm, tables in arms.items():
        for name, table in tables.items():
            label = name.partition(".")[2]
            unit = f"Dice of nnU-Net, {f'label {label}' if label else 'mean over labels'}, {len(table.values)} runs"
            report.metrics[f"utility.dice.{arm}{f'.{label}' if label else ''}"] = _mean_of(table, unit, seed=seed)
    dots = [(arm, float(one.by_case.mean()), one.interval(seed=seed), None) for arm, one in whole.items()]
    report.charts.append(("utility", Dots("Dice of nnU-Net on real test patients by arm", dots)))
    try:
        found = compare_arms(whole, seed=seed)
    except DataError as error:
        report.not_computed["utility.dice_gain"] = error.unnamed
        return
    first = next(iter(found))
    for pair, one in found.items():
        tested = f"p {one.p:.2g}, {one.p_holm:.2g} after Holm; above in {one.seeds[0]} of {one.seeds[1]} runs"
        name = "utility.dice_gain" + ("" if pair == first else f".{'_'.join(pair)}")
        unit = f"Dice, {pair[0]} - {pair[1]}; {tested}"
        report.metrics[name] = Figure(one.value, one.n, "higher", unit, one.interval)
        report.metrics[f"utility.p_holm.{'_'.join(pair)}"] = Figure(one.p_holm, one.patients, "lower", "adjusted p")
        end = "" if pair == first else f"_{'_'.join(pair)}"
        report.verdicts[f"utility{end}"] = gain_verdict(one, "Dice of nnU-Net", f"{pair[0]} against {pair[1]}")


def gain_verdict(one: Comparison, unit: str, whom: str, *, more: Comparison | None = None) -> Verdict:
    """Return gain, loss, none that matters, or undecidable with the gain that this many patients could show.

    more   what further real patients gain: where they show no gain either, a missing one says nothing of the set
    """
    told = f"{whom}: {unit} {in_words(one)}"
    if one.found is True:
        return Verdict(True, f"gain. {told}")
    if one.found is False:
        return Verdict(False, f"loss. {told}")
    if more is not None and more.found is not True:
        blind = f"further real patients show no gain either (G against R: {in_words(more)})"
        return Verdict(None, f"undecidable with these networks: {blind}; more steps or width could tell. {told}")
    if one.interval[1] < RELEVANT:
        return Verdict(False, f"no gain of {RELEVANT:g} or more. {told}")
    least = f"{one.patients} test patients show gains of {one.detectable:.3f} or more (80 % power)"
    return Verdict(None, f"undecidable at this n: {least}. {told}")


def _plan(scores: UtilityScores) -> str:
    """Return in words how all arms were trained."""
    config, one = scores.config, scores.results[0]
    patients = len({str(row["patient"]) for row in one.rows})
    tuned = (
        f"each network at the best of {len(config.rates)} learning rates, tried for 1/{TUNING} of the steps and scored "
        "on training patients set apart"
        if config.tuning_steps
        else f"learning rate {config.rates[0]:g}, not tuned"
    )
    seeds = f", {len(config.seeds)} seeds, fewer than the {LEAST_SEEDS} that tell chance from gain"
    tuned += seeds if len(config.seeds) < LEAST_SEEDS else ""
    return (
        f"utility ({config.task}): MONAI's DynUNet of width {config.width}, {config.steps} steps of {config.batch} "
        f"for every arm, {tuned}; tested on {len(one.rows)} real volumes of {patients} patients "
        "that neither arm nor generator was trained on"
    )


def _floor(arms: dict[str, Scores]) -> float | None:
    """Return the gain of repeating real volumes, which is none but for chance."""
    return float((arms["RR"].by_case - arms["R"].by_case).mean()) if {"RR", "R"} <= set(arms) else None


def _end(cell: Cell, headline: Cell) -> str:
    return "" if cell == headline else f".{_cell_name(cell)}"


def _cell_name(cell: Cell) -> str:
    fraction, ratio = cell
    return f"real{100 * fraction:g}" + (f"_ratio{ratio:g}" if ratio else "")
