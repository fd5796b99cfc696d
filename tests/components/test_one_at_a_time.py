"""Equal steps of two runs share a folder: one process does the work, the other waits and reuses the result.

The first process is this one. In the middle of its work it starts the second one, and waits for the message that this
waits or works.
"""

import json
import logging
import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from step_records import step_inputs

from components import lineage
from components.configure.parameters import step_settings
from components.contracts import PreprocessOutput, ResolveDataOutput, TrainOutput
from components.evaluate import run as evaluating
from components.finetune_vocoder import run as finetuning
from components.finetune_vocoder import work as vocoder
from components.train import run as training
from model.config import settings_hash
from model.config.evaluation import EvaluateSettings
from model.config.resolution import resolve
from model.files import write_json

WAITS, WORKS = "waits", "works"


class Tell(logging.Handler):
    """Log handler that reports over a connection that this process waits for a lock."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection

    def emit(self, record: logging.LogRecord) -> None:
        if "waiting for another process" in record.getMessage():
            self._connection.send(WAITS)


class Meeting:
    """Work during which a second process runs. It is forked before the work, since a fork inherits held locks.

    Attributes:
        result: Computes the result of the work.
        first_word: First message of the second process.
    """

    def __init__(self) -> None:
        self.result: Callable[..., object] = lambda *_, **__: None
        self.first_word = ""
        self._here, self._there = multiprocessing.get_context("fork").Pipe()
        self._second: multiprocessing.Process | None = None

    def run(self, first: Callable[[], Any], second: Callable[[], Any] | None = None) -> Any:
        """Runs `first`, which calls `work`; there the second process runs `second` [default: the same]."""
        context = multiprocessing.get_context("fork")
        self._second = context.Process(target=self._in_second, args=(second or first,))
        self._second.start()
        answer = first()
        assert self.first_word, "the first process did no work"
        return answer

    def _in_second(self, step: Callable[[], Any]) -> None:
        logging.getLogger("components.state").addHandler(Tell(self._there))
        self._there.recv()
        step()

    def work(self, *arguments: Any, **named: Any) -> Any:
        if multiprocessing.parent_process() is not None:
            self._there.send(WORKS)
        else:
            self._here.send("go")
            assert self._here.poll(60), "the second process neither waits nor works"
            self.first_word = self._here.recv()
        return self.result(*arguments, **named)

    def rest(self) -> list[str]:
        """Returns the further messages of the second process, which must succeed."""
        self._second.join()
        assert self._second.exitcode == 0
        words = []
        while self._here.poll():
            words.append(self._here.recv())
        return words

    def close(self) -> None:
        if self._second is not None and self._second.is_alive():
            self._second.kill()
            self._second.join()


@pytest.fixture
def meeting() -> Iterator[Meeting]:
    found = Meeting()
    yield found
    found.close()


@pytest.fixture
def voice(tmp_path) -> Path:
    """A voice with a description but no weights."""
    folder = tmp_path / "voice"
    folder.mkdir()
    (folder / "voice.json").write_text(json.dumps({"config": {"vocoder": {}}, "weights_sha256": "w"}))
    return folder


def settings(step: str, **changes) -> str:
    config = resolve(overrides={"model_size": "xtiny", **changes}).config
    return step_settings(config)[f"{step}_settings"]


@pytest.fixture
def inputs(tmp_path, voice) -> dict[str, str]:
    """Paths of the records that lead to this voice, by input name."""
    return step_inputs(tmp_path, ("data", "features", "training"), {"training.voice": voice})


def train_on(inputs: dict[str, str], **changes: Any) -> TrainOutput:
    """Runs the step `train` with these changes of the settings."""
    return training.run(inputs["data"], inputs["features"], settings("train", **changes), "experiment")


def test_a_training_is_one_processs_at_a_time(state, inputs, voice, meeting, monkeypatch):
    def trained(module, request, folder):
        return {"voice": str(voice), "steps": 3, "exported_step": 2, "metrics": {}, "run_id": "r"}

    meeting.result = trained
    monkeypatch.setattr(training, "launch", meeting.work)
    meeting.run(lambda: train_on(inputs))
    assert meeting.first_word == WAITS
    assert meeting.rest() == [WORKS]  # the trainer itself finds its training finished


def test_other_trainings_do_not_wait(state, inputs, voice, meeting, monkeypatch):
    meeting.result = lambda *_: {"voice": str(voice), "steps": 3, "exported_step": 2, "metrics": {}, "run_id": "r"}
    monkeypatch.setattr(training, "launch", meeting.work)
    meeting.run(
        lambda: train_on(inputs),
        lambda: train_on(inputs, seed=77),
    )
    assert meeting.first_word == WORKS
    assert meeting.rest() == []


def test_a_voices_vocoder_is_one_processs_at_a_time(state, inputs, voice, meeting, monkeypatch):
    def tuned(*, state, corpus, store, trained, config, base, folder, experiment):
        (folder / "voice").mkdir(parents=True, exist_ok=True)
        (folder / "voice" / "voice.json").write_text("{}")
        return "tuned"

    meeting.result = tuned
    step_settings = settings("finetune_vocoder", **{"vocoder.type": "hifigan"})
    monkeypatch.setattr(vocoder, "work", meeting.work)
    meeting.run(lambda: finetuning.run(**inputs, settings=step_settings, experiment="experiment"))
    assert meeting.first_word == WAITS
    assert meeting.rest() == [WORKS]


def test_a_base_vocoder_is_one_processs_at_a_time_whatever_the_voice(state, inputs, voice, meeting, monkeypatch):
    """Two voices of the same features start from one base training."""
    other = voice.with_name("other")
    other.mkdir()
    (other / "voice.json").write_text(json.dumps({"config": {"vocoder": {}}, "weights_sha256": "x"}))
    second = replace(TrainOutput.read(inputs["training"]), voice=other).write(voice.with_name("second.json"))
    step_settings = settings("finetune_vocoder", **{"vocoder.type": "hifigan"})

    def tuned(config, voice, store, corpus, start, folder, logger):
        (folder / "voice").mkdir(parents=True)
        (folder / "voice" / "voice.json").write_text("{}")
        zero = {"mel_distance": 0.0}
        write_json(folder / "report.json", {"before": zero, "after": zero})
        return SimpleNamespace(before=zero, after=zero, griffin_lim=zero, samples=[])

    monkeypatch.setattr(vocoder, "open_store", lambda *_: None)
    monkeypatch.setattr(vocoder, "MlflowRunLogger", Untracked)
    monkeypatch.setattr(vocoder, "append_to_run", lambda *_, **__: None)
    monkeypatch.setattr(vocoder, "finetune", tuned)
    monkeypatch.setattr(vocoder, "base_vocoder", meeting.work)
    meeting.run(
        lambda: finetuning.run(**inputs, settings=step_settings, experiment="experiment"),
        lambda: finetuning.run(**{**inputs, "training": str(second)}, settings=step_settings, experiment="experiment"),
    )
    assert meeting.first_word == WAITS
    assert meeting.rest() == [WORKS]


class Untracked:
    """Double of a run in MLflow, whose connections cannot be used after a fork."""

    def __init__(self, *_, **__) -> None:
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        pass


def test_an_evaluation_is_made_once_for_all_processes(state, inputs, voice, meeting, monkeypatch, tmp_path):
    def evaluated(voice, store, corpus, config, output, progress, *, exclude, about):
        write_json(output / "metrics.json", {})

    def measure():
        return evaluating.evaluation_of(
            voice=voice,
            voice_hash="v",
            corpus=ResolveDataOutput.read(inputs["data"]),
            store=PreprocessOutput.read(inputs["features"]),
            settings=EvaluateSettings.from_json(settings("evaluate")),
            state=state,
            step="evaluate",
        )

    meeting.result = evaluated
    monkeypatch.setattr(evaluating, "open_store", lambda *_: None)
    monkeypatch.setattr(evaluating, "evaluate", meeting.work)
    folder = meeting.run(measure)
    assert meeting.first_word == WAITS
    assert meeting.rest() == []  # it found the first one's metrics
    assert (folder / "metrics.json").is_file()


def test_a_trainings_run_carries_its_lineage(state, inputs, voice, tmp_path, monkeypatch):
    monkeypatch.setenv(lineage.VARIABLE, json.dumps({"git.sha": "abc", "kfp.run_id": "run-7"}))
    for name in ("KFP_RUN_ID", "MYXTTS_IMAGE"):
        monkeypatch.delenv(name, raising=False)
    asked = []

    def trained(module, request, folder):
        asked.append(request)
        return {"voice": str(voice), "steps": 3, "exported_step": 2, "metrics": {}, "run_id": "r"}

    monkeypatch.setattr(training, "launch", trained)
    train_on(inputs)
    assert asked[0]["tags"] == {
        "git.sha": "abc",
        "kfp.run_id": "run-7",
        "dvc.data": "d" * 32 + ".dir",
        "settings.sha256": settings_hash(json.loads(settings("train"))),
    }
    assert asked[0]["dataset"] == {"name": "experiment", "digest": "d" * 32 + ".dir", "source": str(tmp_path)}
