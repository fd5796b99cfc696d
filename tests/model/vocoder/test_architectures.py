"""Generators and discriminators equal the published ones: parameter counts, names, shapes and operations."""

import copy
import typing

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from model.config.data import AudioConfig
from model.config.vocoder import VARIANTS, VocoderConfig
from model.errors import VocoderError
from model.vocoder.architectures import ARCHITECTURES, build_generator, identify_variant
from model.vocoder.cpu_inference import FourierConv1d, optimize_for_cpu
from model.vocoder.discriminators import discriminate, discriminate_pair
from model.vocoder.hifigan import HifiGan, HifiGanSize
from model.vocoder.layers import SameConv1d
from model.vocoder.univnet import LocationVariableBlock, UnivNetSize
from model.vocoder.weights import fold_norms, official_state


def count(network) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("kind", "variant", "n_mels", "normed", "folded", "keys"),
    [
        ("hifigan", "v1", 80, 13_936_130, 13_926_017, 234),
        ("hifigan", "v2", 80, 928_514, 925_985, 234),
        ("hifigan", "v3", 80, 1_464_322, 1_462_273, 69),
        ("univnet", "c16", 100, 3_997_426, None, 132),
        ("univnet", "c16", 80, 3_978_226, None, 132),
        ("univnet", "c32", 100, 14_865_506, None, 132),
        ("univnet", "c32", 80, 14_846_306, None, 132),
        ("vocos", "full", 100, 13_531_650, 13_531_650, 80),  # 13.5 M in the table of the official README
        ("vocos", "full", 80, 13_459_970, 13_459_970, 80),
    ],
)
def test_generators_have_the_published_parameters(kind, variant, n_mels, normed, folded, keys):
    generator = build_generator(kind, variant, AudioConfig(n_mels=n_mels))
    state = official_state(generator)
    assert count(generator) == normed
    assert len(state) == keys
    assert identify_variant(kind, state) == (variant, n_mels)
    if folded:
        assert count(fold_norms(generator)) == folded


def test_discriminators_have_the_published_parameters():
    hifigan, univnet = (ARCHITECTURES[kind].discriminators(v) for kind, v in (("hifigan", "v1"), ("univnet", "c32")))
    assert {name: count(network) for name, network in hifigan.items()} == {"mpd": 41_105_770, "msd": 29_618_821}
    assert {name: count(network) for name, network in univnet.items()} == {"MRD": 280_902, "MPD": 17_444_810}
    names = official_state(hifigan["msd"])
    assert {"discriminators.0.convs.0.weight_orig", "discriminators.0.convs.0.weight_u"} <= names.keys()
    assert {"discriminators.1.conv_post.weight_g", "discriminators.2.convs.6.weight_v"} <= names.keys()


def test_official_layer_names():
    v1 = official_state(build_generator("hifigan", "v1", AudioConfig()))
    assert v1["ups.0.weight_g"].shape == (512, 1, 1)
    assert v1["ups.0.weight_v"].shape == (512, 256, 16)
    assert {"conv_pre.bias", "resblocks.11.convs2.2.weight_v", "conv_post.weight_g"} <= v1.keys()
    assert "resblocks.8.convs.1.weight_v" in official_state(build_generator("hifigan", "v3", AudioConfig()))
    full = official_state(build_generator("vocos", "full", AudioConfig()))
    assert {"backbone.embed.weight", "backbone.norm.bias", "backbone.final_layer_norm.weight", "head.out.bias"} <= (
        full.keys()
    )
    block = {"gamma", "norm.bias", "norm.weight"}
    block |= {f"{layer}.{name}" for layer in ("dwconv", "pwconv1", "pwconv2") for name in ("weight", "bias")}
    assert {name for name in full if name.startswith("backbone.convnext.7.")} == {
        f"backbone.convnext.7.{name}" for name in block
    }
    assert full["backbone.convnext.7.dwconv.weight"].shape == (512, 1, 7)
    assert full["head.out.weight"].shape == (1026, 512)
    c32 = official_state(build_generator("univnet", "c32", AudioConfig()))
    assert c32["res_stack.2.kernel_predictor.kernel_conv.weight_v"].shape == (24_576, 64, 3)
    assert {"res_stack.0.kernel_predictor.residual_convs.2.3.bias", "conv_post.1.weight_v"} <= c32.keys()
    assert {"res_stack.1.convt_pre.1.weight_g", "res_stack.1.conv_blocks.3.1.bias"} <= c32.keys()


def test_schema_and_registry_have_the_same_vocoders():
    types = set(typing.get_args(VocoderConfig.model_fields["type"].annotation))
    assert types == {"griffin_lim", *ARCHITECTURES} == set(VARIANTS)
    for kind, architecture in ARCHITECTURES.items():
        assert set(VARIANTS[kind]) == {"default", *architecture.variants}
        assert architecture.default in architecture.variants


@pytest.mark.parametrize(("kind", "variant"), [("hifigan", "v2"), ("univnet", "v3"), ("hifigan", "c16")])
def test_a_variant_of_another_type_is_refused(kind, variant):
    if variant in VARIANTS[kind]:
        assert VocoderConfig(type=kind, variant=variant).variant == variant
    else:
        with pytest.raises(ValueError, match=f"{variant} does not exist for {kind}"):
            VocoderConfig(type=kind, variant=variant)


def test_another_hop_length_is_refused_with_the_fix():
    with pytest.raises(VocoderError, match=r"256 samples per frame.*hop_length is 200"):
        build_generator("hifigan", "v2", AudioConfig(hop_length=200))


