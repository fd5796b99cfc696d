"""The validation report: `report.json`, `metrics.json`, and a page with plots and players."""

from __future__ import annotations

import base64
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from model.audio.io import AudioError, read_audio
from model.config.data import ValidationConfig
from model.corpus.manifest import Clip
from model.corpus.plots import histogram, ranges, scatter
from model.corpus.problems import BAD, NOTE, SUSPECT
from model.files import write_json, write_text
from model.pages import render

REPORT_JSON, REPORT_HTML, METRICS_JSON = "report.json", "report.html", "metrics.json"
_ACTIONS = {BAD: "left out", SUSPECT: "listen", NOTE: "kept"}
_PLAYER_RATE = 16000
_MAX_PLAYERS = 24
"""Flagged clips that the page can play, the worst first."""
_MAX_SPEAKERS = 40
"""Speakers in the plot of levels: those with the most clips."""


def write_report(
    folder: Path,
    report: dict[str, Any],
    name: str,
    rows: Sequence[Mapping[str, Any]],
    clips: Mapping[str, tuple[Clip, Path]],
    limits: ValidationConfig,
) -> None:
    """Writes a report into `folder`.

    Args:
        report: `ValidationReport.as_dict`.
        name: Of the corpus.
        rows: Metrics of the readable clips.
        clips: Clip and its audio file by id.
        limits: Thresholds to mark in the plots.
    """
    write_json(folder / REPORT_JSON, report)
    write_json(folder / METRICS_JSON, corpus_metrics(report, rows))
    flagged = dict.fromkeys(problem["id"] for problem in report["problems"] if problem["severity"] != NOTE)
    audible = [clip for clip in flagged if clip in clips][:_MAX_PLAYERS]
    page = render(
        Path(__file__).with_name(REPORT_HTML),
        name=name,
        report=report,
        actions=_ACTIONS,
        plots=_plots(rows, limits),
        texts={problem["id"]: clips[problem["id"]][0].text for problem in report["problems"] if problem["id"] in clips},
        players={clip: _player(clips[clip][1]) for clip in audible},
    )
    write_text(folder / REPORT_HTML, page)


def corpus_metrics(report: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the metrics of a corpus that `dvc metrics diff` compares between versions."""

    def median(key: str) -> float:
        return round(float(np.median([row[key] for row in rows])), 2) if rows else 0.0

    return {
        "clips": report["clips"],
        "kept": report["kept"],
        "minutes": round(report["totals"]["seconds"] / 60, 2),
        "speakers": len(report["totals"]["speakers"]),
        "languages": len(report["totals"]["languages"]),
        "findings": report["findings"],
        "median": {key: median(key) for key in ("seconds", "characters_per_second", "level", "contrast")},
        "level_spread": round(float(np.std([row["level"] for row in rows])), 2) if rows else 0.0,
    }


def _plots(rows: Sequence[Mapping[str, Any]], limits: ValidationConfig) -> dict[str, str]:
    """Returns the plots of the report by title, empty where there is nothing to show."""
    points: dict[str, list[tuple[float, float]]] = defaultdict(list)
    levels: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        length = row["characters_per_second"] * row["seconds"]
        points[row["language"]].append((row["seconds"], length))
        levels[row["speaker"]].append(row["level"])
    most = sorted(levels, key=lambda speaker: -len(levels[speaker]))[:_MAX_SPEAKERS]
    similarities = [row["speaker_similarity"] for row in rows if row["speaker_similarity"] != ""]
    return {
        "Duration": histogram([row["seconds"] for row in rows], "seconds"),
        "Text against duration": scatter(points, "seconds", "letters"),
        "Speech above the quietest frames": histogram([row["contrast"] for row in rows], "dB", limits.min_contrast_db),
        "Level by speaker": ranges({speaker: levels[speaker] for speaker in sorted(most)}, "dB full scale"),
        "Similarity to the speaker's other clips": histogram(similarities, "cosine", limits.min_speaker_similarity),
    }


def _player(path: Path) -> str:
    """Returns a recording as MP3 in base64 for the page; empty if it is unreadable. (Ogg has random serial numbers.)"""
    try:
        samples = read_audio(path, _PLAYER_RATE)
    except AudioError:
        return ""  # the page shows the problem instead
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, _PLAYER_RATE, format="MP3", subtype="MPEG_LAYER_III")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
