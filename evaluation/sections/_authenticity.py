"""The part of the privacy section that compares authenticity with that of held-out patients, never raw."""

from evaluation.evidence import Evidence, Tell
from evaluation.functional import authenticity_test
from evaluation.report import Figure, Report
from evaluation.sections.distribution import SMALLEST_TEST, spread


def authenticity(evidence: Evidence, report: Report, tell: Tell) -> None:
    """Add `privacy.authenticity_z`, in features scaled by training volumes, which treat both sides alike."""
    rows = evidence.features(tell)
    train, held = ([item.whose for item in side] for side in (evidence.training, evidence.holdout))
    patients = len(set(held))
    if min(len(rows.synthetic), patients, len(set(train))) < SMALLEST_TEST:
        report.not_computed["privacy.authenticity_z"] = (
            f"{len(rows.synthetic)} samples, {len(set(train))} training and {patients} held-out patients; below "
            f"{SMALLEST_TEST} of either it says little"
        )
        return
    scale = spread(rows.training, rows.training)
    made, trained, holdout = (side / scale for side in (rows.synthetic, rows.training, rows.holdout))
    found = authenticity_test(
        made, trained, holdout, training_patients=train, holdout_patients=held, seed=evidence.seed
    )
    unit = f"SDs of the null of {found.n[1]} held-out patients, p = {found.p_value:.3g}; below 0: nearer to training"
    report.metrics["privacy.authenticity_z"] = Figure(found.z, found.n[0], "", unit, floor=0.0, p_value=found.p_value)
