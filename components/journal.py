"""Journal of a registered model: the operations on its aliases, in an order that is the same for all machines.

MLflow moves one alias or tag per request. An operation of several requests is therefore first written as one entry of
the journal, and any process that finds it unfinished completes it. Entries are parameters of an MLflow run, since
MLflow does not allow changes of parameters: of two processes that write the same entry, one is refused. The run lies in
an experiment of its own, made under another name and then renamed, since names of experiments are unique.
"""

import json
import logging
import uuid
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as validated

from components.author import Author
from model.errors import MyXTTSError

JOURNAL_TAG = "myxtts.journal"
"""Tag of a registered model: id of the run that holds its journal."""
MODEL_TAG = "myxtts.journal.model"
"""Tag of the journal's run: when its registered model was made, in milliseconds since the epoch."""
FOLDER = "registry"
MAX_CHARACTERS = 5500
"""Longest entry; MLflow cuts parameters at 6000 characters."""
DONE = ".done"
ANNOUNCER, ANNOUNCED = ".announcer", ".announced"
APPLIED, ABANDONED = "applied", "abandoned"

logger = logging.getLogger(__name__)


class JournalError(MyXTTSError):
    """An entry of a journal cannot be written or read; the message says why."""


@validated(frozen=True, kw_only=True)
class Operation:
    """One entry of the journal, complete enough for any process to finish it.

    Attributes:
        id: Unique.
        action: `promote`, `rollback` or `register`.
        version: Version that becomes the champion, or the candidate if the action is `register`.
        replaced: Champion before; '' for none.
        earlier: Champions before this one, newest first, to which a rollback returns.
        metrics: Metrics of the version's evaluation, if the action is `register`.
        reason: Reason that is shown to users.
        time: In UTC, ISO 8601.
        writer: Process that wrote the entry (`components.process_identity`).
        author: Who did it, and with which code; None in entries of earlier versions of this program.
        forced: Whether the version was promoted although something spoke against it.
        evidence: What the change rests on: name -> address or numbers.
        best_in: Metrics in which a promoted version becomes the reference of later candidates; None in entries of
            earlier versions of this program, which put a tag on the version.
    """

    id: str
    action: str
    version: str
    reason: str
    time: str
    writer: str
    replaced: str = ""
    earlier: tuple[str, ...] = ()
    metrics: dict[str, str] | None = None
    author: Author | None = None
    forced: bool = False
    evidence: dict[str, str] = field(default_factory=dict)
    best_in: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An operation at its place in the journal.

    Attributes:
        number: Place, from 1.
        operation: The operation.
        outcome: `applied`, `abandoned: <reason>`, or '' while it is not finished.
        announcement: Result of the announcement (`components.announcement`), `begun`, or '' where there was none.
    """

    number: int
    operation: Operation
    outcome: str
    announcement: str = ""

    @property
    def counts(self) -> bool:
        """Whether the operation was not abandoned; it is decided even if it is not finished."""
        return not self.outcome.startswith(ABANDONED)


class Journal:
    """The journal of one registered model.

    Args:
        client: `MlflowClient` of the registry.
        run_id: Run that holds the entries.
    """

    def __init__(self, client: Any, run_id: str) -> None:
        self._client = client
        self.run_id = run_id

    def entries(self) -> list[Entry]:
        """Returns all entries, oldest first.

        Raises:
            JournalError: an entry is malformed.
        """
        params: dict[str, str] = self._client.get_run(self.run_id).data.params
        found: list[Entry] = []
        while (key := _key(len(found) + 1)) in params:
            try:
                operation = TypeAdapter(Operation).validate_json(params[key])
            except ValidationError as error:
                raise JournalError(
                    f"entry {key} of the registry's journal (MLflow run {self.run_id}) cannot be read: "
                    f"{error.errors()[0]['msg']}; it was written by another version of this program"
                ) from error
            begun = "begun" if key + ANNOUNCER in params else ""
            found.append(
                Entry(
                    number=len(found) + 1,
                    operation=operation,
                    outcome=params.get(key + DONE, ""),
                    announcement=params.get(key + ANNOUNCED, begun),
                )
            )
        return found

    def append(self, number: int, operation: Operation) -> bool:
        """Writes an entry; returns False if another process has written the entry of this number.

        Raises:
            JournalError: the entry is too long.
            MlflowException: the server did not take it.
        """
        text = json.dumps(TypeAdapter(Operation).dump_python(operation, mode="json"), ensure_ascii=False)
        if len(text) > MAX_CHARACTERS:
            raise JournalError(f"the record of this change has {len(text)} characters, at most {MAX_CHARACTERS} fit")
        return self._write_once(_key(number), text) == text

    def close(self, number: int, outcome: str) -> str:
        """Records the outcome of an entry, and returns the outcome that was recorded first."""
        return self._write_once(_key(number) + DONE, outcome)

    def claim_announcement(self, number: int, announcer: str) -> bool:
        """Returns whether this process, under a unique name, is the one that announces an entry."""
        return self._write_once(_key(number) + ANNOUNCER, announcer) == announcer

    def close_announcement(self, number: int, result: str) -> None:
        """Records the result of an announcement."""
        self._write_once(_key(number) + ANNOUNCED, result)

    def _write_once(self, key: str, value: str) -> str:
        """Writes a parameter unless it has a value, and returns the value that it has now."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.log_param(self.run_id, key, value, synchronous=True)
        except MlflowException:
            # Refused, or the response was lost: the value of the parameter decides.
            present: dict[str, str] = self._client.get_run(self.run_id).data.params
            if key not in present:
                raise
            return present[key]
        return value


