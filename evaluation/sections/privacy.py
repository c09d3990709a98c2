"""Whether samples lie nearer to training volumes than volumes never trained on do."""

import numpy as np

from evaluation.evidence import Evidence, Tell
from evaluation.functional import copy_test, nearest_neighbours
from evaluation.report import Figure, Report


def privacy(evidence: Evidence, report: Report, tell: Tell) -> None:
    """Measure distances to training beside those of hold-out volumes; flag the samples that are copies."""
    rows = evidence.features(tell)
    made, train, held = rows.synthetic, rows.training, rows.holdout
    if min(len(made), len(train), len(held)) < 2:
        report.not_computed["privacy.nearest"] = "needs training and hold-out volumes, at least 2 of each"
        report.not_computed["privacy.copy_test"] = report.not_computed["privacy.nearest"]
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
    test = copy_test(made / scale, train / scale, held / scale)
    if not test.decidable:
        report.not_computed["privacy.copy_test"] = test.note
        return
    share = len(test.flagged) / len(made)
    report.metrics["privacy.copy_test"] = Figure(share, len(made), "lower", "share flagged at a false rate of 10 %")
    for index in test.flagged:
        report.samples[int(index)]["flagged"] = True
