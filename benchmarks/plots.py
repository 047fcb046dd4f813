"""Reports as one HTML file: SVG plots, a light and a dark style, no scripts, no external files.

Owns the drawing; `report.py` and `endpoint.py` own what is drawn. This module escapes all text, so callers may pass
text from a server.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Final, Literal

from gai_fast.cli.bench.figures import UNITS

Role = Literal["main", "second", "other"]
"""The role of a mark: the subject, the baseline, or any other."""

Buckets = Sequence[tuple[float, int]]
"""A histogram: the lowest value of each bucket and its count, in rising order."""

WIDTH: Final = 760
LABELS: Final = 220
VALUES: Final = 110
ROW: Final = 24
HEIGHT: Final = 340
MARGIN: Final = 56
TEXT: Final = 15
"""Sizes in pixels: a plot's width, the space for labels and values beside it, a row of dots, the height of a plot of
curves and its margin, a line of text."""

SHARES: Final = (0.5, 0.9, 0.99, 0.999, 0.9999)
"""The ticks of a distribution; each further nine is at an equal distance."""

STYLE: Final = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1b1d1f; --soft: #62676d; --line: #e3e5e8; --main: #0b63c5;
  --second: #b8500b; --other: #969ca3; }
@media (prefers-color-scheme: dark) { :root { --paper: #141618; --ink: #e7e9eb; --soft: #a0a6ad; --line: #2d3135;
  --main: #62aef8; --second: #f2a05f; --other: #757c84; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 2rem 1rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2.5rem 0 .3rem; }
p { margin: .3rem 0; max-width: 46rem; } .soft, figcaption { color: var(--soft); }
figure { margin: 1rem 0; overflow-x: auto; } svg { width: 100%; min-width: 34rem; height: auto; }
svg text { font: 13px system-ui, sans-serif; fill: var(--ink); } svg .soft { fill: var(--soft); }
svg .line { stroke: var(--line); }
.main { fill: var(--main); stroke: var(--main); } .second { fill: var(--second); stroke: var(--second); }
.other { fill: var(--other); stroke: var(--other); }
polyline.main, polyline.second, polyline.other { fill: none; stroke-width: 2; stroke-linejoin: round; }
svg text.main, svg text.second, svg text.other { stroke: none; }
svg text.main { fill: var(--main); } svg text.second { fill: var(--second); } svg text.other { fill: var(--ink); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .9rem .3rem 0; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 500; vertical-align: bottom; } td { white-space: nowrap; }
td.number { text-align: right; } td.long { white-space: normal; min-width: 16rem; } tr.main td { font-weight: 600; }
"""


# ---- plots -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Dot:
    """One row of a dot plot. If it has no value, its text is the reason."""

    label: str
    value: float | None
    text: str
    role: Role = "other"


@dataclass(frozen=True, slots=True)
class Curve:
    """One curve, as points with rising x."""

    label: str
    points: Sequence[tuple[float, float]]
    role: Role = "other"


