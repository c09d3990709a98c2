"""Whether networks trained with the set do better on real patients that were never trained on."""

from collections.abc import Mapping

from evaluation.charts import Curves, Dots
from evaluation.evidence import Evidence, Tell
from evaluation.report import Figure, Report, Verdict
from evaluation.utility.compare import Comparison, Scores, in_words
from evaluation.utility.config import ARMS, NON_INFERIORITY
from evaluation.utility.nnunet import compare_arms
from evaluation.utility.run import Result, UtilityScores
from evaluation.utility.tables import (
    LOWER,
    Cell,
    by_arm,
    class_calibration,
    compared,
    detection,
    false_lesions,
    measure,
    results_of,
)
from synth.errors import DataError

NOT_ASKED = "not part of this evaluation"
RELEVANT = 0.01
"""Gain of Dice or accuracy below which a gain is none: an interval that ends below says so."""
TRAINED = 0.5
"""Score of the real arm below which its networks are not trained enough to tell arms apart."""
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
    cells = {cell: by_arm(scores, cell, measure(family)) for cell in config.cells()}
    headline = config.cells()[0]
    report.notes.append(_plan(scores))
    told: set[str] = set()
    for cell, arms in cells.items():
        end = _end(cell, headline)
        for arm, table in arms.items():
            results = results_of(scores, arm, cell)
            if results[0].job.name in told:
                continue  # R does not depend on the ratio, nor S on the fraction
            told.add(results[0].job.name)
            _arm(report, f"{arm}{end}", (family, table), results, seed)
            if cell == headline:
                _details(report, scores, arm, results, seed)
    whole = by_arm(scores, (max(config.fractions), headline[1]), measure(family)).get("R")
    if whole is not None and whole.by_case.mean() < TRAINED:
        report.notes.append(
            f"utility ({config.task}): the real arm itself scores {whole.by_case.mean():.2f}; with more steps or width "
            "arms may compare otherwise"
        )
    _draw(report, scores, family, cells, seed)
    found = compared(cells, whole, seed=seed)
    floors = {cell: _floor(arms) for cell, arms in cells.items()}
    for (cell, arm, other), one in found.items():
        _comparison(report, family, (arm, other), one, _end(cell, headline), floors[cell])
    _verdicts(report, family, found, headline)
    if config.task == "segmentation" and not any(name.startswith("utility.detection") for name in report.metrics):
        report.not_computed["utility.detection"] = "no label is called a lesion; name some with --utility-lesions"


def _arm(report: Report, name: str, scored: tuple[str, Scores], results: list[Result], seed: int) -> None:
    """Write an arm's own score."""
    family, table = scored
    one, arm = results[0], name.partition(".")[0]
    volumes = f"{one.real} real" + (f" + {one.synthetic} others" if one.synthetic else "")
    report.metrics[f"utility.{family}.{name}"] = Figure(
        float(table.values.mean()),
        len(table.cases),
        "higher",
        f"{_UNITS[family]}, {ARMS[arm]} ({volumes} volumes, {len(results)} seeds)",
        table.interval(seed=seed),
    )


def _draw(
    report: Report, scores: UtilityScores, family: str, cells: Mapping[Cell, Mapping[str, Scores]], seed: int
) -> None:
    """Draw the arms of the first cell, and every arm over the share of real patients where there are several."""
    fraction, ratio = scores.config.cells()[0]
    unit, rows = _UNITS[family], cells[fraction, ratio].items()
    title = f"{unit} on real test patients by arm ({', '.join(f'{arm} {ARMS[arm]}' for arm, _ in rows)})"
    dots = [(arm, float(one.by_case.mean()), one.interval(seed=seed), None) for arm, one in rows]
    report.charts.append(("utility", Dots(title, dots)))
    shares = sorted({share for share, _ in cells})
    if len(shares) < 2:
        return
    lines: dict[str, list[tuple[float, float]]] = {}
    bands: dict[str, list[tuple[float, float, float]]] = {}
    for share in shares:
        for arm, one in cells.get((share, ratio), {}).items():
            lines.setdefault(arm, []).append((share, float(one.by_case.mean())))
            between = one.interval(seed=seed)
            if between is not None:
                bands.setdefault(arm, []).append((share, *between))
    title = f"{unit} on real test patients over the share of real training patients, with 95 % intervals"
    report.charts.append(("utility", Curves(title, "share of real training patients", unit, lines, bands)))


