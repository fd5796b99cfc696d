"""Table of a study's trials."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from components.studies.attributes import BASELINE, ERROR, RUN, SECONDS, STEPS, USED
from components.studies.trials import counted, rung_values

if TYPE_CHECKING:
    from optuna import Study


@dataclass(frozen=True, kw_only=True)
class Row:
    """One trial.

    Attributes:
        trial: Number of the trial.
        state: `waiting`, `running`, `paused` at a rung, `pruned`, `complete`, `infeasible` or `failed`.
        values: Values of the objectives; those of a paused or pruned trial are its error at its last rung.
        settings: Its value of each searched setting.
        baseline: Whether it has the settings of the study, unchanged.
        steps: Optimizer steps so far.
        seconds: Seconds of training so far.
        mlflow_run: Its MLflow run; '' before it has one.
        error: Why it failed.
    """

    trial: int
    state: str
    values: tuple[float, ...]
    settings: dict[str, Any]
    baseline: bool
    steps: int
    seconds: float
    mlflow_run: str
    error: str

    def plain(self) -> dict[str, Any]:
        """Returns the row as JSON data."""
        return {**vars(self), "values": list(self.values)}


def row(trial: FrozenTrial) -> Row:
    """Returns the row of a trial."""
    attributes = trial.user_attrs
    return Row(
        trial=trial.number,
        state=state_of(trial),
        values=tuple(trial.values or rung_values(trial)[-1:]),
        settings=dict(attributes.get(USED, {})),
        baseline=bool(attributes.get(BASELINE)),
        steps=attributes.get(STEPS, 0),
        seconds=attributes.get(SECONDS, 0.0),
        mlflow_run=attributes.get(RUN, ""),
        error=attributes.get(ERROR, ""),
    )


def state_of(trial: FrozenTrial) -> str:
    """Returns the state of a trial as it is shown to users."""
    if trial.state == TrialState.WAITING and rung_values(trial):
        return "paused"
    if trial.state == TrialState.COMPLETE and not is_feasible(trial):
        return "infeasible"
    return {TrialState.FAIL: "failed"}.get(trial.state, trial.state.name.lower())


def is_feasible(trial: FrozenTrial) -> bool:
    """Returns whether a trial satisfies all constraints."""
    return all(value <= 0 for value in trial.constraints.values())


def best_trials(study: "Study") -> list[FrozenTrial]:
    """Returns the Pareto front of the feasible trials, sorted by their values."""
    complete = [trial for trial in complete_trials(study) if is_feasible(trial)]
    front = [trial for trial in complete if not any(_dominates(other, trial) for other in complete)]
    return sorted(front, key=lambda trial: (trial.values, trial.number))


def complete_trials(study: "Study") -> list[FrozenTrial]:
    """Returns the trials that were trained to their end, feasible or not."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _dominates(other: FrozenTrial, trial: FrozenTrial) -> bool:
    pairs = list(zip(other.values, trial.values, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


@dataclass(frozen=True, kw_only=True)
class Overview:
    """One study.

    Attributes:
        name: Name of the study.
        trials: Number of its trials.
        finished: Number of trials that are complete, infeasible or pruned.
        best: First objective of its best trial; `None` before there is one.
        best_trial: Number of the best trial; -1 before there is one.
    """

    name: str
    trials: int
    finished: int
    best: float | None
    best_trial: int


def overview(study: "Study") -> Overview:
    """Returns the progress of a study."""
    trials = counted(study.get_trials(deepcopy=False))
    front = best_trials(study)
    return Overview(
        name=study.study_name,
        trials=len(trials),
        finished=sum(trial.state.is_finished() for trial in trials),
        best=front[0].values[0] if front else None,
        best_trial=front[0].number if front else -1,
    )


def trial_line(trial: FrozenTrial) -> str:
    """Returns a trial as one line: state, values, time, settings, and why it failed."""
    found = row(trial)
    used = "  ".join(f"{key} {short(value)}" for key, value in found.settings.items())
    values = " ".join(f"{value:.4f}" for value in found.values) or "-"
    note = found.error or ("baseline" if found.baseline else "")
    return f"trial {found.trial:>3} {found.state:<10} {values:>8} {found.seconds:7.1f} s  {used}  {note}".rstrip()


def short(value: Any) -> str:
    """Returns a value in at most four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
