"""Neural vocoders at inference: chunks join exactly, samples are reproducible, invalid mels are refused."""

import numpy as np
import pytest
import torch

from model.audio import SILENCE
from model.threads import computes_in_bfloat16
from model.vocoder import ARCHITECTURES, NeuralVocoder, VocoderError, build_vocoder
from model.vocoder.folder import write_vocoder


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
        (np.zeros((0, 80), dtype=np.float32), "without frames"),
        (np.full((5, 80), 30.0, dtype=np.float32), "no log-mel"),
    ],
)
def test_invalid_mels_are_refused(mel, message, make_weights, settings):
    with pytest.raises(VocoderError, match=message):
        NeuralVocoder.from_weights(make_weights(), settings())(mel)


def test_damaged_weights_are_an_error(make_weights, settings):
    weights = make_weights()
    weights.generator["conv_post.bias"] = torch.full((1,), torch.nan)
    with pytest.raises(VocoderError, match="not finite numbers, so its weights are damaged"):
        NeuralVocoder.from_weights(weights, settings())(np.full((5, 80), SILENCE, dtype=np.float32))


def test_a_neural_vocoder_without_weights_is_refused(settings, audio):
    with pytest.raises(VocoderError, match="no trained weights here"):
        build_vocoder(settings(), audio)


def test_the_weights_of_the_folder_are_used(make_weights, settings, audio, tmp_path):
    weights = make_weights()
    built = build_vocoder(settings(), audio, write_vocoder(tmp_path / "v", weights))
    assert np.array_equal(built(random_mel(9)), NeuralVocoder.from_weights(weights, settings())(random_mel(9)))
