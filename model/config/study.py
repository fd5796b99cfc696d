"""Settings of hyperparameter studies."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from model.config import Positive, Section, Share
from model.config.evaluation import EvaluationConfig
from model.config.training import TrainSettings

Objective = Literal["mel", "training_seconds", "character_error"]
"""Objectives that a study can minimize: the unweighted mel error of the validation sentences, the time of a training,
or the character error rate of held-out sentences minus that of their recordings."""


class StudyConfig(Section):
    """Hyperparameter studies: search space, objectives, sampler, budget, and successive halving."""

    name: Annotated[str, Field(pattern=r"^([\w.-]*)$", max_length=100)] = ""
    """Name of the study [default: model size, corpus and a hash of all that its trials depend on]."""
    trials: Positive = 12
    """Number of trials; a larger one continues a study."""
    workers: Annotated[int, Field(ge=1, le=64)] = 2
    """Number of workers that train trials in parallel; two at most on one machine."""
    max_steps: Positive = 300
    """Optimizer steps of one trial at the largest batch of the model size; trials with smaller batches take more steps,
    so that all see equally many clips."""
    space: tuple[str, ...] = ()
    """Searched settings [default: loss weights and batch size]: `loss.mel_loss_weight`, with a range of your own
    `model.dropout=0:0.4`, on a logarithmic scale `training.learning_rate=1e-4:1e-2:log`, or with a choice
    `training.learning_rate_schedule=constant|cosine`."""
    objectives: tuple[Objective, ...] = ("mel",)
    """Objectives of the study. With several, its best trials are the Pareto front: no other trial is better in all."""
    sampler: Literal["gp", "tpe", "random"] = "gp"
    """Gaussian process, tree-structured Parzen estimator, or random values that do not depend on other trials."""
    rungs: Annotated[int, Field(ge=1, le=4)] = 3
    """Successive halving: after each rung only the best trials are trained further, from their checkpoints; 1 trains
    all trials to their end."""
    reduction_factor: Annotated[int, Field(ge=2, le=4)] = 3
    """Ratio of the steps of consecutive rungs, and of the numbers of trials that reach them."""
    min_alignment_sharpness: Share = 0.6
    """Smallest accepted `validation/sharpness` at the end of a trial. Below it, text and audio do not match: the trial
    is infeasible and never the best one."""

    @field_validator("objectives")
    @classmethod
    def _some_and_different(cls, objectives: tuple[Objective, ...]) -> tuple[Objective, ...]:
        if not objectives or len(set(objectives)) != len(objectives):
            raise ValueError(f"study.objectives names {list(objectives)}; give each objective once, and at least one")
        return objectives


class StudySettings(TrainSettings):
    """Settings of a study's trials: those of training and evaluation, and of the study itself."""

    evaluation: EvaluationConfig
    study: StudyConfig
