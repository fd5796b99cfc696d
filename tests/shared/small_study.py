"""Arguments of a small study, its context, and a double of training that can hang, for workers in other processes."""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.studies.identity import StudyArguments, study_name
from components.studies.study import StudyContext
from model.config.data import PreprocessSettings
from model.config.evaluation import EvaluateSettings, GateSettings
from model.config.resolution import resolve
from model.config.study import StudySettings
from model.config.vocoder import FinetuneVocoderSettings
from model.training.trainer import TrainingResult

SMALL = {"model_size": "xtiny", "study.sampler": "random", "study.trials": 6, "study.max_steps": 9}
DATA = "0" * 32 + ".dir"


def study_arguments(changes: Mapping[str, Any] | None = None, data_hash: str = DATA) -> StudyArguments:
    """Returns the arguments of a small study with other settings (dotted keys)."""
    config = resolve(overrides={**SMALL, **(changes or {})}).config
    settings, preprocess = StudySettings.of(config), PreprocessSettings.of(config)
    return StudyArguments(
        study=study_name(settings, preprocess, data_hash, "toy"),
        data_hash=data_hash,
        evaluation_data=data_hash,
        remote="remote",
        experiment="toy",
        name="myxtts-toy-xtiny",
        preprocess_settings=preprocess.to_json(),
        study_settings=settings.to_json(),
        finetune_vocoder_settings=FinetuneVocoderSettings.of(config).to_json(),
        evaluate_settings=EvaluateSettings.of(config).to_json(),
        gate_settings=GateSettings.of(config).to_json(),
    )


def context_of(state, study) -> StudyContext:
    """Returns the context of a study whose training reads no data."""
    return StudyContext.of(state, study, state.root, state.root)


class NoTracker:
    """Double of the MLflow run of a trial that records nothing."""

    run_id = ""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        assert step > 0
        assert values

    def __enter__(self) -> "NoTracker":
        return self

    def __exit__(self, *_: object) -> None:
        pass


class SlowTrainer:
    """Double of `train` in a worker process: resumes from its folder, and writes a line at the end of each training.

    With the argument `stuck` the first training of the process never ends.

    Args:
        folder: Folder for `ends.txt` and a file for each training that hangs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @staticmethod
    def tracker(*_: object, **__: object) -> NoTracker:
        """Returns the tracker of a trial."""
        return NoTracker()

    def __call__(
        self, config, features, output: Path, logger, on_validation, base=None, compare_speakers=None
    ) -> TrainingResult:
        checkpoint, settings = output / "last.json", config.training
        done = json.loads(checkpoint.read_text()) if checkpoint.is_file() else 0
        output.mkdir(parents=True, exist_ok=True)
        if "stuck" in sys.argv:
            (self.folder / f"stuck-{output.name}").touch()
            time.sleep(3600)
        metrics = {"validation/mel": config.loss.mel_loss_weight, "validation/sharpness": 0.9}
        for step in range(done + 1, settings.max_steps + 1):
            if step % settings.evaluation_interval == 0 or step == settings.max_steps:
                checkpoint.write_text(json.dumps(step))
                on_validation(step, metrics)
        with (self.folder / "ends.txt").open("a") as file:
            file.write(f"{output.name}\n")
        return TrainingResult(steps=settings.max_steps, exported_step=settings.max_steps, voice=output, metrics=metrics)
