"""Neural vocoders at inference: chunks join exactly, samples are reproducible, invalid mels are refused."""

import numpy as np
import pytest
import torch

from model.audio import SILENCE
from model.audio.mel import MelExtractor
from model.config.data import AudioConfig
from model.config.vocoder import VocoderConfig
from model.threads import computes_in_bfloat16
from model.vocoder import ARCHITECTURES, NeuralVocoder, VocoderError, build_vocoder
from model.vocoder.architectures import build_generator, refinement_iterations
from model.vocoder.folder import write_vocoder
from model.vocoder.neural import REFINEMENT_MOMENTUM
from model.vocoder.streaming import ContinuedGriffinLim


def random_mel(frames, seed=0):
    return np.random.default_rng(seed).normal(-5, 2, (frames, 80)).astype(np.float32)


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("frames", [1, 40, 97])
def test_chunks_join_to_the_samples_of_one_pass(kind, frames, make_weights, settings):
    weights, mel = make_weights(kind), random_mel(frames)
    whole = NeuralVocoder.from_weights(weights, settings(type=kind, chunk_frames=1000))(mel)
    pieces = NeuralVocoder.from_weights(weights, settings(type=kind, chunk_frames=7))(mel)
    assert whole.shape == (frames * 256,)
    assert whole.dtype == np.float32
    assert np.abs(whole - pieces).max() < 1e-5
    assert np.abs(whole).max() <= 1.0


