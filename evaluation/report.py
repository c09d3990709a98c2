"""The report: figures with what they rest on, verdicts in words, as JSON and as one offline page."""

import html
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from evaluation.pictures import data_uri


@dataclass(frozen=True)
class Figure:
    """One measured value: on how many samples, which way is better, in what unit, beside which floor."""

    value: float
    n: int
    better: Literal["lower", "higher"]
    unit: str = ""
    interval: tuple[float, float] | None = None
    floor: float | None = None

    def plain(self) -> dict[str, object]:
        """Return the JSON form, rounded to 6 significant digits."""
        row: dict[str, object] = {
            "value": _round(self.value),
            "interval": None if self.interval is None else [_round(v) for v in self.interval],
            "n": self.n,
            "better": self.better,
            "unit": self.unit,
        }
        return row if self.floor is None else {**row, "floor": _round(self.floor)}


@dataclass(frozen=True)
class Verdict:
    """A judgement in words; ok None: this data cannot decide."""

    ok: bool | None
    why: str


@dataclass
class Report:
    """What was found; pictures are PNG by caption and say whether they show real voxels.

    patients_assumed   each real case was taken as its own patient; None: not known, or no real cases
    notes              what the figures rest on, in words
    """

    population: str
    metrics: dict[str, Figure] = field(default_factory=dict)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    not_computed: dict[str, str] = field(default_factory=dict)
    fingerprint: dict[str, str] = field(default_factory=dict)
    judged: dict[str, str] = field(default_factory=dict)
    samples: list[dict[str, object]] = field(default_factory=list)
    pictures: list[tuple[str, bytes, bool]] = field(default_factory=list)
    patients_assumed: bool | None = None
    notes: list[str] = field(default_factory=list)

    def plain(self) -> dict[str, object]:
        """Return the content of report.json."""
        return {
            "schema": 1,
            "population": self.population,
            "patients_assumed": self.patients_assumed,
            "notes": self.notes,
            "verdicts": {name: {"ok": v.ok, "why": v.why} for name, v in sorted(self.verdicts.items())},
            "metrics": {name: figure.plain() for name, figure in sorted(self.metrics.items())},
            "fingerprint": self.fingerprint,
            "judged": dict(sorted(self.judged.items())),
            "samples": self.samples,
            "not_computed": dict(sorted(self.not_computed.items())),
        }

    def write(self, folder: Path) -> None:
        """Write report.json, share/ (no real voxel) and internal/ (with real images)."""
        for name, with_real in (("share", False), ("internal", True)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            _write(folder / name / "index.html", self.page(with_real=with_real))
        _write(folder / "index.html", self.page(with_real=False))
        _write(folder / "report.json", json.dumps(self.plain(), indent=1, allow_nan=False) + "\n")

    def page(self, *, with_real: bool) -> str:
        """Return a self-contained HTML page."""
        marks = {True: ("pass", "PASS"), False: ("fail", "FAIL"), None: ("open", "UNDECIDABLE")}
        verdicts = "".join(
            f'<li><b class="{marks[v.ok][0]}">{marks[v.ok][1]}</b> {html.escape(name)}: {html.escape(v.why)}</li>'
            for name, v in sorted(self.verdicts.items())
        )
        rows = "".join(_row(name, figure) for name, figure in sorted(self.metrics.items()))
        absent = "".join(
            f"<tr><td>{html.escape(name)}</td><td>{html.escape(why)}</td></tr>"
            for name, why in sorted(self.not_computed.items())
        )
        shown = [(caption, png) for caption, png, real in self.pictures if with_real or not real]
        pictures = "".join(
            f'<figure><img src="{data_uri(png)}" alt="{html.escape(caption)}"><figcaption>{html.escape(caption)}'
            "</figcaption></figure>"
            for caption, png in shown
        )
        return _PAGE.format(
            population=html.escape(self.population),
            notes="".join(f"<li>{html.escape(note)}</li>" for note in self.notes),
            verdicts=verdicts or "<li>none</li>",
            rows=rows,
            absent=absent,
            pictures=pictures,
            style=_STYLE,
            note=(
                "shows volumes of the population it was judged against: keep it inside"
                if with_real
                else "holds no voxel, name or id of the volumes it was judged against"
            ),
        )


def _write(path: Path, text: str) -> None:
    """Write whole or not at all: a killed run leaves no half report."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def _row(name: str, figure: Figure) -> str:
    interval = "" if figure.interval is None else f"{figure.interval[0]:.4g} to {figure.interval[1]:.4g}"
    floor = "" if figure.floor is None else f"{figure.floor:.4g}"
    arrow = "&darr;" if figure.better == "lower" else "&uarr;"
    return (
        f"<tr><td><code>{html.escape(name)}</code><br><small>{html.escape(_meaning(name))}</small></td>"
        f"<td class=v>{figure.value:.4g} {html.escape(figure.unit)}</td>"
        f"<td>{interval}</td><td>{floor}</td><td>{figure.n}</td><td>{arrow}</td></tr>"
    )


def _meaning(name: str) -> str:
    return next((text for start, text in _MEANING.items() if name.startswith(start)), "")


def _round(value: float) -> float:
    return float(f"{value:.6g}")


_MEANING = {
    "alignment.agreement": "how well a segmenter finds the given masks in the synthetic images, against its own score",
    "alignment.dice.": "Dice of that segmenter on the synthetic images; the floor is its held-out Dice",
    "alignment.permuted": "the same with masks swapped between samples: must be clearly lower",
    "condition.class": "share of samples whose asked class a classifier recognises",
    "diversity.ms_ssim": "MS-SSIM between random pairs: near 1, samples look alike; the floor is the population",
    "fidelity.frechet": "Frechet distance of weight-free features (not Inception FID); the floor is two halves",
    "fidelity.ssim": "SSIM to a random volume of the population",
    "privacy.closer_than_holdout": "share of samples nearer to training than any hold-out volume is",
    "privacy.copy_test": "share of samples flagged as copies of training volumes; no formal guarantee",
    "utility.accuracy_gain": "classes recognised with the set added, less without; the floor: real repeated",
    "utility.brier": "squared error of stated probabilities on real test patients, in the region of each label",
    "utility.detection": "share of real lesions of a size of which a tenth of the voxels is labelled",
    "utility.dice_gain": "Dice on real test patients with the set added, less without; the floor: real repeated",
    "utility.ece": "calibration error (ECE) on real test patients, in the region of each label",
    "utility.hd95": "95 % Hausdorff distance on real test patients; a structure missed counts as the image's diagonal",
    "utility.p_holm": "p of a paired sign-flip test over patients, adjusted for all comparisons (Holm)",
    "utility.synthetic_only": "score of a network trained on the synthetic set alone, over that of the real one",
    "utility.": "score on real test patients of a network trained on this arm",
    "privacy.nearest": "median feature distance to the nearest training volume; the floor is that of hold-out volumes",
}
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1000px;margin:2rem auto;padding:0 1rem;color:#1b1f24}
table{border-collapse:collapse;width:100%}td,th{border-bottom:1px solid #d8dee4;padding:.3rem .6rem;text-align:left}
th{color:#57606a;font-weight:600}small{color:#57606a}code{font-size:.92em}li{margin:.4rem 0}
.v{font-variant-numeric:tabular-nums;font-weight:600}img{max-width:100%;background:#000}figure{margin:1rem 0}
.pass{color:#116329}.fail{color:#a40e26}.open{color:#7d4e00}.tag{background:#fff8c5;padding:.2rem .5rem}
"""
_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Synth report</title><style>{style}</style>
<h1>Report on a synthetic set</h1>
<p class="tag">Synthetic data, not for diagnosis. Population: {population}. This page {note}.</p>
<h2>Verdicts</h2><ul>{verdicts}</ul><ul>{notes}</ul>
<h2>Pictures</h2>{pictures}
<h2>Figures</h2><p>Intervals are 95 %, over samples. The floor is what the population itself reaches.</p>
<table><tr><th>figure</th><th>value</th><th>interval</th><th>floor</th><th>n</th><th>better</th></tr>
{rows}</table>
<h2>Not computed</h2><table><tr><th>figure</th><th>why</th></tr>{absent}</table></html>
"""
