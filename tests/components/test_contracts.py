"""Records that steps hand on: written, read back, and refused where they do not fit."""

import json
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import pytest

from components.contracts import RECORDS, PreprocessOutput, StepError, StepOutput, TrainOutput
from components.runner import parse_settings
from components.state import StateError
from model.config.schema import Config
from pipelines.training_pipeline import STEP_SETTINGS


def example(kind: type[StepOutput], folder: Path) -> StepOutput:
    return kind(**{field.name: folder if field.type is Path else field.name for field in fields(kind)})


@pytest.mark.parametrize("kind", RECORDS)
def test_a_record_is_read_back_as_it_was_written(kind, tmp_path):
    record = example(kind, tmp_path)
    assert kind.read(record.write(tmp_path / "record.json")) == record
    with pytest.raises(FrozenInstanceError):
        record.summary = "another"
    with pytest.raises(TypeError):
        kind(*(getattr(record, field.name) for field in fields(kind)))


@pytest.mark.parametrize("kind", RECORDS)
def test_kfp_gets_every_field_as_text(kind, tmp_path):
    assert example(kind, tmp_path).metadata() == {
        field.name: str(tmp_path) if field.type is Path else field.name
        for field in fields(kind)
        if field.name not in kind.NOT_SHOWN
    }


MISSING = object()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("record", "PreprocessOutput", "record PreprocessOutput of format 1, but TrainOutput of format 1 is expected"),
        ("record", MISSING, "record None of format 1"),
        ("format", 2, "record TrainOutput of format 2, but TrainOutput of format 1 is expected"),
        ("format", MISSING, "format None"),
        ("run_id", MISSING, "`run_id`: Field required"),
        ("hash", "h", "`hash`: Unexpected"),
        ("run_id", 7, "`run_id`: Input should be a valid string"),
        ("voice", None, "`voice`: Input should be a valid string"),
        ("voice", "/nowhere/voice", "`voice` is /nowhere/voice, which is gone"),
    ],
)
def test_a_record_that_does_not_fit_is_refused_with_file_field_and_fix(key, value, message, tmp_path):
    path = example(TrainOutput, tmp_path).write(tmp_path / "record.json")
    content: dict[str, Any] = json.loads(path.read_text())
    content[key] = value
    path.write_text(json.dumps({name: item for name, item in content.items() if item is not MISSING}))
    with pytest.raises(StepError) as caught:
        TrainOutput.read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "run the pipeline again" in str(caught.value)


@pytest.mark.parametrize(("text", "error"), [("[]", StepError), ("{", StateError), (None, StateError)])
def test_a_file_that_holds_no_record_is_refused(text, error, tmp_path):
    path = tmp_path / "record.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(error, match="run the pipeline again"):
        PreprocessOutput.read(path)


@pytest.mark.parametrize("step", STEP_SETTINGS)
def test_a_step_refuses_settings_that_lack_one_or_hold_one_too_many(step):
    kind = STEP_SETTINGS[step]
    text = kind.of(Config()).to_json()
    assert parse_settings(kind, text) == kind.of(Config())
    for section, values in json.loads(text).items():
        lacking = json.loads(text)
        if isinstance(values, dict):
            name = next(iter(values))
            del lacking[section][name]
        else:
            name = section
            del lacking[section]
        with pytest.raises(StepError, match=name):
            parse_settings(kind, json.dumps(lacking))
    with pytest.raises(StepError, match="another"):
        parse_settings(kind, json.dumps({**json.loads(text), "another": 1}))
