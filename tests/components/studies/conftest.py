"""A study in an empty state, and a double of training that obeys the contract of the trainer."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from small_study import NoTracker, context_of, study_arguments

from components.state import State
from components.studies import study as module
from components.studies import worker
from components.studies.attributes import PARENT_RUN
from components.studies.study import StudyContext, create_study
from model.config.training import TrainSettings
from model.training.trainer import TrainingResult


@dataclass
class FakeTrainer:
    """Double of `train` whose error falls towards a floor, which is lowest for a mel weight of 3.

    Like the trainer it keeps a history and its last validated step in the output folder, resumes from there, refuses
    to resume with other settings, and validates at multiples of the interval and at the last step.

    Attributes:
        calls: Settings and first step of each call.
        trained: Number of optimizer steps of all calls together.
        validations: Number of validations until training is interrupted; -1 for never.
        failing: Training fails in these calls, counted from 0.
        sharpness: Sharpness of the alignment at the end.
    """

    calls: list[tuple[TrainSettings, int]] = field(default_factory=list)
    trained: int = 0
    validations: int = -1
    failing: set[int] = field(default_factory=set)
    sharpness: float = 0.9

    def __call__(
        self, config, features, output: Path, logger, on_validation, base=None, compare_speakers=None
    ) -> TrainingResult:
        checkpoint, settings = output / "checkpoints" / "last.json", config.training
        done = 0
        if checkpoint.is_file():
            saved = json.loads(checkpoint.read_text())
            assert saved["settings"] == config.to_json(), "a trainer refuses to resume with other settings"
            done = saved["step"]
        self.calls.append((config, done))
        if len(self.calls) - 1 in self.failing:
            raise worker.TrainingError("not finite")
        floor = 1 + abs(config.loss.mel_loss_weight - 3)
        metrics = self._metrics(floor, done) if done else {}
        for step in range(done + 1, settings.max_steps + 1):
            self.trained += 1
            if step % settings.evaluation_interval and step != settings.max_steps:
                continue
            metrics = self._metrics(floor, step)
            logger.metrics(step, metrics)
            checkpoint.parent.mkdir(parents=True, exist_ok=True)
            with (output / "history.jsonl").open("a") as file:
                file.write(json.dumps({"step": step, **metrics}) + "\n")
            checkpoint.write_text(json.dumps({"step": step, "settings": config.to_json()}))
            self.validations -= 1
            if not self.validations:
                raise KeyboardInterrupt
            on_validation(step, metrics)
        voice = output / "voice"
        voice.mkdir(exist_ok=True)
        return TrainingResult(steps=settings.max_steps, exported_step=settings.max_steps, voice=voice, metrics=metrics)

    def _metrics(self, floor: float, step: int) -> dict[str, float]:
        return {"validation/mel": floor + 1 / step, "validation/sharpness": self.sharpness}


@pytest.fixture
def without_mlflow(monkeypatch) -> None:
    """Nothing is recorded in MLflow, which takes most of the time of a small study."""
    monkeypatch.setattr(worker, "MlflowRunLogger", lambda *_, **__: NoTracker())
    monkeypatch.setattr(module, "_open_parent_run", lambda study, *_: study.set_user_attr(PARENT_RUN, "parent"))


@pytest.fixture
def fake(monkeypatch) -> FakeTrainer:
    found = FakeTrainer()
    monkeypatch.setattr(worker, "train", found)
    monkeypatch.setattr(module, "base_folder", lambda settings, state: None)
    monkeypatch.setattr(worker, "open_store", lambda features, state: features)
    monkeypatch.setattr(worker, "POLL_SECONDS", 0.01)
    monkeypatch.delenv("MYXTTS_STUDY_STORAGE", raising=False)
    return found


@pytest.fixture
def begin(state: State, fake: FakeTrainer, tmp_path: Path):
    """Returns a function that creates or continues a study with settings (dotted keys); returns its context and it."""

    def call(changes: Mapping[str, Any] | None = None) -> tuple[StudyContext, Any]:
        arguments = study_arguments(changes)
        study = create_study(state, arguments)
        return context_of(state, study), study

    call.state = state
    return call
