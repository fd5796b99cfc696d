"""Resemblyzer: three LSTM layers over power mel spectrograms.

The architecture and the weights are those of Resemblyzer (Apache-2.0, https://github.com/resemble-ai/Resemblyzer),
trained with the GE2E loss (https://arxiv.org/abs/1710.10467). The weights are read from its wheel, a file that
`make install` and the images keep beside the environment: the package itself is not installed."""

from __future__ import annotations

import io
import math
import pickle
import sys
import zipfile
from pathlib import Path
from typing import IO

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from model.audio.mel import mel_filterbank
from model.speaker_encoder.base import SAMPLE_RATE, SpeakerEncoder, SpeakerEncoderError, check_sha256, silence_error

N_FFT, HOP_LENGTH, N_MELS = 400, 160, 40
WINDOW_FRAMES = 160
"""Frames of a window (1.6 s)."""
WINDOW_STEP = round(SAMPLE_RATE / 1.3 / HOP_LENGTH)
"""Frames between the starts of two windows: 1.3 windows per second."""
MIN_COVERAGE = 0.75
"""Fraction of the last window that the recording must fill; otherwise the window is left out."""
MIN_LEVEL = 10 ** (-30 / 20)
"""Root mean square (-30 dB full scale) to which quieter recordings are amplified."""
WHEELS = Path(sys.prefix) / "share" / "myxtts"
"""Folder of the wheel."""
MEMBER = "resemblyzer/pretrained.pt"
"""The weights in the wheel."""
FIX = f"its wheel contains them: `pip download --no-deps --dest {WHEELS} resemblyzer==0.1.4`"

_DAMAGED = (pickle.UnpicklingError, zipfile.BadZipFile, SafetensorError, RuntimeError, KeyError, TypeError, EOFError)


class Resemblyzer(SpeakerEncoder):
    """Resemblyzer with its pretrained weights; `load` constructs it. No value of its embeddings is negative."""

    WIDTH = 256
    filterbank: Tensor
    window: Tensor
    BATCH = 8  # half the time of 16 for a single clip, and a tenth more per window of full batches (one core)

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
        """Loads the pretrained weights.

        Args:
            weights: The wheel, its `pretrained.pt`, or a file that `save` wrote [default: the wheel in `WHEELS`].
            sha256: Expected SHA-256 of the file; '' is not checked.

        Raises:
            SpeakerEncoderError: the file is missing, has another checksum, or does not contain these weights.
        """
        path = weights or next(iter(sorted(WHEELS.glob("[Rr]esemblyzer-*.whl"))), WHEELS)
        if not path.is_file():
            raise SpeakerEncoderError(f"{path}: the speaker encoder's weights are missing; {FIX}")
        if sha256:
            check_sha256(path, sha256)
        try:
            if path.suffix == ".safetensors":
                return cls(load_file(path))
            saved = torch.load(_checkpoint(path), map_location="cpu", weights_only=True)["model_state"]
            return cls({name: tensor for name, tensor in saved.items() if not name.startswith("similarity_")})
        except _DAMAGED as error:
            raise SpeakerEncoderError(f"{path}: not the weights of this speaker encoder ({error}); {FIX}") from error

    def forward(self, pieces: Tensor) -> Tensor:
        """Returns unit vectors (P, 256) of windows (P, 160, 40)."""
        _, (hidden, _) = self.lstm(pieces)
        return nn.functional.normalize(torch.relu(self.linear(hidden[-1])), dim=1, eps=1e-12)

    def pieces(self, samples: np.ndarray) -> Tensor:
        """Returns overlapping windows (P, 160, 40) of the power mel spectrogram of samples (N,)."""
        starts = window_starts(len(samples))
        needed = (starts[-1] + WINDOW_FRAMES) * HOP_LENGTH
        padded = nn.functional.pad(torch.from_numpy(_raised(samples)), (0, max(0, needed - len(samples))))
        spectrum = torch.stft(
            padded, N_FFT, HOP_LENGTH, N_FFT, self.window, center=True, pad_mode="constant", return_complex=True
        )
        mel = (self.filterbank @ torch.view_as_real(spectrum).square().sum(-1)).T  # (frames, 40)
        return torch.stack([mel[start : start + WINDOW_FRAMES] for start in starts])


def window_starts(samples: int) -> list[int]:
    """Returns the first frame of each window of a recording of `samples` samples at 16 kHz; at least one."""
    frames = math.ceil((samples + 1) / HOP_LENGTH)
    starts = list(range(0, max(1, frames - WINDOW_FRAMES + WINDOW_STEP + 1), WINDOW_STEP))
    covered = (samples - starts[-1] * HOP_LENGTH) / (WINDOW_FRAMES * HOP_LENGTH)
    return starts[:-1] if covered < MIN_COVERAGE and len(starts) > 1 else starts


def _raised(samples: np.ndarray) -> np.ndarray:
    """Returns samples, amplified to a level of at least `MIN_LEVEL`."""
    level = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if len(samples) else 0.0
    if level == 0.0:
        raise silence_error()
    return np.ascontiguousarray(samples * max(1.0, MIN_LEVEL / level), dtype=np.float32)


def _checkpoint(path: Path) -> Path | IO[bytes]:
    """Returns what `torch.load` reads: a member of the wheel, or the file itself."""
    if path.suffix != ".whl":
        return path
    with zipfile.ZipFile(path) as wheel:
        return io.BytesIO(wheel.read(MEMBER))
