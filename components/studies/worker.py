"""Workers of a study: they take trials and train them, rung by rung, until none is left."""

import logging
import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components import lineage
from components.feature_remote import open_store
from components.runner import emit
from components.studies.attributes import ERROR, PARENT_RUN, RUN, RUNG_VALUES, SECONDS, STEPS, USED
from components.studies.objectives import Measured, objective_values
from components.studies.sampling import suggest
from components.studies.space import Range, with_values
from components.studies.storage import StudyError
from components.studies.study import StudyContext
from components.studies.trials import (
    POLL_SECONDS,
    DeadWorkers,
    Halving,
    Next,
    beating,
    counted,
    give_up,
    is_own,
    next_trials,
    put_back,
    rung_values,
    take,
)
from components.tracking import MlflowRunLogger
from model.config.resolution import batch_range, flatten
from model.config.study import StudySettings
from model.config.training import TrainSettings
from model.loop.reporting import HistoryError, read_history
from model.training.kept_speakers import speaker_similarities
from model.training.trainer import PRIMARY_METRIC, StopTraining, TrainingError, TrainingResult, train

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

STEP = "study_worker"
SHARPNESS = "validation/sharpness"
MAX_CONSECUTIVE_FAILURES = 3
"""Number of failed trials in a row after which a worker stops."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Length of a trial.

    Attributes:
        steps: Optimizer steps of a whole training.
        halving: Rungs at which a trial pauses.
    """

    steps: int
    halving: Halving

    @classmethod
    def of(cls, settings: StudySettings, batch_size: int) -> "Budget":
        """Returns the budget that gives every batch size the same number of samples."""
        largest = batch_range(settings.model_size)[1]
        steps = math.ceil(settings.study.max_steps * largest / batch_size)
        return cls(steps=steps, halving=Halving.of(settings.study))

    def settings(self, warmup_steps: int) -> dict[str, Any]:
        """Returns the settings of training that follow from the budget."""
        return {
            "training.max_steps": self.steps,
            "training.evaluation_interval": self.halving.interval(self.steps),
            "training.warmup_steps": min(warmup_steps, self.steps // 4),
            "training.keep_top_k": 1,
        }


def trial_settings(settings: StudySettings, values: Mapping[str, Any]) -> tuple[TrainSettings, Budget]:
    """Returns the settings of a trial's training, and its budget.

    Args:
        settings: Settings of the study.
        values: Values of the trial by dotted setting.
    """
    budget = Budget.of(settings, values.get("training.batch_size", settings.training.batch_size))
    return with_values(settings, {**budget.settings(settings.training.warmup_steps), **values}), budget


def work(context: StudyContext, study: "Study", report: Callable[["FrozenTrial"], None] = lambda _: None) -> int:
    """Trains trials until none is left that waits, those of workers that die meanwhile included.

    Args:
        context: Data and settings of the study.
        study: The study, with all its trials.
        report: Called with every trial that has finished or paused.

    Returns:
        Number of times that this worker trained a trial.

    Raises:
        StudyError: `MAX_CONSECUTIVE_FAILURES` trials of this worker failed in a row.
        KeyboardInterrupt: the trial in progress was interrupted; it waits, with its checkpoint.
    """
    storage, dead, halving = study._storage, DeadWorkers(), Halving.of(context.settings.study)
    failures, trained = 0, 0
    while True:
        for number in dead.put_back(study, storage):
            log.warning("the worker of trial %d has died", number)
        what, candidates = next_trials(study.get_trials(deepcopy=False), halving)
        if what is Next.STOP:
            return trained
        taken = take(storage, candidates)
        if taken is None:
            if not candidates:
                time.sleep(POLL_SECONDS)
            continue
        if what is Next.PRUNE:
            _prune(context, study, taken)
        else:
            with beating(storage, taken):
                failed = not _run(context, study, taken)
            trained += 1
            failures = failures + 1 if failed else 0
        done = storage.get_trial(taken._trial_id)
        report(done)
        if failures == MAX_CONSECUTIVE_FAILURES:
            raise StudyError(
                f"{failures} trials in a row failed, the last one with: {done.user_attrs[ERROR]}; correct this, then "
                "start the study again"
            )


def _prune(context: StudyContext, study: "Study", taken: "FrozenTrial") -> None:
    from optuna.trial import TrialState

    study.tell(taken.number, state=TrialState.PRUNED)
    shutil.rmtree(_folder(context, taken.number) / "checkpoints", ignore_errors=True)


def _run(context: StudyContext, study: "Study", taken: "FrozenTrial") -> bool:
    """Trains a trial to the end of its rung or of its training; returns False if its training failed."""
    storage = study._storage
    try:
        trial = _open(context, study, taken)
        measured = _train(context, study, trial)
    except TrainingError as error:
        give_up(study, storage, taken, str(error))
        shutil.rmtree(_folder(context, taken.number) / "checkpoints", ignore_errors=True)
        return False
    except BaseException:
        if is_own(storage, taken):
            put_back(storage, taken)
        raise
    if not is_own(storage, taken):
        log.warning("trial %d was given to another worker, since this one had been silent", taken.number)
        return True
    if measured is None:
        put_back(storage, taken)
        return True
    settings = context.settings.study
    trial.set_constraint("alignment", settings.min_alignment_sharpness - measured.metrics.get(SHARPNESS, 0.0))
    study.tell(taken.number, objective_values(settings.objectives, measured))
    shutil.rmtree(_folder(context, taken.number) / "checkpoints", ignore_errors=True)
    return True


def _open(context: StudyContext, study: "Study", taken: "FrozenTrial") -> "Trial":
    """Returns a trial with its values: those that it has, or new ones."""
    import optuna

    values = taken.params or suggest(study, taken.number, context.settings, context.space)
    study.sampler = optuna.samplers.PartialFixedSampler(values, optuna.samplers.RandomSampler())
    trial = optuna.Trial(study, taken._trial_id)
    for key, interval in context.space.items():
        suggest_value(trial, key, interval)
    return trial


def suggest_value(trial: "Trial", key: str, interval: Range) -> Any:
    """Returns the value of a setting in a trial."""
    if interval.choices:
        return trial.suggest_categorical(key, interval.choices)
    if interval.step:
        return trial.suggest_int(key, int(interval.low), int(interval.high), log=interval.log, step=interval.step)
    return trial.suggest_float(key, interval.low, interval.high, log=interval.log)


def _train(context: StudyContext, study: "Study", trial: "Trial") -> Measured | None:
    """Trains a trial; returns the results at its end, or `None` if it pauses at a rung.

    Raises:
        TrainingError: training failed.
    """
    config, budget = trial_settings(context.settings, trial.params)
    values = flatten(config.model_dump(mode="json"))
    trial.set_user_attr(USED, {key: values[key] for key in context.space})
    folder = _folder(context, trial.number)
    rung = len(rung_values(study._storage.get_trial(trial._trial_id)))
    end = budget.halving.end(rung, budget.steps)
    if end < budget.steps and (value := _validated(folder, end)) is not None:  # before its worker died
        trial.set_user_attr(STEPS, end)
        _pause(trial, value)
        return None
    started, before = time.monotonic(), trial.user_attrs.get(SECONDS, 0.0)
    tracker = MlflowRunLogger(
        context.state,
        folder / "mlflow",
        context.experiment,
        run_name=f"trial-{trial.number}",
        tags={**lineage.current(), "optuna.study": context.name, "optuna.trial": str(trial.number)},
        params=values,
        parent_run_id=study.user_attrs[PARENT_RUN],
    )
    reached: list[float] = []

    def on_validation(step: int, metrics: dict[str, float]) -> None:
        if end <= step < budget.steps:
            reached.append(metrics[PRIMARY_METRIC])
            raise StopTraining(f"end of rung {rung + 1}")

    try:
        with tracker:  # ends as finished at a rung, too, and is continued after it
            rungs = f" (rung {rung + 1} of {budget.halving.rungs})" if budget.halving.rungs > 1 else ""
            logger = TrialProgress(tracker, study, end, f"of trial {trial.number}{rungs}")
            result = _fit(context, config, folder, logger, on_validation)
            trial.set_user_attr(STEPS, result.steps if result else end)
    finally:
        trial.set_user_attr(SECONDS, round(before + time.monotonic() - started, 2))
        trial.set_user_attr(RUN, tracker.run_id)
    if result is None:
        _pause(trial, reached[0])
        return None
    return Measured(
        metrics=result.metrics,
        seconds=before + time.monotonic() - started,
        voice=result.voice,
        folder=folder,
        context=context,
    )


def _fit(
    context: StudyContext,
    config: TrainSettings,
    folder: Path,
    logger: "TrialProgress",
    on_validation: Callable[[int, dict[str, float]], None],
) -> TrainingResult | None:
    """Trains in the folder of a trial from its last checkpoint; returns `None` if it ends at a rung."""
    try:
        return train(
            config,
            open_store(context.features, context.state),
            folder,
            logger,
            on_validation,
            base=context.base,
            compare_speakers=speaker_similarities,
        )
    except StopTraining:
        return None


def _validated(folder: Path, step: int) -> float | None:
    """Returns the error that a training logged at this step; `None` if it did not get there."""
    path = folder / "history.jsonl"
    if not path.is_file():
        return None
    try:
        records = read_history(path)
    except HistoryError:
        return None
    return next(
        (record[PRIMARY_METRIC] for record in records if record["step"] == step and PRIMARY_METRIC in record), None
    )


def _pause(trial: "Trial", value: float) -> None:
    """Records the error of a trial at the end of a rung."""
    value = value if math.isfinite(value) else math.inf
    passed = [*trial.user_attrs.get(RUNG_VALUES, []), value]
    trial.set_user_attr(RUNG_VALUES, passed)
    if len(trial.study.directions) == 1:  # Optuna stores them for one objective only, for its plots
        trial.report(value, len(passed))


def _folder(context: StudyContext, number: int) -> Path:
    return context.folder / f"trial-{number}"


class TrialProgress:
    """Run logger of a trial: forwards to another logger, and reports the progress of the study.

    Args:
        logger: Receives everything. It stays open.
        study: The study.
        end: Optimizer step at which the trial pauses or ends.
        name: What is trained until then.
    """

    def __init__(self, logger: MlflowRunLogger, study: "Study", end: int, name: str) -> None:
        self._logger, self._study, self._end, self._name = logger, study, end, name

    def metrics(self, step: int, values: dict[str, float]) -> None:
        self._logger.metrics(step, values)
        trials = counted(self._study.get_trials(deepcopy=False))
        done = sum(trial.state.is_finished() for trial in trials)
        emit(STEP, "progress", done=done, total=len(trials), **{self._name: f"{step}/{self._end}"})

    def artifact(self, path: Path, folder: str = "") -> None:
        self._logger.artifact(path, folder)

    def close(self) -> None:
        """Does nothing; see `logger`."""
