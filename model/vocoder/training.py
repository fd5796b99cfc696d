"""The adversarial training of a vocoder, on recorded mels or on predicted ones; one loop, resumable at every step.

What a run leaves in its folder: `checkpoints/`, `history.jsonl`, `samples/` of each validation, and at the end
`vocoder/`, the export.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from model.config.schema import AudioConfig, VocoderConfig
from model.threads import default_threads, interruptible
from model.training.logging import NullLogger, RunLogger
from model.vocoder.folder import write_vocoder
from model.vocoder.measures import PRIMARY, measure
from model.vocoder.official import VocoderWeights
from model.vocoder.pairs import Pair, Segments
from model.vocoder.run_state import RunState, VocoderTrainingError
from model.vocoder.samples import write_samples
from model.vocoder.step import AdversarialStep

__all__ = ["VocoderTraining", "VocoderTrainingError", "train_vocoder"]

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
    settings: VocoderConfig,
    audio: AudioConfig,
    training: list[Pair],
    held_out: list[Pair],
    steps: int,
    output: Path,
    fingerprint: str,
    seed: int,
    start: VocoderWeights | None = None,
    logger: RunLogger | None = None,
) -> VocoderTraining:
    """Train or fine-tune a vocoder, or go on where an interrupted run of the same fingerprint stopped.

    Args:
        settings: Section `vocoder`.
        audio: Mel settings.
        training, held_out: Clips with the mels that the vocoder will be given.
        steps: Steps to do in all.
        output: Folder of this run; a finished run in it is returned at once.
        fingerprint: Tells settings and data; a folder of another one is refused.
        seed: Of initial weights and of the segments.
        start: Weights to go on from; those of discriminators are taken along where they are there.
        logger: Receives metrics and audio.

    Raises:
        VocoderTrainingError: the folder belongs to another run, or too many steps in a row were not finite.
        PairingError: no clip is as long as a segment.
        KeyboardInterrupt: after an interrupt, once the running step is saved.
    """
    torch.set_num_threads(default_threads())
    state = RunState(settings, audio, output / "checkpoints", fingerprint, seed, start)
    step = AdversarialStep(state, steps)
    segments = Segments(training, settings.segment_frames, settings.batch_size, seed)
    held_out = sorted(held_out, key=lambda pair: pair.id)[:VALIDATION_CLIPS]
    if not held_out:
        raise VocoderTrainingError("no held-out clips to validate on; lower split.min_held_out or add recordings")
    state.resume()
    _log_start(state, segments, steps)
    output.mkdir(parents=True, exist_ok=True)
    history = _History(output / "history.jsonl", logger or NullLogger())
    bar = tqdm(total=steps, initial=state.step, unit="step", disable=None, mininterval=1.0)
    with interruptible() as interrupted, bar:
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
                history.progress(state.step, terms)
            if state.step % settings.evaluation_interval == 0 or state.step == steps:
                _validate(state, held_out, steps, output / "samples", history)
                state.save(state.metrics[f"validation/{PRIMARY}"])
            elif state.step % settings.checkpoint_interval == 0:
                state.save()
            if interrupted.is_set():
                if state.saved_step != state.step:
                    state.save()
                raise KeyboardInterrupt
    return VocoderTraining(write_vocoder(output / "vocoder", state.weights()), state.step, dict(state.metrics))


def _validate(state: RunState, held_out: list[Pair], steps: int, folder: Path, history: _History) -> None:
    vocoder = state.vocoder()
    measures = measure(vocoder, held_out, state.audio)
    for file in write_samples(vocoder, held_out, folder, f"{state.step:08d}", state.audio):
        history.logger.artifact(file, "vocoder-samples")
    state.metrics = {f"validation/{name}": value for name, value in measures.items()}
    history.write(state.step, state.metrics)
    shown = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in measures.items())
    log.info("step %d of %d: %s", state.step, steps, shown)


def _skip(state: RunState) -> None:
    state.skipped_in_a_row += 1
    log.warning("step %d skipped: loss or gradient is not finite", state.step)
    if state.skipped_in_a_row >= MAX_SKIPPED:
        raise VocoderTrainingError(
            f"{MAX_SKIPPED} steps in a row were not finite; lower vocoder.learning_rate, set "
            "vocoder.gradient_clip_norm, or look at the clips"
        )


class _History:
    """`history.jsonl`, one line a report, and the logger beside it."""

    def __init__(self, path: Path, logger: RunLogger) -> None:
        self.path, self.logger = path, logger
        self._began = time.monotonic()

    def progress(self, step: int, terms: dict[str, float]) -> None:
        """The terms of a training step, and the seconds that each of the last steps took."""
        seconds = (time.monotonic() - self._began) / LOG_INTERVAL
        self.write(
            step, {f"train/{name}": value for name, value in terms.items()} | {"train/seconds_per_step": seconds}
        )

    def write(self, step: int, values: dict[str, float]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        self.logger.metrics(step, values)
        self._began = time.monotonic()


def _log_start(state: RunState, segments: Segments, steps: int) -> None:
    log.info(
        "%s %s: %.2f M parameters, discriminators %.2f M, %d clips, steps %d to %d",
        state.kind,
        state.variant,
        _millions(state.generator),
        _millions(state.discriminators),
        len(segments.pairs),
        state.step,
        steps,
    )


def _millions(network: nn.Module) -> float:
    return sum(parameter.numel() for parameter in network.parameters()) / 1e6
