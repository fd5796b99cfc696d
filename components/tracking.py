"""MLflow as the place where runs are recorded, without letting it slow or stop the work.

Metrics and artifacts go to a spool on disk first; a background thread delivers them in batches. A dead server
costs nothing but delay: what was not delivered is sent when the same run is opened again.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from components.outage import storage_errors
from components.state import State, read_json, write_json
from model.errors import MyXTTSError

BATCH = 1000
KEY_TAG = "myxtts.key"

logger = logging.getLogger(__name__)


class TrackingError(MyXTTSError):
    """The tracking server cannot be used; the message says which and what to do."""


def tracking_uri(state: State) -> str:
    """Address of the tracking server: `MLFLOW_TRACKING_URI`, else a database in the state.

    Raises:
        TrackingError: in a pod without the variable, where a local database would vanish with the pod.
    """
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        return uri
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        raise TrackingError(
            "MLFLOW_TRACKING_URI is not set in this pod: what it records would vanish with it; "
            "give the pipeline's profile the address of the MLflow server"
        )
    return f"sqlite:///{state.tracking_database}"


def client(state: State) -> Any:
    """An `MlflowClient` of the state's server; the local database is created first where it is missing."""
    # A server that does not answer must fail at once: by default MLflow retries for four minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    uri = tracking_uri(state)
    import mlflow

    for noisy in ("mlflow", "alembic", "urllib3.connectionpool"):  # after the import, which sets up MLflow's logging
        logging.getLogger(noisy).setLevel(logging.ERROR)
    initialise(state, uri)
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    return mlflow.MlflowClient(uri)


def initialise(state: State, uri: str = "") -> None:
    """Create the local database once, in one process: parallel first starts would break it."""
    uri = uri or tracking_uri(state)
    if not uri.startswith("sqlite:///"):
        return
    ready = state.root / "mlflow.ready"
    if ready.is_file() and state.tracking_database.is_file():
        return
    state.prepare()
    with state.lock("mlflow-database"):
        if ready.is_file() and state.tracking_database.is_file():
            return
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        SqlAlchemyStore(uri, state.folder("mlartifacts").as_uri())
        ready.touch()


def experiment_id(client: Any, state: State, name: str) -> str:
    """Id of the experiment `name`, created where it is missing (artifacts at an absolute place in the state)."""
    from mlflow.exceptions import MlflowException

    if found := client.get_experiment_by_name(name):
        return found.experiment_id
    local = tracking_uri(state).startswith("sqlite:///")
    location = state.folder("mlartifacts", name).as_uri() if local else None
    try:
        return client.create_experiment(name, artifact_location=location)
    except MlflowException:  # another process was first
        if found := client.get_experiment_by_name(name):
            return found.experiment_id
        raise


