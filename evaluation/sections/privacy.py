"""The privacy audit in a report: its figures, verdicts, flagged samples and, for inside, each patient's exposure."""

import csv
import io

from evaluation.charts import LEAST_DRAWN, Histogram
from evaluation.evidence import Evidence, Tell
from evaluation.privacy.audit import Audit, audit, undecided
from evaluation.report import Report
from evaluation.sections._authenticity import authenticity

EXPOSURE = "exposure.csv"


def privacy(evidence: Evidence, report: Report, tell: Tell) -> None:
    """Audit the set, and the weights where losses were handed over."""
    add_audit(report, undecided(evidence.unaudited) if evidence.unaudited else audit(evidence, tell=tell))
    if "privacy.nearest" in report.metrics:  # an audit was made, of these features among others
        authenticity(evidence, report, tell)


def add_audit(report: Report, found: Audit) -> None:
    """Write what an audit found into a report; exposure goes to internal/ alone."""
    report.metrics |= {f"privacy.{name}": figure for name, figure in found.figures.items()}
    report.not_computed |= {f"privacy.{name}": why for name, why in found.not_computed.items()}
    report.verdicts |= {"privacy.images": found.images, "privacy.weights": found.weights}
    if found.after_drop is not None:
        report.verdicts["privacy.images_after_drop"] = found.after_drop
    report.notes += found.notes
    samples, holdout = found.nearest
    if len(holdout) >= LEAST_DRAWN:
        sets = {"synthetic": samples, "held out": holdout}
        title = "Distance to the nearest training volume: samples left of held-out volumes are nearer than chance"
        report.charts.append(("privacy", Histogram(title, report.metrics["privacy.nearest"].unit, sets)))
    p_values = dict(found.p_values)
    for row in report.samples:
        case = str(row["case"])
        if case in p_values:  # else nothing was tested, and the row stays unjudged
            row["flagged"] = case in found.flagged
            row["copy_p"] = float(f"{p_values[case]:.6g}")
    if found.exposure:
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(["patient", "nearest_sample", "distance", "p"])
        for one in found.exposure:
            writer.writerow([one.patient, one.sample, f"{one.distance:.6g}", f"{one.p_value:.6g}"])
        report.internal[EXPOSURE] = table.getvalue()
