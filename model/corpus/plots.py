"""Plots of a corpus as SVG, drawn without a library: they stand in one page that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

WIDTH, HEIGHT = 620, 220
LEFT, BOTTOM, TOP, RIGHT = 48, 34, 10, 12
BARS = 24
MOST_POINTS = 3000
"""Of more points every n-th is drawn."""
COLOURS = ("#3566a8", "#c4572b", "#3b8a57", "#8a4fa0", "#a88a1e", "#2b8f9b", "#b23a6a", "#5b5f66", "#6b8e23", "#9c6644")


def histogram(values: Sequence[float], unit: str, mark: float | None = None) -> str:
    """How often values of a kind occur; `mark` is a threshold, drawn as a line."""
    values = np.asarray(values, dtype=float)
    if not len(values):
        return ""
    low, high = _range([*values, *([mark] if mark is not None else [])])
    counts, edges = np.histogram(values, BARS, (low, high))
    x, y = _axis(low, high, LEFT, WIDTH - RIGHT), _axis(0, max(counts), HEIGHT - BOTTOM, TOP)
    shapes = [
        f'<rect x="{x(a) + 0.5:.1f}" y="{y(count):.1f}" width="{x(b) - x(a) - 1:.1f}" '
        f'height="{HEIGHT - BOTTOM - y(count):.1f}" fill="{COLOURS[0]}"><title>{a:.1f} to {b:.1f} {escape(unit)}: '
        f"{count} clips</title></rect>"
        for count, a, b in zip(counts, edges[:-1], edges[1:], strict=True)
    ]
    if mark is not None:
        shapes.append(f'<line x1="{x(mark):.1f}" x2="{x(mark):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" class="mark"/>')
    return _drawing([*_ticks(x, low, high, unit), *_levels(y, 0, max(counts), "clips"), *shapes])


def scatter(points: Mapping[str, Sequence[tuple[float, float, str]]], x_unit: str, y_unit: str) -> str:
    """Points (x, y, name) of several groups, each group in its colour with a legend."""
    everything = [point for group in points.values() for point in group]
    if not everything:
        return ""
    (low, high), (bottom, top) = _range([p[0] for p in everything]), _range([p[1] for p in everything])
    x, y = _axis(low, high, LEFT, WIDTH - RIGHT), _axis(bottom, top, HEIGHT - BOTTOM, TOP)
    step = math.ceil(len(everything) / MOST_POINTS)
    shapes = []
    for number, (name, group) in enumerate(points.items()):
        colour = COLOURS[number % len(COLOURS)]
        shapes += [
            f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="2.6" fill="{colour}" fill-opacity=".6">'
            f"<title>{escape(label)}: {a:.1f} {escape(x_unit)}, {b:.0f} {escape(y_unit)}</title></circle>"
            for a, b, label in group[::step]
        ]
        shapes.append(
            f'<text x="{LEFT + 8 + 46 * number}" y="{TOP + 10}" style="fill: {colour}" class="legend">'
            f"{escape(name)}</text>"
        )
    return _drawing([*_ticks(x, low, high, x_unit), *_levels(y, bottom, top, y_unit), *shapes])


def strips(groups: Mapping[str, Sequence[float]], unit: str) -> str:
    """One row a group: a line from the 5th to the 95th percentile of its values, a dot at the median."""
    groups = {name: values for name, values in groups.items() if len(values)}
    if not groups:
        return ""
    low, high = _range([value for values in groups.values() for value in values])
    height, left = 16 * len(groups) + BOTTOM, 180
    x = _axis(low, high, left, WIDTH - RIGHT)
    shapes = []
    for row, (name, values) in enumerate(groups.items()):
        a, middle, b = np.percentile(values, (5, 50, 95))
        y = 16 * row + 10
        shapes.append(
            f'<text x="{left - 8}" y="{y + 4}" text-anchor="end">{escape(name[-30:])}</text>'
            f'<line x1="{x(a):.1f}" x2="{x(b):.1f}" y1="{y}" y2="{y}" stroke="{COLOURS[0]}" stroke-width="5" '
            f'stroke-opacity=".45"/><circle cx="{x(middle):.1f}" cy="{y}" r="4" fill="{COLOURS[0]}"><title>'
            f"{escape(name)}: median {middle:.1f} {escape(unit)}, {len(values)} clips</title></circle>"
        )
    return _drawing([*_ticks(x, low, high, unit, height - BOTTOM), *shapes], height)


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = float(min(values)), float(max(values))
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _axis(low: float, high: float, start: float, end: float):
    return lambda value: start + (float(value) - low) / max(high - low, 1e-9) * (end - start)


def _round_steps(low: float, high: float) -> list[float]:
    """Some five round values between the two."""
    rough = max(high - low, 1e-9) / 5
    scale = 10 ** math.floor(math.log10(rough))
    step = next(factor * scale for factor in (1, 2, 5, 10) if factor * scale >= rough)
    return [step * number for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _ticks(x, low: float, high: float, unit: str, base: float = HEIGHT - BOTTOM) -> list[str]:
    shapes = [
        f'<text x="{x(value):.1f}" y="{base + 14}" text-anchor="middle">{value:g}</text>'
        for value in _round_steps(low, high)
    ]
    return [*shapes, f'<text x="{WIDTH - RIGHT}" y="{base + 29}" text-anchor="end">{escape(unit)}</text>']


def _levels(y, low: float, high: float, unit: str) -> list[str]:
    shapes = [
        f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>'
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}" class="grid"/>'
        for value in _round_steps(low, high)
    ]
    return [*shapes, f'<text x="{LEFT - 40}" y="{HEIGHT - 6}">{escape(unit)}</text>']


def _drawing(shapes: Sequence[str], height: float = HEIGHT) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" width="100%" role="img">{"".join(shapes)}</svg>'
