"""A voice's vocoder from start to end: base training on recordings, fine-tuning on predicted mels, before and after."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from model.audio.io import write_audio
from model.config import Config, settings_hash
from model.config.schema import VocoderConfig
from model.features.store import FeatureStore
from model.training.logging import RunLogger
from model.vocoder.errors import VocoderError
from model.vocoder.folder import check_audio, read_vocoder, write_vocoder
from model.vocoder.griffin_lim import GriffinLim
from model.vocoder.measures import measure
from model.vocoder.neural import NeuralVocoder
from model.vocoder.official import VocoderWeights
from model.vocoder.pairs import predicted_pairs, recorded_pairs
from model.vocoder.training import VALIDATION_CLIPS, train_vocoder
from model.voice import read_voice
from model.voice_folder import voice_hash, with_vocoder

SPEAKING_KEYS = ("griffin_lim_iterations", "griffin_lim_momentum", "precision", "chunk_frames")
MACHINE_KEYS = ("device", "enable_compile")
FINETUNING_KEYS = ("finetune_steps", "finetune_learning_rate_ratio", "discriminator_freeze_steps")
BASE_KEYS = tuple(
    name
    for name in VocoderConfig.model_fields
    if name not in (*SPEAKING_KEYS, *MACHINE_KEYS, *FINETUNING_KEYS, "checkpoint", "checkpoint_sha256")
)
"""Settings that shape a base training."""
SAMPLES = 2


@dataclass
class Report:
    """What fine-tuning did, on held-out clips spoken from the acoustic model's mels.

    Attributes:
        before, after: Measures of the vocoder (see `model.vocoder.measures.measure`).
        griffin_lim: The same of Griffin-Lim.
        samples: Sounds before and after.
        voice: The voice with its vocoder.
    """

    before: dict[str, float]
    after: dict[str, float]
    griffin_lim: dict[str, float]
    samples: list[Path]
    voice: Path


def base_vocoder(
    config: Config, features: Path | FeatureStore, corpus: Path, output: Path, logger: RunLogger
) -> VocoderWeights:
    """A vocoder trained on the recordings' own mels, or found trained."""
    store = FeatureStore.of(features)
    store.check(config.audio)
    settings = config.vocoder
    shaping = {name: getattr(settings, name) for name in BASE_KEYS}
    result = train_vocoder(
        settings,
        config.audio,
        recorded_pairs(store, corpus, "train"),
        recorded_pairs(store, corpus, "validation"),
        settings.max_steps,
        output,
        settings_hash(shaping, {"features": store.content_hash, "seed": config.seed}),
        config.seed,
        logger=logger,
    )
    return read_vocoder(result.vocoder, config.audio, settings.type)


def finetune(
    config: Config,
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
    check_audio(Path(start.origin), start.audio, spoken.config.audio)
    held_out = predicted_pairs(spoken, store, corpus, "validation")[:VALIDATION_CLIPS]
    if not held_out:
        raise VocoderError(f"{features}: no validation clips to measure a vocoder on; lower split.min_held_out")
    audio, settings = spoken.config.audio, config.vocoder
    vocoder = NeuralVocoder.from_weights(start, settings)
    before = measure(vocoder, held_out, audio)
    output.mkdir(parents=True, exist_ok=True)
    samples = _speak(vocoder, held_out, output / "samples", "before", audio.sample_rate)
    if settings.finetune_steps:
        result = train_vocoder(
            settings,
            audio,
            predicted_pairs(spoken, store, corpus, "train"),
            held_out,
            settings.finetune_steps,
            output,
            settings_hash(settings, {"voice": voice_hash(voice), "features": store.content_hash, "from": start.origin}),
            config.seed,
            start,
            logger,
        )
        folder = result.vocoder
        vocoder = NeuralVocoder.load(folder, settings, audio)
    else:
        folder = write_vocoder(output / "vocoder", start)
    samples += _speak(vocoder, held_out, output / "samples", "after", audio.sample_rate)
    report = Report(
        before,
        measure(vocoder, held_out, audio),
        measure(GriffinLim(settings, audio), held_out, audio),
        samples,
        with_vocoder(voice, output / "voice", settings, folder),
    )
    plain = {name: value for name, value in asdict(report).items() if isinstance(value, dict)}
    partial = output / ".report.json.partial"
    partial.write_text(json.dumps(plain, indent=1) + "\n", "utf-8")
    os.replace(partial, output / "report.json")
    for file in (*samples, output / "report.json"):
        logger.artifact(file, "vocoder")
    return report


def _speak(vocoder, pairs, folder: Path, when: str, rate: int) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for pair in pairs[:SAMPLES]:
        files.append(folder / f"{pair.id}-{when}.wav")
        write_audio(files[-1], np.clip(vocoder(pair.mel), -1.0, 1.0), rate)
    return files
