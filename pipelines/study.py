"""Workers of a study outside of its pipeline: on other machines, or additional ones on this machine."""

import io
import os
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

from components.state import State
from components.studies.study import StudyContext, arguments_of, load_study
from components.studies.table import trial_line
from components.studies.worker import work

if TYPE_CHECKING:
    from optuna import Study


def join_study(state: State, name: str, output: Callable[[str], None]) -> str:
    """Trains trials of a study until none is left.

    Args:
        state: State folder of this machine.
        name: Name of the study.
        output: Called with one line for each trial.

    Returns:
        Summary of the worker's trials, as one line.

    Raises:
        StudyError: there is no such study.
    """
    study = load_study(state, name)
    context = fetch_data(state, study)
    with redirect_stdout(io.StringIO()):  # the event lines of progress
        count = work(context, study, lambda trial: output(trial_line(trial)))
    return f"no trial is left; this worker trained {count} times"


def fetch_data(state: State, study: "Study") -> StudyContext:
    """Fetches the data of a study into the state, and extracts its features, unless they are there."""
    from components.preprocess.run import run as preprocess
    from components.resolve_data.run import run as resolve_data

    os.environ["MYXTTS_STATE"] = str(state.root)  # where the steps look for it
    arguments = arguments_of(study)
    folder = state.folder("studies", arguments.study)
    with redirect_stdout(io.StringIO()):  # the event lines of the steps
        data = resolve_data(arguments.data_hash, arguments.remote)
        features = preprocess(str(data.write(folder / "data.json")), arguments.preprocess_settings)
    return StudyContext.of(state, study, features.features, data.corpus)
