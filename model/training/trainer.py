"""The training loop: from a feature store to a voice, in one readable pass, resumable at every step.

What a run leaves in its output folder: `checkpoints/` (last and best), `plots/` and `samples/` per validation,
`history.jsonl` (every logged value), and at the end `voice/`, the export that synthesis and the registry read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from model.config.training import TrainSettings
from model.features.store import FeatureStore
from model.loop.devices import autocast_type, choose_devices, compile_modules, without_compiling
from model.loop.distributed import joined_processes
from model.loop.interrupts import interruptible
from model.loop.reporting import NullLogger, RunLogger
from model.threads import default_threads
from model.training.adaptation import write_report
from model.training.export import export_voice
from model.training.losses import leaves_parameters_out
from model.training.profiling import StepTimer, profile_table
from model.training.reports import Meter, Reports
from model.training.state import RunState, TrainingError, run_fingerprint
from model.training.step import Computation, Objective, Precision, take_step
from model.training.validation import validate, write_previews

__all__ = ["StopTraining", "TrainingError", "TrainingResult", "run_fingerprint", "train"]

log = logging.getLogger(__name__)

PRIMARY_MEASURE = "validation/mel"
"""What "best" means: unweighted, so that no loss weight can move it."""


class StopTraining(Exception):
    """Raised by `on_validation` to end a run early (a pruned trial); the run keeps its checkpoints."""


@dataclass
class TrainingResult:
    """How a run ended: steps done, the step of the exported weights, the voice folder, the last validation."""

    steps: int
    exported_step: int
    voice: Path
    metrics: dict[str, float]


def train(
    config: TrainSettings,
    features: Path | FeatureStore,
    output: Path,
    logger: RunLogger | None = None,
    on_validation: Callable[[int, dict[str, float]], None] | None = None,
    profile_steps: int = 0,
    base: Path | None = None,
) -> TrainingResult:
    """Train an acoustic model, or go on where an interrupted run of the same settings stopped.

    Args:
        config: Settings of the run.
        features: A feature store, or the folder of one.
        output: Folder of this run. A finished run in it is returned at once.
        logger: Receives metrics, plots and audio.
        on_validation: Called with (step, metrics) after each validation; may raise `StopTraining`.
        profile_steps: Measure where the time of so many steps goes; the table is logged, and written to `profile.txt`.
        base: Folder of the voice whose weights training starts from; None trains from scratch.

    Raises:
        TrainingError: the folder belongs to other settings, or the run did not recover from bad steps.
        DeviceError: the settings ask for a GPU that is not there.
        FeatureError: the store was made with another extractor or symbol table, or is damaged.
        KeyboardInterrupt: after an interrupt, once the running step is saved.
    """
    settings = config.training
    with joined_processes() as processes, interruptible() as interrupted:
        devices = choose_devices(settings, processes.local_rank, processes.world)
        if devices.model.type == "cuda":
            torch.cuda.set_device(devices.model)  # where NCCL waits, and kernels without a device go
        torch.set_num_threads(settings.num_threads or default_threads(processes.world))
        store = FeatureStore.of(features)
        store.check(config.audio)
        state = RunState(config, store, output / "checkpoints", devices, processes, base)
        if not state.resume():
            if state.adaptation and processes.is_first:
                write_report(output, state.adaptation)
                log.info(state.adaptation.summary())
            state.save()  # what the run can go back to before its first interval
        if settings.enable_compile:
            compile_modules(state.model.encoder, state.model.decoder)
        precision = Precision(
            devices.model, autocast_type(settings, devices.model), trim=not settings.enable_static_shapes
        )
        objective = processes.wrap(Objective(state.model, config.loss, precision), leaves_parameters_out(config))
        timer, meter = StepTimer(devices.model, profile_steps), Meter(settings.enable_compile, processes.world)
        computation = Computation(objective, precision, state.scaler, processes, timer)
        reports = Reports(output, logger or NullLogger(), state.step, settings.max_steps, not processes.is_first)
        _log_start(state, store, precision)
        with closing(state.batches), closing(reports):
            while state.step < settings.max_steps:
                with timer("data"):
                    batch = state.durations.attach(next(state.batches))
                step = take_step(state, computation, batch)
                state.step += 1

                if step.parts > state.parts:
                    state.parts = step.parts
                    message = f"out of memory: batches are computed in {step.parts} parts from here on"
                    reports.event(state.step, message, parts=step.parts)
                if step.verdict:
                    clips = processes.all_gather(batch.clip_ids)
                    message = f"{step.verdict}: loss {step.objective:.3g}, gradient {step.clipping.norm:.3g}"
                    reports.event(state.step, f"{message}; clips {', '.join(clips)}", **{step.verdict: clips})
                    if state.guard.must_go_back:
                        _go_back(state, reports, step.verdict, clips)
                        continue
                else:
                    state.durations.observe(step.loss.terms, state.step / settings.max_steps)
                    if answer := state.plateau.update(state.step, step.objective):
                        reports.event(state.step, f"plateau: {answer}", plateau=answer)

                meter.add(batch, step)
                if timer.step_done():
                    _report_profile(timer, reports, state.step, output)
                with timer("logging"):
                    reports.progress(state.step)
                    if state.step % settings.log_interval == 0:
                        reports.metrics(state.step, meter.lap(step) | timer.lap())
                        for finding in state.watch.check(state.model):
                            reports.event(state.step, finding, parameter=finding)
                last = state.step == settings.max_steps
                if settings.enable_evaluation and (last or state.step % settings.evaluation_interval == 0):
                    _validate(state, store, reports, output)
                    if on_validation is not None:
                        on_validation(state.step, state.metrics)
                    timer.restart()
                elif last or state.step % settings.checkpoint_interval == 0:
                    state.save()
                if processes.any(interrupted.is_set()):
                    if state.saved_step != state.step:  # else it would lose the score it was saved with
                        state.save()
                    raise KeyboardInterrupt
        result = None
        if processes.is_first:
            voice, exported_step = export_voice(config, store, state.start, output, state.devices.data)
            result = TrainingResult(state.step, exported_step, voice, state.metrics)
        return processes.broadcast(result)


def _log_start(state: RunState, store: FeatureStore, precision: Precision) -> None:
    if state.processes.is_first:
        log.info(
            "training %s: %.2f M parameters, %d clips, steps %d to %d, %s, %d processes, %d threads, %s",
            state.config.model_size,
            sum(p.numel() for p in state.model.parameters()) / 1e6,
            len(store.split("train")),
            state.step,
            state.config.training.max_steps,
            precision.device,
            state.processes.world,
            torch.get_num_threads(),
            str(precision.autocast or torch.float32).removeprefix("torch."),
        )


def _validate(state: RunState, store: FeatureStore, reports: Reports, output: Path) -> None:
    """Measure and preview the averaged weights, and save them with their score."""
    if state.processes.is_first:
        eager = without_compiling() if state.config.training.enable_compile else nullcontext()
        with state.averaged_model() as model, eager:
            state.metrics = validate(model, store, state.config)
            previews = write_previews(model, store, state.config, output, state.step)
        reports.metrics(state.step, state.metrics)
        reports.files(previews)
        measures = ", ".join(f"{name.split('/')[1]} {value:.3f}" for name, value in state.metrics.items())
        log.info("step %d of %d: %s", state.step, state.config.training.max_steps, measures)
    state.metrics = state.processes.broadcast(state.metrics)
    state.save(state.metrics[PRIMARY_MEASURE])


def _go_back(state: RunState, reports: Reports, verdict: str, clips: list[str]) -> None:
    """Return to the last healthy checkpoint with a lower rate, or stop with a report."""
    settings, failed_at = state.config.training, state.step
    if state.guard.exhausted:
        message = (
            f"{settings.max_skipped_steps} steps in a row were bad (training.max_skipped_steps) after going back "
            f"{state.guard.rollbacks} times; the last, step {failed_at}, was {verdict} on clips {', '.join(clips)}. "
            "Lower training.learning_rate, or look at these clips; history.jsonl names every one"
        )
        reports.event(failed_at, message, stopped=message)
        raise TrainingError(message)
    path = state.go_back()
    message = f"going back to {path.name}, learning rate x {state.guard.rate_factor:g} from here on"
    reports.event(failed_at, message, went_back_to=state.step, rate_factor=state.guard.rate_factor)


def _report_profile(timer: StepTimer, reports: Reports, step: int, output: Path) -> None:
    profile = timer.profile()
    reports.metrics(step, profile)
    table = profile_table(profile)
    (output / "profile.txt").write_text(table + "\n", "utf-8")
    log.info("where the time of a step goes, mean of %d steps:\n%s", timer.profile_steps, table)
