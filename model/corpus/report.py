"""The validation report: `report.json` and `metrics.json` for programs, one page with plots and players for people."""

from __future__ import annotations

import base64
import io
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from model.audio.io import AudioError, read_audio
from model.config.data import ValidationConfig
from model.corpus.manifest import Clip
from model.corpus.plots import histogram, scatter, strips
from model.corpus.problems import BAD, NOTE, SUSPECT

REPORT_JSON, REPORT_HTML, METRICS_JSON = "report.json", "report.html", "metrics.json"
_WORDS = {BAD: "left out", SUSPECT: "listen", NOTE: "kept"}
_PLAYER_RATE = 16000
_MOST_SPEAKERS = 40
"""Speakers in the plot of levels: those of the most clips."""


def write_report(
    folder: Path,
    report: dict[str, Any],
    name: str,
    rows: Sequence[Mapping[str, Any]],
    clips: Mapping[str, tuple[Clip, Path]],
    limits: ValidationConfig,
) -> None:
    """Write a report (`ValidationReport.as_dict`) into `folder`.

    Args:
        rows: The table of measures.
        clips: Id -> clip and its audio file; the page plays the first `validation.report_players` of those flagged.
    """
    from jinja2 import Environment

    _write_json(folder / REPORT_JSON, report)
    _write_json(folder / METRICS_JSON, metrics(report, rows))
    flagged = dict.fromkeys(problem["id"] for problem in report["problems"] if problem["severity"] != NOTE)
    audible = [clip for clip in flagged if clip in clips][: limits.report_players]
    template = Environment(autoescape=True, trim_blocks=True).from_string(
        (Path(__file__).parent / REPORT_HTML).read_text("utf-8")
    )
    page = template.render(
        name=name,
        report=report,
        words=_WORDS,
        drawings=_drawings(rows, limits),
        texts={problem["id"]: clips[problem["id"]][0].text for problem in report["problems"] if problem["id"] in clips},
        players={clip: _player(clips[clip][1]) for clip in audible},
    )
    (folder / REPORT_HTML).write_text(page, "utf-8")


def metrics(report: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The few numbers of a corpus that are worth comparing between versions of it (`dvc metrics diff`)."""

    def middle(key: str) -> float:
        return round(float(np.median([row[key] for row in rows])), 2) if rows else 0.0

    return {
        "clips": report["clips"],
        "kept": report["kept"],
        "minutes": round(report["totals"]["seconds"] / 60, 2),
        "speakers": len(report["totals"]["speakers"]),
        "languages": len(report["totals"]["languages"]),
        "findings": report["findings"],
        "median": {key: middle(key) for key in ("seconds", "characters_per_second", "level", "contrast")},
        "level_spread": round(float(np.std([row["level"] for row in rows])), 2) if rows else 0.0,
    }


def _drawings(rows: Sequence[Mapping[str, Any]], limits: ValidationConfig) -> dict[str, str]:
    points: dict[str, list] = defaultdict(list)
    levels: dict[str, list] = defaultdict(list)
    for row in rows:
        length = row["characters_per_second"] * row["seconds"]
        points[row["language"]].append((row["seconds"], length, row["id"]))
        levels[row["speaker"]].append(row["level"])
    most = sorted(levels, key=lambda speaker: -len(levels[speaker]))[:_MOST_SPEAKERS]
    similar = [row["speaker_similarity"] for row in rows if row["speaker_similarity"] != ""]
    return {
        "Duration": histogram([row["seconds"] for row in rows], "seconds"),
        "Text against duration": scatter(points, "seconds", "letters"),
        "Speech above the quietest frames": histogram([row["contrast"] for row in rows], "dB", limits.min_contrast_db),
        "Level by speaker": strips({speaker: levels[speaker] for speaker in sorted(most)}, "dB full scale"),
        "Similarity to the speaker's other clips": histogram(similar, "cosine", limits.min_speaker_similarity),
    }


def _player(path: Path) -> str:
    """A recording for the page as MP3 (its bytes repeat, those of Ogg do not), base64; empty where it is unreadable."""
    try:
        samples = read_audio(path, _PLAYER_RATE)
    except AudioError:
        return ""  # the finding beside it says so
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, _PLAYER_RATE, format="MP3", subtype="MPEG_LAYER_III")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", "utf-8")
