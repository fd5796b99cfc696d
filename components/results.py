"""Artifacts of a step that the page of Kubeflow Pipelines renders: metrics, HTML, Markdown and models."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from model.files import write_text

METRICS, HTML, MARKDOWN, MODEL = "metrics", "html", "markdown", "model"
SUFFIXES = {METRICS: ".json", HTML: ".html", MARKDOWN: ".md", MODEL: ".json"}
"""Output artifact of a component -> suffix of its file on this machine; KFP names files without one."""
MAX_HTML_BYTES = 20_000_000
"""Largest HTML artifact that is stored whole. The page of Kubeflow Pipelines loads it as one text and sets no limit
itself (`getHtmlViewerConfig` in frontend/src/components/viewers/MetricsVisualizations.tsx of kubeflow/pipelines)."""
MAX_MARKDOWN_CHARACTERS = 400_000
"""Length beyond which the page cuts texts off (`MAX_MARKDOWN_STR_LENGTH` in
frontend/src/components/viewers/MarkdownViewer.tsx)."""
DATA_URL = re.compile(r'"data:(?:audio|image)/[\w.+-]+;base64,[A-Za-z0-9+/=]*"')


class OutputArtifact(Protocol):
    """The part of a KFP output artifact that a step uses."""

    path: str
    uri: str
    metadata: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Results:
    """Human-readable results of a step.

    Attributes:
        metrics: Metrics that are compared across runs. Values that are not finite are left out: KFP cannot store them.
        html: A self-contained page; `None` for none.
        markdown: Text of a few lines; '' for none.
        model: Address of a registered model version, which becomes the artifact's; '' for none.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    html: Path | None = None
    markdown: str = ""
    model: str = ""

    def write(self, artifacts: Mapping[str, OutputArtifact]) -> None:
        """Writes the results to the output artifacts, each named after its attribute here."""
        metrics = {name: float(value) for name, value in self.metrics.items() if math.isfinite(value)}
        contents = {
            METRICS: json.dumps(metrics, indent=1),
            HTML: fit_html(self.html) if self.html else "",
            MARKDOWN: self.markdown[:MAX_MARKDOWN_CHARACTERS],
            MODEL: json.dumps({"uri": self.model}),
        }
        for name, artifact in artifacts.items():
            write_text(Path(artifact.path), contents[name])
        if METRICS in artifacts:
            artifacts[METRICS].metadata.update(metrics)
        if MODEL in artifacts:
            artifacts[MODEL].uri = self.model  # after its path, which follows from the address, was used


def fit_html(path: Path, limit: int = MAX_HTML_BYTES) -> str:
    """Returns a self-contained page, without the last of its recordings and images if it is too large to be shown.

    Args:
        path: The page.
        limit: Largest size in bytes.
    """
    page = path.read_text("utf-8")
    size = len(page.encode())
    if size <= limit:
        return page
    note = "<p><b>{} recordings and images were left out, since the page is too large: the whole is {}</b></p>"
    left_out, kept_until = 0, len(page)
    excess = size - limit + len(note.encode()) + len(str(path).encode()) + 20
    embedded = list(DATA_URL.finditer(page))
    while excess > 0 and embedded:
        last = embedded.pop()
        excess -= len(last.group()) - 2
        left_out, kept_until = left_out + 1, last.start()
    head, tail = page[:kept_until], DATA_URL.sub('""', page[kept_until:])
    return re.sub(r"(<body[^>]*>|\A(?!.*<body))", lambda at: at[0] + note.format(left_out, path), head, count=1) + tail


def keep_results(outputs: Path, folder: Path) -> None:
    """Copies the human-readable results of a run's steps to `<folder>/<step>.<suffix>`.

    Args:
        outputs: KFP's folder of output artifacts, `<run>/<task>/<artifact>`.
        folder: Created if there are results.
    """
    for path in outputs.glob("*/*/*"):
        if path.name in SUFFIXES and path.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            name = path.parent.name.replace("-", "_")
            write_text(folder / f"{name}{SUFFIXES[path.name]}", path.read_text("utf-8"))