def test_magnitudes_of_other_frames_than_the_mel_cannot_be_corrected():
    with pytest.raises(VocoderError, match=r"1024 samples; audio\.n_fft is 2048.*or vocoder\.variant to full"):
        build_generator("vocos", "tiny", AudioConfig(n_fft=2048))
    build_generator("vocos", "full", AudioConfig(n_fft=2048))


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_folded_and_fast_layers_give_the_same_samples(kind, audio):
    generator = build_generator(kind, "xtiny", audio).eval()
    mel, noise = torch.randn(2, 80, 12), torch.randn(2, 64, 12)
    with torch.no_grad():
        plain = generator(mel, noise)
        assert plain.shape == (2, 1, 12 * 256)
        torch.testing.assert_close(fold_norms(generator)(mel, noise), plain, atol=1e-5, rtol=0)
        torch.testing.assert_close(optimize_for_cpu(generator)(mel, noise), plain, atol=1e-5, rtol=0)


@pytest.mark.parametrize("taps", [7, 11])
@pytest.mark.parametrize("dilation", [1, 5])
@pytest.mark.parametrize("length", [1, 30, 700, 9000])
def test_fourier_convolution_equals_convolution(taps, dilation, length):
    layer = SameConv1d(6, 5, taps, dilation).requires_grad_(False)
    x = torch.randn(2, 6, length)
    torch.testing.assert_close(FourierConv1d(layer)(x), layer(x), atol=2e-6, rtol=0)


def test_long_kernels_between_many_channels_use_fourier_convolution_in_single_precision(audio):
    size = HifiGanSize(
        channels=256,
        strides=(16, 16),
        kernels=(32, 32),
        resblock_kernels=(3, 7),
        resblock_dilations=((1, 3),) * 2,
        paired=True,
    )
    generator, mel = fold_norms(HifiGan(size, 80)).eval(), torch.randn(1, 80, 12)
    with torch.no_grad():
        plain = generator(mel)
        bfloat16 = optimize_for_cpu(copy.deepcopy(generator).bfloat16())
        fast = optimize_for_cpu(generator)
        # The four with seven taps between 128 channels.
        assert [sum(isinstance(m, FourierConv1d) for m in network.modules()) for network in (fast, bfloat16)] == [4, 0]
        torch.testing.assert_close(fast(mel), plain, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_samples_do_not_depend_on_frames_beyond_the_context(kind, audio):
    generator = build_generator(kind, "xtiny", audio).double().eval()
    context, frame = generator.context_frames, 60
    mel = torch.randn(1, 80, 120, dtype=torch.float64)
    noise = torch.randn(1, 64, 120, dtype=torch.float64)
    changed, other = mel.clone(), noise.clone()
    changed[:, :, frame], other[:, :, frame] = 9.0, 9.0
    with torch.no_grad():
        difference = (generator(mel, noise) - generator(changed, other)).abs()[0, 0].reshape(120, 256).amax(1)
    affected = difference.nonzero().flatten()
    assert frame in affected
    assert affected.min() >= frame - context
    assert affected.max() <= frame + context


def test_location_variable_convolution_uses_the_kernels_of_each_frame():
    size, hop = UnivNetSize(channels=3, strides=(4,), dilations=(1,), hidden=4), 4
    block = LocationVariableBlock(size, 5, 4, hop)
    x, mel = torch.randn(1, 3, 6 * hop), torch.randn(1, 5, 6)
    kernels, biases = block.kernel_predictor(mel)
    signal, gate = block._convolve(x, kernels[0], biases[0])
    found = torch.cat((signal, gate), dim=1)
    raw = block.kernel_predictor.kernel_conv
    assert raw.weight.shape[0] == 3 * 6 * 3
    hidden = block.kernel_predictor.input_conv(mel)
    for residual in block.kernel_predictor.residual_convs:
        hidden = hidden + residual(hidden)
    official = raw(hidden).view(1, 1, 3, 6, 3, 6)  # batch, layers, inputs, outputs, taps, frames
    padded = F.pad(x, (1, 1))
    for frame in range(6):
        weight = official[0, 0, ..., frame].permute(1, 0, 2)
        piece = F.conv1d(padded[:, :, frame * hop : (frame + 1) * hop + 2], weight, biases[0, :, frame, 0].flatten())
        torch.testing.assert_close(found[:, :, frame * hop : (frame + 1) * hop], piece, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_discriminator_scores_do_not_depend_on_the_rest_of_the_batch(kind):
    discriminators = ARCHITECTURES[kind].discriminators("xtiny").eval()
    one, other = torch.randn(2, 1, 4096), torch.randn(2, 1, 4096)
    real, fake = discriminate_pair(discriminators, one, other)
    for (score, features), (alone, maps) in zip(fake, discriminate(discriminators, other), strict=True):
        torch.testing.assert_close(score, alone, atol=1e-5, rtol=1e-4)
        assert len(features) == len(maps)
    assert len(real) == len(fake) == sum(len(each.discriminators) for each in discriminators.values())


def test_periods_that_do_not_divide_the_length_are_padded():
    discriminators = ARCHITECTURES["hifigan"].discriminators("tiny")
    scores = discriminate(discriminators, torch.from_numpy(np.zeros((1, 1, 4001), dtype=np.float32)))
    assert all(torch.isfinite(score).all() for score, _ in scores)
