"""The pretrained speaker encoder: a recording -> a unit vector that says who speaks, not what is said.

Architecture and weights of Resemblyzer (Apache-2.0, https://github.com/resemble-ai/Resemblyzer), trained with the
GE2E loss (https://arxiv.org/abs/1710.10467). Only the weights come from its wheel; the package is never imported.
"""

from __future__ import annotations

import importlib.util
import math
import os
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from model.audio.io import resample
from model.audio.mel import mel_filterbank

SAMPLE_RATE = 16000
N_FFT, HOP_LENGTH, N_MELS = 400, 160, 40
PARTIAL_FRAMES = 160
"""Frames (1.6 s) that the network sees at once."""
PARTIAL_STEP = round(SAMPLE_RATE / 1.3 / HOP_LENGTH)
"""Frames between the starts of two partials: 1.3 of them a second."""
MIN_COVERAGE = 0.75
"""A last partial with less sound than this share is left out."""
LEVEL = 10 ** (-30 / 20)
"""Root mean square (-30 dB full scale) that quieter recordings are raised to."""
WIDTH = 256
VECTOR_DIMS = {"resemblyzer": WIDTH}
"""Values of a vector, by `features.speaker_encoder_model`."""
BATCH = 32
"""Partials at once: no larger batch is faster on a CPU."""
LEAST_BATCH = 8
"""Below this, matrix products take another path and differ in the last bit: smaller batches are filled up."""
CURE = "install its wheel, which carries them: `pip install --no-deps resemblyzer==0.1.4`"


class SpeakerEncoderError(RuntimeError):
    """The pretrained weights are missing or damaged, or a recording holds no sound; the message names the cure."""


class SpeakerEncoder(nn.Module):
    """Three LSTM layers over partial utterances, projected to the unit sphere. Built by `load`, never untrained."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.lstm = nn.LSTM(N_MELS, WIDTH, num_layers=3, batch_first=True)
        self.linear = nn.Linear(WIDTH, WIDTH)
        self.load_state_dict(weights)
        self.requires_grad_(False).eval()
        bank = mel_filterbank(SAMPLE_RATE, N_FFT, N_MELS, 0.0, SAMPLE_RATE / 2)
        self.register_buffer("filterbank", torch.from_numpy(bank), persistent=False)
        self.register_buffer("window", torch.hann_window(N_FFT), persistent=False)

    @classmethod
    def load(cls, weights: Path | None = None) -> SpeakerEncoder:
        """The encoder with its pretrained weights.

        Args:
            weights: A `pretrained.pt`, or what `save` wrote; by default the one in the installed `resemblyzer` wheel.

        Raises:
            SpeakerEncoderError: no such file, or not these weights. There is no fallback to random ones.
        """
        path = weights or _installed_weights()
        if path is None or not path.is_file():
            raise SpeakerEncoderError(f"{path or 'resemblyzer'}: the speaker encoder's weights are missing; {CURE}")
        try:
            if path.suffix == ".safetensors":
                return cls(load_file(path))
            saved = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
            return cls({name: tensor for name, tensor in saved.items() if not name.startswith("similarity_")})
        except (pickle.UnpicklingError, SafetensorError, RuntimeError, KeyError, TypeError, EOFError) as error:
            raise SpeakerEncoderError(f"{path}: not the weights of this speaker encoder ({error}); {CURE}") from error

    def save(self, path: Path) -> Path:
        """Write the weights where no wheel is installed to take them from: beside a voice that is served elsewhere."""
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        save_file(self.state_dict(), partial)
        os.replace(partial, path)
        return path

    def forward(self, mels: Tensor) -> Tensor:
        """(B, frames, 40) power mel spectrograms -> (B, 256) unit vectors."""
        _, (hidden, _) = self.lstm(mels)
        return nn.functional.normalize(torch.relu(self.linear(hidden[-1])), dim=1, eps=1e-12)

    def embed(self, samples: np.ndarray, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
        """Who speaks in a recording.

        Args:
            samples: (N,) in [-1, 1].
            sample_rate: Their rate in Hz; other than 16 kHz they are resampled.

        Returns:
            (256,) float32 of unit length, no value below 0.

        Raises:
            SpeakerEncoderError: the recording is digitally silent.
        """
        return self.embed_many([samples], sample_rate)[0]

    @torch.inference_mode()
    def embed_many(self, recordings: Sequence[np.ndarray], sample_rate: int = SAMPLE_RATE) -> np.ndarray:
        """`embed` of several recordings at once, (count, 256): their partials share the batches of the network.

        Each vector is to the bit what `embed` gives for its recording alone.
        """
        partials = [self._partials(_at_level(resample(item, sample_rate, SAMPLE_RATE))) for item in recordings]
        vectors = torch.cat([self._filled_up(batch) for batch in torch.cat(partials).split(BATCH)])
        means = torch.stack([own.mean(0) for own in vectors.split([len(own) for own in partials])])
        return nn.functional.normalize(means, dim=1).numpy()

    def _filled_up(self, mels: Tensor) -> Tensor:
        missing = max(0, LEAST_BATCH - len(mels))
        return self(nn.functional.pad(mels, (0, 0, 0, 0, 0, missing)))[: len(mels)]

    def _partials(self, samples: np.ndarray) -> Tensor:
        """(N,) at 16 kHz -> (P, 160, 40): overlapping pieces of the power mel spectrogram."""
        starts = partial_starts(len(samples))
        needed = (starts[-1] + PARTIAL_FRAMES) * HOP_LENGTH
        padded = nn.functional.pad(torch.from_numpy(samples), (0, max(0, needed - len(samples))))
        spectrum = torch.stft(
            padded, N_FFT, HOP_LENGTH, N_FFT, self.window, center=True, pad_mode="constant", return_complex=True
        )
        mel = (self.filterbank @ torch.view_as_real(spectrum).square().sum(-1)).T  # (frames, 40)
        return torch.stack([mel[start : start + PARTIAL_FRAMES] for start in starts])


def partial_starts(samples: int) -> list[int]:
    """First frames of the partials that cover a recording of so many samples at 16 kHz; at least one."""
    frames = math.ceil((samples + 1) / HOP_LENGTH)
    starts = list(range(0, max(1, frames - PARTIAL_FRAMES + PARTIAL_STEP + 1), PARTIAL_STEP))
    covered = (samples - starts[-1] * HOP_LENGTH) / (PARTIAL_FRAMES * HOP_LENGTH)
    return starts[:-1] if covered < MIN_COVERAGE and len(starts) > 1 else starts


def centroid(vectors: np.ndarray) -> np.ndarray:
    """(count, 256) vectors of one speaker -> (256,) their mean direction, of unit length."""
    mean = vectors.mean(axis=0)
    return (mean / np.linalg.norm(mean)).astype(np.float32)


def _at_level(samples: np.ndarray) -> np.ndarray:
    level = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if len(samples) else 0.0
    if level == 0.0:
        raise SpeakerEncoderError("a recording without any sound has no speaker; give one with speech")
    return np.ascontiguousarray(samples * max(1.0, LEVEL / level), dtype=np.float32)


def _installed_weights() -> Path | None:
    package = importlib.util.find_spec("resemblyzer")  # finds a top-level package without running it
    return Path(package.origin).with_name("pretrained.pt") if package and package.origin else None
