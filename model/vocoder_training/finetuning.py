"""A voice's vocoder from start to end: base training on recordings, fine-tuning on predicted mels, before and after."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.audio.griffin_lim import GriffinLim
from model.config import settings_hash
from model.config.vocoder import FinetuneVocoderSettings, VocoderConfig
from model.errors import VocoderError
from model.features.store import FeatureStore
from model.loop.devices import choose_device
from model.loop.reporting import RunLogger
from model.vocoder.folder import check_audio, read_vocoder, write_vocoder
from model.vocoder.neural import NeuralVocoder
from model.vocoder.official import VocoderWeights
from model.vocoder_training import perceptual
from model.vocoder_training.pairs import predicted_pairs, recorded_pairs
from model.vocoder_training.speech_metrics import PRIMARY, judge_speech
from model.vocoder_training.trainer import VALIDATION_CLIPS, TrainingPlan, train_vocoder, write_samples
from model.voice import read_voice
from model.voice_folder import voice_hash, with_vocoder

SPEAKING_KEYS = ("griffin_lim_iterations", "griffin_lim_momentum", "precision", "chunk_frames")


MACHINE_KEYS = ("device", "enable_compile")


STARTED_KEYS = ("finetune_learning_rate_ratio", "finetune_adversarial_start", "discriminator_freeze_steps")
"""Settings of any training that starts from weights."""


BASE_KEYS = tuple(
    name
    for name in VocoderConfig.model_fields
    if name not in (*SPEAKING_KEYS, *MACHINE_KEYS, *STARTED_KEYS, "finetune_steps", "checkpoint", "checkpoint_sha256")
)
"""Settings that shape a base training."""


@dataclass
class Report:
    """What fine-tuning did, on held-out clips spoken from the acoustic model's mels.

    Attributes:
        before, after: Metrics of the vocoder (see `speech_metrics.judge_speech`), averaged over the clips.
        griffin_lim: The same of Griffin-Lim.
        clips: Clip -> `before`, `after`, `griffin_lim` -> its measures.
        notes: What could not be measured, and why.
        samples: Sounds before and after.
        voice: The voice with its vocoder.
    """

    before: dict[str, float]
    after: dict[str, float]
    griffin_lim: dict[str, float]
    clips: dict[str, dict[str, dict[str, float]]]
    notes: list[str]
    samples: list[Path]
    voice: Path

    def gain(self) -> str:
        """In words: on how many clips fine-tuning brought the mel closer, and by how much."""
        gains = np.array([clip["before"][PRIMARY] - clip["after"][PRIMARY] for clip in self.clips.values()])
        error = gains.std(ddof=1) / len(gains) ** 0.5 if len(gains) > 1 else math.nan
        return (
            f"fine-tuning brings the mel closer on {(gains > 0).sum()} of {len(gains)} held-out clips, "
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
    """A vocoder trained on the recordings' own mels for `max_steps`, from nothing or from `start`, or found trained."""
    store = FeatureStore.of(features)
    store.check(config.audio)
    settings = config.vocoder
    shaping = {name: getattr(settings, name) for name in (*BASE_KEYS, *(STARTED_KEYS if start else ()))}
    identity = {"features": store.content_hash, "seed": config.seed}
    if start is not None:
        check_audio(Path(start.origin), start.audio, config.audio)
        identity["from"] = start.content_hash()
    fingerprint = settings_hash(shaping, identity)
    plan = TrainingPlan(settings, config.audio, settings.max_steps, config.seed, fingerprint, start)
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
    """Fine-tune a vocoder on the mels that a voice's acoustic model makes, and give the voice this vocoder.

    Args:
        config: Sections `audio` and `vocoder` act, and `seed`.
        voice: Folder of an exported voice.
        features: Features that the voice was trained on.
        corpus: Corpus that these were built from.
        start: Vocoder to start from.
        output: Folder of the run: checkpoints, samples, `report.json`, and `voice`, the voice with its vocoder.
        logger: Receives metrics and audio.

    Raises:
        VocoderError: the vocoder reads other mels than the voice makes, or the data do not fit.
    """
    store = FeatureStore.of(features)
    spoken = read_voice(voice)
    audio, settings = spoken.config.audio, config.vocoder
    check_audio(Path(start.origin), start.audio, audio)
    device = choose_device(settings.device, "vocoder.device")
    spoken.model.to(device)
    held_out = predicted_pairs(spoken, store, corpus, "validation", output)[:VALIDATION_CLIPS]
    if not held_out:
        raise VocoderError(f"{features}: no validation clips to measure a vocoder on; lower split.min_held_out")
    folder = output / "vocoder"
    if settings.finetune_steps:
        identity = {
            "voice": voice_hash(voice),
            "features": store.content_hash,
            "seed": config.seed,
            "from": start.content_hash(),
        }
        fingerprint = settings_hash(settings, identity)
        plan = TrainingPlan(settings, audio, settings.finetune_steps, config.seed, fingerprint, start)
        train_vocoder(plan, predicted_pairs(spoken, store, corpus, "train", output), held_out, output, logger)
    else:
        write_vocoder(folder, start)
    tuned = read_vocoder(folder, audio, settings.type)
    vocoders = {
        "before": NeuralVocoder.from_weights(start, settings, device),
        "after": NeuralVocoder.from_weights(tuned, settings, device),
        "griffin_lim": GriffinLim(audio, settings.griffin_lim_iterations, settings.griffin_lim_momentum),
    }
    judged = {name: judge_speech(vocoder, held_out, audio) for name, vocoder in vocoders.items()}
    samples = [
        file
        for name in ("before", "after")
        for file in write_samples(vocoders[name], held_out, output / "samples", name, audio)
    ]
    report = Report(
        **{name: each.mean() for name, each in judged.items()},
        clips={pair.id: {name: each.clips[pair.id] for name, each in judged.items()} for pair in held_out},
        notes=[f"{name}: {note}" for name, each in judged.items() for note in each.notes]
        + ([] if perceptual.INSTALLED else [perceptual.ABSENT]),
        samples=samples,
        voice=with_vocoder(voice, output / "voice", settings, folder),
    )
    kept = {name: getattr(report, name) for name in ("before", "after", "griffin_lim", "clips", "notes")}
    partial = output / ".report.json.partial"
    partial.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
    os.replace(partial, output / "report.json")
    for file in (*samples, output / "report.json"):
        logger.artifact(file, "vocoder")
    return report
