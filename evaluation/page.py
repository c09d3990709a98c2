"""The report as one offline page: verdicts first, then pictures, charts, tables. Knows looks, not what is so."""

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

from evaluation import interactive
from evaluation.charts import svg
from evaluation.pictures import data_uri
from evaluation.words import FAMILIES, meaning

if TYPE_CHECKING:
    from evaluation.report import Figure, Report

_MARKS = {True: ("pass", "PASS"), False: ("fail", "FAIL"), None: ("open", "UNDECIDABLE")}
_ARROWS = {"lower": "&darr; lower", "higher": "&uarr; higher", "": "near the floor"}
_WORST = 20


def page(report: "Report", *, with_real: bool) -> str:
    """Return a self-contained page of the report; `with_real` shows real volumes too, for eyes inside the house."""
    note = (
        "shows volumes of the population it was judged against: keep it inside"
        if with_real
        else "holds no voxel, name or id of the volumes it was judged against"
    )
    families = [family for family in FAMILIES if any(_of(family, name) for name in report.metrics)]
    links = "".join(f'<a href="#{family}">{FAMILIES[family][0]}</a>' for family in families)
    turned = interactive.section([one for one in report.volumes if with_real or not one.inside], report.viewer)
    if turned:
        links = f'<a href="#volumes">Volumes to turn</a>{links}'
    parts = [
        _HEAD.format(style=_STYLE),
        f'<header><p class="tag">SYNTHETIC &ndash; not for diagnosis</p><h1>Report on a synthetic set</h1>'
        f"<p>Judged against: <b>{_e(report.population)}</b>. {len(report.samples)} samples. This page {note}.</p>"
        f'<nav><a href="#verdicts">Verdicts</a><a href="#pictures">Pictures</a>{links}</nav></header>',
        _verdicts(report),
        _pictures(report, with_real=with_real),
        turned,
        *(_family(report, family) for family in families),
        _subgroups(report),
        _samples(report),
        _absent(report),
        _rests_on(report),
        "</main></html>\n",
    ]
    return "".join(parts)


def _e(text: object) -> str:
    return html.escape(str(text))


def _of(family: str, name: str) -> bool:
    return name.split(".")[0] == family


def _verdicts(report: "Report") -> str:
    order = {False: 0, None: 1, True: 2}
    rows = sorted(report.verdicts.items(), key=lambda item: (order[item[1].ok], item[0]))
    cards = "".join(
        f'<li class="{_MARKS[v.ok][0]}"><b>{_MARKS[v.ok][1]}</b><span><i>{_e(name)}</i> {_e(v.why)}</span></li>'
        for name, v in rows
    )
    notes = "".join(f"<li>{_e(note)}</li>" for note in report.notes)
    return (
        f'<section id="verdicts"><h2>Verdicts</h2><ul class="cards">{cards or "<li>none was reached</li>"}</ul>'
        + (f"<h3>What they rest on</h3><ul>{notes}</ul>" if notes else "")
        + "</section>"
    )


def _pictures(report: "Report", *, with_real: bool) -> str:
    shown = [(caption, png) for caption, png, real in report.pictures if with_real or not real]
    figures = "".join(
        f'<figure><img src="{data_uri(png)}" alt="{_e(caption)}"><figcaption>{_e(caption)}</figcaption></figure>'
        for caption, png in shown
    )
    return f'<section id="pictures"><h2>Pictures</h2>{figures}</section>' if shown else ""


def _family(report: "Report", family: str) -> str:
    heading, question = FAMILIES[family]
    rows = [(name, figure) for name, figure in sorted(report.metrics.items()) if _of(family, name)]
    charts = "".join(
        f"<figure>{svg(chart)}<figcaption>{_e(chart.title)}</figcaption></figure>"
        for place, chart in report.charts
        if place == family
    )
    return (
        f'<section id="{family}"><h2>{heading}</h2><p>{question}</p>{_table(rows)}'
        f'<div class="charts">{charts}</div></section>'
    )


def _table(rows: "Sequence[tuple[str, Figure]]") -> str:
    head = "<tr><th>figure</th><th>value</th><th>95 % interval</th><th>floor</th><th>n</th><th>better</th></tr>"
    return f'<div class="wide"><table>{head}{"".join(_row(*row) for row in rows)}</table></div>'


def _row(name: str, figure: "Figure") -> str:
    interval = "" if figure.interval is None else f"{figure.interval[0]:.4g} to {figure.interval[1]:.4g}"
    floor = "" if figure.floor is None else f"{figure.floor:.4g}"
    arrow = _ARROWS[figure.better] if figure.better or floor else ""
    return (
        f"<tr><td><code>{_e(name)}</code><br><small>{_e(meaning(name))}</small></td>"
        f"<td class=v>{figure.value:.4g} <small>{_e(figure.unit)}</small></td>"
        f"<td class=n>{interval}</td><td>{floor}</td><td>{figure.n}</td><td class=n>{arrow}</td></tr>"
    )


def _subgroups(report: "Report") -> str:
    if not report.subgroups:
        return ""
    names = list(dict.fromkeys(key for row in report.subgroups for key in row))
    return (
        '<section id="subgroups"><h2>Subgroups</h2><p>The same figures by what was asked; small groups say little.</p>'
        f"{_plain(names, report.subgroups)}</section>"
    )