def find_journal(client: Any, model: Any) -> Journal | None:
    """Returns the journal of a registered model, or None if it has none yet.

    Args:
        client: `MlflowClient` of the registry.
        model: MLflow's `RegisteredModel`.
    """
    created = str(model.creation_timestamp)
    if (tagged := model.tags.get(JOURNAL_TAG)) and _belongs(client, tagged, created):
        return Journal(client, tagged)
    experiment = client.get_experiment_by_name(_experiment_name(model))
    if experiment is None:
        return None
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
        logger.warning("the experiment %s, which holds the registry's journal, was deleted; restored", experiment.name)
    from mlflow.entities import ViewType

    runs = client.search_runs([experiment.experiment_id], run_view_type=ViewType.ALL, order_by=["start_time ASC"])
    for run in runs:
        if run.data.tags.get(MODEL_TAG) == created:
            if run.info.lifecycle_stage == "deleted":
                client.restore_run(run.info.run_id)
            return Journal(client, run.info.run_id)
    raise JournalError(
        f"the experiment {experiment.name!r} of MLflow lacks the run with the journal of {model.name}; "
        f"rename the experiment, and a new journal begins with the aliases as they are"
    )


def make_journal(client: Any, model: Any, artifacts: str | None = None) -> Journal:
    """Returns a new journal of a registered model, or the one that another process has made meanwhile.

    An experiment with one run is made under a name of its own, and then gets the name that all processes look for.

    Args:
        client: `MlflowClient` of the registry.
        model: MLflow's `RegisteredModel`.
        artifacts: Artifact location of the experiment; None for the server's default.
    """
    from mlflow.exceptions import MlflowException

    name = _experiment_name(model)
    made = client.create_experiment(f"{name}.{uuid.uuid4().hex}", artifact_location=artifacts)
    run = client.create_run(made, run_name=f"changes of {model.name}", tags={MODEL_TAG: str(model.creation_timestamp)})
    client.set_terminated(run.info.run_id)
    try:
        client.rename_experiment(made, name)
        journal = Journal(client, run.info.run_id)
    except MlflowException:  # the name is taken, or the answer was lost
        found = find_journal(client, model)
        if found is None:
            raise
        journal = found
    _delete_unfinished(client, name)
    return journal


def _delete_unfinished(client: Any, name: str) -> None:
    """Deletes incomplete journals of other processes: experiments that never got the journal's name."""
    from mlflow.exceptions import MlflowException

    for experiment in client.search_experiments(filter_string=f"name LIKE '{name}.%'"):
        try:
            client.delete_experiment(experiment.experiment_id)
        except MlflowException as error:  # another process has just deleted it, or it belongs to another user
            logger.info("%s stays in MLflow: %s", experiment.name, error)


def _belongs(client: Any, run_id: str, created: str) -> bool:
    """Returns whether a run exists and holds the journal of the model that was made at this time."""
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise
    return run.info.lifecycle_stage == "active" and run.data.tags.get(MODEL_TAG) == created


def _experiment_name(model: Any) -> str:
    return f"{FOLDER}/{model.name}/{model.creation_timestamp}"


def _key(number: int) -> str:
    return f"{number:06d}"
