"""Trains a vocoder on the recordings, fine-tunes it on the mels that the voice predicts, and adds it to the voice.

Griffin-Lim needs no training: the voice is copied with the vocoder's settings, and torch is not imported.
"""

from components.contracts import FinetuneVocoderOutput, PreprocessOutput, ResolveDataOutput, TrainOutput
from components.finetune_vocoder.base import base_vocoder_folder
from components.runner import parse_settings
from components.state import State, read_json
from model.code_hash import code_hash
from model.config import settings_hash
from model.config.vocoder import FinetuneVocoderSettings
from model.voice_folder import VOCODER_DESCRIPTION, voice_hash, with_vocoder


def run(data: str, features: str, training: str, settings: str, experiment: str) -> FinetuneVocoderOutput:
    """Trains and fine-tunes a vocoder, resumes an interrupted fine-tuning, or reuses a finished one.

    Args:
        data: Path of the `ResolveDataOutput`.
        features: Path of the `PreprocessOutput`.
        training: Path of the `TrainOutput`.
        settings: JSON of the `FinetuneVocoderSettings`.
        experiment: Name of the MLflow experiment.
    """
    corpus, store = ResolveDataOutput.read(data), PreprocessOutput.read(features)
    trained = TrainOutput.read(training)
    config = parse_settings(FinetuneVocoderSettings, settings)
    state = State.locate()
    base = base_vocoder_folder(trained.voice, config.vocoder, state)
    identity = {
        "voice": voice_hash(trained.voice),
        "features": store.features_hash,
        "settings": config.model_dump(mode="json"),
        "code": code_hash("components.finetune_vocoder.run"),
    }
    if base is not None:
        identity["base"] = read_json(base / VOCODER_DESCRIPTION)["generator_sha256"]
    key = settings_hash(identity)
    folder = state.vocoder(key)
    voice = folder / "voice"
    with state.lock(f"vocoder-{key}"):
        if config.vocoder.type == "griffin_lim":
            folder.mkdir(parents=True, exist_ok=True)
            with_vocoder(trained.voice, voice, config.vocoder, None)
            summary = "griffin_lim needs no training"
        else:
            from components.finetune_vocoder.work import work

            summary = work(
                state=state,
                corpus=corpus,
                store=store,
                trained=trained,
                config=config,
                base=base,
                folder=folder,
                experiment=experiment,
            )
    return FinetuneVocoderOutput(summary=summary, voice=voice, voice_hash=voice_hash(voice))
