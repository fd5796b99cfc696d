"""The double of MLflow behaves as the real one where the registry's journal relies on it."""

from types import SimpleNamespace

import pytest
from mlflow.exceptions import MlflowException
from mlflow_double import MlflowDouble

from components import tracking

NAME = "myxtts-toy-xtiny"


@pytest.fixture(params=["double", "mlflow"])
def client(request):
    if request.param == "double":
        return MlflowDouble()
    return tracking.client(request.getfixturevalue("state"))


@pytest.fixture
def journal(client) -> SimpleNamespace:
    """An experiment and its run."""
    experiment = client.create_experiment("e.1")
    run = client.create_run(experiment, run_name="r", tags={"a": "b"})
    return SimpleNamespace(experiment=experiment, run=run.info.run_id)


def refusal(action, *arguments, **options) -> str:
    with pytest.raises(MlflowException) as refused:
        action(*arguments, **options)
    return refused.value.error_code


def test_two_experiments_do_not_get_one_name(client, journal):
    second = client.create_experiment("e.2")
    client.rename_experiment(journal.experiment, "e")
    refusal(client.rename_experiment, second, "e")
    assert client.get_experiment_by_name("e").experiment_id == journal.experiment
    client.delete_experiment(journal.experiment)
    refusal(client.rename_experiment, second, "e")  # a deleted one keeps its name
    assert client.get_experiment_by_name("e").lifecycle_stage == "deleted"
    assert [item.name for item in client.search_experiments(filter_string="name LIKE 'e.%'")] == ["e.2"]


def test_an_experiment_that_was_deleted_is_not_renamed(client, journal):
    client.delete_experiment(journal.experiment)
    refusal(client.rename_experiment, journal.experiment, "e")
    assert client.get_experiment_by_name("e") is None


def test_a_parameter_is_written_once(client, journal):
    client.log_param(journal.run, "000001", "one", synchronous=True)
    client.log_param(journal.run, "000001", "one", synchronous=True)
    assert refusal(client.log_param, journal.run, "000001", "two", synchronous=True) == "INVALID_PARAMETER_VALUE"
    client.set_terminated(journal.run)
    client.log_param(journal.run, "000001.done", "applied", synchronous=True)
    found = client.get_run(journal.run)
    assert found.data.params == {"000001": "one", "000001.done": "applied"}
    assert found.data.tags["a"] == "b"


def test_a_missing_object_is_an_error_with_its_code(client, journal):
    missing = "RESOURCE_DOES_NOT_EXIST"
    assert refusal(client.get_registered_model, NAME) == missing
    assert refusal(client.get_run, "0" * 32) == missing
    client.create_registered_model(NAME)
    assert refusal(client.get_model_version, NAME, "1") == missing
    assert client.get_experiment_by_name("e") is None


def test_aliases_go_with_their_version(client):
    client.create_registered_model(NAME)
    for _ in range(2):
        client.create_model_version(NAME, "s3://voices/v")
    client.set_registered_model_alias(NAME, "champion", "2")
    client.delete_model_version(NAME, "2")
    model = client.get_registered_model(NAME)
    assert dict(model.aliases) == {}
    client.set_registered_model_tag(NAME, "k", "v")
    assert client.get_registered_model(NAME).tags == {"k": "v"}
    assert client.get_registered_model(NAME).creation_timestamp == model.creation_timestamp
