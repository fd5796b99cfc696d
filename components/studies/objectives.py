"""Objectives of a study, which are measured at the end of a trial and minimized."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from components.contracts import StepError
from components.feature_remote import open_store
from components.gate.metrics import gate_metrics
from components.studies.study import StudyContext
from model.config.evaluation import EvaluateSettings
from model.config.study import Objective

MEL = "validation/mel"
"""Metric of the objective `mel`. It is unweighted, so that a searched loss weight does not scale it."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Results of a finished training of a trial, from which the objectives are computed.

    Attributes:
        metrics: Metrics of the last validation.
        seconds: Seconds that the training took, interruptions left out.
        voice: Folder of its voice.
        folder: Folder of the trial.
        context: Data and settings of the study.
    """

    metrics: Mapping[str, float]
    seconds: float
    voice: Path
    folder: Path
    context: StudyContext

    def character_error(self) -> float:
        """Returns the character error rate of held-out sentences minus that of their recordings."""
        from model.evaluation.evaluate import evaluate

        settings = EvaluateSettings.of(self.context.settings)
        features = open_store(self.context.features, self.context.state)
        metrics = evaluate(self.voice, features, self.context.corpus, settings, self.folder)
        value = gate_metrics(metrics)["character_error_increase"]
        if value is None:
            raise StepError(
                "the objective character_error has no value: the recognizer cannot transcribe the recordings, or "
                "evaluation.recognizer is none; leave it out of study.objectives"
            )
        return value


def objective_values(objectives: Sequence[Objective], measured: Measured) -> list[float]:
    """Returns the value of each objective; infinite where training gave none."""
    compute = {
        "mel": lambda: measured.metrics[MEL],
        "training_seconds": lambda: measured.seconds,
        "character_error": measured.character_error,
    }
    values = [float(compute[name]()) for name in objectives]
    return [value if math.isfinite(value) else math.inf for value in values]
