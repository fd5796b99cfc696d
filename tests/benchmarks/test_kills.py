"""The operations that the benchmark kills start from valid inputs."""

import inspect

from benchmarks.kills import step_records
from components.register.run import run
from model.files import write_json


def test_the_records_of_a_registration_are_those_that_the_step_reads(tmp_path):
    voice = tmp_path / "voice"
    write_json(voice / "voice.json", {})
    records = step_records(tmp_path, voice)
    assert records.keys() == inspect.signature(run).parameters.keys() - {"name", "origin"}
    for name, record in records.items():
        assert type(record).read(record.write(tmp_path / f"{name}.json")) == record
