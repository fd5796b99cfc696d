"""Registry of the neural vocoders: generator, discriminators and published training of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from model.config.data import AudioConfig
from model.config.vocoder import VocoderConfig
from model.errors import VocoderError
from model.vocoder import hifigan, univnet, vocos
from model.vocoder.discriminators import (
    MultiPeriodDiscriminator,
    MultiResolutionDiscriminator,
    MultiScaleDiscriminator,
)
from model.vocoder.hifigan import HifiGan
from model.vocoder.layers import Generator
from model.vocoder.univnet import UnivNet
from model.vocoder.vocos import Vocos
from model.vocoder.weights import official_state, plain_names


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Published training: loss weights relative to the adversarial loss, and the optimizer.

    Attributes:
        mel, feature_matching, stft: Loss weights; 0 omits a term.
        average_heads: Whether the losses of the discriminators are averaged over their heads instead of summed.
        learning_rate, betas: Settings of AdamW for both networks.
        use_hinge_loss: Whether the adversarial loss is the hinge loss instead of least squares.
        discriminator_weights: Discriminator -> weight, where each has its own; the losses of each are then averaged
            over its heads.
        use_cosine_decay: Whether the learning rate decays along a cosine instead of exponentially.
        magnitude: Weight of the distance of predicted magnitudes from those of the recording (Vocos).
        adversarial_start: Share of the training before the discriminators join.
    """

    mel: float
    feature_matching: float
    stft: float
    average_heads: bool
    learning_rate: float
    betas: tuple[float, float]
    use_hinge_loss: bool = False
    discriminator_weights: Mapping[str, float] = field(default_factory=dict)
    use_cosine_decay: bool = False
    magnitude: float = 0.0
    adversarial_start: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A type of neural vocoder.

    Attributes:
        variants: Variant -> dimensions of the generator.
        default: Default variant.
        generator: Builds a generator from dimensions and mel settings.
        discriminators: Builds the discriminators of a variant, keyed by their official names.
        recipe: Published training.
        changes: Variant -> fields of the recipe that differ, where a variant is not a published one.
    """

    variants: Mapping[str, Any]
    default: str
    generator: Callable[[Any, AudioConfig], Generator]
    discriminators: Callable[[str], nn.ModuleDict]
    recipe: Recipe
    changes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def recipe_of(self, variant: str) -> Recipe:
        """Returns the recipe of a variant."""
        changes: Mapping[str, Any] = self.changes.get(variant, {})
        return replace(self.recipe, **changes)


_SMALL_PERIODS = {"tiny": (2, 3, 5, 7, 11), "xtiny": (2, 3)}
_SMALL_CHANNELS = {"tiny": (8, 16, 32, 64, 64), "xtiny": (4, 4)}
_SMALL_RESOLUTIONS = {"tiny": ((1024, 256, 1024), (512, 128, 512)), "xtiny": ((512, 128, 512),)}


def _small_discriminators(variant: str) -> dict[str, nn.Module]:
    """Returns discriminators for the small variants, a tenth of the cost of the published ones."""
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


def _vocos_discriminators(variant: str) -> nn.ModuleDict:
    if variant == "full":
        return nn.ModuleDict(
            {
                "mrd": MultiResolutionDiscriminator(),
                "mpd": MultiPeriodDiscriminator((32, 128, 512, 1024, 1024), 0.1),
            }
        )
    return nn.ModuleDict(_small_discriminators("xtiny" if variant == "xtiny" else "tiny"))


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
        variants=hifigan.VARIANTS,
        default="v2",
        generator=lambda size, audio: HifiGan(size, audio.n_mels),
        discriminators=_hifigan_discriminators,
        recipe=Recipe(
            mel=45.0, feature_matching=2.0, stft=0.0, average_heads=False, learning_rate=2e-4, betas=(0.8, 0.99)
        ),
        changes={"tiny": {"stft": 2.5, "adversarial_start": 0.6}},
    ),
    "univnet": Architecture(
        variants=univnet.VARIANTS,
        default="c16",
        generator=lambda size, audio: UnivNet(size, audio.n_mels),
        discriminators=_univnet_discriminators,
        recipe=Recipe(
            mel=0.0, feature_matching=0.0, stft=2.5, average_heads=True, learning_rate=1e-4, betas=(0.5, 0.9)
        ),
        changes={"tiny": {"adversarial_start": 0.6}},
    ),
    "vocos": Architecture(
        variants=vocos.VARIANTS,
        default="full",
        generator=Vocos,
        discriminators=_vocos_discriminators,
        recipe=Recipe(
            mel=45.0,
            feature_matching=1.0,
            stft=0.0,
            average_heads=True,
            learning_rate=5e-4,
            betas=(0.8, 0.9),
            use_hinge_loss=True,
            discriminator_weights={"mpd": 1.0, "mrd": 0.1},
            use_cosine_decay=True,
        ),
        changes={name: {"mel": 0.0, "magnitude": 45.0, "adversarial_start": 1.0} for name in ("small", "tiny")},
    ),
}


DEFAULT_REFINEMENT = 1
"""Iterations for the variants of Vocos that are too small, and trained too briefly, to predict phases."""

_FIRST_LAYER = {
    "hifigan": "conv_pre",
    "univnet": "res_stack.0.kernel_predictor.input_conv.0",
    "vocos": "backbone.embed",
}
"""Type -> layer that reads the mel."""


def variant_of(vocoder: VocoderConfig) -> str:
    """Returns the variant that the settings name, with `default` resolved."""
    return ARCHITECTURES[vocoder.type].default if vocoder.variant == "default" else vocoder.variant


def refinement_iterations(kind: str, variant: str, vocoder: VocoderConfig) -> int:
    """Returns the number of Griffin-Lim iterations on the magnitudes of a vocoder; 0 keeps its own phases."""
    if kind != "vocos":
        return 0
    if vocoder.refinement_iterations is None:
        return 0 if variant == ARCHITECTURES[kind].default else DEFAULT_REFINEMENT
    return vocoder.refinement_iterations


def build_generator(kind: str, variant: str, audio: AudioConfig) -> Generator:
    """Returns an untrained generator.

    Raises:
        VocoderError: its upsampling does not match the hop length of the mel settings, or it corrects magnitudes of
            other frames than theirs.
    """
    architecture = ARCHITECTURES[kind]
    generator = architecture.generator(architecture.variants[variant], audio)
    if generator.hop != audio.hop_length:
        raise VocoderError(
            f"{kind} {variant} generates {generator.hop} samples per frame, but audio.hop_length is "
            f"{audio.hop_length}; set audio.hop_length to {generator.hop} or use vocoder.type griffin_lim"
        )
    if isinstance(generator, Vocos) and not generator.size.predicts_phases and generator.size.n_fft != audio.n_fft:
        raise VocoderError(
            f"{kind} {variant} corrects magnitudes of {generator.size.n_fft} samples; audio.n_fft is {audio.n_fft}; "
            f"set audio.n_fft to {generator.size.n_fft} or vocoder.variant to full"
        )
    return generator


def identify_variant(kind: str, state: Mapping[str, Tensor]) -> tuple[str, int]:
    """Returns the variant and the number of mel bands of a generator's weights, or ('', 0) where it is unknown."""
    weights = plain_names(state)
    layer = _FIRST_LAYER[kind]
    first = weights.get(f"{layer}.weight_v", weights.get(f"{layer}.weight"))
    if first is None or first.dim() != 3:
        return "", 0
    shapes = _weight_shapes(weights)
    audio = AudioConfig().model_copy(update={"n_mels": first.shape[1]})
    for variant, size in ARCHITECTURES[kind].variants.items():
        with torch.device("meta"):
            network = ARCHITECTURES[kind].generator(size, audio)
        if shapes == _weight_shapes(official_state(network)):
            return variant, first.shape[1]
    return "", 0


def _weight_shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    """Returns layer -> shape of its weight, which weight norm does not change."""
    return {
        name.removesuffix("_v").removesuffix(".weight"): tensor.shape
        for name, tensor in state.items()
        if name.endswith((".weight", ".weight_v"))
    }
