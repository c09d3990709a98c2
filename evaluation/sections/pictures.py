"""What samples and the population look like: the best, the middling and the worst, and the nearest real volumes."""

from collections.abc import Iterator, Sequence

import numpy as np

from evaluation.evidence import Evidence, Judged, Tell
from evaluation.interactive import Turned
from evaluation.pictures import mosaic, overlay
from evaluation.privacy.checks import patient_edits, real_masks, same_voxels
from evaluation.report import Report

_SHOWN = 8
_NEAREST = 6


def pictures(evidence: Evidence, report: Report, tell: Tell) -> None:
    """Add mosaics of samples and of the population; runs last, since it orders samples by what was measured."""
    made, held = evidence.synthetic, evidence.holdout
    theirs = _of_patients(evidence, report)
    verdict = report.verdicts.get("privacy.images")
    inside = verdict is None or verdict.ok is False
    shown, order = _chosen(evidence, report, theirs, _SHOWN)
    if shown:
        caption = f"{len(shown)} of {len(made)} synthetic volumes{order}, without and with mask contours"
        if theirs:
            caption += f"; {len(theirs)} that may show a patient are left out"
        if inside:
            why = "not asked whether they are copies" if verdict is None else "the images fail the privacy audit"
            caption += f"; {why}, so kept inside"
        pairs = [part for index in shown for part in _both(made[index])]
        report.pictures.append((caption, mosaic(pairs), inside))
    # a whole volume tells more of a patient than a slice does: shared only where the audit passed
    passed = verdict is not None and verdict.ok is True
    report.volumes += _turned(evidence, report, theirs, inside=not passed)
    if held:
        some = held[:_SHOWN]
        caption = f"{len(some)} volumes of the population ({report.population}), the same way"
        report.pictures.append((caption, mosaic([part for item in some for part in _both(item)]), True))
    if evidence.training and not evidence.unaudited:
        report.pictures.append(_nearest(evidence, report, tell))


def _of_patients(evidence: Evidence, report: Report) -> frozenset[int]:
    """Return the samples that may show a patient: flagged, on a real mask, an edit, or a real volume voxel by voxel."""
    flagged = [index for index, row in enumerate(report.samples) if row["flagged"]]
    same = same_voxels(evidence.synthetic, (*evidence.training, *evidence.holdout))
    return frozenset((*flagged, *real_masks(evidence), *patient_edits(evidence), *same))


def _chosen(evidence: Evidence, report: Report, theirs: frozenset[int], most: int) -> tuple[list[int], str]:
    """Return which samples are shown: spread from the best to the worst agreement where that was measured."""
    left = [index for index in range(len(evidence.synthetic)) if index not in theirs]
    count = min(most, len(left))
    scores = [report.samples[index].get("agreement") for index in left]
    if not all(isinstance(score, float) for score in scores):
        return left[:count], ""
    ranked = np.argsort([-float(str(score)) for score in scores], kind="stable")
    places = np.linspace(0, len(ranked) - 1, count).round().astype(int) if count else []
    return [left[int(ranked[place])] for place in places], " from the best agreement with its mask to the worst"


def _turned(evidence: Evidence, report: Report, theirs: frozenset[int], *, inside: bool) -> Iterator[Turned]:
    """Yield the samples that can be turned in the page, each with its place in the order."""
    shown, order = _chosen(evidence, report, theirs, evidence.interactive)
    names = ("best", *["between"] * (len(shown) - 2), "worst") if order and len(shown) > 1 else ("",) * len(shown)
    for place, (index, name) in enumerate(zip(shown, names, strict=True)):
        item, score = evidence.synthetic[index], report.samples[index].get("agreement")
        if name == "between" and 2 * place == len(shown) - 1:
            name = "median"
        said = f": {name}, agreement {score:.3f}" if name and isinstance(score, float) else ""
        more = f", channel 1 of {len(item.image)}" if len(item.image) > 1 else ""
        yield Turned.of(
            f"{item.case}{said}{more}",
            item.image[0],
            item.mask,
            labels=evidence.labels,
            spacing_mm=evidence.spacing_mm,
            inside=inside,
        )


def _nearest(evidence: Evidence, report: Report, tell: Tell) -> tuple[str, bytes, bool]:
    """Return the samples nearest to training, each beside the training volume that it is nearest to."""
    rows = evidence.features(tell)
    scale = rows.training.std(axis=0) + 1e-6
    made, train = rows.synthetic / scale, rows.training / scale
    apart = [((train - row) ** 2).sum(axis=1) for row in made]
    flagged = {str(row["case"]) for row in report.samples if row["flagged"]}
    first = sorted(
        range(len(made)), key=lambda i: (evidence.synthetic[i].case not in flagged, float(apart[i].min()), i)
    )[:_NEAREST]
    tiles: list[np.ndarray] = []
    for index in first:
        tiles += [_bare(evidence.synthetic[index]), _bare(evidence.training[int(apart[index].argmin())])]
    said = f"the {len(first)} samples nearest to training (flagged ones first), each beside its nearest training volume"
    return said, mosaic(tiles), True


def _both(item: Judged) -> Sequence[np.ndarray]:
    return _bare(item), overlay(item.image[0], item.mask, low=0.0, high=1.05)


def _bare(item: Judged) -> np.ndarray:
    return overlay(item.image[0], None, low=0.0, high=1.05)
