"""Hyperparameter studies: Optuna trials that train on equal numbers of samples and minimize an unweighted error."""

import importlib.util
import io
import json
import math
import os
import shutil
import socket
import warnings
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages.journal import JournalFileBackend

from components import lineage
from components.configure.parameters import step_settings
from components.database_urls import require_server
from components.state import State
from components.tracking import MlflowRunLogger, client, experiment_id
from model.config.resolution import Resolved, batch_range, flatten, resolve
from model.config.schema import Config
from model.config.training import TrainSettings
from model.errors import MyXTTSError
from pipelines.project import Project
from pipelines.search_space import VERSION, Range, search_space

OBJECTIVE = "validation/mel"
"""Metric that a study minimizes. It is unweighted, so that a searched loss weight does not scale it."""

RUNGS = 6
"""Number of validations of a trial, at equal numbers of samples, after which the pruner compares trials."""

STORAGE_VARIABLE = "MYXTTS_STUDY_STORAGE"
"""Environment variable with the URL of the database of the studies."""
OPENED = "opened"
"""Study attribute: how often it was opened. It changes the seed, so that workers do not repeat each other's trials."""
ERROR = "error"
"""Trial attribute: why the trial failed."""
MAX_CONSECUTIVE_FAILURES = 3
"""Number of failed trials in a row after which a worker stops."""
FINISHED = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)


class StudyError(MyXTTSError):
    """A study cannot be opened or run; the message says how to fix it."""


def storage(state: State) -> optuna.storages.BaseStorage:
    """Returns the storage of studies: the database in `MYXTTS_STUDY_STORAGE`, else a journal file in the state.

    Raises:
        StudyError: the database cannot be used, or the variable is not set in a pod.
    """
    if url := os.environ.get(STORAGE_VARIABLE):
        return _database(url)
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        raise StudyError(f"{STORAGE_VARIABLE} is not set in this pod; set it to the URL of the database of the studies")
    path = state.prepare().study_journal
    _truncate_partial_line(path)
    return optuna.storages.JournalStorage(JournalFileBackend(str(path)))


def _database(url: str) -> optuna.storages.RDBStorage:
    """Connects to the database of the studies; trials of a dead worker fail after its heartbeats stop."""
    import sqlalchemy.exc

    require_server(url, STORAGE_VARIABLE)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)  # heartbeats
    try:
        return optuna.storages.RDBStorage(
            url,
            engine_kwargs={"pool_pre_ping": True, "pool_size": 2} if url.startswith("postgresql") else None,
            heartbeat_interval=60,
            grace_period=600,
        )
    except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:  # the URL may name a driver that is not installed
        reason = str(error).partition("\n")[0]
        raise StudyError(
            f"the database of the studies cannot be used ({reason}); check that {STORAGE_VARIABLE} is a URL of the "
            "scheme postgresql+pg8000 with user, password, host and database, and that the server answers"
        ) from error


def _truncate_partial_line(path: Path) -> None:
    """Removes a last line that a killed worker wrote only partly, since the next record would be appended to it."""
    if path.is_file() and (data := path.read_bytes()) and not data.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(data.rfind(b"\n") + 1)


def study_name(config: Config, data_hash: str) -> str:
    """Returns the name of the study for a model size, search space and data, whose trials are comparable."""
    latent = "-latent" if config.model.use_variational_encoder else ""
    return f"{config.model_size}{latent}-{data_hash[:8]}-v{VERSION}"


def sampler(seed: int) -> optuna.samplers.BaseSampler:
    """Returns a Gaussian-process sampler, which needs the fewest trials here, or TPE without torch and scipy."""
    if importlib.util.find_spec("torch") and importlib.util.find_spec("scipy"):
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=4)
    return optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)


@dataclass(frozen=True, kw_only=True)
class StudyContext:
    """Data and settings that all trials of a study share.

    Attributes:
        state: State folder, which receives the files of the trials.
        resolved: Settings that the values of a trial override.
        features: Feature store to train on.
        experiment: MLflow experiment.
        name: Name of the study.
    """

    state: State
    resolved: Resolved
    features: Path
    experiment: str
    name: str

    @property
    def config(self) -> Config:
        return self.resolved.config

    @property
    def folder(self) -> Path:
        return self.state.folder("studies", self.name)


