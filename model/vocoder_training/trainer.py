"""The adversarial training loop of a vocoder, on extracted or predicted mels; resumable at every step.

Output folder of a run: `checkpoints/`, `history.jsonl`, `samples/` of each validation, and at the end `vocoder/`, the
export.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from model.audio.io import write_audio
from model.config.data import AudioConfig
from model.loop.interrupts import interruptible
from model.loop.reporting import NullLogger, RunLogger, RunReporter
from model.threads import default_threads
from model.vocoder.folder import write_vocoder
from model.vocoder_training.adversarial import AdversarialStep
from model.vocoder_training.pairs import Pair, Segments
from model.vocoder_training.speech_metrics import PRIMARY_METRIC, MelToSamples, compute_distances
from model.vocoder_training.state import TrainingPlan, VocoderTrainingError, VocoderTrainingState

log = logging.getLogger(__name__)

MAX_SKIPPED = 20
"""Number of consecutive non-finite steps after which training stops with an error."""
VALIDATION_CLIPS = 8
"""Largest number of held-out clips that a validation uses."""
LOG_INTERVAL = 20
"""Steps between two log lines."""
SAMPLES = 2
"""Number of clips that are written as audio."""
SHOWN = {"mel": "train/mel"}
"""Short name in the progress bar -> metric."""


@dataclass(frozen=True)
class VocoderTrainingResult:
    """Result of a run: folder of the exported vocoder, steps done, metrics of the last validation."""

    vocoder: Path
    steps: int
    metrics: dict[str, float]


def train_vocoder(
    plan: TrainingPlan, training: list[Pair], held_out: list[Pair], output: Path, logger: RunLogger | None = None
) -> VocoderTrainingResult:
    """Trains or fine-tunes a vocoder, or resumes an interrupted run of the same fingerprint, and exports it.

    Args:
        plan: Settings of the training.
        training, held_out: Clips with the mels that the vocoder will be used on.
        output: Folder of this run. A finished run in it is exported again without training.
        logger: Receives metrics and audio.

    Raises:
        VocoderTrainingError: the folder belongs to another run, or too many steps in a row were not finite.
        PairingError: no clip is as long as a segment.
        KeyboardInterrupt: after an interrupt, once the current step is done and saved.
    """
    torch.set_num_threads(default_threads())
    settings, steps = plan.settings, plan.steps
    state = VocoderTrainingState(plan, output / "checkpoints")
    take_step = AdversarialStep(state)
    segments = Segments(training, frames=settings.segment_frames, batch_size=settings.batch_size, seed=plan.seed)
    held_out = sorted(held_out, key=lambda pair: pair.id)[:VALIDATION_CLIPS]
    if not held_out:
        raise VocoderTrainingError("no held-out clips to validate on; lower split.min_held_out or add recordings")
    state.resume()
    _log_start(state, segments)
    reporter = RunReporter(output, logger or NullLogger(), step=state.step, total=steps, shown=SHOWN)
    clock = _StepClock(state.step)
    with interruptible() as interrupted, closing(reporter):
        while state.step < steps:
            terms = take_step(*segments.batch(state.step))
            if terms is None:
                _skip(state, reporter)
            else:
                state.consecutive_skipped_steps = 0
                state.average.update(state.generator, state.step)
            state.step += 1
            reporter.progress(state.step)
            if terms is not None and state.step % LOG_INTERVAL == 0:
                values = {f"train/{name}": value for name, value in terms.items()}
                reporter.metrics(state.step, values | {"train/seconds_per_step": clock.lap(state.step)})
            if state.step % settings.evaluation_interval == 0 or state.step == steps:
                _validate(state, held_out, output / "samples", reporter)
                state.save(state.metrics[f"validation/{PRIMARY_METRIC}"])
                clock.restart(state.step)
            elif state.step % settings.checkpoint_interval == 0:
                state.save()
            if interrupted.is_set():
                if state.saved_step != state.step:  # saving again would drop the score of a validation
                    state.save()
                raise KeyboardInterrupt
    return VocoderTrainingResult(write_vocoder(output / "vocoder", state.weights()), state.step, dict(state.metrics))


def write_samples(
    vocoder: MelToSamples, pairs: Sequence[Pair], folder: Path, label: str, audio: AudioConfig
) -> list[Path]:
    """Synthesizes the first clips into `folder/<clip>-<label>.wav` and returns the files.

    Args:
        vocoder: The vocoder.
        pairs: Held-out clips.
        folder: Created where it is missing.
        label: Distinguishes the samples of one run.
        audio: Mel settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for pair in pairs[:SAMPLES]:
        files.append(folder / f"{pair.id}-{label}.wav")
        write_audio(files[-1], np.clip(vocoder(pair.mel), -1.0, 1.0), audio.sample_rate)
    return files


def _validate(state: VocoderTrainingState, held_out: list[Pair], folder: Path, reporter: RunReporter) -> None:
    """Computes the metrics of the averaged generator and writes samples."""
    vocoder = state.vocoder()
    distances = compute_distances(vocoder, held_out, state.audio)
    samples = write_samples(vocoder, held_out, folder, f"{state.step:08d}", state.audio)
    reporter.files(samples, "vocoder-samples")
    state.metrics = {f"validation/{name}": value for name, value in distances.items()}
    reporter.metrics(state.step, state.metrics)
    shown = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in distances.items())
    log.info("step %d of %d: %s", state.step, state.plan.steps, shown)


def _skip(state: VocoderTrainingState, reporter: RunReporter) -> None:
    """Counts and reports a step that was not finite.

    Raises:
        VocoderTrainingError: there were too many of them in a row.
    """
    state.consecutive_skipped_steps += 1
    reporter.event(state.step, "skipped: loss or gradient is not finite", skipped=state.consecutive_skipped_steps)
    if state.consecutive_skipped_steps >= MAX_SKIPPED:
        raise VocoderTrainingError(
            f"{MAX_SKIPPED} steps in a row were not finite; lower vocoder.learning_rate, set "
            "vocoder.gradient_clip_norm, or check the clips"
        )


class _StepClock:
    """Measures the mean duration of the steps since the last lap."""

    def __init__(self, step: int) -> None:
        self.restart(step)

    def restart(self, step: int) -> None:
        """Starts a lap at this step."""
        self._step, self._started = step, time.monotonic()

    def lap(self, step: int) -> float:
        """Returns the seconds per step since the lap started, at an earlier step, and starts a new one."""
        seconds = (time.monotonic() - self._started) / (step - self._step)
        self.restart(step)
        return seconds


def _log_start(state: VocoderTrainingState, segments: Segments) -> None:
    log.info(
        "%s %s: %.2f M parameters, discriminators %.2f M, %d clips, steps %d to %d",
        state.kind,
        state.variant,
        _millions(state.generator),
        _millions(state.discriminators),
        len(segments.pairs),
        state.step,
        state.plan.steps,
    )


def _millions(network: nn.Module) -> float:
    """Returns the number of parameters in millions."""
    return sum(parameter.numel() for parameter in network.parameters()) / 1e6
