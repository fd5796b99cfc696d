"""Plots of a study, as images for its page."""

import base64
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from components.studies.attributes import BASELINE
from components.studies.sampling import comparable
from components.studies.study import arguments_of
from components.studies.table import best_trials
from components.studies.trials import counted, rung_values

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from optuna import Study

NAMES = {
    "mel": "unweighted mel error",
    "training_seconds": "training time (s)",
    "character_error": "character error above the recordings'",
}
"""Objective -> its name on the page."""
AT_FIRST_RUNG = " Values are errors at the end of the first rung, which all trials pass."
DPI, WIDTH, HEIGHT = 100, 10.0, 4.6
"""Resolution of a plot in dots per inch, and its size in inches."""
COLUMNS = 3
"""Number of slice plots in a row."""
BEST, BASE, OTHER = "tab:red", "tab:blue", "tab:gray"
"""Colors of the best trials, of the baseline and of all others."""


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A plot of the page.

    Attributes:
        title: Its heading.
        explanation: One sentence on how to read it.
        image: PNG, base64; '' if there is nothing to plot yet.
        reason: Why there is no image.
    """

    title: str
    explanation: str
    image: str = ""
    reason: str = ""


def plots(study: "Study") -> Iterator[Plot]:
    """Yields the plots of a study; one that needs more finished trials has the reason in place of its image."""
    settings = arguments_of(study).settings.study
    objectives = [NAMES[name] for name in settings.objectives]
    single = len(objectives) == 1
    source = comparable(study)
    halved = settings.rungs > 1 and single
    name = "error, first rung" if halved else objectives[0]
    where = AT_FIRST_RUNG * halved
    drawn: list[tuple[str, str, Callable[[], Any]]] = [
        ("History", "Each trial, and the best value so far." + where, lambda: _history(source, name)),
        ("Importance", "Share of the variation between trials that each setting explains." + where,
         lambda: _importance(source, name)),
        ("Slices", "Value against each setting alone; the numbers are those of the trials." + where,
         lambda: _slices(source, name)),
        ("Parallel coordinates", "Each line is a trial, colored by its value." + where,
         lambda: _parallel(source, name)),
    ]  # fmt: skip
    if halved:
        text = "Error of each trial at the end of each rung; only the best ones and the baseline reach the next rung."
        drawn.insert(0, ("Rungs", text, lambda: _rungs(study, settings.rungs)))
    if not single:
        text = "Trials that no other one beats in all objectives."
        drawn.append(("Pareto front", text, lambda: _pareto(study, objectives)))
    for title, explanation, draw in drawn:
        yield _plot(title, explanation, source, draw)


def _plot(title: str, explanation: str, source: "Study", draw: "Callable[[], Figure]") -> Plot:
    """Returns a plot, or the reason why there is none yet."""
    import matplotlib

    if not _with_values(source):  # Optuna would draw empty axes
        return Plot(title=title, explanation=explanation, reason="no trial has a value")

    matplotlib.use("Agg", force=False)
    with matplotlib.rc_context(), warnings.catch_warnings():  # Optuna changes the style
        warnings.simplefilter("ignore")
        try:
            image = _png(draw())
        except (ValueError, RuntimeError) as error:  # Optuna's, if there are too few trials, or all are equal
            return Plot(title=title, explanation=explanation, reason=str(error).partition("\n")[0])
    return Plot(title=title, explanation=explanation, image=image)


def _png(figure: "Figure") -> str:
    from matplotlib import pyplot

    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=DPI, bbox_inches="tight")
    pyplot.close(figure)
    return base64.b64encode(buffer.getvalue()).decode()


def _figure(height: float = HEIGHT) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height), layout="constrained")


def _with_values(source: "Study") -> list[FrozenTrial]:
    return source.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _number(axes: "Axes", trial: FrozenTrial, x: Any, y: float) -> None:
    """Writes the number of a trial beside a point; `x` may be a choice."""
    axes.annotate(str(trial.number), (x, y), textcoords="offset points", xytext=(4, 4), fontsize=8)


def _rungs(study: "Study", rungs: int) -> "Figure":
    """Returns the errors of all trials at the ends of the rungs, the last of which is the end of training."""
    figure = _figure()
    axes, best = figure.subplots(), {trial.number for trial in best_trials(study)}
    for trial in counted(study.get_trials(deepcopy=False)):
        complete = trial.state == TrialState.COMPLETE
        values = [*rung_values(trial), *(trial.values if complete else ())]
        if not values or not np.isfinite(values).all():
            continue
        color = BEST if trial.number in best else BASE if trial.user_attrs.get(BASELINE) else OTHER
        axes.plot(range(1, len(values) + 1), values, marker="o", color=color)
        _number(axes, trial, len(values), values[-1])
    axes.set_xticks(range(1, rungs + 1), [*map(str, range(1, rungs)), "end"])
    axes.set(xlabel="rung", ylabel="error")
    handles = [_line(axes, color, label) for color, label in ((BEST, "best"), (BASE, "baseline"), (OTHER, "others"))]
    axes.legend(handles=handles)
    return figure


def _line(axes: "Axes", color: str, label: str) -> Any:
    """Returns the entry of a legend."""
    return axes.plot([], [], color=color, marker="o", label=label)[0]


def _history(source: "Study", name: str) -> "Figure":
    from matplotlib.ticker import MaxNLocator

    figure = _figure()
    axes, trials = figure.subplots(), _with_values(source)
    numbers, values = [trial.number for trial in trials], [trial.values[0] for trial in trials]
    axes.scatter(numbers, values, color=BASE, label="trial")
    axes.step(numbers, np.minimum.accumulate(values), where="post", color=BEST, label="best so far")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="trial", ylabel=name)
    axes.legend()
    return figure


def _slices(source: "Study", name: str) -> "Figure":
    trials = _with_values(source)
    keys = sorted(trials[0].params)
    rows = -(-len(keys) // COLUMNS)
    figure = _figure(HEIGHT * rows * 0.75)
    grid = figure.subplots(rows, COLUMNS, squeeze=False, sharey=True)
    for axes, key in zip(grid.flat, keys, strict=False):
        values = [trial.params[key] for trial in trials]
        shown = [str(value) if isinstance(value, bool) else value for value in values]  # a choice has no scale
        axes.scatter(shown, [trial.values[0] for trial in trials], color=BASE, s=18)
        for trial, value in zip(trials, shown, strict=True):
            _number(axes, trial, value, trial.values[0])
        if getattr(trials[0].distributions[key], "log", False):
            axes.set_xscale("log")
            axes.xaxis.set_minor_formatter("")
        axes.set_xlabel(key)
    for axes in grid.flat[len(keys) :]:
        axes.set_visible(False)
    for axes in grid[:, 0]:
        axes.set_ylabel(name)
    return figure


def _importance(source: "Study", name: str) -> "Figure":
    from optuna.visualization import matplotlib as draw

    return _of_optuna(draw.plot_param_importances(source, target=_first, target_name=name))


def _parallel(source: "Study", name: str) -> "Figure":
    from optuna.visualization import matplotlib as draw

    keys = sorted(_with_values(source)[0].params)
    axes = draw.plot_parallel_coordinate(source, params=keys, target=_first, target_name=name)
    _relabel(axes, [name, *keys])
    return _of_optuna(axes)


def _relabel(axes: "Axes", names: Sequence[str]) -> None:
    """Writes names in full, which Optuna shortens."""
    axes.set_xticks(
        axes.get_xticks(), [text.replace(".", ".\n") for text in names], rotation=0, ha="center", fontsize=8
    )


def _first(trial: FrozenTrial) -> float:
    return float(trial.values[0])


def _of_optuna(axes: "Axes") -> "Figure":
    """Returns the figure of axes that Optuna drew, in the size of the others and without its own title."""
    figure: Any = axes.figure
    for where in ("left", "center"):
        axes.set_title("", loc=where)
    figure.set_size_inches(WIDTH, HEIGHT)

    return figure


def _pareto(study: "Study", objectives: Sequence[str]) -> "Figure":
    """Returns the first two objectives of all complete trials, and those of the Pareto front."""
    front = {trial.number for trial in best_trials(study)}
    complete = [trial for trial in study.get_trials(deepcopy=False) if trial.values]
    if not complete:
        raise ValueError("no trial is complete yet")
    figure = _figure()
    axes = figure.subplots()
    for chosen, color, label in ((False, BASE, "trial"), (True, BEST, "Pareto front")):
        points = [trial for trial in complete if (trial.number in front) == chosen]
        axes.scatter([t.values[0] for t in points], [t.values[1] for t in points], color=color, label=label)
        for trial in points:
            _number(axes, trial, trial.values[0], trial.values[1])
    axes.set(xlabel=objectives[0], ylabel=objectives[1])
    axes.legend()
    return figure
