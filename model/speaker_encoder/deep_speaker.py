"""Deep Speaker: a residual convolutional network over filter bank energies (Li et al. 2017, arXiv:1705.02304).

The network (ResCNN) and the weights are those of https://github.com/philipperemy/deep-speaker (MIT), trained on
LibriSpeech to classify speakers, then with the triplet loss on the cosine. Its Keras file is read directly, by the
names of the layers, without the classifier. The front end is that of the training: 25 ms frames every 10 ms without a
window, 64 triangular filters on the mel scale, energies (no logarithm), each frame with mean 0 and standard deviation
1."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from model.speaker_encoder.base import SAMPLE_RATE, SpeakerEncoder, SpeakerEncoderError, check_sha256, silence_error

N_FFT, FRAME_LENGTH, HOP_LENGTH, BANDS = 512, 400, 160, 64
PRE_EMPHASIS = 0.97
PIECE_FRAMES = 160
"""Frames of a window (1.6 s)."""
CHANNELS = (64, 128, 256, 512)
"""Channels of the four stages, each of which halves frames and bands."""
BLOCKS = 3
"""Residual blocks per stage."""
CLIP = 20.0
"""Upper limit of the activation function."""
NORM_EPSILON = 1e-3
"""Epsilon of the batch normalization in Keras."""
LOUD_PERCENTILE = 95
"""Percentile of the amplitudes; samples before the first and after the last one above it are trimmed."""
FIX = (
    "get ResCNN_triplet_training_checkpoint_265.h5 from https://github.com/philipperemy/deep-speaker (its README links "
    "it), set features.speaker_encoder_weights to it and features.speaker_encoder_sha256 to its sha256sum"
)
PARAMETERS = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
"""Name of a parameter in Keras -> in torch."""


class DeepSpeaker(SpeakerEncoder):
    """Deep Speaker with its pretrained weights; `load` constructs it."""

    WIDTH = 512
    filterbank: Tensor
    BATCH = 1  # convolutions of one window do not depend on the others in a batch

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(_Stage(*sizes) for sizes in zip((1, *CHANNELS[:-1]), CHANNELS, strict=True))
        self.affine = nn.Linear(CHANNELS[-1] * BANDS // 2 ** len(CHANNELS), self.WIDTH)
        self.load_state_dict(weights)
        self.requires_grad_(False).eval()
        self.register_buffer("filterbank", torch.from_numpy(filterbank()), persistent=False)

    @classmethod
    def load(cls, weights: Path | None, sha256: str = "") -> DeepSpeaker:
        """Loads the pretrained weights.

        Args:
            weights: The published Keras file (`.h5`), or a file that `save` wrote.
            sha256: Expected SHA-256 of the published file; '' is not checked.

        Raises:
            SpeakerEncoderError: the file is missing, has another checksum, or does not contain these weights.
        """
        if weights is None or not weights.is_file():
            raise SpeakerEncoderError(f"{weights or 'deep_speaker'}: the speaker encoder's weights are missing; {FIX}")
        if sha256:
            check_sha256(weights, sha256)
        if weights.suffix != ".safetensors" and importlib.util.find_spec("h5py") is None:
            raise SpeakerEncoderError(f"{weights}: reading it requires h5py; `pip install 'myxtts[deep-speaker]'`")
        try:
            return cls(load_file(weights) if weights.suffix == ".safetensors" else _read_keras(weights))
        except (SafetensorError, RuntimeError, KeyError, OSError) as error:
            raise SpeakerEncoderError(f"{weights}: not the weights of Deep Speaker ({error}); {FIX}") from error

    def forward(self, pieces: Tensor) -> Tensor:
        """Returns unit vectors (P, 512) of windows (P, 160, 64)."""
        x = pieces[:, None]  # (P, 1, frames, bands)
        for stage in self.stages:
            x = stage(x)
        frames = x.permute(0, 2, 3, 1).flatten(2)  # (P, frames / 16, bands / 16 x channels): Keras' order
        return F.normalize(self.affine(frames.mean(1)), dim=1)

    def pieces(self, samples: np.ndarray) -> Tensor:
        """Returns consecutive windows (P, 160, 64) of the speech in samples (N,); the last one ends with the speech.

        Shorter speech is padded with zeros, as in training.
        """
        features = self.features(_trimmed(samples))
        if len(features) <= PIECE_FRAMES:
            return F.pad(features, (0, 0, 0, PIECE_FRAMES - len(features)))[None]
        starts = [*range(0, len(features) - PIECE_FRAMES, PIECE_FRAMES), len(features) - PIECE_FRAMES]
        return torch.stack([features[start : start + PIECE_FRAMES] for start in starts])

    def features(self, samples: np.ndarray) -> Tensor:
        """Returns filterbank energies (frames, 64) of samples (N,), each frame with mean 0 and standard deviation 1."""
        emphasized = np.append(samples[:1], samples[1:] - PRE_EMPHASIS * samples[:-1]).astype(np.float32)
        frames = 1 + math.ceil(max(len(samples) - FRAME_LENGTH, 0) / HOP_LENGTH)
        missing = (frames - 1) * HOP_LENGTH + FRAME_LENGTH - len(samples)
        framed = F.pad(torch.from_numpy(emphasized), (0, missing)).unfold(0, FRAME_LENGTH, HOP_LENGTH)
        power = torch.view_as_real(torch.fft.rfft(framed, N_FFT)).square().sum(-1) / N_FFT
        energies = power @ self.filterbank.T
        energies = torch.where(energies == 0, torch.finfo(torch.float64).eps, energies)
        deviation = energies.std(1, keepdim=True, correction=0).clamp(min=1e-12)
        return (energies - energies.mean(1, keepdim=True)) / deviation


class _Stage(nn.Module):
    """Strided convolution to more channels, then residual blocks."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, 5, stride=2)
        self.norm = nn.BatchNorm2d(outputs, NORM_EPSILON)
        self.blocks = nn.ModuleList(_Block(outputs) for _ in range(BLOCKS))

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (*_same(x.shape[3]), *_same(x.shape[2])))
        x = _clipped(self.norm(self.convolution(x)))
        for block in self.blocks:
            x = block(x)
        return x


