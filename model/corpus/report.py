"""The validation report: `report.json` for programs, `report.html` (one self-contained page) for people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

REPORT_JSON, REPORT_HTML = "report.json", "report.html"
_BARS = 20

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Corpus {{ name }}: validation</title>
<style>
  :root { --ink: #1c2330; --soft: #5d6778; --line: #dfe3ea; --good: #1a7f4b; --bad: #b3261e; --bar: #4a6fa5; }
  body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); max-width: 62rem; margin: 2rem auto; padding: 1rem }
  h1 { font-size: 1.5rem; margin-bottom: .2rem } h2 { font-size: 1.1rem; margin-top: 2rem }
  .verdict { padding: .7rem 1rem; border-left: 4px solid; border-radius: 4px; background: #f6f7f9 }
  .passed { border-color: var(--good) } .failed { border-color: var(--bad) }
  table { border-collapse: collapse; width: 100%; font-size: .92rem }
  th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top }
  th { color: var(--soft); font-weight: 600 } td.number { text-align: right; font-variant-numeric: tabular-nums }
  .bad { color: var(--bad) } .note { color: var(--soft) } .columns { display: flex; gap: 3rem; flex-wrap: wrap }
  .columns > div { flex: 1 1 18rem } rect { fill: var(--bar) } svg text { font-size: 11px; fill: var(--soft) }
</style>
</head>
<body>
<h1>Corpus {{ name }}</h1>
<p class="verdict {{ 'passed' if report.passed else 'failed' }}">{{ report.verdict }}</p>
<div class="columns">
{% for title, groups in (("Speakers", report.totals.speakers), ("Languages", report.totals.languages)) %}
  <div><h2>{{ title }}</h2>
  <table><tr><th>name</th><th>clips</th><th>minutes</th></tr>
  {% for group, total in groups.items() %}
  <tr><td>{{ group }}</td><td class="number">{{ total.clips }}</td>
    <td class="number">{{ "%.1f" | format(total.seconds / 60) }}</td></tr>
  {% endfor %}</table></div>
{% endfor %}
  <div><h2>Findings by reason</h2>
  <table><tr><th>reason</th><th>count</th></tr>
  {% for reason, count in report.bad_by_reason.items() %}
  <tr class="bad"><td>{{ reason }}</td><td class="number">{{ count }}</td></tr>{% endfor %}
  {% for reason, count in report.notes_by_reason.items() %}
  <tr class="note"><td>{{ reason }} (kept)</td><td class="number">{{ count }}</td></tr>{% endfor %}
  {% if not report.problems %}<tr><td colspan="2">none</td></tr>{% endif %}
  </table></div>
</div>
<h2>Durations of the kept clips</h2>
<svg viewBox="0 0 640 170" width="100%" role="img" aria-label="Histogram of clip durations in seconds">
{% for bar in bars %}
  <rect x="{{ bar.x }}" y="{{ 130 - bar.height }}" width="{{ bar.width }}" height="{{ bar.height }}">
    <title>{{ bar.label }}: {{ bar.count }} clips</title></rect>
  {% if bar.count %}<text x="{{ bar.x + bar.width / 2 }}" y="{{ 125 - bar.height }}" text-anchor="middle">{{ bar.count
    }}</text>{% endif %}
{% endfor %}
  <text x="0" y="150">{{ "%.1f" | format(low) }} s</text>
  <text x="640" y="150" text-anchor="end">{{ "%.1f" | format(high) }} s</text>
</svg>
<h2>Flagged clips</h2>
{% if report.problems %}
<table><tr><th></th><th>reason</th><th>clip</th><th>file</th><th>what</th></tr>
{% for problem in report.problems %}
<tr><td class="{{ problem.severity }}">{{ "left out" if problem.severity == "bad" else "kept" }}</td>
  <td>{{ problem.reason }}</td><td>{{ problem.id }}</td><td>{{ problem.file }}</td><td>{{ problem.detail }}</td></tr>
{% endfor %}</table>
{% else %}<p>None.</p>{% endif %}
</body>
</html>
"""


def write_report(folder: Path, report: dict[str, Any], name: str) -> None:
    """Write both forms of a report (`ValidationReport.as_dict`) into `folder`."""
    from jinja2 import Environment

    (folder / REPORT_JSON).write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", "utf-8")
    low, high, bars = _histogram(report["totals"]["durations"])
    template = Environment(autoescape=True, trim_blocks=True).from_string(_PAGE)
    (folder / REPORT_HTML).write_text(
        template.render(name=name, report=report, low=low, high=high, bars=bars), encoding="utf-8"
    )


def _histogram(durations: list[float]) -> tuple[float, float, list[dict[str, Any]]]:
    """Smallest and largest duration, and bars in a picture of 640 x 130."""
    if not durations:
        return 0.0, 0.0, []
    low, high = min(durations), max(durations)
    step = (high - low) / _BARS or 1.0
    counts = [0] * _BARS
    for seconds in durations:
        counts[min(_BARS - 1, int((seconds - low) / step))] += 1
    width = 640 / _BARS
    return (
        low,
        high,
        [
            {
                "x": round(index * width + 1, 1),
                "width": round(width - 2, 1),
                "height": round(110 * count / max(counts), 1),
                "count": count,
                "label": f"{low + index * step:.1f} to {low + (index + 1) * step:.1f} s",
            }
            for index, count in enumerate(counts)
        ],
    )
