"""An audit's findings as figures of a report: value, n, interval, floor. Knows findings and no test."""

from collections.abc import Sequence

import numpy as np

from evaluation.functional.membership import Membership
from evaluation.functional.statistics import clopper_pearson
from evaluation.privacy.findings import Design, Options, View, nearest_of
from evaluation.privacy.folds import Fold, exposures
from evaluation.report import Figure
from synth.statistics import benjamini_hochberg

Absent = dict[str, str]


def figures_of(folds: Sequence[Fold], view: View, design: Design, options: Options) -> tuple[dict[str, Figure], Absent]:
    """Return figures by name, without their family, and why others could not be computed."""
    figures: dict[str, Figure] = {}
    absent: dict[str, str] = {}
    first = next(iter(view.copies))
    found, control = nearest_of(folds, first)
    unit = "1 - correlation with the nearest" if first == "correlation" else "feature distance to the nearest"
    figures["nearest"] = Figure(float(np.median(found)), view.n, "higher", unit, floor=float(np.median(control)))
    figures["closer_than_holdout"] = Figure(
        float((found < control.min()).mean()), view.n, "lower", "share nearer than any hold-out volume"
    )
    _add_copies(figures, absent, view, options)
    _add_bounds(figures, absent, view, design.chosen)
    exposed = np.array([row.p_value for row in exposures(folds, first)])
    figures["exposed_patients"] = Figure(
        len(benjamini_hochberg(exposed, q=options.q)) / len(exposed),
        len(exposed),
        "lower",
        "share of training patients",
    )
    seen = view.reach.seen
    planted = sum(len(fold.plants) for fold in folds)
    figures["planted_seen"] = Figure(
        seen, planted, "higher", "share of planted copies", clopper_pearson(round(seen * planted), planted)
    )
    check = design.control
    figures["negative_control"] = Figure(
        check.rate, check.patients, "", "false rate at 5 % on halves of the hold-out", check.interval, floor=0.05
    )
    if design.left_out is None:
        absent["left_out_control"] = design.no_left
    else:
        name, left = design.left_out
        unit = f"of training patients left out told from hold-out by {name}; the interval is what chance gives"
        figures["left_out_control"] = Figure(
            left.rate, sum(left.patients), "", unit, left.interval, left.expected, left.p_value
        )
    gate = design.gate
    if gate is None:
        absent["blind_gate_auc"] = design.no_gate
    else:
        figures["blind_gate_auc"] = Figure(gate.auc, sum(gate.patients), "", "AUC", gate.interval, floor=0.5)
    _add_membership(figures, absent, "mia", view.membership, view.absent.get("membership", ""))
    _add_membership(figures, absent, "weights", design.weights, design.no_weights)
    return figures, absent


def _add_copies(figures: dict[str, Figure], absent: Absent, view: View, options: Options) -> None:
    together = ("copy_test", view.test, f"over {', '.join(view.copies)} together")
    alone = [(f"copy_test.{name}", test, f"by {name} alone") for name, test in view.copies.items()]
    for key, test, by in (together, *alone):
        if not test.decidable and not len(test.flagged):
            absent[key] = test.note
            continue
        figures[key] = Figure(
            len(test.flagged) / view.n,
            view.n,
            "lower",
            f"share flagged {by} at a false rate of {100 * options.q:g} %",
            clopper_pearson(len(test.flagged), view.n),
        )


def _add_bounds(figures: dict[str, Figure], absent: Absent, view: View, chosen: str) -> None:
    for name, value, better, what, why in (
        (
            "copy_rate_bound",
            view.bound,
            "lower",
            "share of copies, 95 % bound",
            chosen or "too few samples, too few planted copies seen, or more samples flagged than those explain",
        ),
        (
            "minimum_detectable",
            None if chosen else view.detectable(power=80),
            "lower",
            "copy rate",
            chosen or "no copy rate is seen with 80 % power",
        ),
        ("set_level_p", view.set_p, "higher", "p of leaning to training", view.absent.get("set_level", "")),
    ):
        if value is None:
            absent[name] = why
        else:
            figures[name] = Figure(value, view.n, "higher" if better == "higher" else "lower", what)


def _add_membership(
    figures: dict[str, Figure], absent: dict[str, str], name: str, found: Membership | None, why: str
) -> None:
    if found is None:
        absent[f"{name}_auc"] = why
        return
    n = found.members + found.non_members
    figures[f"{name}_auc"] = Figure(found.auc, n, "lower", "AUC", found.interval, floor=0.5)
    for rate, label in ((0.01, "1"), (0.001, "01")):
        if rate in found.claims:
            claim = found.claims[rate]
            unit = f"of members found at {100 * rate:g} % false positives"
            figures[f"{name}_tpr_{label}"] = Figure(claim.tpr, found.members, "lower", unit, claim.interval, rate)
        else:
            absent[f"{name}_tpr_{label}"] = found.refused[rate]
