"""Griffin-Lim reproduces the mel, with frames in place, deterministically; invalid mels are refused."""

import numpy as np
import pytest

from model.audio import SILENCE
from model.audio.io import read_audio
from model.audio.mel import MelExtractor
from model.config.data import AudioConfig
from model.config.vocoder import VocoderConfig
from model.vocoder import VocoderError, build_vocoder

AUDIO = AudioConfig()
EXTRACTOR = MelExtractor(AUDIO)


def build(audio, **keys):
    """Returns Griffin-Lim from random phases."""
    return build_vocoder(VocoderConfig(griffin_lim_start="random", **keys), audio)


@pytest.fixture(scope="module")
def vocoder():
    return build(AUDIO)


def test_the_samples_have_the_given_mel(vocoder, voiced):
    mel = EXTRACTOR.numpy(voiced(1.5, 150.0))
    samples = vocoder(mel)
    assert samples.dtype == np.float32
    assert len(samples) == len(mel) * AUDIO.hop_length
    assert np.abs(EXTRACTOR.numpy(samples) - mel)[mel > -6].mean() < 0.06


@pytest.mark.real_data
def test_real_speech_comes_back(vocoder, real_data):
    errors = []
    for path in sorted((real_data / "kathleen" / "wavs").iterdir())[:3]:
        mel = EXTRACTOR.numpy(read_audio(path, AUDIO.sample_rate))
        errors.append(np.abs(EXTRACTOR.numpy(vocoder(mel)) - mel).mean())
    assert np.mean(errors) < 0.05


def test_frames_stay_in_their_place(vocoder):
    samples = np.zeros(AUDIO.hop_length * 40, dtype=np.float32)
    samples[AUDIO.hop_length * 20 : AUDIO.hop_length * 21] = np.random.default_rng(0).standard_normal(256) * 0.3
    back = vocoder(EXTRACTOR.numpy(samples))
    energy = np.square(back.reshape(40, AUDIO.hop_length)).sum(axis=1)
    assert energy.argmax() == 20
    assert energy[:17].sum() + energy[24:].sum() < 0.02 * energy.sum()


def test_silence_stays_silent(vocoder):
    assert np.abs(vocoder(np.full((30, 80), SILENCE, dtype=np.float32))).max() < 1e-3


def test_the_same_mel_gives_the_same_samples(vocoder, voiced):
    mel = EXTRACTOR.numpy(voiced(0.5, 150.0))
    assert np.array_equal(vocoder(mel), vocoder(mel))
    assert np.array_equal(vocoder(mel), build(AUDIO)(mel))


@pytest.mark.parametrize("frames", [1, 2, 3, 4])
def test_the_shortest_mels_make_sound(vocoder, frames):
    samples = vocoder(np.full((frames, 80), -2.0, dtype=np.float32))
    assert len(samples) == frames * AUDIO.hop_length
    assert np.isfinite(samples).all()


def test_more_iterations_come_closer(voiced):
    mel = EXTRACTOR.numpy(voiced(1.0, 150.0))

    def error(iterations, momentum=0.99):
        vocoder = build(AUDIO, griffin_lim_iterations=iterations, griffin_lim_momentum=momentum)
        return np.abs(EXTRACTOR.numpy(vocoder(mel)) - mel).mean()

    assert error(60) < error(8) < error(1)
    assert error(30) != error(30, momentum=0.0)


def test_a_too_loud_mel_is_made_quieter_not_clipped(vocoder, voiced):
    mel = EXTRACTOR.numpy(voiced(0.5, 150.0)) + 3.0
    samples = vocoder(mel)
    assert np.abs(samples).max() == pytest.approx(1.0, abs=1e-5)
    assert (np.abs(samples) > 0.999).sum() <= 3


@pytest.mark.parametrize("settings", [{"hop_length": 300}, {"win_length": 800}, {"n_fft": 2048, "n_mels": 100}])
def test_other_audio_settings_work_too(settings, voiced):
    audio = AudioConfig(**settings)
    extractor = MelExtractor(audio)
    mel = extractor.numpy(voiced(1.0, 150.0))
    samples = build(audio)(mel)
    assert len(samples) == len(mel) * audio.hop_length
    assert np.abs(extractor.numpy(samples) - mel)[mel > -6].mean() < 0.1


@pytest.mark.parametrize(
    ("mel", "message"),
    [
        (np.zeros((10, 40)), r"reads \(frames, 80\)"),
        (np.zeros(80), r"reads \(frames, 80\)"),
        (np.zeros((0, 80)), "has no frames"),
        (np.full((10, 80), np.nan), "10 of 10 mel frames are not finite"),
        (np.full((10, 80), 50.0), "no log-mel"),
    ],
)
def test_arrays_that_are_no_mel_are_refused(vocoder, mel, message):
    with pytest.raises(VocoderError, match=message):
        vocoder(mel)
