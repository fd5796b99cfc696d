"""Trials of a study: their order, successive halving, and how workers take and return them.

A study has its trials from the start, waiting. A worker takes one, and returns it when it is interrupted or has reached
the end of a rung; then it waits again, with the values that it has. So trials keep their numbers, and none is lost.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from components.process_identity import ProcessStatus, process_status, this_process
from components.studies.attributes import BASELINE, BEAT, DEATHS, ERROR, REPLACED, RUNG_VALUES, WORKER
from model.config.study import StudyConfig

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage

BEAT_SECONDS = 10.0
SILENCE_SECONDS = 120.0
"""Seconds without a heartbeat after which a worker on another machine counts as dead."""
POLL_SECONDS = 2.0
MAX_DEATHS = 3


@dataclass(frozen=True, kw_only=True)
class Halving:
    """Successive halving.

    Attributes:
        rungs: Number of rungs; the last one is the whole training.
        factor: Ratio of the steps of a rung to those of the rung before, and of the numbers of trials in them.
    """

    rungs: int
    factor: int

    @classmethod
    def of(cls, settings: StudyConfig) -> "Halving":
        return cls(rungs=settings.rungs, factor=settings.reduction_factor)

    def interval(self, steps: int) -> int:
        """Returns the steps of the first rung of a training of `steps` steps."""
        return -(-steps // self.factor ** (self.rungs - 1))

    def end(self, rung: int, steps: int) -> int:
        """Returns the step at which a rung (0, 1, ...) ends in a training of `steps` steps."""
        return min(steps, self.interval(steps) * self.factor**rung)

    def promoted(self, trials: Sequence[FrozenTrial], rung: int) -> set[int]:
        """Returns the numbers of the trials that are trained beyond a rung: the best ones and the baseline.

        All trials must have passed it, so that the choice does not depend on their order.
        """
        kept = {trial.number for trial in trials if trial.user_attrs.get(BASELINE)}
        others = [trial for trial in trials if trial.number not in kept]
        ranked = sorted(others, key=lambda trial: (rung_values(trial)[rung], trial.number))
        return kept | {trial.number for trial in ranked[: -(-len(others) // self.factor)]}


class Next(Enum):
    """Action of a worker on a trial."""

    TRAIN = "train"
    PRUNE = "prune"
    WAIT = "wait"
    STOP = "stop"


def counted(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Returns the trials that count: all but failed ones that another trial replaces."""
    return [trial for trial in trials if not trial.user_attrs.get(REPLACED)]


def rung_values(trial: FrozenTrial) -> list[float]:
    """Returns the error of a trial at the end of each rung that it has passed."""
    return list(trial.user_attrs.get(RUNG_VALUES, []))


def has_passed(trial: FrozenTrial, rung: int) -> bool:
    """Returns whether a trial needs no more training in a rung: it reached the rung's end, or its own last step."""
    return trial.state == TrialState.COMPLETE or len(rung_values(trial)) > rung


def next_trials(trials: Sequence[FrozenTrial], halving: Halving) -> tuple[Next, list[FrozenTrial]]:
    """Returns the next action of a worker, and the trials that it applies to, the preferred one first.

    New trials come first. When every trial has passed a rung, the best ones of it are trained further, and the others
    are pruned.
    """
    live = [trial for trial in trials if trial.state != TrialState.FAIL]
    waiting = [trial for trial in live if trial.state == TrialState.WAITING]
    if fresh := [trial for trial in waiting if not rung_values(trial)]:
        return Next.TRAIN, fresh
    for rung in range(halving.rungs - 1):
        if not all(has_passed(trial, rung) for trial in live if trial.state != TrialState.PRUNED):
            break
        contenders = [trial for trial in live if len(rung_values(trial)) > rung]
        promoted = halving.promoted(contenders, rung)
        paused = [trial for trial in waiting if len(rung_values(trial)) == rung + 1]
        for what, chosen in (
            (Next.PRUNE, [trial for trial in paused if trial.number not in promoted]),
            (Next.TRAIN, [trial for trial in paused if trial.number in promoted]),
        ):
            if chosen:
                return what, chosen
        live = [trial for trial in live if trial.number in promoted or has_passed(trial, rung + 1)]
    running = any(trial.state == TrialState.RUNNING for trial in trials)
    return (Next.WAIT if running else Next.STOP), []