def _samples(report: "Report") -> str:
    """Return the samples that were flagged, then the worst by agreement, to be looked at."""
    rows = [row for row in report.samples if len(row) > 2 or row["flagged"]]
    if not rows:
        return ""
    rows.sort(key=lambda row: (not row["flagged"], _number(row.get("agreement"), 1.0), str(row["case"])))
    names = list(dict.fromkeys(key for row in rows for key in row))
    flagged = [row["flagged"] for row in report.samples]
    said = f"{sum(map(bool, flagged))} of {len(flagged)} are flagged; shown are those and the least agreeing"
    if all(one is None for one in flagged):
        said = "Whether they are copies was not judged; shown are the least agreeing"
        names.remove("flagged")
    return (
        f'<section id="samples"><h2>Samples to look at</h2><p>{said}, {_WORST} at most.</p>'
        f"{_plain(names, rows[:_WORST])}</section>"
    )


def _number(value: object, absent: float) -> float:
    return float(value) if isinstance(value, int | float) else absent


def _plain(names: Sequence[str], rows: "Sequence[dict[str, object]]") -> str:
    head = "".join(f"<th>{_e(name)}</th>" for name in names)
    body = "".join("<tr>" + "".join(f"<td>{_cell(row.get(name))}</td>" for name in names) + "</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return " to ".join(_cell(part) for part in value)
    return "" if value is None else _e(value)


def _absent(report: "Report") -> str:
    if not report.not_computed:
        return ""
    rows = "".join(
        f"<tr><td><code>{_e(name)}</code></td><td>{_e(why)}</td></tr>"
        for name, why in sorted(report.not_computed.items())
    )
    head = "<tr><th>figure</th><th>why</th></tr>"
    return f'<section id="absent"><h2>Not computed</h2><div class="wide"><table>{head}{rows}</table></div></section>'


def _rests_on(report: "Report") -> str:
    rows = "".join(
        f"<tr><td>{_e(name)}</td><td><code>{_e(value)}</code></td></tr>" for name, value in report.fingerprint.items()
    )
    return (
        '<section id="method"><h2>How it was measured</h2><p>Reports compare only where all of this is equal. '
        "Intervals are 95 %; the floor is what real volumes reach against real volumes, or the segmenter on its own "
        f'held-out patients.</p><div class="wide"><table>{rows}</table></div></section>'
    )


_STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#57606a;--line:#d8dee4;--card:#f6f8fa;--page:#fff;--pass:#116329;
--fail:#a40e26;--open:#7d4e00;--tag:#fff8c5;--s0:#0969da;--s1:#bc4c00;--s2:#1a7f37;--s3:#8250df;--s4:#bf3989;--s5:#57606a}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9198a1;--line:#3d444d;--card:#151b23;--page:#0d1117;
--pass:#3fb950;--fail:#ff7b72;--open:#d29922;--tag:#3b2e00;--s0:#58a6ff;--s1:#f0883e;--s2:#56d364;--s3:#bc8cff;
--s4:#ff80c8;--s5:#9198a1}}
*{box-sizing:border-box}body{font:15px/1.55 system-ui,sans-serif;margin:0;color:var(--ink);background:var(--page)}
main{max-width:1060px;margin:0 auto;padding:1.5rem 1rem 4rem}h1{margin:.3rem 0}h2{margin:2.2rem 0 .3rem}
h3{margin:1rem 0 .2rem;font-size:1em}section>p{margin:.1rem 0 .8rem;color:var(--soft)}
.tag{display:inline-block;background:var(--tag);padding:.15rem .6rem;border-radius:.3rem;font-weight:600;margin:0}
nav{display:flex;flex-wrap:wrap;gap:.3rem 1rem}a{color:var(--s0);text-decoration:none}a:hover{text-decoration:underline}
.cards{list-style:none;padding:0;margin:.5rem 0}.cards li{display:flex;gap:1rem;background:var(--card);margin:.4rem 0;
padding:.6rem .9rem;border-left:.3rem solid var(--soft);border-radius:.3rem}.cards b{flex:0 0 7.5rem}
.cards i{display:block;font-style:normal;color:var(--soft);font-size:.88em}
.cards .pass{border-color:var(--pass)}.pass b{color:var(--pass)}.cards .fail{border-color:var(--fail)}
.fail b{color:var(--fail)}.cards .open{border-color:var(--open)}.open b{color:var(--open)}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%}th{color:var(--soft);font-weight:600}
td,th{border-bottom:1px solid var(--line);padding:.35rem .6rem;text-align:left;vertical-align:top}
small{color:var(--soft);font-weight:400}code{font-size:.92em;overflow-wrap:anywhere}.v{font-variant-numeric:tabular-nums;font-weight:600}
img{max-width:100%;background:#000;border-radius:.3rem}figure{margin:1rem 0}figcaption{color:var(--soft);font-size:.9em}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,420px),1fr));gap:1rem}svg{width:100%}
.n{white-space:nowrap}
svg .g{stroke:var(--line)}svg .t{fill:var(--ink);font-size:12px}svg .a{fill:var(--soft);font-size:12px}
svg .i{stroke:var(--s0);stroke-width:2.5}svg .d{fill:var(--s0)}
svg .floor{stroke:var(--s1);stroke-width:2;stroke-dasharray:4 3}
svg .f{fill-opacity:.25}svg .l{fill:none;stroke-width:2}
@media(max-width:560px){.cards li{flex-direction:column;gap:.1rem}.cards b{flex-basis:auto}}
@media print{nav{display:none}section{break-inside:avoid}}
""" + "".join(f"svg .s{i}{{fill:var(--s{i});stroke:var(--s{i})}}svg .l.s{i}{{fill:none}}" for i in range(6))
_HEAD = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width,'
    'initial-scale=1"><title>Synth report</title><style>{style}</style><main>'
)
