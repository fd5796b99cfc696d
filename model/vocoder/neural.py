"""Neural vocoders at inference: folded weights, fast layers, long speech in chunks that join exactly."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from model.audio import SILENCE
from model.audio.griffin_lim import check_mel
from model.config.data import AudioConfig
from model.config.vocoder import VocoderConfig
from model.errors import VocoderError
from model.threads import computes_in_bfloat16
from model.vocoder.architectures import build_generator
from model.vocoder.cpu_inference import optimize_for_cpu
from model.vocoder.folder import read_vocoder
from model.vocoder.layers import Generator
from model.vocoder.official import VocoderWeights
from model.vocoder.weights import fold_norms, load_weights

log = logging.getLogger(__name__)


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
    """

    def __init__(
        self, name: str, generator: Generator, audio: AudioConfig, chunk_frames: int, precision: str = "float32"
    ) -> None:
        if precision == "bfloat16" and not computes_in_bfloat16():
            log.warning("this processor only emulates bfloat16: vocoder.precision float32 would be faster")
        self.name, self.audio, self.chunk_frames = name, audio, chunk_frames
        self.dtype, self.device = getattr(torch, precision), next(generator.parameters()).device
        self.generator = fold_norms(generator).eval().requires_grad_(False).to(self.dtype)
        if self.device.type == "cpu":
            optimize_for_cpu(self.generator)

    @classmethod
    def from_weights(
        cls, weights: VocoderWeights, vocoder: VocoderConfig, device: torch.device | str = "cpu"
    ) -> NeuralVocoder:
        """Returns the vocoder with the given weights."""
        generator = build_generator(weights.kind, weights.variant, weights.audio)
        load_weights(generator, weights.generator, weights.origin)
        name = f"{weights.kind} {weights.variant}"
        return cls(name, generator.to(device), weights.audio, vocoder.chunk_frames, vocoder.precision)

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
        check_mel(mel, self.audio)
        frames, tail = len(mel), self.generator.tail_frames
        with torch.inference_mode():
            padded = torch.from_numpy(np.ascontiguousarray(mel.T, dtype=np.float32))[None]
            padded = nn.functional.pad(padded, (0, tail), value=SILENCE).to(self.device, self.dtype)  # (1, M, S + tail)
            noise = self.noise(padded.shape[2])
            starts = range(0, frames, self.chunk_frames)
            samples = torch.cat([self._chunk(padded, noise, start, frames) for start in starts]).float().cpu()
        if not torch.isfinite(samples).all():
            raise VocoderError(
                f"{self.name}: the samples are not finite numbers, so its weights are damaged; train or import it again"
            )
        return samples.clamp(-1.0, 1.0).numpy()

    def _chunk(self, mel: Tensor, noise: Tensor | None, start: int, frames: int) -> Tensor:
        """Returns the samples of `chunk_frames` frames from `start`, generated with their context."""
        context, hop = self.generator.context_frames, self.generator.hop
        end = min(start + self.chunk_frames, frames)
        first, last = max(0, start - context), min(mel.shape[2], end + context)
        chunk_noise = noise[:, :, first:last] if noise is not None else None
        samples = self.generator(mel[:, :, first:last], chunk_noise)[0, 0]
        return samples[(start - first) * hop : (end - first) * hop]

    def noise(self, frames: int) -> Tensor | None:
        """Returns the noise input (1, channels, frames), always the same, or None where the generator has none."""
        if not self.generator.noise_channels:
            return None
        noise = torch.randn(frames, self.generator.noise_channels, generator=torch.Generator().manual_seed(0))
        return noise.T[None].to(self.device, self.dtype)
