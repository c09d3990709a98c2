"""The report: figures with what they rest on, verdicts in words, as JSON and as one offline page."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from evaluation.charts import Chart, Dots
from evaluation.interactive import Turned
from evaluation.page import page
from evaluation.saved import REPORT_FILE, SCHEMA
from synth.io import write_bytes


@dataclass(frozen=True)
class Figure:
    """One measured value: on how many samples, which way is better, in what unit, beside which floor.

    better    lower, higher; "" where neither is, but what real volumes reach
    p_value   of the null hypothesis that `unit` names, where a test was made
    """

    value: float
    n: int
    better: Literal["lower", "higher", ""]
    unit: str = ""
    interval: tuple[float, float] | None = None
    floor: float | None = None
    p_value: float | None = None

    def __post_init__(self) -> None:
        if self.floor is not None and not math.isfinite(self.floor):  # a label that no held-out patient has
            object.__setattr__(self, "floor", None)

    def plain(self) -> dict[str, object]:
        """Return the JSON form, rounded to 6 significant digits."""
        row: dict[str, object] = {
            "value": _round(self.value),
            "interval": None if self.interval is None else [_round(v) for v in self.interval],
            "n": self.n,
            "better": self.better,
            "unit": self.unit,
        }
        if self.floor is not None:
            row["floor"] = _round(self.floor)
        if self.p_value is not None:
            row["p_value"] = _round(self.p_value)
        return row


@dataclass(frozen=True)
class Verdict:
    """A judgement in words; ok None: this data cannot decide."""

    ok: bool | None
    why: str


@dataclass
class Report:
    """What was found.

    samples            a row for each: its case, whether the privacy audit flagged it (None: it was not judged), and
                       what sections measured of it alone
    subgroups          rows of figures by level of an attribute: attribute, level, figure, value, n, interval
    pictures           caption, PNG, and whether it shows real voxels
    volumes            synthetic pairs to be turned in the page, with `viewer`, the source of what turns them
    charts             family, and what is drawn there: no value of a single real volume
    patients_assumed   each real case was taken as its own patient; None: not known, or no real cases
    notes              what the figures rest on, in words
    internal           text of further files by name, for internal/ alone
    """

    population: str
    metrics: dict[str, Figure] = field(default_factory=dict)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    not_computed: dict[str, str] = field(default_factory=dict)
    fingerprint: dict[str, str] = field(default_factory=dict)
    judged: dict[str, str] = field(default_factory=dict)
    samples: list[dict[str, object]] = field(default_factory=list)
    subgroups: list[dict[str, object]] = field(default_factory=list)
    pictures: list[tuple[str, bytes, bool]] = field(default_factory=list)
    volumes: list[Turned] = field(default_factory=list)
    viewer: str = ""
    charts: list[tuple[str, Chart]] = field(default_factory=list)
    patients_assumed: bool | None = None
    notes: list[str] = field(default_factory=list)
    internal: dict[str, str] = field(default_factory=dict)

    def draw(self, family: str, title: str, begins: str) -> None:
        """Add a chart of the figures whose names begin so, where there are some, each by the rest of its name."""
        known = {name: figure for name, figure in self.metrics.items() if name.startswith(begins)}
        rows = [(name.removeprefix(begins), one.value, one.interval, one.floor) for name, one in known.items()]
        if rows:
            self.charts.append((family, Dots(title, rows)))

    def plain(self) -> dict[str, object]:
        """Return the content of report.json."""
        return {
            "schema": SCHEMA,
            "population": self.population,
            "patients_assumed": self.patients_assumed,
            "notes": self.notes,
            "verdicts": {name: {"ok": v.ok, "why": v.why} for name, v in sorted(self.verdicts.items())},
            "metrics": {name: figure.plain() for name, figure in sorted(self.metrics.items())},
            "fingerprint": self.fingerprint,
            "judged": dict(sorted(self.judged.items())),
            "samples": self.samples,
            "subgroups": self.subgroups,
            "not_computed": dict(sorted(self.not_computed.items())),
        }

    def write(self, folder: Path) -> None:
        """Write report.json, share/ (no real voxel) and internal/ (with real images)."""
        for name, with_real in (("share", False), ("internal", True)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            write_bytes(folder / name / "index.html", page(self, with_real=with_real).encode())
        for stale in (folder / "drop.txt", *(folder / "internal").iterdir()):  # of a report that this one replaces
            if stale.name not in ("index.html", *self.internal) and stale.is_file():
                stale.unlink()
        for name, text in sorted(self.internal.items()):
            write_bytes(folder / "internal" / name, text.encode())
        write_bytes(folder / "index.html", page(self, with_real=False).encode())
        write_bytes(folder / REPORT_FILE, (json.dumps(self.plain(), indent=1, allow_nan=False) + "\n").encode())


def _round(value: float) -> float:
    return float(f"{value:.6g}")
