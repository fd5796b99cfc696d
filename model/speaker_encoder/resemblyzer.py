"""Resemblyzer: three LSTM layers over power mel spectrograms.

Architecture and weights of Resemblyzer (Apache-2.0, https://github.com/resemble-ai/Resemblyzer), trained with the
GE2E loss (https://arxiv.org/abs/1710.10467). Only the weights come from its wheel; the package is never imported.
"""

from __future__ import annotations

import importlib.util
import math
import pickle
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from model.audio.mel import mel_filterbank
from model.speaker_encoder.base import SAMPLE_RATE, SpeakerEncoder, SpeakerEncoderError, check_sha256, silent

N_FFT, HOP_LENGTH, N_MELS = 400, 160, 40
PARTIAL_FRAMES = 160
"""Frames (1.6 s) that the network sees at once."""
PARTIAL_STEP = round(SAMPLE_RATE / 1.3 / HOP_LENGTH)
"""Frames between the starts of two partials: 1.3 of them a second."""
MIN_COVERAGE = 0.75
"""A last partial with less sound than this share is left out."""
LEVEL = 10 ** (-30 / 20)
"""Root mean square (-30 dB full scale) that quieter recordings are raised to."""
CURE = "install its wheel, which carries them: `pip install --no-deps resemblyzer==0.1.4`"


class Resemblyzer(SpeakerEncoder):
    """Partial utterances -> the unit sphere, no value below 0. Built by `load`, never untrained."""

    WIDTH = 256
    BATCH = 16  # no larger batch is faster per piece on a CPU

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.lstm = nn.LSTM(N_MELS, self.WIDTH, num_layers=3, batch_first=True)
        self.linear = nn.Linear(self.WIDTH, self.WIDTH)
        self.load_state_dict(weights)
        self.requires_grad_(False).eval()
        bank = mel_filterbank(SAMPLE_RATE, N_FFT, N_MELS, 0.0, SAMPLE_RATE / 2)
        self.register_buffer("filterbank", torch.from_numpy(bank), persistent=False)
        self.register_buffer("window", torch.hann_window(N_FFT), persistent=False)

    @classmethod
    def load(cls, weights: Path | None = None, sha256: str = "") -> Resemblyzer:
        """The encoder with its pretrained weights.

        Args:
            weights: A `pretrained.pt`, or what `save` wrote; by default the one in the installed `resemblyzer` wheel.
            sha256: Of that file; empty does not ask.

        Raises:
            SpeakerEncoderError: no such file, or not these weights. There is no fallback to random ones.
        """
        path = weights or _installed_weights()
        if path is None or not path.is_file():
            raise SpeakerEncoderError(f"{path or 'resemblyzer'}: the speaker encoder's weights are missing; {CURE}")
        if sha256:
            check_sha256(path, sha256)
        try:
            if path.suffix == ".safetensors":
                return cls(load_file(path))
            saved = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
            return cls({name: tensor for name, tensor in saved.items() if not name.startswith("similarity_")})
        except (pickle.UnpicklingError, SafetensorError, RuntimeError, KeyError, TypeError, EOFError) as error:
            raise SpeakerEncoderError(f"{path}: not the weights of this speaker encoder ({error}); {CURE}") from error

    def forward(self, pieces: Tensor) -> Tensor:
        _, (hidden, _) = self.lstm(pieces)
        return nn.functional.normalize(torch.relu(self.linear(hidden[-1])), dim=1, eps=1e-12)

    def pieces(self, samples: np.ndarray) -> Tensor:
        """(N,) -> (P, 160, 40): overlapping pieces of the power mel spectrogram."""
        starts = partial_starts(len(samples))
        needed = (starts[-1] + PARTIAL_FRAMES) * HOP_LENGTH
        padded = nn.functional.pad(torch.from_numpy(_at_level(samples)), (0, max(0, needed - len(samples))))
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


def _at_level(samples: np.ndarray) -> np.ndarray:
    level = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if len(samples) else 0.0
    if level == 0.0:
        raise silent()
    return np.ascontiguousarray(samples * max(1.0, LEVEL / level), dtype=np.float32)


def _installed_weights() -> Path | None:
    package = importlib.util.find_spec("resemblyzer")  # finds a top-level package without running it
    return Path(package.origin).with_name("pretrained.pt") if package and package.origin else None
