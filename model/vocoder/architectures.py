"""The neural vocoders: what each is made of and how it was published to be trained. A new one is one entry here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from model.config.data import AudioConfig
from model.config.vocoder import VocoderConfig
from model.errors import VocoderError
from model.vocoder import hifigan, univnet
from model.vocoder.discriminators import (
    MultiPeriodDiscriminator,
    MultiResolutionDiscriminator,
    MultiScaleDiscriminator,
)
from model.vocoder.hifigan import HifiGan
from model.vocoder.univnet import UnivNet
from model.vocoder.weights import official_state, plain_names


@dataclass(frozen=True)
class Recipe:
    """The published training: weights of the losses beside the adversarial one, and the optimiser.

    Attributes:
        mel, feature_matching, stft: Weights; 0 leaves a term out.
        average_heads: Adversarial losses averaged over the discriminators' heads instead of summed.
        learning_rate, betas: Of AdamW, for both networks.
    """

    mel: float
    feature_matching: float
    stft: float
    average_heads: bool
    learning_rate: float
    betas: tuple[float, float]


@dataclass(frozen=True)
class Architecture:
    """A kind of neural vocoder.

    Attributes:
        variants: Name -> dimensions of the generator.
        default: The variant taken where none is named.
        generator: (dimensions, mel bands) -> generator.
        discriminators: Variant -> discriminators by their official names.
        recipe: As published.
    """

    variants: Mapping[str, Any]
    default: str
    generator: Callable[[Any, int], nn.Module]
    discriminators: Callable[[str], nn.ModuleDict]
    recipe: Recipe


_SMALL_PERIODS = {"tiny": (2, 3, 5, 7, 11), "xtiny": (2, 3)}
_SMALL_CHANNELS = {"tiny": (8, 16, 32, 64, 64), "xtiny": (4, 4)}
_SMALL_RESOLUTIONS = {"tiny": ((1024, 256, 1024), (512, 128, 512)), "xtiny": ((512, 128, 512),)}


def _small_discriminators(variant: str) -> dict[str, nn.Module]:
    """For our own small sizes: narrow heads of periods, and of resolutions that cost a tenth of the published ones."""
    return {
        "mrd": MultiResolutionDiscriminator(8, 0.1, _SMALL_RESOLUTIONS[variant]),
        "mpd": MultiPeriodDiscriminator(_SMALL_CHANNELS[variant], 0.1, _SMALL_PERIODS[variant]),
    }


def _hifigan_discriminators(variant: str) -> nn.ModuleDict:
    if variant in _SMALL_PERIODS:
        return nn.ModuleDict(_small_discriminators(variant))
    return nn.ModuleDict(
        {"mpd": MultiPeriodDiscriminator((32, 128, 512, 1024, 1024), 0.1), "msd": MultiScaleDiscriminator()}
    )


def _univnet_discriminators(variant: str) -> nn.ModuleDict:
    if variant in _SMALL_PERIODS:
        return nn.ModuleDict({name.upper(): head for name, head in _small_discriminators(variant).items()})
    return nn.ModuleDict(
        {
            "MRD": MultiResolutionDiscriminator(),
            "MPD": MultiPeriodDiscriminator((64, 128, 256, 512, 1024), 0.2),
        }
    )


ARCHITECTURES = {
    "hifigan": Architecture(
        hifigan.VARIANTS, "v2", HifiGan, _hifigan_discriminators, Recipe(45.0, 2.0, 0.0, False, 2e-4, (0.8, 0.99))
    ),
    "univnet": Architecture(
        univnet.VARIANTS, "c16", UnivNet, _univnet_discriminators, Recipe(0.0, 0.0, 2.5, True, 1e-4, (0.5, 0.9))
    ),
}


def variant_of(vocoder: VocoderConfig) -> str:
    """The variant that the settings name, `default` resolved."""
    return ARCHITECTURES[vocoder.type].default if vocoder.variant == "default" else vocoder.variant


def build_generator(kind: str, variant: str, audio: AudioConfig) -> nn.Module:
    """An untrained generator.

    Raises:
        VocoderError: its upsampling does not give the hop length of the mel settings.
    """
    architecture = ARCHITECTURES[kind]
    generator = architecture.generator(architecture.variants[variant], audio.n_mels)
    if generator.hop != audio.hop_length:
        raise VocoderError(
            f"{kind} {variant} makes {generator.hop} samples of a frame, but audio.hop_length is {audio.hop_length}; "
            f"set audio.hop_length to {generator.hop} or use vocoder.type griffin_lim"
        )
    return generator


def recognise(kind: str, state: Mapping[str, Tensor]) -> tuple[str, int]:
    """The variant and the number of mel bands of a generator's weights; ('', 0) where they are of none known."""
    given = plain_names(state)
    layer = "conv_pre" if kind == "hifigan" else "res_stack.0.kernel_predictor.input_conv.0"
    entrance = given.get(f"{layer}.weight_v", given.get(f"{layer}.weight"))
    if entrance is None or entrance.dim() != 3:
        return "", 0
    shapes = _direction_shapes(given)
    for variant, size in ARCHITECTURES[kind].variants.items():
        with torch.device("meta"):
            network = ARCHITECTURES[kind].generator(size, entrance.shape[1])
        if shapes == _direction_shapes(official_state(network)):
            return variant, entrance.shape[1]
    return "", 0


def _direction_shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    """Layer -> shape of its weight, normed or folded."""
    return {
        name.removesuffix("_v").removesuffix(".weight"): tensor.shape
        for name, tensor in state.items()
        if name.endswith((".weight", ".weight_v"))
    }
