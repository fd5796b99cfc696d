"""Give a trained voice its vocoder: trained on the recordings, then fine-tuned on the voice's own mels.

Griffin-Lim needs neither: the voice is passed on with its settings, and nothing heavy is imported.
"""

import json
from pathlib import Path
from typing import Any

from components.runner import read_pointer
from components.state import State
from model.code_hash import code_hash
from model.config import settings_hash
from model.config.schema import Config
from model.voice_folder import voice_hash, with_vocoder


def run(training: str, settings: str, experiment: str) -> dict[str, Any]:
    """Train and fine-tune, go on, or find the voice with its vocoder there.

    Args:
        training: Path of the pointer that `train` wrote.
        settings: JSON of the sections that the vocoder reads.
        experiment: Name of the MLflow experiment.

    Returns:
        The training's pointer with `folder` (the fine-tuning), `training`, `voice` (with its vocoder) and `voice_hash`.
    """
    trained = read_pointer(training)
    told = json.loads(settings)
    config = Config.model_validate(told)
    state = State.locate()
    key = settings_hash(
        {
            "voice": voice_hash(Path(trained["voice"])),
            "features": trained["features_hash"],
            "settings": told,
            "code": code_hash("components.finetune_vocoder.run"),
        }
    )
    folder = state.vocoder(key)
    voice = folder / "voice"
    with state.lock(f"vocoder-{key}"):
        if config.vocoder.type == "griffin_lim":
            folder.mkdir(parents=True, exist_ok=True)
            with_vocoder(Path(trained["voice"]), voice, config.vocoder, None)
            summary = "griffin_lim needs no training"
        else:
            from components.finetune_vocoder.work import work

            summary = work(state, trained, config, folder, experiment)
    return {
        **trained,
        "folder": str(folder),
        "training": trained["folder"],
        "voice": str(voice),
        "voice_hash": voice_hash(voice),
        "summary": summary,
    }
