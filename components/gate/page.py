"""Page of a decision: its reasons, and candidate and champion side by side, the largest regression first."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.gate.checks import NOT_APPLICABLE
from components.gate.comparison import COMPARED, WITHOUT_RECORDING, Evaluation
from components.gate.examination import VoiceEvaluation
from model.evaluation.metric_table import METRIC_TABLE
from model.files import write_text
from model.pages import data_url, render

KINDS = {"candidate": "Candidate", "champion": "Champion", "recording": "Recording"}


def write_page(
    path: Path, report: Mapping[str, Any], candidate: VoiceEvaluation, champion: VoiceEvaluation | None
) -> Path:
    """Writes the page of a decision.

    Args:
        path: The HTML file.
        report: The gate's report, as in `gate.json`.
        candidate: Evaluation of the candidate.
        champion: Evaluation of the champion on the same sentences; None where there is none to compare with.
    """
    margins = {row["metric"]: row["margin"] for row in report["comparisons"] if row["result"] != NOT_APPLICABLE}
    page = render(
        Path(__file__).with_name("decision.html"),
        {"number": format_number, "interval": format_interval, "check_name": check_name},
        report=report,
        metrics=METRIC_TABLE,
        kinds=KINDS,
        sentences=_sentences(candidate, champion, margins),
        failed=[check for check in report["checks"] if check["result"] == "fail"],
    )
    return write_text(path, page)


def check_name(name: str) -> str:
    """Returns the name of a check with the label of its metric, as the tables have it."""
    metric, against, version = name.partition(" against ")
    description = METRIC_TABLE.get(metric.replace(" ", "_"))
    return f"{description.label}{against}{version}" if description else name


def format_number(value: float | None, decimals: int) -> str:
    """Returns a value as text, or a dash where there is none."""
    return "–" if value is None else f"{value:.{decimals}f}"


def format_interval(row: Mapping[str, Any], decimals: int) -> str:
    """Returns the difference of a comparison with its interval."""
    if row["difference"] is None:
        return "–"
    shown = f"{row['difference']:+.{decimals}f}"
    return shown if row["low"] is None else f"{shown} ({row['low']:+.{decimals}f} to {row['high']:+.{decimals}f})"


def _sentences(
    candidate: VoiceEvaluation, champion: VoiceEvaluation | None, margins: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Returns the sentences of both voices with their audio, the largest regression in margins first."""
    theirs = _items(champion.metrics) if champion else {}
    rows = []
    for key, ours in _items(candidate.metrics).items():
        other = theirs.get(key)
        if champion and other is None:
            continue
        metric, regression = _largest_regression(ours, other, margins)
        rows.append(
            {
                "text": ours["text"],
                "language": ours["language"],
                "speaker": ours.get("speaker", ""),
                "metric": metric,
                "regression": regression,
                "values": {name: (_value(ours, name), _value(other, name)) for name in COMPARED},
                "audio": {
                    "candidate": _audio(candidate.folder, ours, "synthesised"),
                    "champion": _audio(champion.folder, other, "synthesised") if champion and other else "",
                    "recording": _audio(candidate.folder, ours, "recording"),
                },
            }
        )
    return sorted(rows, key=lambda row: row["regression"], reverse=True)


def _items(evaluation: Evaluation) -> dict[str, dict[str, Any]]:
    """Returns unseen clips by id, and texts without recordings by their hash."""
    clips = {clip["id"]: clip for clip in evaluation["clips"] if clip["part"] == "unseen"}
    return {**clips, **{f"text {text['sentence']}": text for text in evaluation["texts"]}}


def _value(item: Mapping[str, Any] | None, metric: str) -> float | None:
    if item is None:
        return None
    if "metrics" not in item:  # a text without a recording
        item = {"metrics": {name: {"synthesised": item.get(name, {})} for name in WITHOUT_RECORDING}}
    value: float | None = item["metrics"].get(metric, {}).get("synthesised", {}).get("value")
    return value


def _largest_regression(
    ours: Mapping[str, Any], other: Mapping[str, Any] | None, margins: Mapping[str, float]
) -> tuple[str, float]:
    """Returns the metric in which a sentence lost most, and the loss in margins; ('', 0) where nothing compares."""
    losses = [("", 0.0)]
    for metric, margin in margins.items():
        mine, theirs = _value(ours, metric), _value(other, metric)
        if mine is not None and theirs is not None:
            losses.append((metric, METRIC_TABLE[metric].worsening(mine - theirs) / margin))
    return max(losses[1:] or losses, key=lambda loss: loss[1])


def _audio(folder: Path, item: Mapping[str, Any], kind: str) -> str:
    """Returns the audio of a sentence as a data URL; '' where there is none."""
    name = item.get("audio", {}).get(kind, "")
    path = folder / name
    return data_url(path.read_bytes(), "audio/flac") if name and path.is_file() else ""