@dataclass(frozen=True, slots=True)
class _Scale:
    """Maps a range of values to a range of pixels."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool

    def __call__(self, value: float) -> float:
        low, high, value = map(self._place, (self.low, self.high, max(value, self.low)))
        return self.start + (self.end - self.start) * (value - low) / (high - low)

    def _place(self, value: float) -> float:
        return math.log10(value) if self.logarithmic else value

    def ticks(self) -> list[float]:
        if not self.logarithmic:
            step: float = 10.0 ** math.floor(math.log10((self.high - self.low) / 2))
            step *= next(factor for factor in (1, 2, 5, 10) if (self.high - self.low) / (step * factor) <= 6)
            return [self.low + index * step for index in range(int((self.high - self.low) / step + 1e-9) + 1)]
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        factors = (1, 2, 5) if len(decades) <= 3 else (1,)
        found = [factor * 10.0**decade for decade in decades for factor in factors]
        return [value for value in found if self.low <= value * 1.0001 and value <= self.high * 1.0001]


def _scale(values: Iterable[float], start: float, end: float, *, logarithmic: bool) -> _Scale:
    """Returns a scale for the values, with a margin."""
    known = [value for value in values if value > 0 or not logarithmic]
    low, high = (min(known), max(known)) if known else (1.0, 10.0)
    if not logarithmic:
        return _Scale(0.0, high * 1.05 or 1.0, start, end, False)
    # The scale has at least a decade, so that a small difference looks small.
    room = max(1.3, math.sqrt(10 * low / high))
    return _Scale(low / room, high * room, start, end, True)


def _svg(height: float, parts: Iterable[str], title: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="line" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def dots(title: str, rows: Sequence[Dot], unit: str) -> str:
    """Draws values of very different sizes, on a logarithmic axis.

    Args:
        title: The text for screen readers.
        rows: The rows, from top to bottom.
        unit: The unit of the axis.
    """
    values = [row.value for row in rows if row.value is not None]
    x = _scale(values, LABELS, WIDTH - VALUES, logarithmic=True)
    bottom = ROW * len(rows) + 8
    parts = []
    for tick in x.ticks():
        parts += [_line(x(tick), 4, x(tick), bottom), _text(x(tick), bottom + TEXT, f"{tick:,.12g}", "soft", "middle")]
    parts.append(_text(WIDTH - VALUES, bottom + 2 * TEXT, unit, "soft", "end"))
    for index, row in enumerate(rows):
        y = ROW * index + ROW / 2 + 4
        parts += [_line(LABELS, y, WIDTH - VALUES, y), _text(LABELS - 12, y + 4, row.label, row.role, "end")]
        if row.value is None:
            parts.append(_text(LABELS + 6, y + 4, row.text, "soft"))
        else:
            place = f'class="{row.role}" cx="{x(row.value):.1f}" cy="{y:.1f}" r="5"'
            parts.append(f"<circle {place}><title>{escape(f'{row.label}: {row.text}')}</title></circle>")
            parts.append(_text(WIDTH - VALUES + 10, y + 4, row.text, row.role))
    return _svg(bottom + 2 * TEXT + 6, parts, title)


def curves(title: str, drawn: Sequence[Curve], x_unit: str, y_unit: str) -> str:
    """Draws curves over two linear axes that begin at 0, with their names at their ends."""
    points = [point for curve in drawn for point in curve.points]
    x = _scale((point[0] for point in points), MARGIN, WIDTH - LABELS, logarithmic=False)
    y = _scale((point[1] for point in points), HEIGHT - MARGIN, 12, logarithmic=False)
    ticks = [(tick, f"{tick:,g}") for tick in x.ticks()]
    return _curves(title, drawn, x, y, ticks, [(tick, f"{tick:,g}") for tick in y.ticks()], x_unit, y_unit)


def distributions(title: str, drawn: Sequence[tuple[str, Buckets, Role]], share: str) -> str:
    """Draws distributions of times in seconds: the share of values below each time. Each further nine of the share is
    at an equal distance.

    Args:
        title: The text for screen readers.
        drawn: Name, histogram and role of each distribution.
        share: The label of the axis of shares.
    """
    lines = [Curve(name, _distribution(buckets), role) for name, buckets, role in drawn if buckets]
    most = max((curve.points[-1][0] for curve in lines), default=1.0)
    x = _Scale(0.0, max(most, 1.0), MARGIN, WIDTH - LABELS, False)
    y = _scale((value for curve in lines for _, value in curve.points), HEIGHT - MARGIN, 12, logarithmic=True)
    x_ticks = [(_nines(one), f"{one:.4%}".rstrip("%").rstrip("0").rstrip(".") + " %") for one in SHARES]
    y_ticks = [(tick, _round_time(tick)) for tick in y.ticks()]
    return _curves(title, lines, x, y, [one for one in x_ticks if one[0] <= x.high], y_ticks, share, "")


def _round_time(value: float) -> str:
    """Formats a tick, which is 1, 2 or 5 times a power of ten, in its natural unit."""
    unit, size = next((one for one in UNITS if value >= one[1] * 0.999), UNITS[-1])
    return f"{value / size:.3g} {unit}"


def _nines(share: float) -> float:
    return -math.log10(1 - share)


def _distribution(buckets: Buckets) -> list[tuple[float, float]]:
    total = sum(count for _, count in buckets)
    points = []
    below = 0
    for value, count in buckets:
        points.append((_nines(below / total), value))
        below += count
    # The last value is drawn at the largest share that this number of values can resolve.
    points.append((_nines(1 - 0.5 / total), buckets[-1][0]))
    # More points than pixels would only enlarge the file.
    kept = [points[0], *(b for a, b in pairwise(points) if round(a[0] * 400) != round(b[0] * 400)), points[-1]]
    return [(max(share, 0.0), value) for share, value in kept]


def _curves(
    title: str,
    drawn: Sequence[Curve],
    x: _Scale,
    y: _Scale,
    x_ticks: Sequence[tuple[float, str]],
    y_ticks: Sequence[tuple[float, str]],
    x_unit: str,
    y_unit: str,
) -> str:
    parts = []
    for tick, text in y_ticks:
        parts += [_line(x.start, y(tick), x.end, y(tick)), _text(x.start - 8, y(tick) + 4, text, "soft", "end")]
    for tick, text in x_ticks:
        parts += [_line(x(tick), y.end, x(tick), y.start), _text(x(tick), y.start + 18, text, "soft", "middle")]
    parts += [_text(x.end, y.start + 36, x_unit, "soft", "end"), _text(x.start + 6, y.end + 10, y_unit, "soft")]
    # The subject is drawn last, above the others.
    for curve in sorted(drawn, key=lambda one: one.role, reverse=True):
        place = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in curve.points)
        name = f"<title>{escape(curve.label)}</title>"
        parts.append(f'<polyline class="{curve.role}" points="{place}">{name}</polyline>')
    lowest = -math.inf
    for curve in sorted(drawn, key=lambda one: y(one.points[-1][1])):
        lowest = max(y(curve.points[-1][1]) + 4, lowest + TEXT)
        parts.append(_text(x.end + 10, lowest, curve.label, curve.role))
    return _svg(max(HEIGHT, lowest + 8), parts, title)


# ---- pages -----------------------------------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Iterable[Sequence[str]], strong: frozenset[str] = frozenset()) -> str:
    """Returns a table. Rows whose first cell is in `strong` are emphasized; long cells may wrap."""
    lines = [f"<tr>{''.join(f'<th>{escape(cell)}</th>' for cell in head)}</tr>"]
    for row in rows:
        cells = "".join(f'<td class="{_kind(cell)}">{escape(cell)}</td>' for cell in row)
        lines.append(f'<tr class="{"main" if row[0] in strong else ""}">{cells}</tr>')
    return f'<div class="scroll"><table>{"".join(lines)}</table></div>'


def _kind(cell: str) -> str:
    return "long" if len(cell) > 40 else "number" if cell[:1].isdigit() else ""


def paragraphs(texts: Iterable[str]) -> str:
    """Returns texts as paragraphs."""
    return "".join(f"<p>{escape(text)}</p>" for text in texts)


def section(title: str, about: str, *contents: str) -> str:
    """Returns a heading, a sentence, and tables or plots."""
    return f'<h2>{escape(title)}</h2><p class="soft">{escape(about)}</p>{"".join(map(_framed, contents))}'


def _framed(content: str) -> str:
    return f"<figure>{content}</figure>" if content.startswith("<svg") else content


def page(title: str, about: str, *sections: str) -> str:
    """Returns the report as one HTML page."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
        f'<h1>{escape(title)}</h1><p class="soft">{escape(about)}</p>{"".join(sections)}</body></html>\n'
    )
