"""Inversion from continued phases: closer in few iterations than from random ones, and the same in any chunks."""

import numpy as np
import pytest
import torch

from model.audio import SILENCE
from model.audio.inversion import MelInverter
from model.audio.mel import MelExtractor
from model.config.data import AudioConfig
from model.config.vocoder import VocoderConfig
from model.vocoder import VocoderError, build_vocoder
from model.vocoder.streaming import chunk_bounds

AUDIO = AudioConfig()
EXTRACTOR = MelExtractor(AUDIO)


def build(iterations=4, start="continued", audio=AUDIO, **keys):
    return build_vocoder(VocoderConfig(griffin_lim_start=start, griffin_lim_iterations=iterations, **keys), audio)


@pytest.fixture(scope="module")
def mel(voiced):
    return EXTRACTOR.numpy(voiced(1.5, 150.0))


def test_few_iterations_from_continued_phases_come_closer_than_from_random_ones(mel):
    def error(start, iterations):
        return np.abs(EXTRACTOR.numpy(build(iterations, start)(mel)) - mel)[mel > -6].mean()

    assert error("continued", 4) < 0.6 * error("random", 4)
    assert error("continued", 8) < error("continued", 2)


@pytest.mark.parametrize("chunk_frames", [2, 16, 100])
@pytest.mark.parametrize("first_frames", [0, 3])
def test_chunks_of_any_size_join_to_the_samples_of_one(mel, chunk_frames, first_frames):
    whole = build(chunk_frames=1000)(mel)
    chunks = list(build(chunk_frames=chunk_frames).stream(mel, first_frames))
    assert len(chunks[0]) == (first_frames or chunk_frames) * AUDIO.hop_length
    assert np.abs(np.concatenate(chunks) - whole).max() < 1e-5


def test_the_first_estimate_of_a_sinusoid_keeps_its_level():
    """The bins around its peak add up, since all of them have its phase at the center of each frame."""
    tone = torch.sin(2 * torch.pi * 40.3 / AUDIO.n_fft * torch.arange(40 * AUDIO.hop_length))
    samples, _ = MelInverter(AUDIO, 0, 0.99)(EXTRACTOR(tone).T, EXTRACTOR.magnitudes(tone).T.contiguous(), None)
    assert float(samples[2048:-2048].std()) == pytest.approx(float(tone.std()), rel=0.1)


@pytest.mark.parametrize("frames", [1, 2, 3, 4])
def test_the_shortest_mels_make_sound(frames):
    samples = build()(np.full((frames, 80), -2.0, dtype=np.float32))
    assert len(samples) == frames * AUDIO.hop_length
    assert np.isfinite(samples).all()


def test_frames_stay_in_their_place():
    samples = np.zeros(AUDIO.hop_length * 40, dtype=np.float32)
    samples[AUDIO.hop_length * 20 : AUDIO.hop_length * 21] = np.random.default_rng(0).standard_normal(256) * 0.3
    back = build()(EXTRACTOR.numpy(samples))
    energy = np.square(back.reshape(40, AUDIO.hop_length)).sum(axis=1)
    assert abs(int(energy.argmax()) - 20) <= 1
    assert energy[:17].sum() + energy[24:].sum() < 0.05 * energy.sum()


def test_silence_stays_silent():
    assert np.abs(build()(np.full((30, 80), SILENCE, dtype=np.float32))).max() < 1e-3


def test_a_too_loud_mel_is_made_quieter_and_clipped_only_where_it_streams(mel):
    loud = mel + 3.0
    whole, streamed = build()(loud), np.concatenate(list(build().stream(loud)))
    assert np.abs(whole).max() == pytest.approx(1.0, abs=1e-5)
    assert (np.abs(whole) > 0.999).sum() <= 3
    assert np.abs(streamed).max() <= 1.0
    assert (np.abs(streamed) > 0.999).sum() > 3


@pytest.mark.parametrize("settings", [{"hop_length": 300}, {"win_length": 800}, {"n_fft": 2048, "n_mels": 100}])
def test_other_audio_settings_work_too(settings, voiced):
    audio = AudioConfig(**settings)
    extractor = MelExtractor(audio)
    mel = extractor.numpy(voiced(1.0, 150.0))
    samples = build(audio=audio)(mel)
    assert len(samples) == len(mel) * audio.hop_length
    assert np.abs(extractor.numpy(samples) - mel)[mel > -6].mean() < 0.2
    assert np.abs(np.concatenate(list(build(audio=audio, chunk_frames=9).stream(mel))) - samples).max() < 1e-4


@pytest.mark.parametrize(
    ("mel", "message"),
    [
        (np.zeros((10, 40)), r"reads \(frames, 80\)"),
        (np.zeros((0, 80)), "has no frames"),
        (np.full((10, 80), np.nan), "10 of 10 mel frames are not finite"),
        (np.full((10, 80), 50.0), "no log-mel"),
    ],
)
def test_arrays_that_are_no_mel_are_refused(mel, message):
    for call in (build(), lambda refused: next(build().stream(refused))):
        with pytest.raises(VocoderError, match=message):
            call(mel)


def test_chunks_cover_all_frames_once():
    assert list(chunk_bounds(10, 4)) == [(0, 4), (4, 8), (8, 10)]
    assert list(chunk_bounds(10, 4, 3)) == [(0, 3), (3, 7), (7, 10)]
    assert list(chunk_bounds(2, 4, 3)) == [(0, 2)]


def test_the_first_estimate_does_not_change_its_inputs(mel):
    inverter, frames = build().inverter, torch.from_numpy(mel)
    magnitudes = inverter.magnitudes(frames)
    kept = magnitudes.clone()
    inverter(frames, magnitudes, None)
    assert torch.equal(magnitudes, kept)
