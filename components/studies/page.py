"""Page of a study as one self-contained HTML file: a table of its trials, and plots."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from components.studies.attributes import PARENT_RUN
from components.studies.plots import NAMES, plots
from components.studies.study import arguments_of
from components.studies.table import best_trials, row, short

if TYPE_CHECKING:
    from optuna import Study

TEMPLATE = Path(__file__).with_name("page.html")


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
        duration=_duration(sum(item.seconds for item in rows)),
        parent=study.user_attrs.get(PARENT_RUN, ""),
        run_link=run_link,
        short=short,
        plots=list(plots(study)),
    )


def run_link(run_id: str) -> str:
    """Returns the address of an MLflow run; '' if MLflow is no server."""
    server = os.environ.get("MLFLOW_TRACKING_URI", "")
    return f"{server.rstrip('/')}/#/runs/{run_id}" if server.startswith("http") and run_id else ""


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.0f} seconds"


def _counts(states: list[str]) -> dict[str, int]:
    return {state: states.count(state) for state in sorted(set(states))}