def take(storage: "BaseStorage", trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """Takes the first of these waiting trials that no other worker takes; `None` if others took all of them."""
    for trial in trials:
        try:
            if storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING):
                storage.set_trial_user_attr(trial._trial_id, WORKER, this_process())
                return trial
        except UpdateFinishedTrialError:
            continue
    return None


def put_back(storage: "BaseStorage", trial: FrozenTrial) -> None:
    """Returns a trial that is being trained to those that wait, with its values and its checkpoint."""
    storage.set_trial_user_attr(trial._trial_id, WORKER, "")  # the next one writes its name after it has taken it
    storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)


def give_up(study: "Study", storage: "BaseStorage", trial: FrozenTrial, error: str) -> None:
    """Ends a trial as failed; another one takes its place."""
    storage.set_trial_user_attr(trial._trial_id, ERROR, error)
    storage.set_trial_user_attr(trial._trial_id, REPLACED, True)
    study.tell(trial.number, state=TrialState.FAIL)
    study.enqueue_trial({})


def is_own(storage: "BaseStorage", trial: FrozenTrial) -> bool:
    """Returns whether this worker still owns the trial; others take trials of workers without a heartbeat."""
    return _has(storage, trial, this_process())


def _has(storage: "BaseStorage", trial: FrozenTrial, worker: str) -> bool:
    """Returns whether a worker is training this trial now."""
    now = storage.get_trial(trial._trial_id)
    return now.state == TrialState.RUNNING and now.user_attrs.get(WORKER, "") == worker


@contextmanager
def beating(storage: "BaseStorage", trial: FrozenTrial) -> Iterator[None]:
    """Increases the heartbeat of a trial in the background while the block trains it."""
    ended = Event()

    def beat() -> None:
        number = trial.user_attrs.get(BEAT, 0)
        while not ended.wait(BEAT_SECONDS):
            number += 1
            storage.set_trial_user_attr(trial._trial_id, BEAT, number)

    thread = Thread(target=beat, name="trial-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@dataclass
class DeadWorkers:
    """Finds trials whose worker has died, and returns them to those that wait.

    A trial whose `MAX_DEATHS` workers have died fails: its settings may need more memory than there is.
    A worker that this process could see is dead if its process is gone; one on another machine or in a container, if
    it has been silent for `SILENCE_SECONDS` by the clock of this one.
    """

    seen: dict[int, tuple[Any, float]] = field(default_factory=dict)

    def put_back(self, study: "Study", storage: "BaseStorage") -> list[int]:
        """Returns the numbers of the trials whose worker has died."""
        found = []
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if not self._is_dead(trial) or not _has(storage, trial, trial.user_attrs.get(WORKER, "")):
                continue  # or another worker has found it first
            deaths = trial.user_attrs.get(DEATHS, 0) + 1
            storage.set_trial_user_attr(trial._trial_id, DEATHS, deaths)
            if deaths < MAX_DEATHS:
                put_back(storage, trial)
            else:
                give_up(study, storage, trial, f"{deaths} workers died while they trained it, perhaps out of memory")
            found.append(trial.number)
        return found

    def _is_dead(self, trial: FrozenTrial) -> bool:
        worker = trial.user_attrs.get(WORKER, "")
        status = process_status(worker)
        if status is not ProcessStatus.UNKNOWN:
            return status is ProcessStatus.ENDED
        sign = (worker, trial.user_attrs.get(BEAT, 0))
        known, since = self.seen.get(trial.number, (None, 0.0))
        if known != sign:
            self.seen[trial.number] = (sign, time.monotonic())
            return False
        return time.monotonic() - since > SILENCE_SECONDS
