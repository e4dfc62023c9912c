"""Drawings as SVG text: lines over time, points in a plane, and scores on a line. Colours come from the page's CSS."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from data2vec.demo.outcome import Outcome, Point, percent

HUES = 10
"""Classes that get a colour of their own in a picture of the features (CSS classes k0 .. k9)."""


@dataclass(frozen=True)
class Line:
    """A curve: its places, and its CSS classes."""

    xs: Sequence[float]
    ys: Sequence[float]
    style: str


def line_chart(lines: Sequence[Line], *, floor: float | None = None, ceiling: float | None = None) -> str:
    """Curves over CPU seconds.

    Args:
        lines: what to draw; values that are not finite are left out.
        floor: the y axis begins there, or at the least value if that is less; None: at the least value.
        ceiling: the y axis reaches at least there.
    """
    width, height, left, bottom, top = 300.0, 168.0, 34.0, 20.0, 8.0
    ys = [y for line in lines for y in line.ys if math.isfinite(y)] or [0.0]
    ticks = nice_ticks(
        min([*ys, *([] if floor is None else [floor])]), max([*ys, *([] if ceiling is None else [ceiling])])
    )
    low, high = ticks[0], ticks[-1]
    end = max(line.xs[-1] for line in lines)

    def place(x: float, y: float) -> str:
        across = left + (width - left - 6) * x / (end or 1)
        return f"{across:.1f},{top + (height - top - bottom) * (high - y) / (high - low):.1f}"

    parts = [f'<svg viewBox="0 0 {width:g} {height:g}" role="img">']
    for tick in ticks:
        y = place(0, tick).split(",")[1]
        parts.append(f'<line class="grid" x1="{left:g}" x2="{width - 6:g}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{left - 6:g}" y="{y}" dy=".32em" text-anchor="end">{tick:g}</text>')
    parts.append(f'<text x="{left:g}" y="{height - 4:g}">0</text>')
    parts.append(f'<text x="{width - 6:g}" y="{height - 4:g}" text-anchor="end">{end:.0f} s</text>')
    for line in lines:
        points = [place(x, y) for x, y in zip(line.xs, line.ys, strict=True) if math.isfinite(y)]
        parts.append(f'<polyline class="curve {line.style}" points="{" ".join(points)}"/>')
    return "".join([*parts, "</svg>"])


def nice_ticks(low: float, high: float) -> list[float]:
    """Three to five round numbers that span low .. high."""
    span = max(high - low, 1e-9 * abs(high), 1e-9)
    power = 10.0 ** math.floor(math.log10(span))
    step = next(power * factor for factor in (0.25, 0.5, 1.0, 2.0, 2.5, 5.0) if span / (power * factor) <= 3.2)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(place * step, 12) for place in range(first, max(last, first + 1) + 1)]


def scatter(points: Sequence[Point], colours: Mapping[str, int]) -> str:
    """Items in a plane, of the classes that have a colour; a class of one letter is drawn as that letter."""
    points = [point for point in points if point.label in colours]
    xs, ys = [point.x for point in points], [point.y for point in points]
    scale = 284 / max(max(xs) - min(xs), max(ys) - min(ys), 1e-9)
    middle = (max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2
    parts = ['<svg class="cloud" viewBox="-150 -150 300 300" role="img">']
    for point in points:
        x, y = (point.x - middle[0]) * scale, (point.y - middle[1]) * scale
        kind, label = f"k{colours[point.label]}", escape(point.label)
        if len(point.label) == 1:
            parts.append(f'<text class="{kind}" x="{x:.0f}" y="{y:.0f}" dy=".35em" text-anchor="middle">{label}</text>')
        else:
            parts.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="2.9"><title>{label}</title></circle>')
    return "".join([*parts, "</svg>"])


def score_chart(outcomes: Sequence[Outcome]) -> str:
    """Linear probes before (a ring) and after (a disc), with chance as a tick; one row a run."""
    width, left, right, row, gap = 824.0, 118.0, 64.0, 36.0, 18.0
    groups = [
        number for number, each in enumerate(outcomes) if each.modality != outcomes[number - 1].modality or not number
    ]
    height = row * len(outcomes) + gap * len(groups) + 24

    def across(share: float) -> float:
        return left + (width - left - right) * share

    parts = [f'<svg class="scores" viewBox="0 0 {width:g} {height:g}" role="img">']
    for tick in (0, 25, 50, 75, 100):
        x = across(tick / 100)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="{height - 22:g}"/>')
        parts.append(
            f'<text x="{x:.1f}" y="{height - 6:g}" text-anchor="middle">{tick}{" %" if tick == 100 else ""}</text>'
        )
    for number, each in enumerate(outcomes):
        y, score = row * (number + 0.5) + gap * sum(first <= number for first in groups) - 4, each.linear
        before, after, chance = across(score.before), across(score.after), across(1 / each.classes)
        parts += [
            f'<text class="name" x="0" y="{y:.1f}" dy=".35em">{each.modality if number in groups else ""}</text>',
            f'<text x="{left - 14:g}" y="{y:.1f}" dy=".35em" text-anchor="end">{each.method}</text>',
            f'<line class="chance" x1="{chance:.1f}" x2="{chance:.1f}" y1="{y - 7:.1f}" y2="{y + 7:.1f}"/>',
            f'<line class="gain {each.method}" x1="{before:.1f}" x2="{after:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>',
            f'<circle class="before" cx="{before:.1f}" cy="{y:.1f}" r="5"><title>untrained</title></circle>',
            f'<circle class="after {each.method}" cx="{after:.1f}" cy="{y:.1f}" r="6"/>',
            f'<text x="{before:.1f}" y="{y - 11:.1f}" text-anchor="middle">{100 * score.before:.0f}</text>',
            f'<text class="value" x="{after + 13:.1f}" y="{y:.1f}" dy=".35em">{percent(score.after)}</text>',
        ]
    return "".join([*parts, "</svg>"])
