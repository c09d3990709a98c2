"""Charts as inline SVG, drawn without a plotting library: the same bytes for the same numbers. Know no report.

Colours and fonts are classes that the page styles, so that charts follow its light and dark dress.
"""

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

_WIDTH, _LEFT, _RIGHT, _TOP, _BOTTOM = 560, 64, 16, 12, 40
_ROW, _LABELS, _BINS = 26, 230, 24
_KEY = 20  # room for the names of sets and lines, above the plot
_SERIES = 6


@dataclass(frozen=True)
class Dots:
    """Values with their intervals and floors, one row each: (label, value, interval or None, floor or None)."""

    title: str
    rows: Sequence[tuple[str, float, tuple[float, float] | None, float | None]]


@dataclass(frozen=True)
class Histogram:
    """Shares of values in equal bins, sets laid over one another."""

    title: str
    unit: str
    sets: Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Curves:
    """Lines through (x, y), with bands (x, low, high) where there are some.

    diagonal   draws y = x, both axes from 0 to 1 or as far as the lines go
    """

    title: str
    x_label: str
    y_label: str
    lines: Mapping[str, Sequence[tuple[float, float]]]
    bands: Mapping[str, Sequence[tuple[float, float, float]]] = field(default_factory=dict)
    diagonal: bool = False


Chart = Dots | Histogram | Curves
LEAST_DRAWN = 10
"""Volumes that a histogram of real ones needs, so that no single one is told."""


def svg(chart: Chart) -> str:
    """Return the chart as an SVG element.

    >>> svg(Dots("Dice", [("lesion", 0.6, (0.5, 0.7), 0.65)])).startswith('<svg role="img" aria-label="Dice"')
    True
    """
    if isinstance(chart, Dots):
        return _dots(chart)
    return _histogram(chart) if isinstance(chart, Histogram) else _curves(chart)


