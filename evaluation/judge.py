"""The judge: a synthetic set against real volumes -> a Report. Knows no model and no file.

Everything is measured on mapped intensities, so that native units do not matter.
"""

from collections.abc import Collection

from evaluation.evidence import Evidence, Tell
from evaluation.fingerprint import fingerprint_of
from evaluation.report import Report
from evaluation.sections import FAMILIES, SECTIONS, Section
from evaluation.sections.utility import NOT_ASKED
from evaluation.work import planned
from synth.errors import ConfigError, nearest


def steps(evidence: Evidence, only: Collection[str] = ()) -> int:
    """Return how many steps of progress a judgement makes: volumes measured, and one for each section's end."""
    return sum(planned(evidence, only).values())


def judge(evidence: Evidence, *, only: Collection[str] = (), progress: Tell = lambda _: None) -> Report:
    """Return the report on `evidence.synthetic`, of the sections named in `only` or of all.

    progress   called as often as `steps` says, whatever sections find on their way
    Errors: ConfigError for a section that does not exist.
    """
    for name in only:
        if name not in SECTIONS:
            raise ConfigError(f"no section of a report is called {name!r}; {nearest(name, SECTIONS)}")
    report, plan = Report(evidence.population), planned(evidence, only)
    report.fingerprint = fingerprint_of(evidence)
    report.samples = [{"case": item.case, "flagged": None} for item in evidence.synthetic]
    for name, section in SECTIONS.items():
        if not only or name in only:
            _run(section, evidence, report, plan[name], progress)
    if "utility.dice_gain" not in report.metrics and (not only or "utility" in only):
        report.not_computed.setdefault("utility.dice_gain", NOT_ASKED)
    asked = ",".join(name for name in SECTIONS if name in only)
    left = (name for name in FAMILIES if only and name not in only)
    report.not_computed |= dict.fromkeys(left, f"not asked for (--only {asked})")
    return report


def _run(section: Section, evidence: Evidence, report: Report, count: int, progress: Tell) -> None:
    """Run a section, and tell of `count` steps: no more while it runs, the rest at its end."""
    left = count

    def tell(word: str) -> None:
        nonlocal left
        if left > 1:
            left -= 1
            progress(word)

    section(evidence, report, tell)
    for _ in range(left):
        progress("done")
