"""Neural vocoders as synthesis uses them: folded weights, a fast memory layout, long speech in exact chunks."""

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
from model.vocoder.fast import speed_up
from model.vocoder.folder import read_vocoder
from model.vocoder.official import VocoderWeights
from model.vocoder.weights import fold, load_weights

log = logging.getLogger(__name__)


class NeuralVocoder:
    """A trained generator ready to speak.

    Long mels are made in chunks with the generator's whole context on each side, so that the joined samples are those
    of one pass. What noise a generator reads is fixed by position: the same mel gives the same samples.

    Args:
        name: What reports call it.
        generator: With its weights; it is folded, and kept on its device, which is where it speaks.
        audio: Mel settings.
        chunk_frames: Frames made at once.
        precision: `float32` or `bfloat16`.
    """

    def __init__(
        self, name: str, generator: nn.Module, audio: AudioConfig, chunk_frames: int, precision: str = "float32"
    ) -> None:
        if precision == "bfloat16" and not computes_in_bfloat16():
            log.warning("this processor only emulates bfloat16: vocoder.precision float32 would be faster")
        self.name, self.audio, self.chunk_frames = name, audio, chunk_frames
        self.dtype, self.device = getattr(torch, precision), next(generator.parameters()).device
        self.generator = fold(generator).eval().requires_grad_(False).to(self.dtype)
        if self.device.type == "cpu":
            speed_up(self.generator)

    @classmethod
    def from_weights(
        cls, weights: VocoderWeights, vocoder: VocoderConfig, device: torch.device | str = "cpu"
    ) -> NeuralVocoder:
        """The vocoder of loaded weights."""
        generator = build_generator(weights.kind, weights.variant, weights.audio)
        load_weights(generator, weights.generator, weights.origin)
        name = f"{weights.kind} {weights.variant}"
        return cls(name, generator.to(device), weights.audio, vocoder.chunk_frames, vocoder.precision)

    @classmethod
    def load(cls, folder: Path, vocoder: VocoderConfig, audio: AudioConfig) -> NeuralVocoder:
        """The vocoder of a folder; see `model.vocoder.folder.read_vocoder` for what is refused."""
        return cls.from_weights(read_vocoder(folder, audio, vocoder.type), vocoder)

    def __call__(self, mel: np.ndarray) -> np.ndarray:
        """(S, n_mels) log-mel -> (S * hop,) float32 samples in [-1, 1].

        Raises:
            VocoderError: what is no mel (see `check_mel`), or weights that make no finite sound of it.
        """
        check_mel(mel, self.audio)
        frames, tail = len(mel), self.generator.tail_frames
        with torch.inference_mode():
            whole = torch.from_numpy(np.ascontiguousarray(mel.T, dtype=np.float32))[None]
            whole = nn.functional.pad(whole, (0, tail), value=SILENCE).to(self.device, self.dtype)  # (1, M, S + tail)
            noise = self.noise(whole.shape[2])
            starts = range(0, frames, self.chunk_frames)
            samples = torch.cat([self._chunk(whole, noise, start, frames) for start in starts]).float().cpu()
        if not torch.isfinite(samples).all():
            raise VocoderError("the vocoder made samples that are not finite numbers: its weights are damaged")
        return samples.numpy()

    def _chunk(self, mel: Tensor, noise: Tensor | None, start: int, frames: int) -> Tensor:
        """Samples of `chunk_frames` frames from `start` on, made with their context."""
        context, hop = self.generator.context_frames, self.generator.hop
        end = min(start + self.chunk_frames, frames)
        first, last = max(0, start - context), min(mel.shape[2], end + context)
        part = noise[:, :, first:last] if noise is not None else None
        made = self.generator(mel[:, :, first:last], part)[0, 0]
        return made[(start - first) * hop : (end - first) * hop]

    def noise(self, frames: int) -> Tensor | None:
        if not self.generator.noise_channels:
            return None
        drawn = torch.randn(frames, self.generator.noise_channels, generator=torch.Generator().manual_seed(0))
        return drawn.T[None].to(self.device, self.dtype)
