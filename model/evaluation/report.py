"""The listening report: one self-contained page with the measures, and every sentence to hear and see."""

from __future__ import annotations

import base64
import io
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
import soundfile

from model.config.evaluation import EvaluateSettings
from model.evaluation.evaluated import Evaluated

if TYPE_CHECKING:
    from model.features.store import FeatureStore

KIND_NAMES = {"recording": "Recording", "copy_synthesis": "Copy-synthesis", "synthesised": "Synthesised"}
PART_NAMES = {"unseen": "Unseen sentences", "training": "Training sentences"}
MEASURES = {
    "character_error": ("Character error rate", "share of letters misheard by the recogniser; lower is better", 3),
    "mel_cepstral_distortion": ("Mel-cepstral distortion", "dB between the spectra, time-aligned; lower is better", 2),
    "pitch_error": ("Pitch error", "cents (100 = a semitone) where both are voiced; lower is better", 0),
    "voicing_error": ("Voicing error", "share of frames voiced in one only; lower is better", 3),
    "pitch_frame_error": ("Pitch frame error", "share of frames with wrong voicing or pitch; lower is better", 3),
    "pitch_range": ("Pitch range", "semitones of deviation; less than the recording's is monotone", 2),
    "speaker_similarity": (
        "Speaker similarity",
        "cosine (Resemblyzer) with the speaker's other clips; higher is better",
        3,
    ),
    "speaker_identified": (
        "Speaker identified",
        "share that no other speaker heard here is nearer to; higher is better",
        3,
    ),
    "duration_error": ("Duration error", "frames per token against the aligned recording; lower is better", 2),
    "length_error": ("Length error", "relative difference of the total length; lower is better", 3),
    "alignment_coverage": ("Alignment coverage", "share of tokens with 1 to 40 frames; higher is better", 3),
    "alignment_sharpness": ("Alignment sharpness", "1 = each frame belongs to one token; higher is better", 3),
    "alignment_monotonicity": ("Alignment monotonicity", "share of frames in reading order; higher is better", 3),
    "boundary_error": ("Boundary error", "frames between aligned and true phone times; lower is better", 2),
}
"""Measure -> its name, what it says, and the decimals worth showing."""
GATE_NAMES = {
    "mel_cepstral_distortion": ("Mel-cepstral distortion", "dB", 2),
    "character_error_increase": ("Character error above the recordings'", "", 3),
    "alignment_monotonicity": ("Alignment monotonicity", "", 3),
}
QUIETEST, LOUDEST = -11.0, 1.5
"""Log-mel values shown as black and white."""


def write_report(
    path: Path,
    result: Mapping[str, Any],
    evaluated: list[Evaluated],
    store: FeatureStore,
    config: EvaluateSettings,
    vocoder: str,
) -> Path:
    """Write the page in one move.

    Args:
        path: The HTML file.
        result: As returned by `evaluate_voice`.
        evaluated: The sentences with their sounds.
        store: Gives the rate and the frame length.
        config: Names the recogniser.
        vocoder: Its name.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["figure"] = figure
    rate = store.audio.sample_rate
    page = environment.get_template("report.html").render(
        result=result,
        sentences=[
            _sentence(item, described, rate) for item, described in zip(evaluated, result["clips"], strict=True)
        ],
        kinds=KIND_NAMES,
        parts={part: name for part, name in PART_NAMES.items() if result[part]},
        counts={part: sum(item.part == part for item in evaluated) for part in PART_NAMES},
        measures={name: text for name, text in MEASURES.items() if any(name in result[part] for part in PART_NAMES)},
        gate=GATE_NAMES,
        languages=sorted({item.clip.language for item in evaluated}),
        speakers=sorted({item.clip.speaker for item in evaluated}),
        notes=_notes(result),
        vocoder=vocoder,
        recognizer=config.evaluation.recognizer,
        rate=rate,
    )
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(page, "utf-8")
    os.replace(partial, path)
    return path


def figure(measure: Mapping[str, Any] | None, decimals: int) -> str:
    """A value with its decimals; a dash where the measure does not apply."""
    return "–" if measure is None or measure["value"] is None else f"{measure['value']:.{decimals}f}"


def _notes(result: Mapping[str, Any]) -> list[str]:
    """Why measures are missing, each reason once with the number of sentences."""
    missing: Counter = Counter()
    for clip in result["clips"]:
        missing.update(
            {(name, m["reason"]) for name, kinds in clip["measures"].items() for m in kinds.values() if m["reason"]}
        )
    notes = [f"{MEASURES[name][0]}, {count} sentences: {reason}." for (name, reason), count in missing.items()]
    return sorted(notes) + [f"{count} clips left out: {reason}." for reason, count in result["left_out"].items()]


def _sentence(item: Evaluated, described: Mapping[str, Any], rate: int) -> dict[str, Any]:
    pictures = [
        ("Recording", _picture(_shade(item.mels["recording"]), "magma")),
        ("Synthesised", _picture(_shade(item.mels["synthesised"]), "magma")),
        ("Alignment of the recording", _picture(np.sqrt(item.soft.clip(0.0, 1.0)), "viridis")),
    ]
    return {
        **described,
        "sounds": {kind: _sound(samples, rate) for kind, samples in item.sounds.items()},
        "seconds": {kind: len(samples) / rate for kind, samples in item.sounds.items()},
        "pictures": pictures,
        "phones": " ".join(item.speech.phones),
    }


def _shade(mel: np.ndarray) -> np.ndarray:
    return ((mel - QUIETEST) / (LOUDEST - QUIETEST)).clip(0.0, 1.0)


def _picture(values: np.ndarray, colours: str) -> str:
    """(S, rows) values in [0, 1] -> PNG as a data address; time runs to the right, rows upwards."""
    from matplotlib.image import imsave  # heavy, and only needed here

    buffer = io.BytesIO()
    imsave(buffer, values.T, format="png", cmap=colours, vmin=0.0, vmax=1.0, origin="lower")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _sound(samples: np.ndarray, rate: int) -> str:
    """Lossless audio as a data address."""
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(samples, -1.0, 1.0), rate, format="FLAC", subtype="PCM_16")
    return "data:audio/flac;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
