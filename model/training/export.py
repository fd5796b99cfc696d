"""Export of a finished training as a voice."""

from __future__ import annotations

from pathlib import Path

import torch

from model.acoustic.conditioning import Reference
from model.acoustic.global_variance import estimate_variance_factors
from model.acoustic.model import AcousticModel
from model.config.training import TrainSettings
from model.features.batching import evaluation_batches
from model.features.store import FeatureStore
from model.loop.checkpoints import best_checkpoint, list_checkpoints, load_checkpoint
from model.text import sentence_hash
from model.training.adaptation import StartingPoint
from model.voice import Speaker, VoiceDescription, VoiceSettings, write_voice

MAX_CLIPS = 32
"""Largest number of clips of a speaker over which its style and its own-encoder embedding are averaged."""


def export_voice(
    config: TrainSettings,
    store: FeatureStore,
    start: StartingPoint,
    output: Path,
    device: torch.device,
    data_license: str = "",
) -> tuple[Path, int]:
    """Exports the last or the best checkpoint of a run as a voice, depending on `training.exported_checkpoint`.

    Args:
        config: Settings of the run.
        store: The features that it was trained on.
        start: Its starting point: base voice, languages and dimensions.
        output: Folder of the run; the voice is written to `voice/` in it.
        device: Device on which the variance that predicted mels lack is computed.
        data_license: License of the recordings; '' if it is not given.

    Returns:
        The voice's folder and the step of its weights.
    """
    checkpoints = output / "checkpoints"
    last = list_checkpoints(checkpoints)[-1].path
    chosen = load_checkpoint(last if config.training.exported_checkpoint == "last" else best_checkpoint(checkpoints))
    model = AcousticModel(config.model, start.dimensions)
    weights = start.interpolate(chosen.ema)
    model.load_state_dict(weights)
    speakers = describe_speakers(model, store)
    kept = start.keep_speakers(model, store)
    validation = evaluation_batches(store, "validation", config.training.batch_size)
    lost = estimate_variance_factors(model.to(device), validation)
    voice = VoiceDescription(
        config=VoiceSettings(**{name: getattr(config, name) for name in ("model_size", "audio", "features", "model")}),
        trained_with=config.model_dump(mode="json", include={"optimization_level", "seed", "loss", "training"})
        | {"features_hash": store.content_hash},
        dimensions=model.dimensions,
        speakers=speakers | kept,
        languages=start.languages,
        speaker_languages={name: store.speaker_languages[name] for name in speakers}
        | {name: start.base.speaker_languages[name] for name in kept if start.base},
        energy_std=store.statistics.energy_std,
        variance_factors=(lost**config.training.variance_restoration).tolist(),
        steps=chosen.step,
        lineage=start.lineage,
        licenses=list(dict.fromkeys([*([data_license] if data_license else []), *start.licenses])),
        training_sentences=training_sentences(store) | start.training_sentences,
    )
    return write_voice(output / "voice", voice, weights), chosen.step


def training_sentences(store: FeatureStore) -> frozenset[str]:
    """Returns the hashes of the sentences of the training clips."""
    return frozenset(sentence_hash(store.clips[position].text) for position in store.split("train"))


def describe_speakers(model: AcousticModel, store: FeatureStore) -> dict[str, Speaker]:
    """Returns embedding, pitch statistics and style of each speaker of the training clips, by name.

    Held-out speakers are left out: they are cloned from a reference clip, like any speaker outside the corpus.
    """
    model.eval()
    described = {}
    for name in store.trained_speakers:
        clips = [store.clip(position).mel for position in store.clips_of_speaker[name][:MAX_CLIPS]]
        encoded = model.conditioning.encode_reference(Reference.from_recordings(clips))
        vector = store.speaker_centroid(name).tolist() if encoded.speaker is None else encoded.speaker[0].tolist()
        style = None if encoded.token_weights is None else encoded.token_weights[0].tolist()
        log_f0_mean, log_f0_std = store.statistics.log_f0[name]
        described[name] = Speaker(vector=vector, log_f0_mean=log_f0_mean, log_f0_std=log_f0_std, style=style)
    return described
