"""Every figure that a section can write has its meaning in words."""

import ast
from pathlib import Path

import evaluation
from evaluation.functional.membership import Membership
from evaluation.privacy import figures
from evaluation.words import FAMILIES, MEANINGS, meaning
from tests.evaluation.test_sections_alignment import items, judged

ROOT = Path(evaluation.__file__).parent
WRITTEN = {
    "utility": (
        *("dice.R", "dice.R.lesion", "accuracy.RS", "nsd.R", "hd95.R", "ece.R", "brier.R", "brier_class.R"),
        *("ece_class.R", "detection.R.small", "false_lesions.R", "synthetic_only", "synthetic_only_class"),
        *("crps.R", "nsd_gain", "hd95_gain", "ece_gain", "brier_gain", "crps_gain", "detection_gain.small"),
        *("dice_gain", "dice_gain.RS_RR.real10", "accuracy_gain", "p_holm.RS_R", "p_holm_class.RS_R"),
    )
}
"""Names that sections put together of several parts; tests/evaluation/test_utility.py makes most of them."""


def _texts(path: Path) -> set[str]:
    """Return the strings of a module, of f-strings what stands before the first value."""
    out = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            first = node.values[0]
            out.add(str(first.value) + "?" if isinstance(first, ast.Constant) else "")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            out.add(node.value)
    return out


def _literals() -> set[str]:
    """Return the names of figures that stand in the sections, a `?` for what comes later."""
    found = set()
    for path in (ROOT / "sections").glob("*.py"):
        for text in _texts(path):
            family, dot, name = text.partition(".")
            if dot and family in FAMILIES and name.strip("?") and " " not in text and not text.endswith("."):
                found.add(text)
    return found


def _explained(name: str) -> bool:
    """Say whether a figure has an entry of its own: that of its whole family tells nothing of it."""
    fits = [start for start in MEANINGS if name.startswith(start)]
    return bool(fits) and (name.startswith("condition.") or max(fits, key=len).strip(".") not in FAMILIES)


def test_the_literals_of_sections_are_found() -> None:
    found = _literals()
    assert {"fidelity.frechet", "alignment.dice.?", "artefact.auroc", "condition.class"} <= found
    assert len(found) > 25


def test_every_name_in_the_sections_has_a_meaning() -> None:
    names = {name.rstrip("?") for name in _literals()}
    computed = {"privacy.", "fidelity.", "utility.", "calibration.", "alignment."}
    verdicts = {"privacy.images", "privacy.images_after_drop"}
    assert sorted(name for name in names - computed - verdicts if not _explained(name)) == []


def test_every_name_put_together_has_a_meaning() -> None:
    names = [f"{family}.{name}" for family, some in WRITTEN.items() for name in some]
    names += [f"fidelity.{name}" for name in ("precision", "recall", "density", "coverage", "sliced_wasserstein")]
    names += [f"calibration.{name}" for name in ("ece_roi", "brier", "volume_crps")]
    names += [f"alignment.{name}" for name in ("nsd.a", "hd95.a", "volume.a", "intensity.a", "adjacency", "topology")]
    assert [name for name in names if not _explained(name)] == []


def test_every_name_of_the_audit_has_a_meaning() -> None:
    texts = _texts(Path(figures.__file__))
    keys = {text for text in texts if text.replace("_", "").isalpha() and "_" in text[1:-1] and text[0].isalpha()}
    keys -= {"set_level"} | set(Membership.__dataclass_fields__)
    names = {"nearest", "copy_test.masks", "mia_auc", "mia_tpr_1", "mia_tpr_01", "weights_auc", "weights_tpr_1"}
    names |= keys | {"copy_test_after_drop"}
    assert {"closer_than_holdout", "planted_seen", "negative_control", "copy_rate_bound"} <= names
    assert sorted(name for name in names if not _explained(f"privacy.{name}")) == []


def test_every_figure_of_a_report_has_a_meaning() -> None:
    report = judged(items(0, 10))
    assert len(report.metrics) > 15
    assert [name for name in report.metrics if not meaning(name)] == []
