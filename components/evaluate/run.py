"""Measure a voice on held-out and training sentences, and put the measures into its MLflow run."""

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.feature_remote import open_store
from components.gate.measures import measures
from components.runner import read_pointer
from components.state import State, read_json
from components.tracking import append_to_run
from model.code_hash import code_hash
from model.config import settings_hash
from model.config.resolution import flatten
from model.config.schema import Config
from model.evaluation.evaluate import evaluate


def run(finetuning: str, settings: str) -> dict[str, Any]:
    """Evaluate a voice with its vocoder, or find it evaluated.

    Args:
        finetuning: Path of the pointer that `finetune_vocoder` wrote.
        settings: JSON of the sections that evaluation reads.

    Returns:
        That pointer with `folder` = the evaluation (`metrics.json`, `report.html`).
    """
    trained = read_pointer(finetuning)
    told = json.loads(settings)
    folder = measure(
        State.locate(),
        Path(trained["voice"]),
        trained["voice_hash"],
        trained["features"],
        trained["features_hash"],
        trained["corpus"],
        trained["data"],
        told,
    )
    metrics = read_json(folder / "metrics.json")
    append_to_run(
        State.locate(), Path(trained["spool"]), numbers(metrics), [folder / "metrics.json", folder / "report.html"]
    )
    return {
        **trained,
        "folder": str(folder),
        "evaluation_settings": json.dumps(told, sort_keys=True),
        "summary": ", ".join(
            f"{name.replace('_', ' ')} {value:.3f}" for name, value in measures(metrics).items() if value is not None
        ),
    }


def measure(
    state: State,
    voice: Path,
    voice_hash: str,
    features: str,
    features_hash: str,
    corpus: str,
    data_hash: str,
    told: Mapping[str, Any],
) -> Path:
    """Folder with the measures of `voice` on this data under these settings, measured now if it is not there yet.

    Args:
        state: Where results are kept.
        voice: Exported voice.
        voice_hash: Identifies it, vocoder and settings included.
        features: Folder of the features.
        features_hash: Content hash of the features. The voice is compared with recordings as the features were made of
            them (trimming, loudness, pitch range), which the voice's own hash does not tell when it is the champion.
        corpus: Folder of the corpus that the features were made from.
        data_hash: DVC hash of that corpus.
        told: Settings of the evaluation.
    """
    code = code_hash("components.evaluate.run")
    key = settings_hash(
        {"voice": voice_hash, "features": features_hash, "data": data_hash, "settings": told, "code": code}
    )
    folder = state.evaluation(key)
    with state.lock(f"evaluation-{key}"):
        if not (folder / "metrics.json").is_file():
            partial = folder.with_name(f".{key}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            evaluate(voice, open_store(Path(features), state), Path(corpus), Config.model_validate(told), partial)
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
    return folder


def numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The measured values as MLflow metrics; what does not apply is left out, never logged as 0."""
    return {
        f"evaluation/{name.removesuffix('.value').replace('.', '/')}": float(value)
        for name, value in flatten(metrics).items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