class MlflowRunLogger:
    """A `RunLogger` whose calls only append to a file.

    Args:
        state: Where the local database lies.
        spool: Folder of the undelivered records; opening it again continues the same MLflow run.
        experiment: Name of the MLflow experiment.
        run_name: Shown in the MLflow UI.
        tags: Tags of the run.
        params: Parameters of the run, by dotted key.
        parent_run_id: Run that this one is a child of.
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
            "tags": dict(tags),
            "params": {key: str(value)[:500] for key, value in params.items()},
            "parent_run_id": parent_run_id,
            "dataset": dict(dataset or {}),
        }
        write_json(spool / "header.json", header)
        self._delivery = Delivery(state, spool)
        _trim_torn_line(spool / "records.jsonl")
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
        """The MLflow run, or '' while the server has not answered yet."""
        return self._delivery.run_id

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self._append({"time": int(time.time() * 1000), "step": int(step), "metrics": dict(values)})

    def artifact(self, path: Path, folder: str = "") -> None:
        self._append({"artifact": str(Path(path).resolve()), "folder": folder})

    def close(self, status: str = "FINISHED", timeout: float = 30.0) -> None:
        """Deliver what is left within `timeout` seconds and mark the run; never raises for a dead server."""
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
                "MLflow did not take all records; they wait in %s and are sent when this run is opened again",
                self._delivery.spool,
            )

    def __enter__(self) -> "MlflowRunLogger":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close with the status that says how the work ended."""
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
    """Sends the records of a spool, remembering how far it came; may be repeated at any time by one process.

    Args:
        state: Where the local database lies.
        spool: Folder with `header.json` and `records.jsonl`.
    """

    def __init__(self, state: State, spool: Path) -> None:
        self.state = state
        self.spool = spool
        self.failures = 0
        self._client: Any = None
        run = spool / "run.json"
        self.run_id: str = read_json(run)["run_id"] if run.is_file() else ""

    def pending(self) -> int:
        """Bytes of the spool that have not been delivered."""
        records = self.spool / "records.jsonl"
        return (records.stat().st_size if records.is_file() else 0) - self._position()

    def attempt(self) -> bool:
        """Try to deliver everything; False (and a log line) when the server did not take it."""
        from mlflow.exceptions import MlflowException

        try:
            self.send()
        except (MlflowException, OSError, *storage_errors()) as error:
            self.failures += 1
            if self.failures == 1:
                logger.warning("MLflow does not answer, records wait in %s: %s", self.spool, error)
            return False
        self.failures = 0
        return True

    def send(self) -> None:
        """Deliver all complete records.

        Raises:
            MlflowException, OSError, errors of boto3: server or artifact store did not take them; what they took is
                remembered.
        """
        self._client = self._client or client(self.state)
        if not self.run_id:
            self._create_run()
        for batch, position in self._batches():
            self._send_batch(batch)
            write_json(self.spool / "delivered.json", {"position": position})

    def _create_run(self) -> None:
        header = read_json(self.spool / "header.json")
        experiment = experiment_id(self._client, self.state, header["experiment"])
        tags = {**header["tags"], KEY_TAG: self.spool.parent.name}
        if header["parent_run_id"]:
            tags["mlflow.parentRunId"] = header["parent_run_id"]
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
        return read_json(path)["position"] if path.is_file() else 0

    def _batches(self) -> Iterator[tuple[list[dict[str, Any]], int]]:
        """Complete records from the last delivered position on, with the position after each batch."""
        path = self.spool / "records.jsonl"
        if not path.is_file():
            return
        position, values = self._position(), 0
        batch: list[dict[str, Any]] = []
        with path.open("rb") as file:
            file.seek(position)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # its writer is in the middle of it
                record = json.loads(line)
                size = len(record.get("metrics", ()))
                if batch and values + size > BATCH:
                    yield batch, position
                    batch, values = [], 0
                batch.append(record)
                values += size
                position += len(line)
        if batch:
            yield batch, position

    def _send_batch(self, batch: list[dict[str, Any]]) -> None:
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
                self._send_artifact(Path(record["artifact"]), record["folder"])
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
            logger.warning("%s was removed before MLflow took it; the run lacks it", path)


def append_to_run(
    state: State,
    spool: Path,
    metrics: Mapping[str, float],
    artifacts: Sequence[Path],
    step: int = 0,
    folder: str = "evaluation",
) -> Delivery:
    """Add values, and files under a folder, to the run behind a spool whose logger is closed; try to deliver them."""
    now = int(time.time() * 1000)
    records = [{"time": now, "step": step, "metrics": dict(metrics)}]
    records += [{"artifact": str(path.resolve()), "folder": folder} for path in artifacts if path.is_file()]
    _trim_torn_line(spool / "records.jsonl")
    with (spool / "records.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)
    delivery = Delivery(state, spool)
    delivery.attempt()
    return delivery


def _trim_torn_line(path: Path) -> None:
    """Cut a last line that a killed writer left half-written, so that the next record starts a line of its own."""
    if path.is_file() and (data := path.read_bytes()) and not data.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(data.rfind(b"\n") + 1)
