"""Two reports side by side: refused where they do not rest on the same, else a table of differences.

Knows report.json alone: no volume, no metric.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.saved import ReportForm, read_report
from synth.documents import require_form
from synth.errors import DataError


@dataclass(frozen=True)
class Difference:
    """One figure of two reports: b - a, its 95 % interval where both have one, and whether b is better.

    better   True or False where the interval excludes 0, None where it does not, there is none or neither way is better
    """

    name: str
    a: float
    b: float
    difference: float
    interval: tuple[float, float] | None
    better: bool | None
    direction: str | None
    unit: str


@dataclass(frozen=True)
class Comparison:
    """The differences of the figures that both reports have, and the names that only one of them has."""

    rows: tuple[Difference, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]

    def markdown(self) -> str:
        """Return the table."""
        words = {True: "b", False: "a", None: "undecided"}
        lines = ["| figure | a | b | b - a | 95 % interval | better |", "|---|---|---|---|---|---|"]
        for row in self.rows:
            between = "-" if row.interval is None else f"{row.interval[0]:.4g} to {row.interval[1]:.4g}"
            word = words[row.better] if row.direction else "no better way"
            lines.append(f"| {row.name} | {row.a:.4g} | {row.b:.4g} | {row.difference:.4g} | {between} | {word} |")
        for side, names in (("a", self.only_a), ("b", self.only_b)):
            if names:
                lines.append(f"\nOnly in {side}: {', '.join(names)}")
        return "\n".join(lines) + "\n"


def compare(report_a: str | Path | Mapping[str, Any], report_b: str | Path | Mapping[str, Any]) -> Comparison:
    """Return the differences b - a of two reports: paths of report.json (or their folders), or what was read of them.

    The interval of a difference comes from the two intervals (MOVER: Zou & Donner 2008):
    L = d - sqrt((b - l_b)^2 + (u_a - a)^2), U = d + sqrt((u_b - b)^2 + (a - l_a)^2), as if the two were independent.
    Judged against the same real volumes they rise and fall together, so that it is rather too wide than too narrow.
    Errors: DataError for what is no report, another schema or population, fingerprints that differ, and
    reports that share no figure.
    """
    a, b = (_read(report) for report in (report_a, report_b))
    _require_alike(a, b)
    first, second = a["metrics"], b["metrics"]
    if not set(first) & set(second):
        told = [
            ", ".join(dict.fromkeys(name.split(".")[0] for name in sorted(one))) or "none" for one in (first, second)
        ]
        raise DataError(
            f"the reports have no figure in common (families: {told[0]} in a, {told[1]} in b); judge both sets with "
            "the same --only"
        )
    rows = tuple(_difference(name, first[name], second[name]) for name in sorted(set(first) & set(second)))
    return Comparison(rows, tuple(sorted(set(first) - set(second))), tuple(sorted(set(second) - set(first))))


def _difference(name: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> Difference:
    if a["better"] != b["better"]:  # names say what is measured; units may tell of this set's n or p
        raise DataError(f"figure {name} is better {a['better']} in one report and {b['better']} in the other")
    value = b["value"] - a["value"]
    interval = None
    if a["interval"] is not None and b["interval"] is not None:
        (low_a, high_a), (low_b, high_b) = a["interval"], b["interval"]
        low = value - ((b["value"] - low_b) ** 2 + (high_a - a["value"]) ** 2) ** 0.5
        interval = (low, value + ((high_b - b["value"]) ** 2 + (a["value"] - low_a) ** 2) ** 0.5)
    better = None
    if a["better"] and interval is not None and not interval[0] <= 0 <= interval[1]:
        better = (value > 0) == (a["better"] == "higher")
    return Difference(name, a["value"], b["value"], value, interval, better, a["better"], a["unit"])


def _read(report: str | Path | Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(report, Mapping):
        require_form(report, ReportForm, what="what was given as a report")
        return report
    return read_report(Path(report))[0]


def _require_alike(a: Mapping[str, Any], b: Mapping[str, Any]) -> None:
    for name in ("schema", "population"):
        if a[name] != b[name]:
            raise DataError(f"the reports are of different {name}s, {a[name]!r} and {b[name]!r}: they do not compare")
    first, second = a["fingerprint"], b["fingerprint"]
    apart = [name for name in sorted(set(first) | set(second)) if first.get(name) != second.get(name)]
    if apart:
        told = "; ".join(f"{name}: {first.get(name, 'absent')!r} and {second.get(name, 'absent')!r}" for name in apart)
        raise DataError(
            f"the reports rest on different things and do not compare ({told}); judge both sets again with the same "
            "extractor, real volumes and number of samples"
        )