def prepare(project: Project) -> StudyContext:
    """Fetches the project's data and extracts its features, by the steps of the pipeline."""
    from components.preprocess.run import run as preprocess
    from components.resolve_data.run import run as resolve_data

    os.environ["MYXTTS_STATE"] = str(project.state.root)
    arguments = project.run_arguments()
    name = study_name(project.config, arguments["data"])
    folder = project.state.folder("studies", name)
    with redirect_stdout(io.StringIO()):  # the event lines of the steps
        data = resolve_data(arguments["data"], arguments["remote"]).write(folder / "data.json")
        features = preprocess(str(data), step_settings(project.config)["preprocess_settings"])
    return StudyContext(
        state=project.state,
        resolved=project.resolved,
        features=features.features,
        experiment=arguments["corpus"],
        name=name,
    )


def open_study(context: StudyContext) -> optuna.Study:
    """Opens the study, created once with its MLflow parent run and a first trial of the unchanged settings."""
    config = context.config
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # `work` reports the trials, without tracebacks
    with context.state.lock("study"):
        study = optuna.create_study(
            study_name=context.name,
            storage=storage(context.state),
            pruner=optuna.pruners.MedianPruner(
                n_startup_trials=config.study.pruner_startup_trials,
                n_warmup_steps=config.study.pruner_warmup_evaluations,
            ),
            direction="minimize",
            load_if_exists=True,
        )
        if "mlflow_run" not in study.user_attrs:
            mlflow_client = client(context.state)
            experiment = experiment_id(mlflow_client, context.state, context.experiment)
            tags = {**lineage.current(), "optuna.study": context.name}
            parent = mlflow_client.create_run(experiment, tags=tags, run_name=f"study {context.name}")
            study.set_user_attr("mlflow_run", parent.info.run_id)
            study.set_user_attr("space", {key: vars(item) for key, item in space_of(config).items()})
            _enqueue_baseline(study, config)
        _fail_orphans(study)
        opened = study.user_attrs.get(OPENED, 0)
        study.set_user_attr(OPENED, opened + 1)
    study.sampler = sampler(config.seed + opened)
    return study


def load_study(project: Project) -> optuna.Study:
    """Loads the existing study of a project's data and settings.

    Raises:
        StudyError: there is none yet.
    """
    name = study_name(project.config, project.run_arguments()["data"])
    try:
        return optuna.load_study(study_name=name, storage=storage(project.state))
    except KeyError as error:
        raise StudyError(f"there is no study {name} yet; `myxtts study run` makes it") from error


def space_of(config: Config) -> dict[str, Range]:
    """Returns the search space of a study with these settings."""
    return search_space(config.model_size, config.model.use_variational_encoder)


def _enqueue_baseline(study: optuna.Study, config: Config) -> None:
    """Makes the unchanged settings the first trial."""
    values = flatten(config.model_dump())
    space = space_of(config)
    baseline = {key: values[key] for key, interval in space.items() if interval.contains(values[key])}
    study.enqueue_trial(baseline, user_attrs={"baseline": True}, skip_if_exists=True)


def _fail_orphans(study: optuna.Study) -> None:
    """Fails and enqueues again the running trials of workers on this machine that have died."""
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        host, _, pid = trial.user_attrs.get("worker", "").partition(":")
        if host == socket.gethostname() and not Path(f"/proc/{pid}").is_dir():
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            study.enqueue_trial(trial.params, user_attrs={"retry_of": trial.number})


