"""Deep Speaker: a residual convolutional network over filter bank energies (Li et al. 2017, arXiv:1705.02304).

The network (ResCNN) and the weights of https://github.com/philipperemy/deep-speaker (MIT): trained on LibriSpeech to
classify speakers, then with the triplet loss on the cosine. Its Keras file is read as it is, by the names of the
layers; a head that classified speakers is left out. Front end as those weights learned it: 25 ms frames every 10 ms
without a window, 64 triangular filters on the mel scale, energies (no logarithm), every frame to mean 0, deviation 1.
"""

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

from model.speaker_encoder.base import SAMPLE_RATE, SpeakerEncoder, SpeakerEncoderError, check_sha256, silent

N_FFT, FRAME_LENGTH, HOP_LENGTH, BANDS = 512, 400, 160, 64
PRE_EMPHASIS = 0.97
PIECE_FRAMES = 160
"""Frames (1.6 s) that the network sees at once."""
CHANNELS = (64, 128, 256, 512)
"""Of the four stages, each at half the frames and bands of the one before."""
BLOCKS = 3
"""Residual blocks of a stage."""
CLIP = 20.0
NORM_EPSILON = 1e-3
"""Of Keras' batch normalisation."""
LOUD = 95
"""Percentile of the absolute samples: what comes before the first and after the last sample above it is cut off."""
CURE = (
    "get ResCNN_triplet_training_checkpoint_265.h5 from https://github.com/philipperemy/deep-speaker (its README links "
    "it), name it in features.speaker_encoder_weights and its sha256sum in features.speaker_encoder_sha256"
)
PARAMETERS = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
"""Keras' names -> torch's."""


class DeepSpeaker(SpeakerEncoder):
    """Stretches of 1.6 s -> the unit sphere. Built by `load`, never untrained."""

    WIDTH = 512
    BATCH = 1  # convolutions take the same path for every piece, so a vector is the same in any company

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(_Stage(*sizes) for sizes in zip((1, *CHANNELS[:-1]), CHANNELS, strict=True))
        self.affine = nn.Linear(CHANNELS[-1] * BANDS // 2 ** len(CHANNELS), self.WIDTH)
        self.load_state_dict(weights)
        self.requires_grad_(False).eval()
        self.register_buffer("filterbank", torch.from_numpy(filterbank()), persistent=False)

    @classmethod
    def load(cls, weights: Path | None, sha256: str = "") -> DeepSpeaker:
        """The encoder with its pretrained weights.

        Args:
            weights: The published Keras file (`.h5`), or what `save` wrote.
            sha256: Of that file; what `save` wrote comes without.

        Raises:
            SpeakerEncoderError: no such file, another than the checksum says, or not these weights. There is no
                fallback to random ones.
        """
        if weights is None or not weights.is_file():
            raise SpeakerEncoderError(f"{weights or 'deep_speaker'}: the speaker encoder's weights are missing; {CURE}")
        if sha256:
            check_sha256(weights, sha256)
        if weights.suffix != ".safetensors" and importlib.util.find_spec("h5py") is None:
            raise SpeakerEncoderError(f"{weights}: reading it takes h5py; `pip install 'myxtts[deep-speaker]'`")
        try:
            return cls(load_file(weights) if weights.suffix == ".safetensors" else _read_keras(weights))
        except (SafetensorError, RuntimeError, KeyError, OSError) as error:
            raise SpeakerEncoderError(f"{weights}: not the weights of Deep Speaker ({error}); {CURE}") from error

    def forward(self, pieces: Tensor) -> Tensor:
        x = pieces[:, None]  # (P, 1, frames, bands)
        for stage in self.stages:
            x = stage(x)
        frames = x.permute(0, 2, 3, 1).flatten(2)  # (P, frames / 16, bands / 16 x channels): Keras' order
        return F.normalize(self.affine(frames.mean(1)), dim=1)

    def pieces(self, samples: np.ndarray) -> Tensor:
        """(N,) -> (P, 160, 64): the speech in stretches of 1.6 s, the last one ending with it; shorter speech is
        followed by zeros, as in training."""
        features = self.features(_spoken(samples))
        if len(features) <= PIECE_FRAMES:
            return F.pad(features, (0, 0, 0, PIECE_FRAMES - len(features)))[None]
        starts = [*range(0, len(features) - PIECE_FRAMES, PIECE_FRAMES), len(features) - PIECE_FRAMES]
        return torch.stack([features[start : start + PIECE_FRAMES] for start in starts])

    def features(self, samples: np.ndarray) -> Tensor:
        """(N,) -> (frames, 64) filter bank energies, each frame with mean 0 and deviation 1."""
        emphasised = np.append(samples[:1], samples[1:] - PRE_EMPHASIS * samples[:-1]).astype(np.float32)
        frames = 1 + math.ceil(max(len(samples) - FRAME_LENGTH, 0) / HOP_LENGTH)
        missing = (frames - 1) * HOP_LENGTH + FRAME_LENGTH - len(samples)
        framed = F.pad(torch.from_numpy(emphasised), (0, missing)).unfold(0, FRAME_LENGTH, HOP_LENGTH)
        power = torch.view_as_real(torch.fft.rfft(framed, N_FFT)).square().sum(-1) / N_FFT
        energies = power @ self.filterbank.T
        energies = torch.where(energies == 0, torch.finfo(torch.float64).eps, energies)
        deviation = energies.std(1, keepdim=True, correction=0).clamp(min=1e-12)
        return (energies - energies.mean(1, keepdim=True)) / deviation


class _Stage(nn.Module):
    """A strided convolution to more channels, then residual blocks."""

    def __init__(self, inputs: int, outputs: int):
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
    def __init__(self, channels: int):
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
    """Padding (before, after) with which Keras halves `size` by a kernel of 5: the odd one comes after."""
    total = (math.ceil(size / 2) - 1) * 2 + 5 - size
    return total // 2, total - total // 2


def filterbank() -> np.ndarray:
    """(64, 257) float32: triangles between whole spectral bins, evenly spaced on the mel scale up to 8 kHz.

    As in python_speech_features: the lowest triangles are narrower than a bin and partly empty.
    """
    mels = np.linspace(0, 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700), BANDS + 2)
    edges = np.floor((N_FFT + 1) * 700 * (10 ** (mels / 2595) - 1) / SAMPLE_RATE)
    low, peak, high = (edges[i : i + BANDS, None] for i in range(3))
    bins = np.arange(N_FFT // 2 + 1)
    rising = (bins - low) / np.maximum(peak - low, 1) * ((bins >= low) & (bins < peak))
    falling = (high - bins) / np.maximum(high - peak, 1) * ((bins >= peak) & (bins < high))
    return (rising + falling).astype(np.float32)


def _spoken(samples: np.ndarray) -> np.ndarray:
    """The samples from the first loud one to the last."""
    level = np.abs(samples)
    loud = np.flatnonzero(level > np.percentile(level, LOUD)) if len(samples) else level
    if not len(loud):
        raise silent()
    return samples[loud[0] : loud[-1] + 1]


def _read_keras(path: Path) -> dict[str, Tensor]:
    """State of a `DeepSpeaker` from the published file, weights alone or a whole saved model."""
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
    """Name of a layer in the published file -> module of `DeepSpeaker`."""
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
