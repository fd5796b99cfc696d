"""Neural vocoders at inference: folded weights, fast layers, long speech in chunks that join exactly."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from model.audio import SILENCE
from model.audio.griffin_lim import check_mel
from model.audio.inversion import MelInverter
from model.config.data import AudioConfig
from model.config.vocoder import VocoderConfig
from model.errors import VocoderError
from model.threads import computes_in_bfloat16
from model.vocoder.architectures import build_generator, refinement_iterations
from model.vocoder.cpu_inference import optimize_for_cpu
from model.vocoder.folder import read_vocoder
from model.vocoder.layers import Generator
from model.vocoder.official import VocoderWeights
from model.vocoder.streaming import chunk_bounds
from model.vocoder.vocos import Vocos
from model.vocoder.weights import fold_norms, load_weights

log = logging.getLogger(__name__)

REFINEMENT_MOMENTUM = 0.99
"""Momentum of the refinement's iterations, that of Griffin-Lim."""


class NeuralVocoder:
    """Trained generator at inference.

    Long mels are generated in chunks with the full context of the generator on each side, so that the joined samples
    equal those of one pass. The noise input depends on the position only: the same mel gives the same samples.

    Args:
        name: Name in reports.
        generator: Generator with its weights, which are folded; it stays on its device.
        audio: Mel settings.
        chunk_frames: Frames per chunk.
        precision: `float32` or `bfloat16`.
        refinement_iterations: Griffin-Lim iterations on the magnitudes of Vocos; 0 keeps the samples of the generator,
            or the continued phases where it predicts none.

    Raises:
        VocoderError: the magnitudes of Vocos are of other frames than the mel, so that they cannot be refined.
    """

    def __init__(
        self,
        name: str,
        generator: Generator,
        audio: AudioConfig,
        chunk_frames: int,
        precision: str = "float32",
        refinement_iterations: int = 0,
    ) -> None:
        if precision == "bfloat16" and not computes_in_bfloat16():
            log.warning("this processor only emulates bfloat16: vocoder.precision float32 would be faster")
        self.name, self.audio, self.chunk_frames = name, audio, chunk_frames
        self.dtype, self.device = getattr(torch, precision), next(generator.parameters()).device
        self.generator = fold_norms(generator).eval().requires_grad_(False)
        for parameter in self.generator.parameters():  # not the mel filters, whose products need float32
            parameter.data = parameter.data.to(self.dtype)
        if self.device.type == "cpu":
            optimize_for_cpu(self.generator)
        self.inverter: MelInverter | None = None
        if isinstance(generator, Vocos) and (refinement_iterations or not generator.size.predicts_phases):
            if generator.size.n_fft != audio.n_fft:
                raise VocoderError(
                    f"{name} predicts magnitudes of {generator.size.n_fft} samples, but audio.n_fft is {audio.n_fft}; "
                    "set vocoder.refinement_iterations to 0"
                )
            self.inverter = MelInverter(audio, refinement_iterations, REFINEMENT_MOMENTUM)

    @classmethod
    def from_weights(
        cls, weights: VocoderWeights, vocoder: VocoderConfig, device: torch.device | str = "cpu"
    ) -> NeuralVocoder:
        """Returns the vocoder with the given weights."""
        generator = build_generator(weights.kind, weights.variant, weights.audio)
        load_weights(generator, weights.generator, weights.origin)
        name = f"{weights.kind} {weights.variant}"
        return cls(
            name,
            generator.to(device),
            weights.audio,
            vocoder.chunk_frames,
            vocoder.precision,
            refinement_iterations(weights.kind, weights.variant, vocoder),
        )

    @classmethod
    def load(cls, folder: Path, vocoder: VocoderConfig, audio: AudioConfig) -> NeuralVocoder:
        """Loads the vocoder of a folder.

        Raises:
            CheckpointFormatError: as `model.vocoder.folder.read_vocoder`.
        """
        return cls.from_weights(read_vocoder(folder, audio, vocoder.type), vocoder)

    def __call__(self, mel: np.ndarray) -> np.ndarray:
        """Generates float32 samples (S * hop,) in [-1, 1] from a log-mel (S, M).

        Raises:
            VocoderError: the input is no log-mel (see `check_mel`), or the samples are not finite.
        """
        return np.concatenate(list(self.stream(mel)))

    def stream(self, mel: np.ndarray, first_frames: int = 0) -> Iterator[np.ndarray]:
        """Yields the samples of `__call__` in chunks; the first one has `first_frames` frames, where given.

        Raises:
            VocoderError: as `__call__`.
        """
        check_mel(mel, self.audio)
        frames = len(mel)
        chunks = chunk_bounds(frames, self.chunk_frames, first_frames)
        padded = torch.from_numpy(np.ascontiguousarray(mel.T, dtype=np.float32))[None]
        padded = nn.functional.pad(padded, (0, self.generator.tail_frames), value=SILENCE)  # (1, M, S + tail)
        padded = padded.to(self.device, self.dtype)
        parts: Iterator[Tensor]
        if self.inverter is None:
            noise = self.noise(padded.shape[2])
            parts = (self._chunk(padded, noise, start, end) for start, end in chunks)
        else:
            target = torch.from_numpy(np.ascontiguousarray(mel, dtype=np.float32))
            parts = self.inverter.stream(target, partial(self._magnitudes, padded), chunks)
        for part in parts:
            samples = part.float().cpu()
            if not torch.isfinite(samples).all():
                raise VocoderError(
                    f"{self.name}: the samples are not finite numbers, so its weights are damaged; "
                    "train or import it again"
                )
            yield samples.clamp(-1.0, 1.0).numpy()

    @torch.inference_mode()
    def _chunk(self, mel: Tensor, noise: Tensor | None, start: int, end: int) -> Tensor:
        """Returns the samples of frames `start` to `end`, generated with their context."""
        context, hop = self.generator.context_frames, self.generator.hop
        first, last = max(0, start - context), min(mel.shape[2], end + context)
        chunk_noise = noise[:, :, first:last] if noise is not None else None
        samples = self.generator(mel[:, :, first:last], chunk_noise)[0, 0]
        return samples[(start - first) * hop : (end - first) * hop]

    @torch.inference_mode()
    def _magnitudes(self, mel: Tensor, start: int, end: int) -> Tensor:
        """Returns the magnitudes (end - start, K) of frames that Vocos predicts, from a mel (1, M, S)."""
        assert isinstance(self.generator, Vocos)
        context = self.generator.context_frames
        first, last = max(0, start - context), min(mel.shape[2], end + context)
        magnitudes = self.generator.magnitudes(mel[:, :, first:last])[0]
        return magnitudes[start - first : end - first].cpu()

    def noise(self, frames: int) -> Tensor | None:
        """Returns the noise input (1, channels, frames), always the same, or None where the generator has none."""
        if not self.generator.noise_channels:
            return None
        noise = torch.randn(frames, self.generator.noise_channels, generator=torch.Generator().manual_seed(0))
        return noise.T[None].to(self.device, self.dtype)
