"""The adversarial training of a vocoder, on recorded mels or on predicted ones; one loop, resumable at every step.

What a run leaves in its folder: `checkpoints/`, `history.jsonl`, `samples/` of each validation, and at the end
`vocoder/`, the export.
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
from tqdm import tqdm

from model.audio.io import write_audio
from model.config.data import AudioConfig
from model.loop.interrupts import interruptible
from model.loop.reporting import History, NullLogger, RunLogger
from model.threads import default_threads
from model.vocoder.folder import write_vocoder
from model.vocoder_training.adversarial import AdversarialStep
from model.vocoder_training.pairs import Pair, Segments
from model.vocoder_training.speech_metrics import PRIMARY, measure
from model.vocoder_training.state import RunState, TrainingPlan, VocoderTrainingError

log = logging.getLogger(__name__)


MAX_SKIPPED = 20
"""Training stops with a report after this many non-finite steps in a row."""


VALIDATION_CLIPS = 8


LOG_INTERVAL = 20


@dataclass
class VocoderTraining:
    """How a run ended: the exported folder, steps done, the measures of the last validation."""

    vocoder: Path
    steps: int
    metrics: dict[str, float]


def train_vocoder(
    plan: TrainingPlan, training: list[Pair], held_out: list[Pair], output: Path, logger: RunLogger | None = None
) -> VocoderTraining:
    """Train or fine-tune a vocoder, or go on where an interrupted run of the same fingerprint stopped.

    Args:
        plan: What to do.
        training, held_out: Clips with the mels that the vocoder will be given.
        output: Folder of this run; a finished run in it is returned at once.
        logger: Receives metrics and audio.

    Raises:
        VocoderTrainingError: the folder belongs to another run, or too many steps in a row were not finite.
        PairingError: no clip is as long as a segment.
        KeyboardInterrupt: after an interrupt, once the running step is saved.
    """
    torch.set_num_threads(default_threads())
    settings, steps = plan.settings, plan.steps
    state = RunState(plan, output / "checkpoints")
    step = AdversarialStep(state)
    segments = Segments(training, settings.segment_frames, settings.batch_size, plan.seed)
    held_out = sorted(held_out, key=lambda pair: pair.id)[:VALIDATION_CLIPS]
    if not held_out:
        raise VocoderTrainingError("no held-out clips to validate on; lower split.min_held_out or add recordings")
    state.resume()
    _log_start(state, segments)
    reports = _Reports(output, state.step, logger or NullLogger())
    bar = tqdm(total=steps, initial=state.step, unit="step", disable=None, mininterval=1.0)
    with interruptible() as interrupted, bar, closing(reports):
        while state.step < steps:
            terms = step(*segments.batch(state.step))
            if terms is None:
                _skip(state)
            else:
                state.skipped_in_a_row = 0
                state.average.update(state.generator, state.step)
            state.step += 1
            bar.update()
            if terms is not None and state.step % LOG_INTERVAL == 0:
                reports.progress(state.step, terms)
            if state.step % settings.evaluation_interval == 0 or state.step == steps:
                _validate(state, held_out, output / "samples", reports)
                state.save(state.metrics[f"validation/{PRIMARY}"])
            elif state.step % settings.checkpoint_interval == 0:
                state.save()
            if interrupted.is_set():
                if state.saved_step != state.step:
                    state.save()
                raise KeyboardInterrupt
    return VocoderTraining(write_vocoder(output / "vocoder", state.weights()), state.step, dict(state.metrics))


def _validate(state: RunState, held_out: list[Pair], folder: Path, reports: _Reports) -> None:
    vocoder = state.vocoder()
    measures = measure(vocoder, held_out, state.audio)
    for file in write_samples(vocoder, held_out, folder, f"{state.step:08d}", state.audio):
        reports.logger.artifact(file, "vocoder-samples")
    state.metrics = {f"validation/{name}": value for name, value in measures.items()}
    reports.write(state.step, state.metrics)
    shown = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in measures.items())
    log.info("step %d of %d: %s", state.step, state.plan.steps, shown)


def _skip(state: RunState) -> None:
    state.skipped_in_a_row += 1
    log.warning("step %d skipped: loss or gradient is not finite", state.step)
    if state.skipped_in_a_row >= MAX_SKIPPED:
        raise VocoderTrainingError(
            f"{MAX_SKIPPED} steps in a row were not finite; lower vocoder.learning_rate, set "
            "vocoder.gradient_clip_norm, or look at the clips"
        )


class _Reports:
    """The history of the run, and the logger beside it."""

    def __init__(self, output: Path, step: int, logger: RunLogger) -> None:
        self.logger, self._history = logger, History(output / "history.jsonl", step)
        self._began = time.monotonic()

    def progress(self, step: int, terms: dict[str, float]) -> None:
        """The terms of a training step, and the seconds that each of the last steps took."""
        seconds = (time.monotonic() - self._began) / LOG_INTERVAL
        self.write(
            step, {f"train/{name}": value for name, value in terms.items()} | {"train/seconds_per_step": seconds}
        )

    def write(self, step: int, values: dict[str, float]) -> None:
        self._history.write(step, **values)
        self.logger.metrics(step, values)
        self._began = time.monotonic()

    def close(self) -> None:
        self._history.close()


def _log_start(state: RunState, segments: Segments) -> None:
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
    return sum(parameter.numel() for parameter in network.parameters()) / 1e6


SAMPLES = 2
"""Clips that are written as sound."""


def write_samples(vocoder, pairs: Sequence[Pair], folder: Path, when: str, audio: AudioConfig) -> list[Path]:
    """Speak the first clips into `folder/<clip>-<when>.wav`; returns the files.

    Args:
        vocoder: Anything that maps (S, M) to (S * hop,).
        pairs: Held-out clips.
        folder: Made where it is missing.
        when: Tells the moments of a run apart.
        audio: Mel settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for pair in pairs[:SAMPLES]:
        files.append(folder / f"{pair.id}-{when}.wav")
        write_audio(files[-1], np.clip(vocoder(pair.mel), -1.0, 1.0), audio.sample_rate)
    return files
