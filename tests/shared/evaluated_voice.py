"""Inputs of the step `register`: a voice, its metrics and the MLflow records of its training."""

from collections.abc import Mapping
from pathlib import Path

from gate_evaluation import gate_evaluation
from step_records import step_inputs

from components.contracts import SPOOL
from components.state import State
from components.tracking import MlflowRunLogger
from model.files import write_json
from model.voice_folder import voice_hash

DATA = "0123456789abcdef" * 2 + ".dir"
FEATURES, WEIGHTS = "5eed" * 16, "fee1" * 16


def evaluated_voice(state: State, voice: Path, folder: Path, values: Mapping[str, float | None]) -> dict[str, str]:
    """Writes the records of an evaluation of `voice` into `folder`; returns their paths by input name.

    Args:
        state: Its MLflow gets the run of the training, unless the folder has one already.
        voice: Folder of a voice.
        folder: Folder of the training and of the evaluation.
        values: Value of each gate metric.
    """
    if not (folder / SPOOL / "run.json").is_file():
        MlflowRunLogger(state, folder / SPOOL, "e", "r", {}, {}, interval=0.01).close()
    write_json(folder / "metrics.json", gate_evaluation(values))
    changes = {
        "data.data_hash": DATA,
        "features.features_hash": FEATURES,
        "training.weights_sha256": WEIGHTS,
        "finetuning.voice": voice,
        "finetuning.voice_hash": voice_hash(voice),
    }
    return step_inputs(folder, ("data", "features", "training", "finetuning", "evaluation"), changes)
