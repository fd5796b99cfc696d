"""The mel extractor follows the published convention, with whole frames."""

import librosa
import numpy as np
import pytest
import torch

from model.audio import SILENCE
from model.audio.mel import MelExtractor, average_spectrum, extractor_hash, frame_energy, mel_filterbank
from model.config.data import AudioConfig

AUDIO = AudioConfig()


@pytest.mark.parametrize(
    "settings",
    [
        (22050, 1024, 80, 0.0, 8000.0),
        (24000, 1024, 100, 0.0, 12000.0),
        (16000, 400, 40, 0.0, 8000.0),
        (48000, 2048, 128, 20.0, 20000.0),
    ],
)
def test_filters_are_triangles_of_unit_area_on_slaneys_scale(settings):
    """Linear up to 1 kHz (15 mel), then logarithmic, 27 mel for each factor of 6.4."""
    rate, n_fft, n_mels, fmin, fmax = settings
    mels = [hertz * 3 / 200 if hertz < 1000 else 15 + 27 * np.log(hertz / 1000) / np.log(6.4) for hertz in (fmin, fmax)]
    steps = np.linspace(*mels, n_mels + 2)
    edges = np.where(steps < 15, steps * 200 / 3, 1000 * 6.4 ** ((steps - 15) / 27))
    bins = np.arange(n_fft // 2 + 1) * rate / n_fft
    triangles = [np.interp(bins, edges[band : band + 3], [0, 1, 0], left=0, right=0) for band in range(n_mels)]
    areas = (edges[2:] - edges[:-2]) / 2
    assert np.allclose(mel_filterbank(*settings), np.stack(triangles) / areas[:, None], rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize(("samples", "frames"), [(22050, 86), (22016, 86), (22015, 85), (8192, 32), (512, 2)])
def test_frames_are_whole_hops(samples, frames):
    assert MelExtractor(AUDIO)(torch.zeros(samples)).shape == (80, frames)


def test_equals_a_plain_computation_in_double_precision(voiced):
    samples = voiced(1.0, 150.0)
    padded = np.pad(samples.astype(np.float64), 384, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1024) / 1024)
    frames = np.lib.stride_tricks.sliding_window_view(padded, 1024)[::256] * window
    magnitudes = np.sqrt(np.abs(np.fft.rfft(frames)) ** 2 + 1e-9)
    bank = librosa.filters.mel(sr=22050, n_fft=1024, n_mels=80, fmin=0, fmax=8000)
    wanted = np.log(np.maximum(magnitudes @ bank.T, 1e-5))
    assert np.abs(MelExtractor(AUDIO).numpy(samples) - wanted).max() < 2e-3


def test_golden_values():
    """Computed once in double precision with numpy and librosa's filterbank: a change of convention shows here."""
    t = np.arange(4096) / 22050
    mel = MelExtractor(AUDIO).numpy((0.5 * np.sin(2 * np.pi * 440 * t)).astype(np.float32))
    golden = [-3.9315, -2.4124, 0.7216, 1.4428, -0.2326, -2.9706, -4.3361, -5.2918]
    assert mel.shape == (16, 80)
    assert np.allclose(mel[8, 8:16], golden, atol=1e-3)


def test_silence_is_the_floor():
    mel = MelExtractor(AUDIO)(torch.zeros(8192))
    assert torch.allclose(mel, torch.full_like(mel, -11.512925))
    assert pytest.approx(-11.512925, abs=1e-5) == SILENCE


def test_a_batch_gives_what_each_clip_gives_alone(voiced):
    extractor = MelExtractor(AUDIO)
    clips = torch.from_numpy(np.stack([voiced(1.0, 120.0), voiced(1.0, 240.0)]))
    together = extractor(clips)
    assert together.shape == (2, 80, 86)
    for clip, mel in zip(clips, together, strict=True):
        assert torch.allclose(extractor(clip), mel, atol=1e-5)


def test_too_short_a_clip_is_refused_with_the_fix():
    with pytest.raises(ValueError, match="pad the clip with silence"):
        MelExtractor(AUDIO)(torch.zeros(384))


def test_autocast_does_not_touch_it(voiced):
    samples = torch.from_numpy(voiced(0.5, 120.0))
    extractor = MelExtractor(AUDIO)
    with torch.autocast("cpu", torch.bfloat16):
        mel = extractor(samples)
    assert mel.dtype == torch.float32
    assert torch.equal(mel, extractor(samples))


@pytest.mark.parametrize("change", [{"hop_length": 128}, {"n_mels": 40}, {"fmax": 7600.0}, {"sample_rate": 24000}])
def test_every_setting_changes_the_hash_and_the_mel(change, voiced):
    other = AudioConfig(**change)
    assert extractor_hash(other) != extractor_hash(AUDIO)
    samples = voiced(0.5, 120.0)
    ours, theirs = MelExtractor(AUDIO).numpy(samples), MelExtractor(other).numpy(samples)
    assert ours.shape != theirs.shape or not np.allclose(ours, theirs)


@pytest.mark.parametrize(("n_fft", "hop", "win"), [(1024, 256, 800), (2048, 300, 1200), (1023, 256, 1023)])
def test_other_frame_settings_keep_whole_hops(n_fft, hop, win):
    extractor = MelExtractor(AudioConfig(n_fft=n_fft, hop_length=hop, win_length=win))
    assert extractor(torch.zeros(22050)).shape[1] == 22050 // hop


def test_energy_follows_the_level(voiced):
    samples = voiced(1.0, 150.0)
    extractor = MelExtractor(AUDIO)
    difference = frame_energy(extractor.numpy(samples)) - frame_energy(extractor.numpy(0.1 * samples))
    assert np.allclose(difference, np.log(10.0), atol=0.02)
    assert frame_energy(extractor.numpy(np.zeros(8192))).max() == pytest.approx(SILENCE, abs=1e-5)


def test_the_average_spectrum_leaves_out_pauses_and_follows_the_level():
    speech = np.random.default_rng(0).normal(-4, 1, (120, 80)).astype(np.float32)
    with_pauses = np.concatenate((speech, np.full((80, 80), SILENCE, np.float32)))  # PAUSES percent of the frames
    assert np.allclose(average_spectrum(with_pauses), speech.mean(0), atol=0.1)
    assert np.allclose(average_spectrum(with_pauses + 1), average_spectrum(with_pauses) + 1, atol=1e-5)
    assert average_spectrum(speech).dtype == np.float32
