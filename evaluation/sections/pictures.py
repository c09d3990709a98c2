"""What samples and the population look like, side by side."""

import numpy as np

from evaluation.evidence import Evidence, Judged, Tell
from evaluation.pictures import mosaic, overlay
from evaluation.report import Report

_SHOWN = 8


def pictures(evidence: Evidence, report: Report, tell: Tell) -> None:
    """Add mosaics of samples and of the population."""
    made, held = evidence.synthetic, evidence.holdout

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
