"""Files as recorders, streams and converters write them are decoded to the end; truncated files are detected."""

import io
import struct

import av
import numpy as np
import pytest
import soundfile

from model.audio.io import SCALED_PEAK, AudioError, read_audio, read_recording, write_audio

RATE = 22050
MP3_RATE = 44100


@pytest.fixture(scope="module")
def speech_like():
    """Three seconds of increasing complexity, so that a variable bit rate varies."""
    time = np.arange(3 * MP3_RATE) / MP3_RATE
    tone = 0.3 * np.sin(2 * np.pi * 200 * time)
    return np.where(time < 2, tone, 0.2 * np.random.default_rng(0).standard_normal(len(time))).astype(np.float32)


def mp3(samples, mode):
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", MP3_RATE, 1, format="MP3", bitrate_mode=mode, compression_level=0.5) as file:
        file.write(samples)
    return buffer.getvalue()


def without_first_frame(data):
    """Returns an MP3 without its Xing or Info header, which is the first frame."""
    return data[data.index(data[:2], 4) :]


def wav(samples, subtype="PCM_16", rate=RATE):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV", subtype=subtype)
    return buffer.getvalue()


def with_data_size(data, size):
    """Returns a WAV file with another declared size of its samples."""
    place = data.index(b"data") + 4
    return (
        data[:4]
        + struct.pack("<I", min(size + place - 4, 0xFFFFFFFF))
        + data[8:place]
        + struct.pack("<I", size)
        + data[place + 4 :]
    )


