"""Audio is read and written as mono at the given sample rate, with a reason for every unusable file."""

import struct

import numpy as np
import pytest
import soundfile

from model.audio import io
from model.audio.io import AudioError, read_audio, read_source, resample, write_audio

RATE = 22050


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_what_is_written_is_read(tmp_path, voiced, suffix):
    samples = voiced(0.5, 150.0)
    path = write_audio(tmp_path / "new" / f"clip{suffix}", samples, RATE)
    back = read_audio(path, RATE)
    assert back.dtype == np.float32
    assert np.abs(back - samples).max() <= 1.0 / 32767
    assert [item.name for item in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
def test_other_rates_are_resampled(tmp_path, rate):
    t = np.arange(rate) / rate
    path = write_audio(tmp_path / "tone.wav", 0.5 * np.sin(2 * np.pi * 1000 * t), rate)
    samples = read_audio(path, RATE)
    assert abs(len(samples) - RATE) <= 1
    spectrum = np.abs(np.fft.rfft(samples[:RATE]))
    assert spectrum.argmax() == pytest.approx(1000, abs=2)
    assert read_source(path)[1] == rate


def test_channels_are_averaged(tmp_path):
    left, right = np.full(1000, 0.5), np.full(1000, -0.1)
    soundfile.write(tmp_path / "stereo.wav", np.stack([left, right], axis=1), RATE)
    assert np.allclose(read_audio(tmp_path / "stereo.wav", RATE), 0.2, atol=1e-4)


def test_unusable_files_are_refused_with_name_and_reason(tmp_path, voiced):
    good = write_audio(tmp_path / "good.wav", voiced(0.5, 150.0), RATE).read_bytes()
    flac = write_audio(tmp_path / "good.flac", voiced(0.5, 150.0), RATE).read_bytes()
    (tmp_path / "empty.wav").touch()
    (tmp_path / "cut.wav").write_bytes(good[: len(good) // 2])
    (tmp_path / "header.wav").write_bytes(good[:30])
    (tmp_path / "cut.flac").write_bytes(flac[: len(flac) // 2])
    (tmp_path / "text.wav").write_text("this is no audio")
    soundfile.write(tmp_path / "none.wav", np.zeros(0), RATE)
    soundfile.write(tmp_path / "nan.wav", np.full(100, np.nan), RATE, subtype="FLOAT")
    reasons = {
        "missing.wav": "no such file",
        "empty.wav": "empty",
        "cut.wav": "truncated",
        "header.wav": "not a readable audio file",
        "cut.flac": "truncated|not a readable",
        "text.wav": "not a readable audio file",
        "none.wav": "zero length",
        "nan.wav": "not finite",
    }
    for name, reason in reasons.items():
        with pytest.raises(AudioError, match=reason) as caught:
            read_audio(tmp_path / name, RATE)
        assert name in str(caught.value)
        assert caught.value.path.name == name


def test_a_wav_written_into_a_pipe_is_whole(tmp_path, voiced):
    data = bytearray(write_audio(tmp_path / "clip.wav", voiced(0.2, 150.0), RATE).read_bytes())
    place = data.index(b"data") + 4
    data[place : place + 4] = b"\xff\xff\xff\xff"
    (tmp_path / "clip.wav").write_bytes(data)
    assert len(read_audio(tmp_path / "clip.wav", RATE)) == int(0.2 * RATE)


def test_writing_refuses_what_is_no_sound_and_leaves_nothing_behind(tmp_path):
    with pytest.raises(AudioError, match="not finite"):
        write_audio(tmp_path / "x.wav", np.array([0.0, np.nan]), RATE)
    with pytest.raises(AudioError, match=r"\.wav or \.flac"):
        write_audio(tmp_path / "x.xyz", np.zeros(10), RATE)
    assert not list(tmp_path.iterdir())


def test_too_loud_samples_are_clipped_not_wrapped(tmp_path):
    path = write_audio(tmp_path / "loud.wav", np.array([2.0, -2.0]), RATE)
    assert np.allclose(read_audio(path, RATE), [1.0, -1.0], atol=1e-3)


def test_a_place_that_takes_no_file_is_named(tmp_path):
    path = tmp_path / f"{'a' * 250}.wav"  # the partial file's name is too long
    with pytest.raises(AudioError, match="cannot be written"):
        write_audio(path, np.zeros(10), 22050)


def _steady(samples: np.ndarray) -> np.ndarray:
    """Returns the middle of a recording, where the resampler's filter has settled."""
    return samples[len(samples) // 4 : -len(samples) // 4].astype(np.float64)


@pytest.mark.parametrize(("source", "target"), [(48000, 22050), (44100, 22050), (44100, 16000), (22050, 16000)])
def test_resampling_folds_nothing_back_and_keeps_what_is_below_half_the_rate(source, target):
    t = np.arange(source) / source
    for frequency in (0.55 * target, 0.7 * target, 0.95 * target):  # aliases to `target - frequency`
        if frequency < source / 2:
            tone = (0.5 * np.sin(2 * np.pi * frequency * t)).astype(np.float32)
            alias = _steady(resample(tone, source, target))
            assert 10 * np.log10(np.mean(np.square(alias)) / 0.125) < -90, frequency
    for frequency in (100.0, 0.25 * target, 0.44 * target):
        tone = (0.5 * np.sin(2 * np.pi * frequency * t)).astype(np.float32)
        kept = _steady(resample(tone, source, target))
        assert 10 * np.log10(np.mean(np.square(kept)) / 0.125) == pytest.approx(0, abs=0.05), frequency


@pytest.mark.parametrize(("source", "target"), [(16000, 22050), (22050, 48000), (22050, 44100)])
def test_resampling_upwards_adds_no_mirror_image(source, target):
    frequency = 0.4 * source
    tone = (0.5 * np.sin(2 * np.pi * frequency * np.arange(source) / source)).astype(np.float32)
    resampled = _steady(resample(tone, source, target))
    power = np.square(np.abs(np.fft.rfft(resampled * np.blackman(len(resampled)))))
    frequencies = np.fft.rfftfreq(len(resampled), 1 / target)
    outside = power[np.abs(frequencies - frequency) > 50].sum()
    assert 10 * np.log10(outside / power.sum()) < -90


def test_resampling_moves_nothing_in_time():
    click = np.zeros(48000, np.float32)
    click[24000] = 1.0
    assert abs(int(np.abs(resample(click, 48000, 22050)).argmax()) - 11025) <= 1


def wav_with(rate: int, channels: int = 1) -> bytes:
    """Returns a WAV file of 2,000 silent frames whose header has this sample rate and number of channels."""
    samples = bytes(2 * 2000 * channels)
    form = struct.pack("<HHIIHH", 1, channels, rate, rate * 2 * channels % 2**32, 2 * channels, 16)
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(samples)) + samples
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize(("rate", "channels"), [(1, 1), (1999, 1), (1_000_000, 1), (4_000_000_000, 1), (22050, 500)])
def test_a_header_that_no_recording_has_is_refused_before_anything_is_resampled(tmp_path, rate, channels):
    """Two thousand samples at 1 Hz would become forty million."""
    path = tmp_path / "forged.wav"
    path.write_bytes(wav_with(rate, channels))
    with pytest.raises(AudioError, match=r"its header declares|not a readable audio file"):
        read_audio(path, 22050)


def test_a_recording_that_is_too_long_is_refused_while_it_is_decoded(tmp_path, monkeypatch):
    path = tmp_path / "long.flac"
    soundfile.write(path, np.zeros(40_000, np.float32), 8000)
    assert len(read_audio(path, 8000)) == 40_000
    monkeypatch.setattr(io, "_BLOCK", 4096)
    monkeypatch.setattr(io, "MAX_SECONDS", 4)
    with pytest.raises(AudioError, match="longer than"):
        read_audio(path, 8000)


@pytest.mark.parametrize("length", [13, 20, 30, 40])
def test_a_header_that_is_cut_off_is_an_error_with_the_file(tmp_path, length):
    path = tmp_path / "cut.wav"
    path.write_bytes(b"RF64" + wav_with(22050)[4:12] + b"ds64" + wav_with(22050)[16:length])
    with pytest.raises(AudioError, match=r"cut\.wav"):
        read_audio(path, 22050)
