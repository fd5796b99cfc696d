"""Evaluates a voice on held-out and training sentences, and adds the metrics to its MLflow run."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.contracts import EvaluateOutput, FinetuneVocoderOutput, PreprocessOutput, ResolveDataOutput, TrainOutput
from components.feature_remote import open_store
from components.gate.metrics import gate_metrics
from components.results import Results
from components.runner import emit, parse_settings
from components.state import State, read_json
from components.tracking import append_to_run
from model.code_hash import code_hash
from model.config import settings_hash
from model.config.evaluation import EvaluateSettings
from model.config.resolution import flatten
from model.corpus.manifest import read_manifest
from model.evaluation.evaluate import evaluate
from model.evaluation.texts import further_texts
from model.files import atomic_write
from model.text import sentence_hash
from model.voice_folder import DESCRIPTION, read_training_sentences


def run(data: str, features: str, training: str, finetuning: str, settings: str) -> EvaluateOutput:
    """Evaluates a voice with its vocoder, or reuses its evaluation.

    Args:
        data: Path of the `ResolveDataOutput`.
        features: Path of the `PreprocessOutput`.
        training: Path of the `TrainOutput`, whose MLflow run gets the metrics.
        finetuning: Path of the `FinetuneVocoderOutput`.
        settings: JSON of the `EvaluateSettings`.
    """
    voice = FinetuneVocoderOutput.read(finetuning)
    state = State.locate()
    folder = evaluation_of(
        voice=voice.voice,
        voice_hash=voice.voice_hash,
        corpus=ResolveDataOutput.read(data),
        store=PreprocessOutput.read(features),
        settings=parse_settings(EvaluateSettings, settings),
        state=state,
        step="evaluate",
    )
    metrics = read_json(folder / "metrics.json")
    files = [folder / "metrics.json", folder / "report.html"]
    append_to_run(state, TrainOutput.read(training).spool, mlflow_metrics(metrics), files)
    shown = {name: value for name, value in gate_metrics(metrics).items() if value is not None}
    summary = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in shown.items())
    return EvaluateOutput(summary=summary, evaluation=folder)


def results(output: EvaluateOutput) -> Results:
    """Returns the metrics of the gate, and the report with the sentences to listen to."""
    metrics = gate_metrics(read_json(output.evaluation / "metrics.json"))
    return Results(
        metrics={name: value for name, value in metrics.items() if value is not None},
        html=output.evaluation / "report.html",
    )


def evaluation_of(
    *,
    voice: Path,
    voice_hash: str,
    corpus: ResolveDataOutput,
    store: PreprocessOutput,
    settings: EvaluateSettings,
    state: State,
    step: str,
    exclude: frozenset[str] = frozenset(),
) -> Path:
    """Returns the folder with the metrics of a voice on this data under these settings; evaluates it first if needed.

    Args:
        voice: Folder of the voice.
        voice_hash: Identifies the voice, its vocoder and its settings.
        corpus: The recordings, of which those for the evaluation are used.
        store: Their features. The voice is compared with recordings as the features were made of them (trimming,
            loudness, pitch range), so their hash is part of the key: a champion's own features may be others.
        settings: Settings of the evaluation.
        state: Where results are kept.
        step: Step whose progress is reported.
        exclude: Sentences that other voices of a comparison were trained on.
    """
    if exclude := exclude - (read_training_sentences(voice) or frozenset()):
        exclude &= _sentences(corpus.examination)  # others change nothing, so that earlier evaluations are found
    key = settings_hash(
        {
            "voice": voice_hash,
            **({"exclude": sorted(exclude)} if exclude else {}),
            "features": store.examination_hash,
            "data": corpus.examination_hash,
            "settings": settings.model_dump(mode="json"),
            "code": code_hash("components.evaluate.run"),
        }
    )
    folder = state.evaluation(key)
    with state.lock(f"evaluation-{key}"):
        if not (folder / "metrics.json").is_file():
            with atomic_write(folder) as partial:
                partial.mkdir()
                features = open_store(store.examination, state)
                evaluate(
                    voice,
                    features,
                    corpus.examination,
                    settings,
                    partial,
                    lambda done, total: emit(step, "progress", done=done, total=total),
                    exclude=exclude,
                    about=_about(voice, voice_hash, corpus),
                )
    return folder


def _about(voice: Path, voice_hash: str, corpus: ResolveDataOutput) -> dict[str, str]:
    """Returns the entries of the report's header: label -> text about the voice and the data."""
    described = read_json(voice / DESCRIPTION)
    size = described["config"].get("model_size", "")
    return {
        "Voice": " ".join(filter(None, (size, "voice", voice_hash[:12]))),
        "Steps": str(described.get("steps", 0)),
        "Data": corpus.examination_hash,
    }


def _sentences(corpus: Path) -> frozenset[str]:
    """Returns the hashes of the sentences that a voice may be evaluated on: of the corpus, and those of the package."""
    return frozenset(map(sentence_hash, [*further_texts(10**6, ()), *(clip.text for clip in read_manifest(corpus))]))


def mlflow_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Returns the finite numbers of `metrics.json` under the names of MLflow; metrics without a value are left out."""
    return {
        f"evaluation/{name.removesuffix('.value').replace('.', '/')}": float(value)
        for name, value in flatten(metrics).items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
