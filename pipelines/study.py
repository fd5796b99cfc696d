"""Hyperparameter studies: Optuna trials that train for an equal number of samples and are judged without weights."""

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

from components import lineage
from components.state import State
from components.tracking import MlflowRunLogger, client, experiment_id
from model.config.resolution import Resolved, batch_range, flatten, resolve
from model.config.schema import Config
from model.errors import MyXTTSError
from pipelines.project import Project
from pipelines.search_space import VERSION, Range, search_space

OBJECTIVE = "validation/mel"
"""Unweighted, so that no searched weight can lower it by itself."""

RUNGS = 6
"""Validations per trial, at equal numbers of samples, where the pruner compares."""

STORAGE_VARIABLE = "MYXTTS_STUDY_STORAGE"
OPENED = "opened"
"""Attribute of a study: how often; with the same seed every time, workers would suggest what others have tried."""
ERROR = "error"
"""Attribute of a failed trial: why."""
MOST_FAILURES = 3
"""In a row, before a worker gives up."""
FINISHED = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)


class StudyError(MyXTTSError):
    """A study cannot be opened or run; the message says what to do."""


def storage(state: State) -> Any:
    """Where trials are kept: the URL in `MYXTTS_STUDY_STORAGE`, else a journal file in the state.

    Raises:
        StudyError: in a pod without the variable.
    """
    if url := os.environ.get(STORAGE_VARIABLE):
        return _database(url)
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        raise StudyError(f"{STORAGE_VARIABLE} is not set in this pod; give it the database of the studies")
    path = state.prepare().study_journal
    _trim_torn_tail(path)
    return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))


def _database(url: str) -> Any:
    import sqlalchemy.exc

    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)  # heartbeats are
    try:
        return optuna.storages.RDBStorage(
            url,
            engine_kwargs={"pool_pre_ping": True, "pool_size": 2} if url.startswith("postgresql") else None,
            heartbeat_interval=60,
            grace_period=600,
        )
    except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:  # an address may name a driver that is not there
        reason = str(error).partition("\n")[0]
        raise StudyError(
            f"the database of the studies cannot be used ({reason}); see that {STORAGE_VARIABLE} has the form "
            "postgresql+pg8000://user:password@host:5432/name and that the server answers"
        ) from error


def _trim_torn_tail(path: Path) -> None:
    """Cut a last line that a killed worker left half-written: the next record would be lost in it."""
    if path.is_file() and (data := path.read_bytes()) and not data.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(data.rfind(b"\n") + 1)


def study_name(config: Config, data_hash: str) -> str:
    """One study per model size, search space and data: other trials do not compare."""
    latent = "-latent" if config.model.use_variational_encoder else ""
    return f"{config.model_size}{latent}-{data_hash[:8]}-v{VERSION}"


def sampler(seed: int) -> optuna.samplers.BaseSampler:
    """A Gaussian process finds the optimum of so few dimensions in the fewest trials; it needs torch and scipy."""
    if importlib.util.find_spec("torch") and importlib.util.find_spec("scipy"):
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=4)
    return optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)


