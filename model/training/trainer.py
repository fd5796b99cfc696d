"""The training loop of the acoustic model: from a feature store to a voice, resumable at every step.

Output folder of a run: `checkpoints/` (last and best), `plots/` and `samples/` of each validation, `history.jsonl`
(every logged value), and at the end `voice/`, the export that synthesis and the registry read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from model.acoustic.batch import Batch
from model.config.training import TrainSettings
from model.features.store import FeatureStore
from model.files import write_text
from model.loop.devices import autocast_type, choose_devices, compile_modules, without_compiling
from model.loop.distributed import Processes, joined_processes
from model.loop.interrupts import interruptible
from model.loop.reporting import NullLogger, RunLogger, RunReporter
from model.threads import default_threads, keep_compiled_kernels
from model.training.adaptation import SpeakerComparison, write_report
from model.training.export import export_voice
from model.training.losses import has_unused_parameters
from model.training.profiling import StepTimer, profile_table
from model.training.state import TrainingError, TrainingState, run_fingerprint
from model.training.step import ModelWithLoss, Precision, Step, StepContext, StepMetrics, take_step
from model.training.validation import validate, write_previews

__all__ = ["StopTraining", "TrainingError", "TrainingResult", "run_fingerprint", "train"]

log = logging.getLogger(__name__)

PRIMARY_METRIC = "validation/mel"
"""Score that ranks checkpoints: unweighted, so that no loss weight can change it."""
SHOWN = {"mel": "train/mel", "align": "train/forward_sum"}
"""Short name in the progress bar -> metric."""


class StopTraining(Exception):
    """Raised by `on_validation` to end a run early (a pruned trial); the run keeps its checkpoints."""


@dataclass(kw_only=True)
class TrainingResult:
    """Result of a run.

    Attributes:
        steps: Optimizer steps done.
        exported_step: Step of the exported weights.
        voice: Folder of the voice.
        metrics: Metrics of the last validation; empty without any.
    """

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
    rehearsed: FeatureStore | None = None,
    compare_speakers: SpeakerComparison | None = None,
    data_license: str = "",
) -> TrainingResult:
    """Trains an acoustic model, or resumes an interrupted run of the same settings, and exports the voice.

    Args:
        config: Settings of the run.
        features: A feature store, or the folder of one.
        output: Folder of this run. A finished run in it is exported again without training.
        logger: Receives metrics, plots and audio.
        on_validation: Called with (step, metrics) after each validation; may raise `StopTraining`.
        profile_steps: Number of steps whose phases are timed; the table is logged, and written to `profile.txt`.
        base: Folder of the voice whose weights training starts from; None trains from scratch.
        rehearsed: Features that the base was trained on, for `training.rehearsal`.
        compare_speakers: Compares the base's speakers before and after, for `training.keep_speakers`.
        data_license: License of the recordings, which the voice carries; '' if it is not given.

    Raises:
        AdaptationError: the base, or its features, do not fit.
        TrainingError: the folder belongs to another run, or too many steps in a row were bad.
        CheckpointError: the checkpoints have another format, or none is left to roll back to.
        DeviceError: the settings require a device that this machine lacks.
        FeatureError: the store was made with another extractor or symbol table, or is damaged.
        KeyboardInterrupt: after an interrupt, once the current step is done and saved.
    """
    settings = config.training
    keep_compiled_kernels()
    with joined_processes() as processes, interruptible() as interrupted:
        store = FeatureStore.of(features)
        state = _open_state(config, store, output, processes, base, rehearsed, compare_speakers)
        timer = StepTimer(state.devices.model, profile_steps)
        context = _step_context(state, timer)
        metrics = StepMetrics(count_graphs=settings.enable_compile, processes=processes.world_size)
        reporter = RunReporter(
            output,
            logger or NullLogger(),
            step=state.step,
            total=settings.max_steps,
            shown=SHOWN,
            enabled=processes.is_first,
        )
        _log_start(state, store, context.precision)
        with closing(state.batches), closing(reporter):
            while state.step < settings.max_steps:
                if context.aligner_frozen != state.durations.is_filled:
                    context = _step_context(state, timer)
                with timer("data"):
                    batch = state.durations.add_to(next(state.batches))
                step = take_step(state, context, batch)
                state.step += 1
                if _review(state, step, batch, reporter):
                    continue  # at an earlier step
                metrics.add(batch, step)
                if timer.step_done():
                    _report_profile(timer, reporter, state.step, output)
                with timer("logging"):
                    reporter.progress(state.step)
                    if state.step % settings.log_interval == 0:
                        reporter.metrics(state.step, metrics.lap() | timer.lap())
                        for finding in state.parameters.check(state.model):
                            reporter.event(state.step, finding, parameter=finding)
                last = state.step == settings.max_steps
                if settings.enable_evaluation and (last or state.step % settings.evaluation_interval == 0):
                    _validate(state, store, reporter, output)
                    if on_validation is not None:
                        on_validation(state.step, state.metrics)
                    timer.restart()
                elif last or state.step % settings.checkpoint_interval == 0:
                    state.save()
                if processes.any(interrupted.is_set()):
                    if state.saved_step != state.step:  # saving again would drop the score of a validation
                        state.save()
                    raise KeyboardInterrupt
        result = None
        if processes.is_first:
            voice, exported_step = export_voice(config, store, state.start, output, state.devices.data, data_license)
            if state.adaptation:
                state.adaptation = state.start.with_speakers(state.adaptation)
                write_report(output, state.adaptation)
                log.info(state.adaptation.speakers_summary())
            result = TrainingResult(steps=state.step, exported_step=exported_step, voice=voice, metrics=state.metrics)
        return processes.broadcast(result)


def _open_state(
    config: TrainSettings,
    store: FeatureStore,
    output: Path,
    processes: Processes,
    base: Path | None,
    rehearsed: FeatureStore | None,
    compare_speakers: SpeakerComparison | None,
) -> TrainingState:
    """Returns the state of a new run, whose step 0 is saved as a target of rollbacks, or of the resumed one."""
    settings = config.training
    devices = choose_devices(settings, processes.local_rank, processes.world_size)
    if devices.model.type == "cuda":
        torch.cuda.set_device(devices.model)  # NCCL, and kernels without an explicit device, use the current one
    torch.set_num_threads(settings.num_threads or default_threads(processes.world_size))
    store.check(config.audio)
    state = TrainingState(
        config=config,
        store=store,
        folder=output / "checkpoints",
        devices=devices,
        processes=processes,
        base=base,
        rehearsed=rehearsed,
        compare_speakers=compare_speakers,
    )
    if not state.resume():
        if state.adaptation and processes.is_first:
            write_report(output, state.adaptation)
            log.info(state.adaptation.summary())
        state.save()
    if settings.enable_compile:
        compile_modules(state.model.encoder, state.model.decoder)
    return state


def _step_context(state: TrainingState, timer: StepTimer) -> StepContext:
    config, device = state.config, state.devices.model
    precision = Precision(device, autocast_type(config.training, device), trim=not config.training.enable_static_shapes)
    model = ModelWithLoss(state.model, config.loss, precision, state.consistency)
    return StepContext(
        model=state.processes.wrap(model, find_unused_parameters=has_unused_parameters(config)),
        precision=precision,
        scaler=state.scaler,
        processes=state.processes,
        timer=timer,
        aligner_frozen=state.durations.is_filled,
    )


def _log_start(state: TrainingState, store: FeatureStore, precision: Precision) -> None:
    if state.processes.is_first:
        log.info(
            "training %s: %.2f M parameters, %d clips, steps %d to %d, %s, %d processes, %d threads, %s",
            state.config.model_size,
            sum(p.numel() for p in state.model.parameters()) / 1e6,
            len(store.split("train")),
            state.step,
            state.config.training.max_steps,
            precision.device,
            state.processes.world_size,
            torch.get_num_threads(),
            str(precision.autocast or torch.float32).removeprefix("torch."),
        )


def _review(state: TrainingState, step: Step, batch: Batch, reporter: RunReporter) -> bool:
    """Reports and handles plateaus, bad steps and lack of memory; returns True when the run was rolled back."""
    if step.micro_batches > state.micro_batches:
        state.micro_batches = step.micro_batches
        message = f"out of memory: batches are computed in {step.micro_batches} micro-batches from here on"
        reporter.event(state.step, message, micro_batches=step.micro_batches)
    if step.status == "ok":
        state.durations.update(step.loss.terms, state.step / state.config.training.max_steps)
        if action := state.plateau.update(state.step, step.objective):
            reporter.event(state.step, f"plateau: {action}", plateau=action)
        return False
    clips = state.processes.all_gather(batch.clip_ids)
    message = f"{step.status}: loss {step.objective:.3g}, gradient {step.clipping.norm:.3g}"
    reporter.event(state.step, f"{message}; clips {', '.join(clips)}", **{step.status: clips})
    if not state.divergence.needs_rollback:
        return False
    _roll_back(state, step, clips, reporter)
    return True


def _roll_back(state: TrainingState, step: Step, clips: list[str], reporter: RunReporter) -> None:
    """Returns to the last healthy checkpoint with a lower learning rate.

    Raises:
        TrainingError: the run was rolled back as often as is allowed.
    """
    settings, failed_at = state.config.training, state.step
    if state.divergence.rollbacks_exhausted:
        message = (
            f"{settings.max_skipped_steps} steps in a row were bad (training.max_skipped_steps) after "
            f"{state.divergence.rollbacks} rollbacks; the last, step {failed_at}, was {step.status} on clips "
            f"{', '.join(clips)}. Lower training.learning_rate, or check these clips; history.jsonl names those of "
            "every bad step"
        )
        reporter.event(failed_at, message, stopped=message)
        raise TrainingError(message)
    path = state.roll_back()
    factor = state.divergence.learning_rate_factor
    message = f"rolled back to {path.name}, learning rate x {factor:g} from here on"
    reporter.event(failed_at, message, rolled_back_to=state.step, learning_rate_factor=factor)


def _validate(state: TrainingState, store: FeatureStore, reporter: RunReporter, output: Path) -> None:
    """Validates the averaged weights, writes previews, and saves a checkpoint with the score."""
    if state.processes.is_first:
        eager = without_compiling() if state.config.training.enable_compile else nullcontext()
        with state.averaged_model() as model, eager:
            state.metrics = validate(model, store, state.config, state.consistency)
            previews = write_previews(model, store, state.config, output, state.step)
        reporter.metrics(state.step, state.metrics)
        reporter.files(previews)
        shown = ", ".join(f"{name.split('/')[1]} {value:.3f}" for name, value in state.metrics.items())
        log.info("step %d of %d: %s", state.step, state.config.training.max_steps, shown)
    state.metrics = state.processes.broadcast(state.metrics)
    state.save(state.metrics[PRIMARY_METRIC])


def _report_profile(timer: StepTimer, reporter: RunReporter, step: int, output: Path) -> None:
    profile = timer.profile()
    reporter.metrics(step, profile)
    table = profile_table(profile)
    write_text(output / "profile.txt", table + "\n")
    log.info("time per phase of a step, mean of %d steps:\n%s", timer.profile_steps, table)
