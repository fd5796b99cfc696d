"""Reading and writing audio files: always mono float32 in [-1, 1], always at the rate that was asked for."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from model.audio.containers import (
    FLAC,
    FOREIGN,
    MP3,
    OGG,
    OTHER,
    WAV,
    container_of,
    flac_has_length,
    mp3_promised_samples,
    ogg_is_complete,
    wav_data,
)
from model.errors import MyXTTSError

NEGLIGIBLE_BYTES = 128
"""A WAV header that declares at most so many bytes more than there are has counted headers as samples: the file is
whole. A transfer that stopped misses more."""
MP3_SLACK = 4 * 1152
"""Samples of delay and padding that decoders remove from an MP3 file."""
MP4_SLACK_SECONDS = 0.2
SCALED_PEAK = 0.98
"""Peak that float recordings beyond full scale are brought to."""
_BLOCK = 1 << 18


class AudioError(MyXTTSError):
    """An audio file cannot be used; `reason` says why, the message names the file too.

    Attributes:
        path: The file.
        reason: What is wrong with it, in words.
    """

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = Path(path)
        self.reason = reason


def read_audio(path: Path | str, sample_rate: int) -> np.ndarray:
    """Samples of a file: channels averaged, resampled (soxr, high quality) where its rate differs.

    Args:
        path: Any format that libsndfile or FFmpeg reads (WAV, FLAC, Ogg, Opus, MP3, m4a, AIFF, ...).
        sample_rate: Wanted rate in Hz.

    Returns:
        (N,) float32.

    Raises:
        AudioError: the file is missing, empty, truncated, no audio, or holds values that are not finite.
    """
    samples, source_rate = read_source(path)
    return resample(samples, source_rate, sample_rate)


@dataclass(frozen=True)
class AudioNote:
    """Something about a file that was put right on reading: a short name of the kind, and what exactly."""

    reason: str
    detail: str


@dataclass(frozen=True)
class Recording:
    """A decoded file: (N,) float32 mono samples at `sample_rate` Hz, and notes on what was put right."""

    samples: np.ndarray
    sample_rate: int
    notes: tuple[AudioNote, ...] = ()


def read_source(path: Path | str) -> tuple[np.ndarray, int]:
    """Samples (N,) float32 mono of a file at the rate it was recorded with, and that rate in Hz.

    Raises:
        AudioError: as `read_audio`.
    """
    recording = read_recording(path)
    return recording.samples, recording.sample_rate


def read_recording(path: Path | str) -> Recording:
    """Decode a file to its end, at the rate it was recorded with.

    A length that a header declares is used only to find truncated files, never to stop reading; guessed lengths and
    placeholders for unknown ones are ignored.

    Raises:
        AudioError: as `read_audio`.
    """
    path = Path(path)
    if not path.is_file():
        broken = path.is_symlink()
        raise AudioError(path, f"no such file: a broken symbolic link to {path.readlink()}" if broken else _NO_FILE)
    if path.stat().st_size == 0:
        raise AudioError(path, "the file is empty (0 bytes)")
    frames, rate, is_float, notes = _decode(path)
    if not len(frames):
        raise AudioError(path, "holds no samples (zero length)")
    mono = frames[:, 0] if frames.shape[1] == 1 else frames.mean(axis=1)
    if not np.isfinite(mono).all():
        raise AudioError(path, "holds samples that are not finite numbers")
    peak = float(np.abs(mono).max())
    if is_float and peak > 1.0:
        mono = mono * np.float32(SCALED_PEAK / peak)
        detail = f"floating-point samples up to {peak:.3g} (full scale is 1), scaled to {SCALED_PEAK}"
        notes = (*notes, AudioNote("scaled", detail))
    return Recording(np.ascontiguousarray(mono), rate, notes)


_NO_FILE = "no such file"


def _decode(path: Path) -> tuple[np.ndarray, int, bool, tuple[AudioNote, ...]]:
    """Frames (N, channels) of a file, their rate, whether it stores floating-point samples, and notes.

    Raises:
        AudioError: the file is truncated, or no audio.
    """
    with path.open("rb") as file:
        head = file.read(64)
    notes: tuple[AudioNote, ...]
    container = container_of(head)
    if container == OTHER and path.suffix.lower() == ".mp3":  # what precedes the first frame is not of this format
        container = MP3
    if container == MP3:
        frames, rate, notes = _decode_with_ffmpeg(path)
        promised = mp3_promised_samples(path.read_bytes())
        if len(frames) + MP3_SLACK < promised:
            raise AudioError(path, f"truncated: {len(frames)} of the {promised} samples its header promises")
        return frames, rate, False, notes
    if container == FOREIGN or (container == FLAC and len(head) >= 26 and not flac_has_length(head)):
        return *_decode_with_ffmpeg(path)[:2], False, ()
    if container == OGG and not ogg_is_complete(path.read_bytes()):
        raise AudioError(path, "truncated: the last page of the stream (end-of-stream mark) is missing")
    notes = ()
    if container == WAV:
        declared, present = wav_data(path)
        if declared > present + NEGLIGIBLE_BYTES:
            raise AudioError(path, f"truncated: its header promises {declared - present} bytes more than the file has")
        if declared > present:
            detail = f"its header declares {declared - present} bytes more than there are; read to the end of the file"
            notes = (AudioNote("wrong_size_in_header", detail),)
        if declared < 0 < present and _declares_nothing(path):  # libsndfile takes a size of 0 at its word
            return *_decode_with_ffmpeg(path)[:2], True, ()
    return *_decode_with_libsndfile(path), notes


def _declares_nothing(path: Path) -> bool:
    try:
        return soundfile.info(path).frames == 0
    except soundfile.LibsndfileError:
        return False


def _decode_with_libsndfile(path: Path) -> tuple[np.ndarray, int, bool]:
    try:
        with soundfile.SoundFile(path) as file:
            blocks = [file.read(_BLOCK, dtype="float32", always_2d=True)]
            while len(blocks[-1]):
                blocks.append(file.read(_BLOCK, dtype="float32", always_2d=True))
            frames = np.concatenate(blocks)
            promised, rate, is_float = file.frames, file.samplerate, file.subtype in ("FLOAT", "DOUBLE")
    except soundfile.LibsndfileError as error:
        raise AudioError(path, f"not a readable audio file ({error.error_string})") from error
    if len(frames) < promised:
        raise AudioError(path, f"truncated: {len(frames)} of the {promised} samples its header promises")
    return frames, rate, is_float


def _decode_with_ffmpeg(path: Path) -> tuple[np.ndarray, int, tuple[AudioNote, ...]]:
    """Frames (N, channels) of a file to its last packet; packets that cannot be decoded are counted in a note."""
    import av  # FFmpeg's libraries: 40 ms, and most recordings need none of them

    blocks, damaged = [], 0
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise AudioError(path, "holds no sound, only other streams")
            stream = container.streams.audio[0]
            rate = stream.codec_context.sample_rate
            resampler = av.AudioResampler(format="fltp", rate=rate)
            for packet in container.demux(stream):
                try:
                    decoded = packet.decode()
                except av.error.InvalidDataError:
                    damaged += 1
                    continue
                blocks += [part.to_ndarray() for frame in decoded for part in resampler.resample(frame)]
            declared = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
            exact = container.format.name.startswith("mov")
    except (av.error.FFmpegError, OSError) as error:
        raise AudioError(path, f"not a readable audio file ({error.strerror or error})") from error
    frames = np.concatenate(blocks, axis=1).T if blocks else np.zeros((0, 1), np.float32)  # (N, channels)
    seconds = len(frames) / rate if rate else 0.0
    if exact and seconds + MP4_SLACK_SECONDS < declared:
        raise AudioError(path, f"truncated: {seconds:.2f} of the {declared:.2f} seconds its header promises")
    detail = f"{damaged} packets of the compressed sound cannot be decoded and are left out"
    return frames, rate, (AudioNote("damaged_packets", detail),) if damaged else ()


def resample(samples: np.ndarray, source_rate: int, sample_rate: int) -> np.ndarray:
    """(N,) float32 at `source_rate` Hz -> (N * sample_rate / source_rate,) float32."""
    if source_rate == sample_rate:
        return samples
    return soxr.resample(samples, source_rate, sample_rate, quality="HQ").astype(np.float32, copy=False)


def write_audio(path: Path | str, samples: np.ndarray, sample_rate: int) -> Path:
    """Write mono 16-bit audio in one move; the suffix chooses the format (`.wav`, `.flac`).

    Args:
        path: Destination; its folder is made.
        samples: (N,) in [-1, 1]; what lies outside is clipped.
        sample_rate: In Hz.

    Raises:
        AudioError: the suffix is no known format, the samples are not finite, or the place takes no file.
    """
    path = Path(path)
    kind = path.suffix.lstrip(".").upper()
    if kind not in ("WAV", "FLAC"):
        raise AudioError(path, f"cannot write {path.suffix or 'a file without suffix'}; use .wav or .flac")
    if path.is_dir():
        raise AudioError(path, "is a folder; give the name of a file")
    samples = np.asarray(samples, dtype=np.float32)
    if not np.isfinite(samples).all():
        raise AudioError(path, "refuses to write samples that are not finite numbers")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        soundfile.write(partial, np.clip(samples, -1.0, 1.0), sample_rate, format=kind, subtype="PCM_16")
    except soundfile.LibsndfileError as error:
        with suppress(OSError):  # it may never have been there
            partial.unlink()
        reason = f"cannot be written ({error.error_string}); see that the folder may be written to and has room"
        raise AudioError(path, reason) from error
    os.replace(partial, path)
    return path
