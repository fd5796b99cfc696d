"""Vocoders that generate long speech in chunks, and the boundaries of these chunks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from model.audio.griffin_lim import check_mel
from model.audio.inversion import MelInverter
from model.config.data import AudioConfig


def chunk_bounds(frames: int, chunk_frames: int, first_frames: int = 0) -> Iterator[tuple[int, int]]:
    """Yields the first and one-past-last frame of chunks of `chunk_frames`.

    A shorter first chunk lets playback start earlier.

    Args:
        frames: Frames in all.
        chunk_frames: Frames of each chunk; the last one is shorter.
        first_frames: Frames of the first chunk; 0 for `chunk_frames`.
    """
    start, size = 0, first_frames or chunk_frames
    while start < frames:
        end = min(start + size, frames)
        yield start, end
        start, size = end, chunk_frames


class ContinuedGriffinLim:
    """Griffin-Lim from phases that are continued from frame to frame, which needs few iterations.

    Args:
        audio: Mel settings.
        iterations: Griffin-Lim iterations.
        momentum: As in `MelInverter`.
        chunk_frames: Frames per chunk.
    """

    def __init__(self, audio: AudioConfig, iterations: int, momentum: float, chunk_frames: int) -> None:
        self.name, self.audio, self.chunk_frames = "Griffin-Lim", audio, chunk_frames
        self.inverter = MelInverter(audio, iterations, momentum)

    def __call__(self, mel: np.ndarray) -> np.ndarray:
        """Generates float32 samples (S * hop,) in [-1, 1] from a log-mel (S, M).

        Raises:
            VocoderError: the input is no log-mel (see `check_mel`).
        """
        samples = torch.cat(list(self._chunks(mel, 0)))
        # Too loud a signal is scaled as a whole: clipping would distort it.
        return (samples / samples.abs().max().clamp(min=1.0)).numpy()

    def stream(self, mel: np.ndarray, first_frames: int = 0) -> Iterator[np.ndarray]:
        """Yields the samples of `__call__` in chunks; the first one has `first_frames` frames, where given.

        Too loud a signal is clipped here, since its largest sample is not known in advance.

        Raises:
            VocoderError: the input is no log-mel (see `check_mel`).
        """
        for samples in self._chunks(mel, first_frames):
            yield samples.clamp(-1.0, 1.0).numpy()

    def _chunks(self, mel: np.ndarray, first_frames: int) -> Iterator[Tensor]:
        check_mel(mel, self.audio)
        frames = torch.from_numpy(np.ascontiguousarray(mel, dtype=np.float32))
        chunks = chunk_bounds(len(frames), self.chunk_frames, first_frames)
        magnitudes = self.inverter.magnitudes
        return self.inverter.stream(frames, lambda first, last: magnitudes(frames[first:last]), chunks)
