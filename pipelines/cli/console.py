"""Terminal output: one line per pipeline step, a progress bar, and findings of the diagnosis."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import click

from model.diagnosis.checklist import Finding
from pipelines.run_records import StepRecord

MARKS = {"cached": ("=", "cyan"), "done": ("+", "green"), "failed": ("x", "red"), "interrupted": ("!", "yellow")}
BAR = 30
QUIET_INTERVAL = 15.0
"""Seconds between progress lines where the output is not a terminal."""


class Console:
    """Progress of one run on standard error; `report` and `output` are callbacks of `pipelines.local.run_training`."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._open = False
        self._last = time.monotonic()
        self._started = 0.0

    def report(self, name: str, step: StepRecord, details: Mapping[str, Any]) -> None:
        """Shows that a step changed its state or made progress."""
        if step.state == "running":
            if "done" in details:
                self._progress(name, details)
            else:
                self._started = self._last = time.monotonic()
                self._draw(f"  > {name}")
            return
        mark, color = MARKS[step.state]
        seconds = "cached" if step.state == "cached" else f"{step.seconds:.1f} s"
        message = "" if step.state == "failed" else step.message  # the error of the run follows
        self._line(f"  {click.style(mark, fg=color)} {name:<16} {seconds:>8}  {message}".rstrip())

    def output(self, line: str) -> None:
        """Shows any other line that a step wrote."""
        if line:
            self._line(click.style(f"      {line}", dim=True))

    def _progress(self, name: str, details: Mapping[str, Any]) -> None:
        done, total = details["done"], max(details["total"], 1)
        shown = ((key, value) for key, value in details.items() if key not in ("done", "total"))
        values = "  ".join(
            f"{key} {value:.3f}" if isinstance(value, float) else f"{value} {key}" for key, value in shown
        )
        if self._terminal:
            filled = BAR * done // total
            self._draw(f"  > {name:<16} [{'#' * filled}{'.' * (BAR - filled)}] {done}/{total}  {values}")
        elif time.monotonic() - self._last > QUIET_INTERVAL or done == total:
            self._last = time.monotonic()
            self._line(f"  > {name:<16} {done}/{total}  {time.monotonic() - self._started:.0f} s  {values}")

    def _draw(self, text: str) -> None:
        if self._terminal:
            click.echo(f"\r\033[K{text}", nl=False, err=True)
            self._open = True

    def _line(self, text: str) -> None:
        if self._open:
            click.echo("\r\033[K", nl=False, err=True)
            self._open = False
        click.echo(text, err=True)


def show_findings(findings: Sequence[Finding], as_json: bool) -> int:
    """Prints findings as JSON or text, and returns the exit status: 1 after a warning or an error."""
    if as_json:
        click.echo(json.dumps([vars(finding) for finding in findings], indent=1))
    else:
        for finding in findings:
            fix = f"\n{'':9}fix: {finding.fix}" if finding.fix else ""
            click.echo(f"{finding.severity:8} {finding.check}: {finding.evidence}{fix}")
    return int(any(finding.severity != "ok" for finding in findings))
