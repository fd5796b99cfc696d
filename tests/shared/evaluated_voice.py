"""What the step `evaluate` leaves for `register`: a voice, its metrics and the records of its training."""

from collections.abc import Mapping
from pathlib import Path

from components.state import State, write_json
from components.tracking import MlflowRunLogger
from model.voice_folder import voice_hash

DATA = "0123456789abcdef" * 2 + ".dir"
FEATURES, WEIGHTS = "5eed" * 16, "fee1" * 16


def evaluated_voice(state: State, voice: Path, folder: Path, values: Mapping[str, float | None]) -> Path:
    """Write the pointer of an evaluation of `voice` into `folder`, beside all that it points to; returns its path.

    Args:
        state: Its MLflow gets the run of the training, unless the folder has one already.
        voice: Folder of a voice.
        folder: Of the evaluation.
        values: Gate metric -> value.
    """
    spool = folder / "mlflow"
    if not (spool / "run.json").is_file():
        MlflowRunLogger(state, spool, "e", "r", {}, {}, interval=0.01).close()
    measured = {key: {"value": value, "reason": ""} for key, value in values.items()}
    write_json(folder / "metrics.json", {"gate": measured})
    pointer = {
        "folder": str(folder),
        "voice": str(voice),
        "voice_hash": voice_hash(voice),
        "hash": WEIGHTS,
        "features_hash": FEATURES,
        "data": DATA,
        "spool": str(spool),
    }
    return write_json(folder / "pointer.json", pointer)