def _details(report: Report, scores: UtilityScores, arm: str, results: list[Result], seed: int) -> None:
    """Write what else an arm scores: by label, surface, calibration, lesions found."""
    segments = scores.config.task == "segmentation"
    wanted = ("nsd", "hd95", "ece", "brier") if segments else ("brier",)
    for name in wanted:
        table = by_arm(scores, scores.config.cells()[0], measure(name)).get(arm)
        if table is None:
            continue
        kind = name if segments else f"{name}_class"
        better = "lower" if name in LOWER else "higher"
        unit = _UNITS.get(name, "in the region of each label" if segments else "over levels")
        report.metrics[f"utility.{kind}.{arm}"] = Figure(
            float(table.values.mean()), len(table.cases), better, unit, table.interval(seed=seed)
        )
    if not segments:
        stated = class_calibration(results)
        report.metrics[f"utility.ece_class.{arm}"] = Figure(stated, len(results[0].rows), "lower", "of the level named")
    for number, label in enumerate(scores.labels if segments and len(scores.labels) > 1 else ()):
        table = by_arm(scores, scores.config.cells()[0], measure("dice", number))[arm]
        report.metrics[f"utility.dice.{arm}.{label}"] = Figure(
            float(table.values.mean()), len(table.cases), "higher", "Dice", table.interval(seed=seed)
        )
    for size, share, count, (low, high) in detection(results):
        unit = f"share of {size} lesions found ({low:.3g} to {high:.3g} ml)"
        report.metrics[f"utility.detection.{arm}.{size}"] = Figure(share, count, "higher", unit)
    false = false_lesions(results)
    if false is not None:
        count = len(results[0].rows)
        report.metrics[f"utility.false_lesions.{arm}"] = Figure(false, count, "lower", "false lesions a case")


def _comparison(
    report: Report, family: str, arms: tuple[str, str], one: Comparison, end: str, floor: float | None
) -> None:
    """Write a comparison and its adjusted p; the floor of the gain is what repeating real volumes gains."""
    pair = "_".join(arms)
    tested = f"p {one.p:.2g}, {one.p_holm:.2g} after Holm; above in {one.seeds[0]} of {one.seeds[1]} seeds"
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


def _verdicts(report: Report, family: str, found: dict[tuple[Cell, str, str], Comparison], headline: Cell) -> None:
    kind = "" if family == "dice" else "_class"
    one = found.get((headline, "RS", "R"))
    if one is None:
        report.not_computed[f"utility.{family}_gain"] = "needs the arms R and RS"
    else:
        report.verdicts[f"utility{kind}"] = gain_verdict(one, _UNITS[family], "R + S against R")
    only = next((value for (_, arm, _), value in found.items() if arm == "S"), None)
    if only is not None:
        said = {True: "reaches", False: "stays below", None: "cannot be told from"}[only.found]
        why = f"trained on the synthetic set alone, a network {said} {NON_INFERIORITY:g} of the real arm's score: "
        report.verdicts[f"synthetic_only{kind}"] = Verdict(only.found, why + in_words(only))


def nnunet_figures(arms: Mapping[str, Mapping[str, Scores]], report: Report, *, seed: int) -> None:
    """Write the figures, comparisons and verdicts of arms that nnU-Net trained and scored (`nnunet.read_arms`)."""
    whole = {arm: tables["dice"] for arm, tables in arms.items()}
    report.fingerprint = {"utility": "nnU-Net summary.json"}
    for arm, tables in arms.items():
        for name, table in tables.items():
            label = name.partition(".")[2]
            unit = f"Dice of nnU-Net, {f'label {label}' if label else 'mean over labels'}, {len(table.values)} runs"
            report.metrics[f"utility.dice.{arm}{f'.{label}' if label else ''}"] = Figure(
                float(table.values.mean()), len(table.cases), "higher", unit, table.interval(seed=seed)
            )
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


def gain_verdict(one: Comparison, unit: str, whom: str) -> Verdict:
    """Return gain, loss, none that matters, or undecidable with the gain that this many patients could show."""
    told = f"{whom}: {unit} {in_words(one)}"
    if one.found is True:
        return Verdict(True, f"gain. {told}")
    if one.found is False:
        return Verdict(False, f"loss. {told}")
    if one.interval[1] < RELEVANT:
        return Verdict(False, f"no gain of {RELEVANT:g} or more. {told}")
    least = f"{one.patients} test patients show gains of {one.detectable:.3f} or more (80 % power)"
    return Verdict(None, f"undecidable at this n: {least}. {told}")


def _plan(scores: UtilityScores) -> str:
    """Return in words how all arms were trained."""
    config, one = scores.config, scores.results[0]
    patients = len({str(row["patient"]) for row in one.rows})
    tuned = (
        f"the best of {len(config.rates)} rates on real validation patients" if len(config.rates) > 1 else "no tuning"
    )
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