@dataclass(frozen=True)
class Setting:
    """What all trials of a study share.

    Attributes:
        state: Where trials leave their files.
        resolved: Settings that a trial's values are laid over.
        features: Feature store to train on.
        experiment: MLflow experiment.
        name: Of the study.
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


def prepare(project: Project) -> Setting:
    """Make sure that the features of the project's data are there, by the pipeline's own steps."""
    from components.preprocess.run import run as preprocess
    from components.resolve_data.run import run as resolve_data

    os.environ["MYXTTS_STATE"] = str(project.state.root)
    told = project.run_arguments()
    name = study_name(project.config, told["data_hash"])
    folder = project.state.folder("studies", name)
    with redirect_stdout(io.StringIO()):  # what steps say there is for a program that watches them
        data = resolve_data(told["data_hash"], told["remote"]).write(folder / "data.json")
        features = preprocess(str(data), told["preprocess_settings"])
    return Setting(project.state, project.resolved, features.features, told["experiment"], name)


def open_study(setting: Setting) -> optuna.Study:
    """The study, created once with its MLflow parent run and the settings as they stand as its first trial."""
    config = setting.config
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # what happens is told by `work`, without tracebacks
    with setting.state.lock("study"):
        study = optuna.create_study(
            study_name=setting.name,
            storage=storage(setting.state),
            pruner=optuna.pruners.MedianPruner(
                n_startup_trials=config.study.pruner_startup_trials,
                n_warmup_steps=config.study.pruner_warmup_evaluations,
            ),
            direction="minimize",
            load_if_exists=True,
        )
        if "mlflow_run" not in study.user_attrs:
            mlflow_client = client(setting.state)
            experiment = experiment_id(mlflow_client, setting.state, setting.experiment)
            tags = {**lineage.current(), "optuna.study": setting.name}
            parent = mlflow_client.create_run(experiment, tags=tags, run_name=f"study {setting.name}")
            study.set_user_attr("mlflow_run", parent.info.run_id)
            study.set_user_attr("space", {key: vars(item) for key, item in space_of(config).items()})
            _enqueue_baseline(study, config)
        _fail_orphans(study)
        opened = study.user_attrs.get(OPENED, 0)
        study.set_user_attr(OPENED, opened + 1)
    study.sampler = sampler(config.seed + opened)
    return study


def load_study(project: Project) -> optuna.Study:
    """The study of a project's data and settings, as it stands.

    Raises:
        StudyError: there is none yet.
    """
    name = study_name(project.config, project.run_arguments()["data_hash"])
    try:
        return optuna.load_study(study_name=name, storage=storage(project.state))
    except KeyError as error:
        raise StudyError(f"there is no study {name} yet; `myxtts study run` makes it") from error


def space_of(config: Config) -> dict[str, Range]:
    """The ranges that a study of these settings searches."""
    return search_space(config.model_size, config.model.use_variational_encoder)


def _enqueue_baseline(study: optuna.Study, config: Config) -> None:
    values = flatten(config.model_dump())
    space = space_of(config)
    baseline = {key: values[key] for key, interval in space.items() if interval.contains(values[key])}
    study.enqueue_trial(baseline, user_attrs={"baseline": True}, skip_if_exists=True)


def _fail_orphans(study: optuna.Study) -> None:
    """Trials of workers that died on this machine would stay `running` for ever: fail them and try again."""
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        host, _, pid = trial.user_attrs.get("worker", "").partition(":")
        if host == socket.gethostname() and not Path(f"/proc/{pid}").is_dir():
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            study.enqueue_trial(trial.params, user_attrs={"retry_of": trial.number})


def work(
    setting: Setting,
    study: optuna.Study,
    trials: int,
    report: Callable[[optuna.trial.FrozenTrial], None] = lambda _: None,
) -> None:
    """Run trials until the study has `trials` finished ones, whoever ran them.

    Raises:
        StudyError: several of our trials in a row failed: their settings cannot be the reason of all.
    """
    from model.training.trainer import TrainingError

    failures: list[str] = []

    def finished() -> int:
        return len(study.get_trials(deepcopy=False, states=FINISHED))

    def tell(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        report(trial)
        if trial.state == optuna.trial.TrialState.FAIL:
            failures.append(trial.user_attrs[ERROR])
        else:
            failures.clear()
        if finished() >= trials or len(failures) == MOST_FAILURES:
            study.stop()

    if finished() < trials:
        study.optimize(lambda trial: objective(setting, study, trial), callbacks=[tell], catch=(TrainingError,))
    if len(failures) == MOST_FAILURES:
        raise StudyError(f"{MOST_FAILURES} trials in a row failed, the last one so: {failures[-1]}")


def objective(setting: Setting, study: optuna.Study, trial: optuna.Trial) -> float:
    """Train one trial and return its unweighted validation mel error.

    Raises:
        optuna.TrialPruned: other trials were better at the same number of samples.
    """
    from model.training.trainer import StopTraining, TrainingError, train

    trial.set_user_attr("worker", f"{socket.gethostname()}:{os.getpid()}")
    values = {key: interval.suggest(trial, key) for key, interval in space_of(setting.config).items()}
    config = trial_config(setting.resolved, values)
    trial.set_user_attr("used", {key: flatten(config.model_dump())[key] for key in values})
    trial.set_user_attr("max_steps", config.training.max_steps)
    folder = setting.folder / f"trial-{trial.number}"
    tracker = MlflowRunLogger(
        setting.state,
        folder / "mlflow",
        setting.experiment,
        run_name=f"trial-{trial.number}",
        tags={**lineage.current(), "optuna.study": setting.name, "optuna.trial": str(trial.number)},
        params=values,
        parent_run_id=study.user_attrs["mlflow_run"],
    )
    pruned = False

    def judge(step: int, metrics: Mapping[str, float]) -> None:
        nonlocal pruned
        rung = math.ceil(step / config.training.evaluation_interval)  # the last step need not be a multiple
        trial.report(metrics[OBJECTIVE], rung)
        if trial.should_prune():
            pruned = True
            raise StopTraining(f"pruned at rung {rung}")

    try:
        with tracker, suppress(StopTraining):  # a pruned trial's run has finished, too
            result = train(config, setting.features, folder, tracker, judge)
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
    """Settings of a trial: equal samples whatever the batch, so that a small batch is not judged by fewer looks.

    Args:
        resolved: The study's settings.
        values: What the trial chose, by dotted setting.
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
    """The finished trial with the lowest error; its attribute `used` holds the settings that it really had.

    Raises:
        StudyError: no trial has finished.
    """
    if not study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,)):
        raise StudyError(f"study {study.study_name} has no complete trial yet; run `myxtts study run` first")
    return study.best_trial