def work(
    context: StudyContext,
    study: optuna.Study,
    trials: int,
    report: Callable[[optuna.trial.FrozenTrial], None] = lambda _: None,
) -> None:
    """Runs trials until the study has `trials` finished ones, including those of other workers.

    Raises:
        StudyError: `MAX_CONSECUTIVE_FAILURES` trials of this worker failed in a row.
    """
    from model.training.trainer import TrainingError

    failures: list[str] = []

    def finished() -> int:
        return len(study.get_trials(deepcopy=False, states=FINISHED))

    def after_trial(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        report(trial)
        if trial.state == optuna.trial.TrialState.FAIL:
            failures.append(trial.user_attrs[ERROR])
        else:
            failures.clear()
        if finished() >= trials or len(failures) == MAX_CONSECUTIVE_FAILURES:
            study.stop()

    if finished() < trials:
        study.optimize(lambda trial: objective(context, study, trial), callbacks=[after_trial], catch=(TrainingError,))
    if len(failures) == MAX_CONSECUTIVE_FAILURES:
        raise StudyError(f"{MAX_CONSECUTIVE_FAILURES} trials in a row failed, the last one with: {failures[-1]}")


def objective(context: StudyContext, study: optuna.Study, trial: optuna.Trial) -> float:
    """Trains one trial and returns its unweighted validation mel error.

    Raises:
        optuna.TrialPruned: other trials had a lower error at the same number of samples.
    """
    from model.training.trainer import StopTraining, TrainingError, train

    trial.set_user_attr("worker", f"{socket.gethostname()}:{os.getpid()}")
    values = {key: interval.suggest(trial, key) for key, interval in space_of(context.config).items()}
    config = trial_config(context.resolved, values)
    trial.set_user_attr("used", {key: flatten(config.model_dump())[key] for key in values})
    trial.set_user_attr("max_steps", config.training.max_steps)
    folder = context.folder / f"trial-{trial.number}"
    tracker = MlflowRunLogger(
        context.state,
        folder / "mlflow",
        context.experiment,
        run_name=f"trial-{trial.number}",
        tags={**lineage.current(), "optuna.study": context.name, "optuna.trial": str(trial.number)},
        params=values,
        parent_run_id=study.user_attrs["mlflow_run"],
    )
    pruned = False

    def report_validation(step: int, metrics: Mapping[str, float]) -> None:
        nonlocal pruned
        rung = math.ceil(step / config.training.evaluation_interval)  # the last step need not be a multiple
        trial.report(metrics[OBJECTIVE], rung)
        if trial.should_prune():
            pruned = True
            raise StopTraining(f"pruned at rung {rung}")

    try:
        with tracker, suppress(StopTraining):  # the MLflow run of a pruned trial ends as finished
            result = train(TrainSettings.of(config), context.features, folder, tracker, report_validation)
    except TrainingError as error:
        trial.set_user_attr(ERROR, str(error))
        raise
    except KeyboardInterrupt:
        trial.set_user_attr(ERROR, "interrupted")
        study.enqueue_trial(trial.params, user_attrs={"retry_of": trial.number})
        raise
    finally:
        trial.set_user_attr("mlflow_run", tracker.run_id)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    if pruned:
        raise optuna.TrialPruned
    exported = flatten(json.loads((result.voice / "voice.json").read_text("utf-8"))["trained_with"])
    trial.set_user_attr("used", {key: exported[key] for key in values})
    score = result.metrics[OBJECTIVE]
    return score if math.isfinite(score) else float("inf")


def trial_config(resolved: Resolved, values: Mapping[str, Any]) -> Config:
    """Returns the settings of a trial, with as many steps as give every batch size the same number of samples.

    Args:
        resolved: Settings of the study.
        values: Values of the trial by dotted setting.
    """
    base = resolved.config
    largest = batch_range(base.model_size)[1]
    steps = math.ceil(base.study.max_steps * largest / values["training.batch_size"])
    interval = max(1, math.ceil(steps / RUNGS))
    budget = {
        "training.max_steps": steps,
        "training.evaluation_interval": interval,
        "training.warmup_steps": min(base.training.warmup_steps, steps // 4),
        "training.keep_top_k": 1,
    }
    return resolve(overrides={**flatten(base.model_dump()), **budget, **values}).config


def best_trial(study: optuna.Study) -> optuna.trial.FrozenTrial:
    """Returns the complete trial with the lowest error; its attribute `used` holds the settings of its training.

    Raises:
        StudyError: no trial is complete.
    """
    if not study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,)):
        raise StudyError(f"study {study.study_name} has no complete trial yet; run `myxtts study run` first")
    return study.best_trial
