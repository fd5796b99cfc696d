"""Vocoder of a voice: base training on recordings, fine-tuning on predicted mels, and metrics before and after."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.config import settings_hash
from model.config.vocoder import FinetuneVocoderSettings, VocoderConfig
from model.errors import VocoderError
from model.features.store import FeatureStore
from model.files import write_json
from model.loop.devices import choose_device
from model.loop.reporting import RunLogger
from model.vocoder import griffin_lim
from model.vocoder.folder import check_audio, read_vocoder, write_vocoder
from model.vocoder.neural import NeuralVocoder
from model.vocoder.official import VocoderWeights
from model.vocoder_training import perceptual
from model.vocoder_training.pairs import predicted_pairs, recorded_pairs
from model.vocoder_training.speech_metrics import PRIMARY_METRIC, MelToSamples, compute_metrics
from model.vocoder_training.trainer import VALIDATION_CLIPS, TrainingPlan, train_vocoder, write_samples
from model.voice import read_voice
from model.voice_folder import voice_hash, with_vocoder

INFERENCE_KEYS = (
    "griffin_lim_iterations",
    "griffin_lim_momentum",
    "griffin_lim_start",
    "refinement_iterations",
    "precision",
    "chunk_frames",
)
"""Settings of synthesis only."""
MACHINE_KEYS = ("device", "enable_compile")
"""Settings that do not affect the weights."""
FROM_WEIGHTS_KEYS = ("finetune_learning_rate_ratio", "finetune_adversarial_start", "discriminator_freeze_steps")
"""Settings of a training that starts from weights."""
FINETUNING_KEYS = ("finetune_steps", "checkpoint", "checkpoint_sha256", "start_from_base")
"""Settings that choose the start and the length of a fine-tuning."""
BASE_KEYS = tuple(
    name
    for name in VocoderConfig.model_fields
    if name not in (*INFERENCE_KEYS, *MACHINE_KEYS, *FROM_WEIGHTS_KEYS, *FINETUNING_KEYS)
)
"""Settings that affect a base training from scratch."""


@dataclass(kw_only=True)
class Report:
    """Metrics of fine-tuning, on held-out clips whose mels the acoustic model predicted.

    Attributes:
        before, after: Metrics of the vocoder (`speech_metrics.compute_metrics`), averaged over the clips.
        griffin_lim: The same metrics of Griffin-Lim.
        clips: Clip -> `before`, `after`, `griffin_lim` -> metric -> value.
        notes: Metrics that are missing, and why.
        samples: Audio files before and after.
        voice: Folder of the voice with its vocoder.
    """

    before: dict[str, float]
    after: dict[str, float]
    griffin_lim: dict[str, float]
    clips: dict[str, dict[str, dict[str, float]]]
    notes: list[str]
    samples: list[Path]
    voice: Path

    def gain(self) -> str:
        """Returns a sentence that says on how many clips fine-tuning reduced the mel distance, and by how much."""
        gains = np.array(
            [clip["before"][PRIMARY_METRIC] - clip["after"][PRIMARY_METRIC] for clip in self.clips.values()]
        )
        error = gains.std(ddof=1) / len(gains) ** 0.5 if len(gains) > 1 else math.nan
        return (
            f"fine-tuning reduces the mel distance on {(gains > 0).sum()} of {len(gains)} held-out clips, "
            f"by {gains.mean():.4f} (standard error {error:.4f})"
        )


def base_vocoder(
    config: FinetuneVocoderSettings,
    features: Path | FeatureStore,
    corpus: Path,
    output: Path,
    logger: RunLogger,
    start: VocoderWeights | None = None,
) -> VocoderWeights:
    """Trains a vocoder on the mels of the recordings for `max_steps`, from scratch or from `start`, and returns it.

    An unfinished run in `output` is resumed, a finished one is reused.
    """
    store = FeatureStore.of(features)
    store.check(config.audio)
    settings = config.vocoder
    relevant = {name: getattr(settings, name) for name in (*BASE_KEYS, *(FROM_WEIGHTS_KEYS if start else ()))}
    identity = {"features": store.content_hash, "seed": config.seed}
    if start is not None:
        check_audio(Path(start.origin), start.audio, config.audio)
        identity["from"] = start.content_hash()
    fingerprint = settings_hash(relevant, identity)
    plan = TrainingPlan(
        settings=settings,
        audio=config.audio,
        steps=settings.max_steps,
        seed=config.seed,
        fingerprint=fingerprint,
        identity={**{f"vocoder.{name}": value for name, value in relevant.items()}, **identity},
        start=start,
    )
    training, held_out = (recorded_pairs(store, corpus, split, output) for split in ("train", "validation"))
    result = train_vocoder(plan, training, held_out, output, logger)
    return read_vocoder(result.vocoder, config.audio, settings.type)


def finetune(
    config: FinetuneVocoderSettings,
    voice: Path,
    features: Path | FeatureStore,
    corpus: Path,
    start: VocoderWeights,
    output: Path,
    logger: RunLogger,
) -> Report:
    """Fine-tunes a vocoder on the mels that a voice's acoustic model predicts, and writes the voice with this vocoder.

    Args:
        config: Settings of the step.
        voice: Folder of an exported voice.
        features: Features that the voice was trained on.
        corpus: Corpus that these were built from.
        start: Vocoder to fine-tune.
        output: Folder of the run: checkpoints, samples, `report.json`, and `voice`, the voice with its vocoder.
        logger: Receives metrics and audio.

    Raises:
        VocoderError: the mels of vocoder and voice differ, or the data do not fit.
    """
    store = FeatureStore.of(features)
    loaded = read_voice(voice)
    audio, settings = loaded.config.audio, config.vocoder
    check_audio(Path(start.origin), start.audio, audio)
    device = choose_device(settings.device, "vocoder.device")
    loaded.model.to(device)
    held_out = predicted_pairs(loaded, store, corpus, "validation", output)[:VALIDATION_CLIPS]
    if not held_out:
        raise VocoderError(f"{features}: no validation clips to evaluate a vocoder on; lower split.min_held_out")
    folder = output / "vocoder"
    if settings.finetune_steps:
        identity = {
            "voice": voice_hash(voice),
            "features": store.content_hash,
            "seed": config.seed,
            "from": start.content_hash(),
        }
        fingerprint = settings_hash(settings, identity)
        plan = TrainingPlan(
            settings=settings,
            audio=audio,
            steps=settings.finetune_steps,
            seed=config.seed,
            fingerprint=fingerprint,
            identity={**{f"vocoder.{name}": value for name, value in settings}, **identity},
            start=start,
        )
        train_vocoder(plan, predicted_pairs(loaded, store, corpus, "train", output), held_out, output, logger)
    else:
        write_vocoder(folder, start)
    tuned = read_vocoder(folder, audio, settings.type)
    vocoders: dict[str, MelToSamples] = {
        "before": NeuralVocoder.from_weights(start, settings, device),
        "after": NeuralVocoder.from_weights(tuned, settings, device),
        "griffin_lim": griffin_lim(settings, audio),
    }
    metrics = {name: compute_metrics(vocoder, held_out, audio) for name, vocoder in vocoders.items()}
    samples = [
        file
        for name in ("before", "after")
        for file in write_samples(vocoders[name], held_out, output / "samples", name, audio)
    ]
    notes = [f"{name}: {note}" for name, values in metrics.items() for note in values.notes]
    report = Report(
        before=metrics["before"].mean(),
        after=metrics["after"].mean(),
        griffin_lim=metrics["griffin_lim"].mean(),
        clips={pair.id: {name: values.clips[pair.id] for name, values in metrics.items()} for pair in held_out},
        notes=notes if perceptual.INSTALLED else [*notes, perceptual.ABSENT],
        samples=samples,
        voice=with_vocoder(voice, output / "voice", settings, folder),
    )
    recorded = {name: getattr(report, name) for name in ("before", "after", "griffin_lim", "clips", "notes")}
    write_json(output / "report.json", recorded)
    for file in (*samples, output / "report.json"):
        logger.artifact(file, "vocoder")
    return report
