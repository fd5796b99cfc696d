"""Records runs in MLflow without slowing or stopping the work.

Metrics and artifacts are appended to a spool on disk, and a background thread delivers them in batches. While the
server does not answer they wait; undelivered records are sent when the same run is opened again.
"""

import hashlib
import importlib
import json
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict  # pydantic reads this one before Python 3.12

from components.author import mlflow_tags
from components.database_urls import absolute_url, require_server
from components.failures import explain_mlflow
from components.outage import storage_errors
from components.state import State, file_lock, read_json, read_or_set_aside
from model.errors import MyXTTSError
from model.files import parse_record, trim_incomplete_line, write_json

BATCH = 1000
"""Largest number of metric values in a request, a limit of MLflow."""
KEY_TAG = "myxtts.key"

logger = logging.getLogger(__name__)


class _Header(TypedDict):
    """Content of `header.json`; keys as the arguments of `MlflowRunLogger`."""

    experiment: str
    run_name: str
    tags: dict[str, str]
    params: dict[str, str]
    parent_run_id: str
    dataset: dict[str, str]


class _Record(TypedDict, total=False):
    """A line of `records.jsonl`: metrics, an artifact or a status."""

    time: int
    step: int
    metrics: dict[str, float]
    artifact: str
    folder: str
    status: str


class TrackingError(MyXTTSError):
    """The tracking server cannot be used; the message says which and what to do."""


def tracking_uri(state: State) -> str:
    """Returns the address of the tracking server: `MLFLOW_TRACKING_URI`, else a database in the state folder.

    Raises:
        TrackingError: the variable is not set in a pod, where a local database would be lost with the pod.
    """
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        return absolute_url(uri)
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        raise TrackingError(
            "MLFLOW_TRACKING_URI is not set in this pod, so its records would be lost; "
            "set cluster.tracking_uri to the address of the MLflow server and compile the pipeline again"
        )
    return f"sqlite:///{state.tracking_database}"


def client(state: State) -> Any:
    """Returns an `MlflowClient` of the tracking server; a missing local database is created first."""
    # A request to a server that does not answer must fail soon: by default MLflow retries for four minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # stdout holds the command's results alone
    uri = tracking_uri(state)
    require_server(uri, "MLFLOW_TRACKING_URI")
    import mlflow

    for noisy in ("mlflow", "alembic", "urllib3.connectionpool"):  # after the import, which sets up MLflow's logging
        logging.getLogger(noisy).setLevel(logging.ERROR)
    initialize(state, uri)
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    return mlflow.MlflowClient(uri)


def initialize(state: State, uri: str = "") -> None:
    """Creates an SQLite database in one process at a time, since parallel first starts would damage it."""
    uri = uri or tracking_uri(state)
    if not uri.startswith("sqlite:///"):
        return
    database = Path(uri.removeprefix("sqlite:///").partition("?")[0])
    ready = state.root / "mlflow.ready"
    if database != state.tracking_database:
        ready = state.root / f"mlflow-{hashlib.sha256(str(database).encode()).hexdigest()[:8]}.ready"
    if ready.is_file() and database.is_file():
        return
    state.prepare()
    database.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(database.with_name(f".{database.name}.lock"), "MLflow's database"):  # of all state folders
        if ready.is_file() and database.is_file():
            return
        if database.is_file():
            _open_database(uri, state)  # made by another version or by hand
        else:
            # Made under another name and renamed when complete, so that an interrupt leaves no incomplete database.
            unfinished = database.with_name(f"{database.name}.new")
            for leftover in (unfinished, database.with_name(f"{unfinished.name}-journal")):
                leftover.unlink(missing_ok=True)
            _open_database(f"sqlite:///{unfinished}", state)
            os.replace(unfinished, database)
        ready.touch()


def _open_database(uri: str, state: State) -> None:
    """Opens an SQLite database with MLflow, which makes its tables if it has none, and closes it."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore(uri, state.folder("mlartifacts").as_uri())
    store.engine.dispose()


def experiment_id(client: Any, state: State, name: str) -> str:
    """Returns the id of the experiment `name`, which is created if needed (local artifacts below the state folder)."""
    from mlflow.exceptions import MlflowException

    if found := client.get_experiment_by_name(name):
        if found.lifecycle_stage == "deleted":  # MLflow refuses runs in it, and another one of its name
            client.restore_experiment(found.experiment_id)
            logger.warning("the experiment %s was deleted in MLflow; it is restored for new runs", name)
        return found.experiment_id
    try:
        return client.create_experiment(name, artifact_location=artifact_location(state, name))
    except MlflowException:  # another process may have created it meanwhile
        if found := client.get_experiment_by_name(name):
            return found.experiment_id
        raise


def artifact_location(state: State, name: str) -> str | None:
    """Returns where an experiment's artifacts lie: below the state folder, or where the server keeps them (None)."""
    local = tracking_uri(state).startswith("sqlite:///")
    return state.folder("mlartifacts", name).as_uri() if local else None


