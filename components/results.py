"""Artifacts of a step that the page of Kubeflow Pipelines renders: metrics, HTML and Markdown."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from model.files import write_text

METRICS, HTML, MARKDOWN = "metrics", "html", "markdown"
SUFFIXES = {METRICS: ".json", HTML: ".html", MARKDOWN: ".md"}
"""Output artifact of a component -> suffix of its file on this machine; KFP names files without one."""


class OutputArtifact(Protocol):
    """The part of a KFP output artifact that a step uses."""

    path: str
    metadata: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Results:
    """Results of a step for people.

    Attributes:
        metrics: Metrics that are compared across runs. Values that are not finite are left out: KFP cannot store them.
        html: A self-contained page; `None` for none.
        markdown: Text of a few lines; '' for none.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    html: Path | None = None
    markdown: str = ""

    def write(self, artifacts: Mapping[str, OutputArtifact]) -> None:
        """Writes the results to the output artifacts, each named after its attribute here."""
        metrics = {name: float(value) for name, value in self.metrics.items() if math.isfinite(value)}
        contents = {
            METRICS: json.dumps(metrics, indent=1),
            HTML: self.html.read_text("utf-8") if self.html else "",
            MARKDOWN: self.markdown,
        }
        for name, artifact in artifacts.items():
            write_text(Path(artifact.path), contents[name])
        if METRICS in artifacts:
            artifacts[METRICS].metadata.update(metrics)


def keep_results(outputs: Path, folder: Path) -> None:
    """Copies the results of a run's steps to `<folder>/<step>.<suffix>`, where people find and can open them.

    Args:
        outputs: KFP's folder of output artifacts, `<run>/<task>/<artifact>`.
        folder: Created if there are results.
    """
    for path in outputs.glob("*/*/*"):
        if path.name in SUFFIXES and path.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            write_text(folder / f"{path.parent.name}{SUFFIXES[path.name]}", path.read_text("utf-8"))