def encoded(samples, rate, container, codec):
    """Returns samples in a container that FFmpeg writes."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            output.mux(packet)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["VARIABLE", "CONSTANT"])
@pytest.mark.parametrize("suffix", [".mp3", ".MP3", ".wav"])
def test_an_mp3_without_a_length_header_is_decoded_to_its_end(tmp_path, speech_like, mode, suffix):
    path = tmp_path / f"clip{suffix}"
    path.write_bytes(without_first_frame(mp3(speech_like, mode)))
    recording = read_recording(path)
    assert recording.sample_rate == MP3_RATE
    assert len(recording.samples) == pytest.approx(len(speech_like), abs=3000)
    assert np.abs(recording.samples[-MP3_RATE // 2 :]).mean() > 0.1
    assert not recording.notes


def test_a_length_header_of_a_part_ends_nothing(tmp_path, speech_like):
    path = tmp_path / "joined.mp3"
    path.write_bytes(mp3(speech_like, "VARIABLE") * 2)
    assert len(read_recording(path).samples) == pytest.approx(2 * len(speech_like), abs=6000)


def test_an_mp3_behind_a_tag_is_read_and_one_that_was_cut_is_found(tmp_path, speech_like):
    data = mp3(speech_like, "VARIABLE")
    tag = b"ID3\x04\x00\x00\x00\x00\x02\x00" + bytes(256)
    (tmp_path / "whole.mp3").write_bytes(tag + data)
    assert len(read_recording(tmp_path / "whole.mp3").samples) == len(speech_like)
    (tmp_path / "cut.mp3").write_bytes(tag + data[: len(data) // 2])
    with pytest.raises(AudioError, match="truncated"):
        read_recording(tmp_path / "cut.mp3")


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0x7FFFFFFF, 0x7FFFFFDB, 0x80000000, 0xFFFFFFDB, 0xFFFFFFFF], ids=hex)
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_a_placeholder_for_the_size_of_a_wav_is_none(tmp_path, voiced, size, subtype):
    samples = voiced(0.3, 150.0)
    path = tmp_path / "stream.wav"
    path.write_bytes(with_data_size(wav(samples, subtype), size))
    recording = read_recording(path)
    assert len(recording.samples) == len(samples)
    assert np.abs(recording.samples - samples).max() < 1e-4
    assert not recording.notes


def test_a_streamed_flac_is_decoded_to_its_end(tmp_path, voiced):
    samples = voiced(0.7, 150.0)
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, RATE, format="FLAC")
    data = bytearray(buffer.getvalue())
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    (tmp_path / "stream.flac").write_bytes(data)
    assert len(read_audio(tmp_path / "stream.flac", RATE)) == len(samples)


@pytest.mark.parametrize("excess", [1, 8, 44])
def test_a_size_a_few_bytes_too_long_is_a_note(tmp_path, voiced, excess):
    samples = voiced(0.3, 150.0)
    (tmp_path / "x.wav").write_bytes(with_data_size(wav(samples), 2 * len(samples) + excess))
    recording = read_recording(tmp_path / "x.wav")
    assert len(recording.samples) == len(samples)
    assert [note.reason for note in recording.notes] == ["wrong_size_in_header"]


def test_an_empty_wav_with_another_chunk_behind_holds_no_samples(tmp_path):
    data = wav(np.zeros(0, np.float32))
    (tmp_path / "none.wav").write_bytes(data + b"LIST" + struct.pack("<I", 4) + b"INFO")
    with pytest.raises(AudioError, match="zero length"):
        read_recording(tmp_path / "none.wav")


@pytest.mark.parametrize("subtype", ["OPUS", "VORBIS"])
def test_ogg_without_its_last_page_is_truncated(tmp_path, subtype):
    buffer = io.BytesIO()
    noise = 0.1 * np.random.default_rng(0).standard_normal(48000 * 3)
    soundfile.write(buffer, noise, 48000, format="OGG", subtype=subtype)
    data = buffer.getvalue()
    path = tmp_path / "clip.ogg"
    path.write_bytes(data)
    assert len(read_recording(path).samples) == len(noise)
    for end in (data.rindex(b"OggS"), data.rindex(b"OggS") + 40, len(data) // 2):
        path.write_bytes(data[:end])
        with pytest.raises(AudioError, match="truncated"):
            read_recording(path)


@pytest.mark.parametrize(
    ("name", "container", "codec"),
    [("memo.m4a", "mp4", "aac"), ("voice.webm", "webm", "libopus"), ("a.aac", "adts", "aac")],
)
def test_recordings_of_telephones_and_browsers_are_read(tmp_path, name, container, codec):
    samples = (0.3 * np.sin(2 * np.pi * 200 * np.arange(48000) / 48000)).astype(np.float32)
    (tmp_path / name).write_bytes(encoded(samples, 48000, container, codec))
    recording = read_recording(tmp_path / name)
    assert recording.sample_rate == 48000
    assert len(recording.samples) == pytest.approx(len(samples), abs=5000)
    assert np.abs(recording.samples).max() > 0.5 * np.abs(samples).max()


def test_a_cut_m4a_is_found(tmp_path, speech_like):
    data = encoded(speech_like, MP3_RATE, "mp4", "aac")
    (tmp_path / "cut.m4a").write_bytes(data[: len(data) // 2])
    with pytest.raises(AudioError):
        read_recording(tmp_path / "cut.m4a")


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_float_samples_beyond_full_scale_are_scaled_with_a_note(tmp_path, voiced, subtype):
    samples = 5.0 * voiced(0.3, 150.0)
    (tmp_path / "loud.wav").write_bytes(wav(samples, subtype))
    recording = read_recording(tmp_path / "loud.wav")
    assert np.abs(recording.samples).max() == pytest.approx(SCALED_PEAK)
    assert np.corrcoef(recording.samples, samples)[0, 1] == pytest.approx(1.0)
    assert [note.reason for note in recording.notes] == ["scaled"]


def test_integer_samples_at_full_scale_stay(tmp_path):
    path = write_audio(tmp_path / "full.wav", np.tile([1.0, -1.0], 500), RATE)
    recording = read_recording(path)
    assert np.abs(recording.samples).max() > 0.999
    assert not recording.notes


def test_a_broken_link_is_named_with_its_target(tmp_path):
    (tmp_path / "a.wav").symlink_to(tmp_path / "gone.wav")
    with pytest.raises(AudioError, match=r"a\.wav: .*broken symbolic link to .*gone\.wav"):
        read_recording(tmp_path / "a.wav")