class MlflowRunLogger:
    """`RunLogger` that appends to a spool file, from which a background thread delivers to MLflow.

    Args:
        state: State folder with the local database.
        spool: Folder of the undelivered records; opening it again resumes the same MLflow run.
        experiment: Name of the MLflow experiment.
        run_name: Name of the run in the MLflow UI.
        tags: Tags of the run.
        params: Parameters of the run, by dotted key.
        parent_run_id: Parent run, whose experiment the run joins; '' for none. One that this MLflow does not have is
            left out, such as a run of Kubeflow Pipelines that records in another MLflow.
        dataset: `name`, `digest` (a DVC hash fits MLflow's 36 characters) and `source` of the training data.
        interval: Seconds between deliveries.
    """

    def __init__(
        self,
        state: State,
        spool: Path,
        experiment: str,
        run_name: str,
        tags: Mapping[str, str],
        params: Mapping[str, Any],
        parent_run_id: str = "",
        dataset: Mapping[str, str] | None = None,
        interval: float = 2.0,
    ) -> None:
        spool.mkdir(parents=True, exist_ok=True)
        header = {
            "experiment": experiment,
            "run_name": run_name,
            "tags": {**mlflow_tags(), **tags},
            "params": {key: str(value)[:500] for key, value in params.items()},
            "parent_run_id": parent_run_id,
            "dataset": dict(dataset or {}),
        }
        write_json(spool / "header.json", header)
        self._delivery = Delivery(state, spool)
        trim_incomplete_line(spool / "records.jsonl")
        self._records = (spool / "records.jsonl").open("a", encoding="utf-8")
        self._interval = interval
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        if self._delivery.run_id:
            self._append({"status": "RUNNING"})
        self._thread = threading.Thread(target=self._deliver_in_background, name="mlflow-spool", daemon=True)
        self._thread.start()

    @property
    def run_id(self) -> str:
        """Id of the MLflow run; '' while the server has not answered."""
        return self._delivery.run_id

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self._append({"time": int(time.time() * 1000), "step": int(step), "metrics": dict(values)})

    def artifact(self, path: Path, folder: str = "") -> None:
        self._append({"artifact": str(Path(path).resolve()), "folder": folder})

    def close(self, status: str = "FINISHED", timeout: float = 30.0) -> None:
        """Delivers the remaining records for at most `timeout` seconds and sets the run's status; never raises."""
        with self._lock:
            if self._records.closed:
                return
        self._append({"status": status})
        with self._lock:
            self._records.close()
        self._stopping.set()
        self._thread.join(timeout)
        if self._thread.is_alive() or self._delivery.pending():
            logger.warning(
                "MLflow did not accept all records; the rest is delivered from %s when this run is opened again",
                self._delivery.spool,
            )

    def __enter__(self) -> "MlflowRunLogger":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Closes the run with the status that matches how the block ended."""
        interrupted = kind is not None and issubclass(kind, KeyboardInterrupt)
        self.close("FINISHED" if kind is None else "KILLED" if interrupted else "FAILED")

    def _append(self, record: Mapping[str, Any]) -> None:
        line = json.dumps(record)
        with self._lock:
            self._records.write(line + "\n")
            self._records.flush()

    def _deliver_in_background(self) -> None:
        while True:
            stopping = self._stopping.wait(self._interval)
            delivered = self._delivery.attempt()
            if stopping and (delivered or self._delivery.failures > 2):
                return


class Delivery:
    """Delivers the records of a spool and stores its position; one process at a time may repeat it at any time.

    Args:
        state: State folder with the local database.
        spool: Folder with `header.json` and `records.jsonl`.

    Attributes:
        run_id: Run that gets the records; '' while there is none. A run that MLflow does not know, since it was deleted
            or recorded by another MLflow, is replaced by a new one that gets all records.
        failures: Number of failed attempts in a row.
        error: Why the last attempt failed; '' if it succeeded.
    """

    def __init__(self, state: State, spool: Path) -> None:
        self.state = state
        self.spool = spool
        self.failures = 0
        self.error = ""
        self._client: Any = None
        run = spool / "run.json"
        self.run_id: str = read_or_set_aside(run, dict[str, str], {}).get("run_id", "")

    def pending(self) -> int:
        """Returns the number of bytes of the spool that have not been delivered."""
        records = self.spool / "records.jsonl"
        return (records.stat().st_size if records.is_file() else 0) - self._position()

    def attempt(self) -> bool:
        """Tries to deliver everything; returns False, after a log line, if the server did not accept it."""
        importlib.import_module("mlflow")  # waits for a thread that imports it, which the import of a part does not
        from mlflow.exceptions import MlflowException

        outages: list[type[Exception]] = [MlflowException, OSError, *storage_errors()]
        try:
            self.send()
        except tuple(outages) as error:
            self.failures += 1
            self.error = explain_mlflow(error)
            if self.failures == 1:
                logger.warning("records wait in %s: %s", self.spool, self.error)
            return False
        self.failures, self.error = 0, ""
        return True

    def send(self) -> None:
        """Delivers all complete records.

        Raises:
            MlflowException, OSError, errors of boto3: the server or the artifact store did not accept them; the
                position after the last accepted batch is stored.
        """
        if self._client is None:
            opened = client(self.state)
            if self.run_id and _find_run(opened, self.run_id) is None:
                self._start_over()
            self._client = opened
        if not self.run_id:
            self._create_run()
        for batch, position in self._batches():
            self._send_batch(batch)
            write_json(self.spool / "delivered.json", {"position": position})

    def _start_over(self) -> None:
        """Discards the run and the delivered position, so that a new run gets all records."""
        logger.warning(
            "MLflow does not have the run %s (any more): the records in %s go to a new one", self.run_id, self.spool
        )
        (self.spool / "delivered.json").unlink(missing_ok=True)
        (self.spool / "run.json").unlink(missing_ok=True)
        self.run_id = ""

    def _create_run(self) -> None:
        header = read_json(self.spool / "header.json", _Header)
        experiment = experiment_id(self._client, self.state, header["experiment"])
        tags = {**header["tags"], KEY_TAG: self.spool.parent.name}
        if parent := _find_run(self._client, header["parent_run_id"]):
            tags["mlflow.parentRunId"] = parent.info.run_id
            experiment = parent.info.experiment_id
        run = self._client.create_run(experiment, tags=tags, run_name=header["run_name"])
        self.run_id = run.info.run_id
        write_json(self.spool / "run.json", {"run_id": self.run_id})
        from mlflow.entities import Dataset, DatasetInput, InputTag, Param

        params = [Param(key, value) for key, value in header["params"].items()]
        for start in range(0, len(params), 100):
            self._client.log_batch(self.run_id, params=params[start : start + 100])
        if dataset := header["dataset"]:
            source = json.dumps({"uri": dataset["source"]})
            entity = Dataset(dataset["name"], dataset["digest"], source_type="local", source=source)
            context = InputTag("mlflow.data.context", "training")
            self._client.log_inputs(self.run_id, datasets=[DatasetInput(entity, [context])])

    def _position(self) -> int:
        path = self.spool / "delivered.json"
        return read_or_set_aside(path, dict[str, int], {}).get("position", 0)

    def _batches(self) -> Iterator[tuple[list[_Record], int]]:
        """Yields batches of complete records after the last delivered position, each with the position after it."""
        path = self.spool / "records.jsonl"
        if not path.is_file():
            return
        position, values = self._position(), 0
        batch: list[_Record] = []
        with path.open("rb") as file:
            file.seek(position)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # still being written
                try:
                    record = parse_record(line, _Record, f"{path} at byte {position}", TrackingError, "left out")
                except TrackingError as error:
                    logger.warning("%s", error)
                    record = _Record()
                size = len(record.get("metrics", ()))
                if batch and values + size > BATCH:
                    yield batch, position
                    batch, values = [], 0
                batch.append(record)
                values += size
                position += len(line)
        if batch:
            yield batch, position

    def _send_batch(self, batch: list[_Record]) -> None:
        from mlflow.entities import Metric

        metrics = [
            Metric(name, float(value), record["time"], record["step"])
            for record in batch
            for name, value in record.get("metrics", {}).items()
        ]
        if metrics:
            self._client.log_batch(self.run_id, metrics=metrics)
        for record in batch:
            if "artifact" in record:
                self._send_artifact(Path(record["artifact"]), record.get("folder", ""))
            elif "status" in record:
                self._mark(record["status"])

    def _mark(self, status: str) -> None:
        if status == "RUNNING":
            self._client.update_run(self.run_id, status=status)
        else:
            self._client.set_terminated(self.run_id, status=status)

    def _send_artifact(self, path: Path, folder: str) -> None:
        if path.is_dir():
            self._client.log_artifacts(self.run_id, str(path), folder or None)
        elif path.is_file():
            self._client.log_artifact(self.run_id, str(path), folder or None)
        else:
            logger.warning("%s was removed before it was delivered to MLflow; the run lacks it", path)


def _find_run(client: Any, run_id: str) -> Any:
    """Returns a run that MLflow has and that is not deleted, or None; ids are unique across servers."""
    from mlflow.exceptions import MlflowException

    if not run_id:
        return None
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):  # the second: not an id
            return None
        raise
    return run if run.info.lifecycle_stage != "deleted" else None


def append_to_run(
    state: State,
    spool: Path,
    metrics: Mapping[str, float],
    artifacts: Sequence[Path],
    step: int = 0,
    folder: str = "evaluation",
) -> Delivery:
    """Adds metrics, and files in a folder, to the run of a spool whose logger is closed, and tries to deliver them."""
    now = int(time.time() * 1000)
    records: list[dict[str, Any]] = [{"time": now, "step": step, "metrics": dict(metrics)}]
    records += [{"artifact": str(path.resolve()), "folder": folder} for path in artifacts if path.is_file()]
    trim_incomplete_line(spool / "records.jsonl")
    with (spool / "records.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)
    delivery = Delivery(state, spool)
    delivery.attempt()
    return delivery
