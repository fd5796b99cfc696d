"""Plots of a corpus as inline SVG for a self-contained page."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.typing import RcKeyType

BARS = 24
WIDTH = 4.8
"""Width of a plot in inches; narrow, so that its text can be read on a phone too."""
LONGEST_NAME = 26
"""Last characters of a name that are shown beside its row."""
MAX_POINTS = 3000
"""Largest number of points of a plot; of more, every n-th is drawn."""
INK, GRID, MARK, BARS_AND_POINTS = "#5d6778", "#dfe3ea", "#b3261e", "#1f77b4"
"""Colors of a light page; the last is matplotlib's first color."""
VARIABLES = {INK: "var(--soft)", GRID: "var(--line)", MARK: "var(--bad)", BARS_AND_POINTS: "var(--accent)"}
"""Color -> variable of the page's style sheet, which has another value in dark mode."""
_STYLE: dict[RcKeyType, Any] = {
    "svg.fonttype": "none",  # text stays text, in the fonts of the browser
    "svg.hashsalt": "myxtts",  # equal plots give equal files
    "text.parse_math": False,  # names may contain `$`
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": GRID,
}


def histogram(values: Sequence[float], unit: str, threshold: float | None = None) -> str:
    """Returns a histogram of values with an optional threshold as a line; '' without values."""
    if not len(values):
        return ""
    figure, axes = _new(unit, "clips")
    axes.hist(values, bins=BARS, rwidth=0.95)
    if threshold is not None:
        axes.axvline(threshold, color=MARK, linestyle="--", linewidth=1)
    return _svg(figure)


def scatter(points: Mapping[str, Sequence[tuple[float, float]]], x_unit: str, y_unit: str) -> str:
    """Returns a scatter plot of the points (x, y) of groups, with a legend of several; '' without points."""
    total = sum(map(len, points.values()))
    if not total:
        return ""
    figure, axes = _new(x_unit, y_unit)
    for name, group in points.items():
        x, y = np.array(group[:: -(-total // MAX_POINTS)]).T
        axes.plot(x, y, linestyle="", marker="o", markersize=3.5, alpha=0.6, markeredgewidth=0, label=name)
    if len(points) > 1:
        axes.legend(frameon=False, labelcolor="linecolor", ncols=len(points), loc="upper left", handletextpad=0)
    return _svg(figure)


def ranges(groups: Mapping[str, Sequence[float]], unit: str) -> str:
    """Returns one row per group, with the median of its values and a line from the 5th to the 95th percentile."""
    groups = {name: values for name, values in groups.items() if len(values)}
    if not groups:
        return ""
    names = [name[-LONGEST_NAME:] for name in groups]
    figure, axes = _new(unit, "", height=0.6 + 0.18 * len(groups), left=0.3 + 0.07 * max(map(len, names)))
    low, middle, high = np.array([np.percentile(values, (5, 50, 95)) for values in groups.values()]).T
    rows = np.arange(len(groups))
    axes.hlines(rows, low, high, linewidth=4, alpha=0.45)
    axes.plot(middle, rows, linestyle="", marker="o", markersize=5)
    axes.set_yticks(rows, names)
    axes.set_ylim(len(groups) - 0.5, -0.5)
    return _svg(figure)


def _new(x_unit: str, y_unit: str, height: float = 2.4, left: float = 0.6) -> tuple[Figure, Axes]:
    """Returns an empty figure of a height and a left margin in inches, and its axes."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure  # slow to load, and only the report needs it

    with rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH, height))
        # fixed margins: a layout engine would take as long as the plot
        margins = {"left": left / WIDTH, "right": 0.98, "bottom": 0.45 / height, "top": 1 - 0.1 / height}
        axes = figure.subplots(gridspec_kw=margins)
        axes.set(xlabel=x_unit, ylabel=y_unit)
        axes.grid(axis="y" if y_unit else "x", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(length=0)
    return figure, axes


def _svg(figure: Figure) -> str:
    """Returns a figure as an `<svg>` element for HTML: without header, metadata and namespaces."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # the browser has the fonts of the page
        figure.savefig(
            buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
        )
    element = re.sub(r' xmlns(:xlink)?="[^"]*"', "", buffer.getvalue().partition("<svg")[2])
    for color, variable in VARIABLES.items():
        element = element.replace(color, variable)
    return f'<svg role="img" style="width: 100%; height: auto"{element}'
