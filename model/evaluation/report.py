"""Listening report: one self-contained HTML page with the metrics, the audio and the spectrograms of every sentence."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from model.evaluation.metric_table import GATE_METRICS, METRIC_TABLE
from model.evaluation.metrics import mean_of
from model.evaluation.results import KINDS, PARTS, RECORDING, SYNTHESIZED, SentenceResult
from model.evaluation.texts import SpokenText
from model.files import write_text
from model.pages import audio_url, data_url, render

KIND_NAMES = dict(zip(KINDS, ("Recording", "Copy-synthesis", "Synthesized"), strict=True))
PART_NAMES = dict(zip(PARTS, ("Unseen sentences", "Training sentences"), strict=True))
INTELLIGIBILITY = ("character_error", "phone_error")
"""Metrics that are shown as bars."""
MEL_RANGE = (-11.0, 1.5)
"""Log-mel values at both ends of the color map."""


def write_report(
    path: Path,
    result: Mapping[str, Any],
    sentences: Sequence[SentenceResult],
    texts: Sequence[SpokenText],
    *,
    about: Mapping[str, str],
    sample_rate: int,
    recognizer: str,
    vocoder: str,
) -> Path:
    """Writes the report atomically.

    Args:
        path: The HTML file.
        result: As returned by `evaluate_voice`.
        sentences: The same sentences with audio and spectrograms.
        texts: Texts without recordings, with audio.
        about: Entries of the header, such as voice, data and date: label -> text; the first one is the title.
        sample_rate: Of the audio, in Hz.
        recognizer, vocoder: Their names.
    """
    page = render(
        Path(__file__).with_name("report.html"),
        {"value": format_value, "interval": format_interval},
        title=next(iter(about.values()), "a voice"),
        about=about,
        result=result,
        sentences=[_sentence(sentence, sample_rate) for sentence in sentences],
        texts=[{**text.as_dict(), "audio": audio_url(text.samples, sample_rate)} for text in texts],
        intelligibility=INTELLIGIBILITY,
        texts_errors={name: mean_of(getattr(text, name) for text in texts).as_dict() for name in INTELLIGIBILITY},
        kinds=KIND_NAMES,
        parts={part: name for part, name in PART_NAMES.items() if result[part]},
        counts={part: sum(sentence.part == part for sentence in sentences) for part in PART_NAMES},
        metrics={name: row for name, row in METRIC_TABLE.items() if any(name in result[part] for part in PART_NAMES)},
        gate={name: METRIC_TABLE[name] for name in GATE_METRICS},
        languages=sorted({sentence.clip.language for sentence in sentences}),
        speakers=sorted({sentence.clip.speaker for sentence in sentences}),
        notes=_notes(result),
        vocoder=vocoder,
        recognizer=recognizer,
        sample_rate=sample_rate,
    )
    return write_text(path, page)


def format_value(metric: Mapping[str, Any] | None, decimals: int) -> str:
    """Returns the value of a metric as text, or a dash where it does not apply."""
    return "–" if metric is None or metric["value"] is None else f"{metric['value']:.{decimals}f}"


def format_interval(metric: Mapping[str, Any] | None, decimals: int) -> str:
    """Returns the 95 % interval of a mean as text; empty where there is none."""
    if metric is None or not metric.get("interval"):
        return ""
    low, high = metric["interval"]
    return f"{low:.{decimals}f} to {high:.{decimals}f}"


def _notes(result: Mapping[str, Any]) -> list[str]:
    """Returns the reasons why metrics do not apply, each once with its number of sentences."""
    missing: Counter[tuple[str, str]] = Counter()
    for clip in result["clips"]:
        missing.update(
            {(name, m["reason"]) for name, kinds in clip["metrics"].items() for m in kinds.values() if m["reason"]}
        )
    notes = [f"{METRIC_TABLE[name].label}, {count} sentences: {reason}." for (name, reason), count in missing.items()]
    left_out = [f"{count} clips left out: {reason}." for reason, count in result["left_out"].items()]
    return [f"{note}." for note in result["few_clips"]] + sorted(notes) + left_out


def _sentence(sentence: SentenceResult, sample_rate: int) -> dict[str, Any]:
    assert sentence.soft_alignment is not None
    images = [
        ("Mel spectrogram, recording", _image(sentence.mels[RECORDING], "magma", MEL_RANGE)),
        ("Mel spectrogram, synthesized", _image(sentence.mels[SYNTHESIZED], "magma", MEL_RANGE)),
        ("Alignment of the recording", _image(np.sqrt(sentence.soft_alignment.clip(0.0, 1.0)), "viridis", (0.0, 1.0))),
    ]
    return {
        **sentence.as_dict(),
        "audio": {kind: audio_url(samples, sample_rate) for kind, samples in sentence.audio.items()},
        "seconds": {kind: len(samples) / sample_rate for kind, samples in sentence.audio.items()},
        "images": images,
        "phones": " ".join(sentence.speech.phones),
    }


def _image(values: np.ndarray, color_map: str, limits: tuple[float, float]) -> str:
    """Returns a PNG of (S, rows) values as a data URL; time runs to the right, rows run upwards."""
    from matplotlib.image import imsave  # imported here, because commands that only print metrics do not need it

    buffer = io.BytesIO()
    imsave(buffer, values.T, format="png", cmap=color_map, vmin=limits[0], vmax=limits[1], origin="lower")
    return data_url(buffer.getvalue(), "image/png")
