"""The operations that the benchmark kills start from valid inputs."""

import inspect

from benchmarks.kills import evaluation, step_records
from components.register.card import mean_metrics, model_card
from components.register.run import example_request, run
from model.files import write_json


def test_the_records_of_a_registration_are_those_that_the_step_reads(tmp_path):
    voice = tmp_path / "voice"
    write_json(voice / "voice.json", {})
    records = step_records(tmp_path, voice)
    assert records.keys() == inspect.signature(run).parameters.keys() - {"name", "origin"}
    for name, record in records.items():
        assert type(record).read(record.write(tmp_path / f"{name}.json")) == record


def test_the_evaluation_of_a_registration_is_one_that_the_step_reads():
    voice = {"config": {}}
    assert "No " not in model_card("m", voice, evaluation(), {})
    assert mean_metrics(evaluation()) == {}
    assert example_request(voice, evaluation()).keys() == {"text"}