def test_vocos_without_refinement_joins_its_chunks_too(make_weights, settings):
    weights, mel = make_weights("vocos"), random_mel(50)
    whole, pieces = (
        NeuralVocoder.from_weights(weights, settings(type="vocos", refinement_iterations=0, chunk_frames=frames))(mel)
        for frames in (1000, 7)
    )
    assert np.abs(whole - pieces).max() < 1e-5


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_stream_is_the_same_speech_and_starts_with_a_short_chunk(kind, make_weights, settings):
    vocoder = NeuralVocoder.from_weights(make_weights(kind), settings(type=kind, chunk_frames=20))
    chunks = list(vocoder.stream(random_mel(50), 4))
    assert [len(chunk) // 256 for chunk in chunks] == [4, 20, 20, 6]
    assert np.abs(np.concatenate(chunks) - vocoder(random_mel(50))).max() < 1e-5


def test_refinement_brings_the_samples_of_vocos_closer_to_the_mel(make_weights, settings, audio, voiced):
    extractor = MelExtractor(audio)
    mel = extractor.numpy(voiced(0.5, 150.0))

    def error(iterations):
        vocoder = NeuralVocoder.from_weights(
            make_weights("vocos"), settings(type="vocos", refinement_iterations=iterations)
        )
        return np.abs(extractor.numpy(vocoder(mel)) - mel).mean()

    assert error(8) < error(2) < 0.7 * error(0)
    assert error(None) == error(1)


def test_an_untrained_small_vocos_speaks_like_griffin_lim(audio, settings, voiced):
    extractor = MelExtractor(audio)
    mel = extractor.numpy(voiced(0.5, 150.0))
    generator = build_generator("vocos", "tiny", audio)
    for iterations in (0, 2):
        untrained = NeuralVocoder("vocos", generator, audio, 1000, refinement_iterations=iterations)(mel)
        fitted = ContinuedGriffinLim(audio, iterations, REFINEMENT_MOMENTUM, 1000)(mel)
        assert np.abs(extractor.numpy(untrained) - mel).mean() < 1.1 * np.abs(extractor.numpy(fitted) - mel).mean()


@pytest.mark.parametrize("iterations", [0, 2])
def test_small_vocos_joins_its_chunks(iterations, make_weights, settings):
    weights, mel = make_weights("vocos", "tiny"), random_mel(40)
    whole, pieces = (
        NeuralVocoder.from_weights(
            weights, settings(type="vocos", refinement_iterations=iterations, chunk_frames=frames)
        )(mel)
        for frames in (1000, 7)
    )
    assert np.abs(whole - pieces).max() < 1e-5


@pytest.mark.skipif(not computes_in_bfloat16(), reason="this processor does not compute in bfloat16")
def test_small_vocos_in_bfloat16_is_similar(make_weights, settings):
    weights, mel = make_weights("vocos", "tiny"), random_mel(30)
    exact, rounded = (
        NeuralVocoder.from_weights(weights, settings(type="vocos", precision=precision)).generator.magnitudes(
            torch.from_numpy(mel.T)[None].to(getattr(torch, precision))
        )
        for precision in ("float32", "bfloat16")
    )
    assert rounded.dtype == torch.float32
    assert 0 < (exact.log() - rounded.log()).abs().mean() < 0.05


def test_magnitudes_of_other_frames_than_the_mel_are_not_refined(make_weights, settings):
    weights = make_weights("vocos", audio=AudioConfig(n_fft=2048))
    with pytest.raises(VocoderError, match=r"audio\.n_fft is 2048; set vocoder\.refinement_iterations to 0"):
        NeuralVocoder.from_weights(weights, settings(type="vocos"))
    assert len(NeuralVocoder.from_weights(weights, settings(type="vocos", refinement_iterations=0))(random_mel(9)))


def test_the_published_size_of_vocos_keeps_its_own_phases_by_default():
    kept = VocoderConfig(type="vocos")
    assert refinement_iterations("vocos", "full", kept) == 0
    assert refinement_iterations("vocos", "small", kept) > 0
    assert refinement_iterations("vocos", "full", VocoderConfig(type="vocos", refinement_iterations=3)) == 3
    assert refinement_iterations("hifigan", "v1", VocoderConfig(type="hifigan", refinement_iterations=3)) == 0


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_the_same_mel_gives_the_same_samples(kind, make_weights, settings):
    vocoder = NeuralVocoder.from_weights(make_weights(kind), settings(type=kind))
    assert np.array_equal(vocoder(random_mel(20)), vocoder(random_mel(20)))


@pytest.mark.skipif(not computes_in_bfloat16(), reason="this processor does not compute in bfloat16")
def test_bfloat16_is_similar_but_not_equal(make_weights, settings):
    exact = NeuralVocoder.from_weights(make_weights(), settings())(random_mel(30))
    bfloat16 = NeuralVocoder.from_weights(make_weights(), settings(precision="bfloat16"))(random_mel(30))
    assert not np.array_equal(exact, bfloat16)
    assert np.corrcoef(exact, bfloat16)[0, 1] > 0.99


@pytest.mark.parametrize(
    ("mel", "message"),
    [
        (np.full((5, 80), np.nan, dtype=np.float32), "not finite numbers"),
        (np.zeros((5, 40), dtype=np.float32), "does not fit"),
        (np.zeros((0, 80), dtype=np.float32), "has no frames"),
        (np.full((5, 80), 30.0, dtype=np.float32), "no log-mel"),
    ],
)
@pytest.mark.parametrize("kind", ["hifigan", "vocos"])
def test_invalid_mels_are_refused(mel, message, kind, make_weights, settings):
    with pytest.raises(VocoderError, match=message):
        NeuralVocoder.from_weights(make_weights(kind), settings(type=kind))(mel)


@pytest.mark.parametrize(("kind", "layer"), [("hifigan", "conv_post.bias"), ("vocos", "backbone.embed.bias")])
def test_damaged_weights_are_an_error(kind, layer, make_weights, settings):
    weights = make_weights(kind)
    weights.generator[layer] = torch.full_like(weights.generator[layer], torch.nan)
    with pytest.raises(VocoderError, match="not finite numbers, so its weights are damaged"):
        NeuralVocoder.from_weights(weights, settings(type=kind))(np.full((5, 80), SILENCE, dtype=np.float32))


def test_a_neural_vocoder_without_weights_is_refused(settings, audio):
    with pytest.raises(VocoderError, match="no trained weights here"):
        build_vocoder(settings(), audio)


def test_the_weights_of_the_folder_are_used(make_weights, settings, audio, tmp_path):
    weights = make_weights()
    built = build_vocoder(settings(), audio, write_vocoder(tmp_path / "v", weights))
    assert np.array_equal(built(random_mel(9)), NeuralVocoder.from_weights(weights, settings())(random_mel(9)))
