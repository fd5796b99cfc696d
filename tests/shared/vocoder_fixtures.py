"""Fixtures: small vocoders with audible random weights."""

import pytest
import torch

from model.config.data import AudioConfig
from model.config.vocoder import VocoderConfig
from model.vocoder.architectures import ARCHITECTURES, build_generator
from model.vocoder.official import VocoderWeights
from model.vocoder.weights import official_state


@pytest.fixture
def audio():
    return AudioConfig()


@pytest.fixture
def make_weights(audio):
    """Returns a function from (kind, variant, audio) to random weights, loud enough for measurable differences."""

    def build(kind="hifigan", variant="xtiny", audio=audio, discriminators=False):
        torch.manual_seed(3)
        generator = build_generator(kind, variant, audio)
        with torch.no_grad():
            for name, parameter in generator.named_parameters():
                if name.endswith("original0") and kind == "hifigan":
                    parameter.mul_(4.0)
                if name == "head.out.weight":
                    parameter.mul_(20.0)
        networks = ARCHITECTURES[kind].discriminators(variant) if discriminators else {}
        return VocoderWeights(
            kind=kind,
            variant=variant,
            audio=audio,
            steps=7,
            generator=official_state(generator),
            discriminators={name: official_state(network) for name, network in networks.items()},
            origin="test",
        )

    return build


@pytest.fixture
def settings():
    """Returns a function from keys of section `vocoder` to the settings of an xtiny HiFi-GAN."""
    return lambda **keys: VocoderConfig(**{"type": "hifigan", "variant": "xtiny", **keys})
