"""The judge: a synthetic set against real volumes -> a Report. Knows no model and no file.

Everything is measured on mapped intensities, so that native units do not matter.
"""

from collections.abc import Collection

from evaluation.evidence import Evidence, Tell
from evaluation.fingerprint import fingerprint_of
from evaluation.report import Report
from evaluation.sections import SECTIONS
from evaluation.sections.utility import NOT_ASKED
from synth.errors import ConfigError, nearest


def judge(evidence: Evidence, *, only: Collection[str] = (), progress: Tell | None = None) -> Report:
    """Return the report on `evidence.synthetic`, of the sections named in `only` or of all.

    progress   called once for each volume measured
    Errors: ConfigError for a section that does not exist.
    """
    for name in only:
        if name not in SECTIONS:
            raise ConfigError(f"no section of a report is called {name!r}; {nearest(name, SECTIONS)}")
    report = Report(evidence.population)
    report.fingerprint = fingerprint_of(evidence)
    report.samples = [{"case": item.case, "flagged": False} for item in evidence.synthetic]
    for name, section in SECTIONS.items():
        if not only or name in only:
            section(evidence, report, progress or (lambda _: None))
    if "utility.dice_gain" not in report.metrics:
        report.not_computed.setdefault("utility.dice_gain", NOT_ASKED)
    return report
