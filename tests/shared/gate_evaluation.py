"""Evaluations as the gate reads them, with sentences whose means are given."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from model.evaluation.metric_table import GATE_METRICS

SPREAD = {
    "character_error": 0.02,
    "phone_error": 0.02,
    "mel_cepstral_distortion": 0.1,
    "pitch_error": 10.0,
    "voicing_error": 0.01,
    "length_error": 0.01,
    "speaker_similarity": 0.01,
    "dnsmos": 0.05,
}
"""Metric -> standard deviation of its values over sentences."""
USUAL = {"pitch_error": 200.0, "voicing_error": 0.2, "length_error": 0.1, "speaker_similarity": 0.8, "dnsmos": 3.0}


def gate_evaluation(values: Mapping[str, float | None], reason: str = "", sentences: int = 20) -> dict[str, Any]:
    """Returns the content of a `metrics.json`.

    Args:
        values: Value of each metric of the gate; those of sentences follow from them.
        reason: Why a value is missing.
        sentences: Number of unseen sentences.
    """
    means = {**USUAL, **{name: value for name, value in values.items() if name in SPREAD and value is not None}}
    if values.get("character_error_increase") is not None:
        means.setdefault("character_error", values["character_error_increase"])
    noise = np.random.default_rng(len(repr(sorted(values.items()))))
    offsets = {name: noise.standard_normal(sentences) * SPREAD[name] for name in means}
    rows = {name: means[name] + offset - offset.mean() for name, offset in offsets.items()}
    return {
        "gate": {
            name: {"value": values.get(name), "reason": "" if values.get(name) is not None else reason}
            for name in GATE_METRICS
        },
        "clips": sentence_values(rows),
        "texts": [],
        "examination": {"hash": "5e7" * 5, "clips": sentences, "texts": 0},
    }


def sentence_values(rows: Mapping[str, Sequence[float]], part: str = "unseen") -> list[dict[str, Any]]:
    """Returns the clips of a `metrics.json`: metric -> its value on each sentence; NaN for none."""
    count = len(next(iter(rows.values())))
    return [
        {
            "id": f"clip{number}",
            "sentence": f"{number:016x}",
            "text": f"Sentence {number}.",
            "audio": {},
            "part": part,
            "language": "en",
            "speaker": "anna",
            "metrics": {
                name: {"synthesised": {"value": None if np.isnan(values[number]) else float(values[number])}}
                for name, values in rows.items()
            },
        }
        for number in range(count)
    ]
