"""How much work a judgement is, in volumes, section by section: what a progress bar needs before it begins.

Knows what each section measures of which side, and measures nothing.
"""

from collections.abc import Collection, Mapping

from evaluation.artefact import why_no_gate
from evaluation.evidence import Evidence
from evaluation.privacy.embeddings import leave_out, no_masks
from evaluation.privacy.findings import Options
from evaluation.sections import SECTIONS, SEGMENTING
from evaluation.sections.artefact import trials_of
from evaluation.segmented import MOST_HELD_OUT, unseen


def planned(evidence: Evidence, only: Collection[str] = ()) -> Mapping[str, int]:
    """Return section -> volumes that it measures, of the sections named in `only` or of all, in the order of running.

    What sections share counts where it is measured first. Each section counts one more, for what comes after its
    volumes: tests, pictures.
    """
    featured = segmented = False
    out: dict[str, int] = {}
    for name in SECTIONS:
        if only and name not in only:
            continue
        steps = 1
        if _wants_features(name, evidence) and not featured:
            featured = True
            steps += len(evidence.synthetic) + len(evidence.training) + len(evidence.holdout)
        if _wants_segmenter(name, evidence) and not segmented:
            segmented = True
            steps += len(evidence.synthetic) + min(len(unseen(evidence)), MOST_HELD_OUT)
        if name == "privacy":
            steps += _audited(evidence)
        if name == "artefact" and not why_no_gate(item.whose for item in evidence.training):
            steps += len(evidence.synthetic) + len(evidence.training) + len(evidence.holdout)
            steps += trials_of(len(evidence.holdout))
        out[name] = steps
    return out


def _wants_features(name: str, evidence: Evidence) -> bool:
    if name == "privacy":
        return _can_be_audited(evidence)
    return name in ("fidelity", "diversity") or (
        name == "pictures" and bool(evidence.training) and not evidence.unaudited
    )


def _wants_segmenter(name: str, evidence: Evidence) -> bool:
    model = evidence.bench.segmenter
    if model is None or name not in SEGMENTING:
        return False
    if name == "calibration":
        return hasattr(model, "probabilities")
    return name != "subgroups" or any(item.attributes for item in evidence.synthetic)


def _can_be_audited(evidence: Evidence) -> bool:
    sides = (evidence.synthetic, evidence.training, evidence.holdout)
    return not evidence.unaudited and min(len({item.whose for item in side}) for side in sides) > 1


def _audited(evidence: Evidence) -> int:
    """Return the volumes of an audit beside features: planted copies, comparisons in pose, losses."""
    if not _can_be_audited(evidence):
        return 0
    plants = Options().plants
    posed = len(evidence.synthetic) + len(evidence.holdout) + plants + len(leave_out(evidence).left)
    outside = len(evidence.outsiders) if evidence.loss is not None else 0
    losses = len(evidence.training) + outside if outside else 0
    return plants + posed * (1 if no_masks(evidence) else 2) + losses
