"""Trains trials of a study until none is left. Several workers do so in parallel."""

import logging

from components.contracts import PrepareStudyOutput, PreprocessOutput, ResolveDataOutput, StudyWorkerOutput
from components.state import State
from components.studies.study import StudyContext, load_study
from components.studies.table import trial_line
from components.studies.worker import work

log = logging.getLogger(__name__)


def run(data: str, features: str, prepared: str, worker: str) -> StudyWorkerOutput:
    """Trains trials of the study.

    Args:
        data: Path of the `ResolveDataOutput`.
        features: Path of the `PreprocessOutput`.
        prepared: Path of the `PrepareStudyOutput`.
        worker: `1/2` is the first of two workers.

    Raises:
        StudyError: several trials in a row failed.
    """
    logging.getLogger("model").setLevel(logging.WARNING)  # the lines of trainings side by side name no trial
    corpus, store = ResolveDataOutput.read(data), PreprocessOutput.read(features)
    name, state = PrepareStudyOutput.read(prepared).study, State.locate()
    study = load_study(state, name)
    context = StudyContext.of(state, study, store.features, corpus.corpus)
    count = work(context, study, lambda trial: log.info(trial_line(trial)))
    return StudyWorkerOutput(summary=f"worker {worker}: {count} training runs of trials", study=name, worker=worker)