class _Block(nn.Module):
    """Residual block of two convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels, NORM_EPSILON) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        inner = x
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            inner = _clipped(norm(convolution(inner)))
        return _clipped(inner + x)


def _clipped(x: Tensor) -> Tensor:
    return x.clamp(0, CLIP)


def _same(size: int) -> tuple[int, int]:
    """Returns the padding (before, after) of a convolution in Keras with kernel 5 and stride 2."""
    total = (math.ceil(size / 2) - 1) * 2 + 5 - size
    return total // 2, total - total // 2


def filterbank() -> np.ndarray:
    """Returns triangular filters (64, 257) float32 between whole bins, evenly spaced on the mel scale up to 8 kHz.

    They are those of python_speech_features, whose lowest triangles are narrower than a bin and partly empty.
    """
    mels = np.linspace(0, 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700), BANDS + 2)
    edges = np.floor((N_FFT + 1) * 700 * (10 ** (mels / 2595) - 1) / SAMPLE_RATE)
    low, peak, high = (edges[i : i + BANDS, None] for i in range(3))
    bins = np.arange(N_FFT // 2 + 1)
    rising = (bins - low) / np.maximum(peak - low, 1) * ((bins >= low) & (bins < peak))
    falling = (high - bins) / np.maximum(high - peak, 1) * ((bins >= peak) & (bins < high))
    return (rising + falling).astype(np.float32)


def _trimmed(samples: np.ndarray) -> np.ndarray:
    """Returns the samples from the first loud one to the last."""
    level = np.abs(samples)
    loud = np.flatnonzero(level > np.percentile(level, LOUD_PERCENTILE)) if len(samples) else level
    if not len(loud):
        raise silence_error()
    return samples[loud[0] : loud[-1] + 1]


def _read_keras(path: Path) -> dict[str, Tensor]:
    """Returns the state of a `DeepSpeaker` from the published file, which has weights alone or a whole model."""
    import h5py

    found: dict[tuple[str, str], np.ndarray] = {}

    def take(name: str, item: object) -> None:
        parts = name.split("/")
        if isinstance(item, h5py.Dataset) and len(parts) > 1 and parts[0] != "optimizer_weights":
            found[parts[-2], parts[-1].removesuffix(":0")] = item[()]

    with h5py.File(path, "r") as file:
        file.visititems(take)
    state = {}
    for layer, module in keras_layers().items():
        for name, own in PARAMETERS.items():
            if ("_bn" in layer) == (name in ("kernel", "bias")):
                continue
            value = torch.from_numpy(found[layer, name]).float()
            if name == "kernel":
                value = value.T if value.dim() == 2 else value.permute(3, 2, 0, 1)
            state[f"{module}.{own}"] = value.contiguous()
        if "_bn" in layer:
            state[f"{module}.num_batches_tracked"] = torch.tensor(0)
    return state


def keras_layers() -> dict[str, str]:
    """Returns the module of `DeepSpeaker` for each layer in the published file."""
    names = {"affine": "affine"}
    for stage, channels in enumerate(CHANNELS):
        names[f"conv{channels}-s"] = f"stages.{stage}.convolution"
        names[f"conv{channels}-s_bn"] = f"stages.{stage}.norm"
        for block in range(BLOCKS):
            for number, letter in enumerate("ab"):
                layer, module = f"res{stage + 1}_{block}_branch_2{letter}", f"stages.{stage}.blocks.{block}"
                names[layer] = f"{module}.convolutions.{number}"
                names[f"{layer}_bn"] = f"{module}.norms.{number}"
    return names
