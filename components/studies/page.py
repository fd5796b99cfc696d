"""Page of a study as one self-contained HTML file: a table of its trials, and plots."""

import base64
import io
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.studies.attributes import PARENT_RUN
from components.studies.sampling import comparable
from components.studies.study import arguments_of
from components.studies.table import best_trials, row, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from optuna import Study

TEMPLATE = Path(__file__).with_name("page.html")
NAMES = {
    "mel": "unweighted mel error",
    "training_seconds": "training time (s)",
    "character_error": "character error above the recordings'",
}
"""Objective -> its name on the page."""
AT_FIRST_RUNG = " Values are errors at the end of the first rung, which all trials pass."
DPI, INCHES = 100, (10.0, 4.6)
"""Resolution and size of a plot."""


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


def study_page(study: "Study") -> str:
    """Returns the page of a study in any state."""
    import jinja2

    settings = arguments_of(study).settings.study
    rows = [row(trial) for trial in study.get_trials(deepcopy=False)]
    template = jinja2.Template(TEMPLATE.read_text("utf-8"), autoescape=True)
    return template.render(
        name=study.study_name,
        objectives=[NAMES[name] for name in settings.objectives],
        rows=rows,
        keys=sorted({key for item in rows for key in item.settings}),
        best={trial.number for trial in best_trials(study)},
        counts=_counts([item.state for item in rows]),
        seconds=sum(item.seconds for item in rows),
        parent=study.user_attrs.get(PARENT_RUN, ""),
        run_link=run_link,
        short=short,
        plots=list(plots(study)),
    )


def run_link(run_id: str) -> str:
    """Returns the address of an MLflow run; '' if MLflow is no server."""
    server = os.environ.get("MLFLOW_TRACKING_URI", "")
    return f"{server.rstrip('/')}/#/runs/{run_id}" if server.startswith("http") and run_id else ""


def _counts(states: list[str]) -> dict[str, int]:
    return {state: states.count(state) for state in sorted(set(states))}


def plots(study: "Study") -> Iterator[Plot]:
    """Yields the plots of a study; one that needs more finished trials has a reason instead of an image."""
    from optuna.visualization import matplotlib as draw

    settings = arguments_of(study).settings.study
    objectives = [NAMES[name] for name in settings.objectives]
    single = len(objectives) == 1
    source = comparable(study)
    halved = settings.rungs > 1 and single
    targets: dict[str, Any] = {"target_name": "error, first rung" if halved else objectives[0]}
    if not single:
        targets["target"] = lambda trial: trial.values[0]
    if halved:
        yield _plot(
            "Rungs",
            "Error of each trial at the end of each rung; only the best ones and the baseline reach the next rung.",
            source,
            lambda: draw.plot_intermediate_values(study),
        )
    yield _plot(
        "History",
        "Each trial, and the best value so far." + AT_FIRST_RUNG * halved,
        source,
        lambda: draw.plot_optimization_history(source, **targets),
    )
    yield _plot(
        "Importance",
        "Share of the variation between trials that each setting explains." + AT_FIRST_RUNG * halved,
        source,
        lambda: draw.plot_param_importances(source, **targets),
    )
    yield _plot("Slices", "Value against each setting alone.", source, lambda: draw.plot_slice(source, **targets))
    yield _plot(
        "Parallel coordinates",
        "Each line is a trial, colored by its value.",
        source,
        lambda: draw.plot_parallel_coordinate(source, **targets),
    )
    if not single:
        yield _plot(
            "Pareto front",
            "Trials that no other one beats in all objectives.",
            source,
            lambda: _pareto(study, objectives),
        )


def _plot(title: str, explanation: str, source: "Study", draw: Callable[[], Any]) -> Plot:
    """Returns a plot, or the reason why there is none yet."""
    import matplotlib

    if not source.get_trials(deepcopy=False):  # Optuna would draw empty axes
        return Plot(title=title, explanation=explanation, reason="no trial has a value")

    matplotlib.use("Agg", force=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = _png(_figure_of(draw()))
        except (ValueError, RuntimeError) as error:  # Optuna's, if there are too few trials, or all are equal
            return Plot(title=title, explanation=explanation, reason=str(error).partition("\n")[0])
    return Plot(title=title, explanation=explanation, image=image)


def _figure_of(axes: Any) -> "Figure":
    """Returns the figure of axes, or of an array of axes, as Optuna returns them."""
    first = axes.flat[0] if hasattr(axes, "flat") else axes
    figure: Figure = first.figure
    return figure


def _png(figure: "Figure") -> str:
    from matplotlib import pyplot

    figure.set_size_inches(*INCHES)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=DPI, bbox_inches="tight")
    pyplot.close(figure)
    return base64.b64encode(buffer.getvalue()).decode()


def _pareto(study: "Study", objectives: list[str]) -> Any:
    """Plots the first two objectives of all complete trials, and those of the Pareto front."""
    from matplotlib.figure import Figure

    front = {trial.number for trial in best_trials(study)}
    complete = [trial for trial in study.get_trials(deepcopy=False) if trial.values]
    if not complete:
        raise ValueError("no trial is complete yet")
    axes = Figure(figsize=(7, 4.5)).subplots()
    for chosen, color, label in ((False, "tab:blue", "trial"), (True, "tab:red", "Pareto front")):
        points = [trial for trial in complete if (trial.number in front) == chosen]
        axes.scatter([t.values[0] for t in points], [t.values[1] for t in points], color=color, label=label)
        for trial in points:
            axes.annotate(str(trial.number), trial.values[:2], textcoords="offset points", xytext=(4, 4), fontsize=8)
    axes.set(xlabel=objectives[0], ylabel=objectives[1])
    axes.legend()
    return axes
