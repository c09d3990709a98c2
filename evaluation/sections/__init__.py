"""The parts of a report. Each takes the evidence and writes its figures, verdicts or reasons into the report.

A section knows functions and the evidence, never another section, a file or a model.
"""

from collections.abc import Callable, Mapping

from evaluation.evidence import Evidence, Tell
from evaluation.report import Report
from evaluation.sections.alignment import alignment
from evaluation.sections.artefact import artefact
from evaluation.sections.calibration import calibration
from evaluation.sections.condition import condition
from evaluation.sections.diversity import diversity
from evaluation.sections.fidelity import fidelity
from evaluation.sections.pictures import pictures
from evaluation.sections.privacy import privacy
from evaluation.sections.subgroups import subgroups
from evaluation.sections.utility import utility

Section = Callable[[Evidence, Report, Tell], None]
SECTIONS: Mapping[str, Section] = {
    "alignment": alignment,
    "condition": condition,
    "calibration": calibration,
    "subgroups": subgroups,
    "fidelity": fidelity,
    "diversity": diversity,
    "privacy": privacy,
    "artefact": artefact,
    "utility": utility,
    "pictures": pictures,
}
"""By name, in the order in which they run."""
FAMILIES = tuple(name for name in SECTIONS if name not in ("subgroups", "pictures"))
"""Those that measure figures of their own name."""
SEGMENTING = frozenset({"alignment", "condition", "calibration", "subgroups"})
"""Those that ask for the bench's segmenter."""

__all__ = ["FAMILIES", "SECTIONS", "SEGMENTING", "Section"]