def ticks(low: float, high: float, *, about: int = 5) -> list[float]:
    """Return round numbers from low to high.

    >>> ticks(0.0, 1.0)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    step = 10 ** math.floor(math.log10((high - low) / about))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= about)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return low - room, high + room


def _element(title: str, height: float, body: Sequence[str]) -> str:
    return (
        f'<svg role="img" aria-label="{html.escape(title, quote=True)}" viewBox="0 0 {_WIDTH} {_n(height)}">'
        + "".join(body)
        + "</svg>"
    )


def _n(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")


def _text(x: float, y: float, said: str, anchor: str = "start", kind: str = "t") -> str:
    return f'<text class="{kind}" x="{_n(x)}" y="{_n(y)}" text-anchor="{anchor}">{html.escape(said)}</text>'


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{_n(x1)}" y1="{_n(y1)}" x2="{_n(x2)}" y2="{_n(y2)}"/>'


def _dots(chart: Dots) -> str:
    every = [v for _, value, interval, floor in chart.rows for v in (value, *(interval or ()), *_known(floor))]
    low, high = _span(every)
    height = _TOP + _ROW * len(chart.rows) + _BOTTOM - 12

    def x(value: float) -> float:
        return _LABELS + (value - low) / (high - low) * (_WIDTH - _LABELS - _RIGHT)

    body = []
    for tick in ticks(low, high):
        body.append(_line("g", x(tick), _TOP, x(tick), height - 22))
        body.append(_text(x(tick), height - 8, f"{tick:g}", "middle"))
    for index, (label, value, interval, floor) in enumerate(chart.rows):
        y = _TOP + _ROW * (index + 0.5)
        body.append(_text(_LABELS - 10, y + 4, label, "end"))
        if floor is not None:
            body.append(_line("floor", x(floor), y - 9, x(floor), y + 9))
        if interval is not None:
            body.append(_line("i", x(interval[0]), y, x(interval[1]), y))
        body.append(f'<circle class="d" cx="{_n(x(value))}" cy="{_n(y)}" r="4.5"/>')
    return _element(chart.title, height, body)


def _known(value: float | None) -> tuple[float, ...]:
    return () if value is None else (value,)


def _axes(x_label: str, y_label: str, span_x: tuple[float, float], span_y: tuple[float, float], height: float):  # noqa: ANN202
    def x(value: float) -> float:
        return _LEFT + (value - span_x[0]) / (span_x[1] - span_x[0]) * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return height - _BOTTOM - (value - span_y[0]) / (span_y[1] - span_y[0]) * (height - _BOTTOM - _TOP - _KEY)

    body = []
    for tick in ticks(*span_y):
        body.append(_line("g", _LEFT, y(tick), _WIDTH - _RIGHT, y(tick)))
        body.append(_text(_LEFT - 8, y(tick) + 4, f"{tick:g}", "end"))
    for tick in ticks(*span_x):
        body.append(_text(x(tick), height - _BOTTOM + 16, f"{tick:g}", "middle"))
    body.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, height - 6, x_label, "middle", "a"))
    body.append(
        f'<text class="a" transform="translate(14 {_n((height - _BOTTOM) / 2)}) rotate(-90)" text-anchor="middle">'
        f"{html.escape(y_label)}</text>"
    )
    return x, y, body


def _legend(names: Sequence[str]) -> list[str]:
    out = []
    for index, name in enumerate(names):
        x = _LEFT + index * (_WIDTH - _LEFT - _RIGHT) / max(len(names), 3)
        out.append(f'<rect class="s{index % _SERIES}" x="{_n(x)}" y="{_TOP - 9}" width="12" height="12"/>')
        out.append(_text(x + 18, _TOP + 2, name))
    return out


def _histogram(chart: Histogram) -> str:
    sets = {name: np.asarray(values, dtype=np.float64) for name, values in chart.sets.items() if len(values)}
    low, high = _span([float(v) for values in sets.values() for v in (values.min(), values.max())])
    edges = np.linspace(low, high, _BINS + 1)
    shares = {name: np.histogram(values, edges)[0] / len(values) for name, values in sets.items()}
    top = max(float(share.max()) for share in shares.values())
    height = 240.0 + _KEY
    x, y, body = _axes(chart.unit, "share of volumes", (low, high), (0.0, 1.05 * top), height)
    for index, share in enumerate(shares.values()):
        points = [f"{_n(x(low))},{_n(y(0))}"]
        for left, right, value in zip(edges[:-1], edges[1:], share, strict=True):
            points += [f"{_n(x(left))},{_n(y(value))}", f"{_n(x(right))},{_n(y(value))}"]
        points.append(f"{_n(x(high))},{_n(y(0))}")
        body.append(f'<polygon class="f s{index % _SERIES}" points="{" ".join(points)}"/>')
    return _element(chart.title, height, [*body, *_legend(list(shares))])


def _curves(chart: Curves) -> str:
    xs = [x for line in chart.lines.values() for x, _ in line]
    ys = [y for line in chart.lines.values() for _, y in line]
    ys += [v for band in chart.bands.values() for _, low, high in band for v in (low, high)]
    height = 280.0 + _KEY
    low, high = min(0.0, *xs, *ys), max(1.0, *xs, *ys)
    spans = ((low, high), (low, high)) if chart.diagonal else (_span(xs), _span(ys))
    x, y, body = _axes(chart.x_label, chart.y_label, *spans, height)
    if chart.diagonal:
        body.append(_line("floor", x(low), y(low), x(high), y(high)))
    for index, (name, line) in enumerate(chart.lines.items()):
        kind = f"s{index % _SERIES}"
        band = chart.bands.get(name, ())
        if band:
            there = [f"{_n(x(at))},{_n(y(high))}" for at, _, high in band]
            back = [f"{_n(x(at))},{_n(y(low))}" for at, low, _ in reversed(band)]
            body.append(f'<polygon class="f {kind}" points="{" ".join([*there, *back])}"/>')
        points = " ".join(f"{_n(x(at))},{_n(y(value))}" for at, value in line)
        body.append(f'<polyline class="l {kind}" points="{points}"/>')
        body += [f'<circle class="{kind}" cx="{_n(x(at))}" cy="{_n(y(value))}" r="3"/>' for at, value in line]
    return _element(chart.title, height, [*body, *_legend(list(chart.lines))])
