"""A neural vocoder in synthesis: exact joins, the same samples each time, no sound from what is no mel."""

import numpy as np
import pytest
import torch

from model.audio import SILENCE
from model.threads import computes_in_bfloat16
from model.vocoder import ARCHITECTURES, NeuralVocoder, VocoderError, build_vocoder
from model.vocoder.folder import write_vocoder


def a_mel(frames, seed=0):
    return np.random.default_rng(seed).normal(-5, 2, (frames, 80)).astype(np.float32)


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("frames", [1, 40, 97])
def test_chunks_join_to_what_one_pass_gives(kind, frames, make_weights, settings):
    weights, mel = make_weights(kind), a_mel(frames)
    whole = NeuralVocoder.from_weights(weights, settings(type=kind, chunk_frames=1000))(mel)
    pieces = NeuralVocoder.from_weights(weights, settings(type=kind, chunk_frames=7))(mel)
    assert whole.shape == (frames * 256,)
    assert whole.dtype == np.float32
    assert np.abs(whole - pieces).max() < 1e-5
    assert np.abs(whole).max() <= 1.0


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_the_same_mel_gives_the_same_samples(kind, make_weights, settings):
    vocoder = NeuralVocoder.from_weights(make_weights(kind), settings(type=kind))
    assert np.array_equal(vocoder(a_mel(20)), vocoder(a_mel(20)))


@pytest.mark.skipif(not computes_in_bfloat16(), reason="this processor does not compute in bfloat16")
def test_bfloat16_sounds_alike_but_is_not_the_same(make_weights, settings):
    exact = NeuralVocoder.from_weights(make_weights(), settings())(a_mel(30))
    rough = NeuralVocoder.from_weights(make_weights(), settings(precision="bfloat16"))(a_mel(30))
    assert not np.array_equal(exact, rough)
    assert np.corrcoef(exact, rough)[0, 1] > 0.99


@pytest.mark.parametrize(
    ("mel", "told"),
    [
        (np.full((5, 80), np.nan, dtype=np.float32), "not finite numbers"),
        (np.zeros((5, 40), dtype=np.float32), "does not fit"),
        (np.zeros((0, 80), dtype=np.float32), "without frames"),
        (np.full((5, 80), 30.0, dtype=np.float32), "no log-mel"),
    ],
)
def test_what_is_no_mel_is_refused(mel, told, make_weights, settings):
    with pytest.raises(VocoderError, match=told):
        NeuralVocoder.from_weights(make_weights(), settings())(mel)


def test_damaged_weights_make_an_error_not_a_noise(make_weights, settings):
    weights = make_weights()
    weights.generator["conv_post.bias"] = torch.full((1,), torch.nan)
    with pytest.raises(VocoderError, match="not finite numbers: its weights are damaged"):
        NeuralVocoder.from_weights(weights, settings())(np.full((5, 80), SILENCE, dtype=np.float32))


def test_a_neural_vocoder_without_weights_refuses_to_speak(settings, audio):
    with pytest.raises(VocoderError, match="no trained weights here"):
        build_vocoder(settings(), audio)


def test_weights_of_the_folder_are_what_speaks(make_weights, settings, audio, tmp_path):
    weights = make_weights()
    built = build_vocoder(settings(), audio, write_vocoder(tmp_path / "v", weights))
    assert np.array_equal(built(a_mel(9)), NeuralVocoder.from_weights(weights, settings())(a_mel(9)))
