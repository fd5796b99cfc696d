"""Reading and writing of audio files as mono float32 samples in [-1, 1] at a given sample rate."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

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
    mp3_declared_samples,
    ogg_is_complete,
    wav_data,
)
from model.errors import MyXTTSError
from model.files import atomic_write

NEGLIGIBLE_BYTES = 128
"""A WAV file that is at most this much shorter than its header declares is complete: the header counts itself as
samples. An interrupted transfer loses more."""
MP3_SLACK = 4 * 1152
"""Samples of encoder delay and padding that decoders remove from an MP3 file."""
MP4_SLACK_SECONDS = 0.2
SCALED_PEAK = 0.98
"""Peak to which floating-point recordings beyond full scale are scaled."""
_BLOCK = 1 << 18
_UNKNOWN_LENGTH = 0xFFFFFFFF
"""Length in the header of a WAV stream, by convention the largest one."""
LOWEST_RATE, HIGHEST_RATE = 2_000, 768_000
"""Sample rates of recordings in Hz. A header with another one is damaged, and resampling would need all memory."""
MAX_CHANNELS = 64
MAX_SECONDS = 4 * 3600
"""Longest recording. A compressed file of any size may hold more, which would not fit into memory."""


class AudioError(MyXTTSError):
    """An audio file cannot be read or written; the message names the file and the reason.

    Attributes:
        path: The file.
        reason: The message without the file.
    """

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = Path(path)
        self.reason = reason


def read_audio(path: Path | str, sample_rate: int) -> np.ndarray:
    """Returns the samples of a file, with channels averaged and resampled to `sample_rate`.

    Args:
        path: Any format that libsndfile or FFmpeg reads (WAV, FLAC, Ogg, Opus, MP3, m4a, AIFF, ...).
        sample_rate: In Hz.

    Returns:
        (N,) float32.

    Raises:
        AudioError: the file is missing, empty, truncated, no audio, or has values that are not finite.
    """
    samples, source_rate = read_source(path)
    return resample(samples, source_rate, sample_rate)


@dataclass(frozen=True)
class AudioNote:
    """A defect of a file that was corrected on reading: a short name of its kind, and the details."""

    reason: str
    detail: str


@dataclass(frozen=True)
class Recording:
    """A decoded file: (N,) float32 mono samples at `sample_rate` Hz, and the defects that were corrected."""

    samples: np.ndarray
    sample_rate: int
    notes: tuple[AudioNote, ...] = ()


def read_source(path: Path | str) -> tuple[np.ndarray, int]:
    """Returns the samples (N,) float32 mono of a file at its own sample rate, and that rate in Hz.

    Raises:
        AudioError: as `read_audio`.
    """
    recording = read_recording(path)
    return recording.samples, recording.sample_rate


def read_recording(path: Path | str) -> Recording:
    """Decodes a file to its end, at its own sample rate.

    The length in a header is used only to detect truncated files; guessed lengths and placeholders are ignored.

    Raises:
        AudioError: as `read_audio`.
    """
    path = Path(path)
    if not path.is_file():
        link = f": a broken symbolic link to {path.readlink()}" if path.is_symlink() else ""
        raise AudioError(path, f"no such file{link}")
    if path.stat().st_size == 0:
        raise AudioError(path, "the file is empty (0 bytes)")
    try:
        frames, rate, is_float, notes = _decode(path)
    except (struct.error, IndexError) as error:
        raise AudioError(path, f"truncated: its header is cut off ({error})") from error
    if not len(frames):
        raise AudioError(path, "has no samples (zero length)")
    mono = frames[:, 0] if frames.shape[1] == 1 else frames.mean(axis=1)
    if not np.isfinite(mono).all():
        raise AudioError(path, "has samples that are not finite numbers")
    peak = float(np.abs(mono).max())
    if is_float and peak > 1.0:
        mono = mono * np.float32(SCALED_PEAK / peak)
        detail = f"floating-point samples up to {peak:.3g} (full scale is 1), scaled to {SCALED_PEAK}"
        notes = (*notes, AudioNote("scaled", detail))
    return Recording(np.ascontiguousarray(mono), rate, notes)


def _decode(path: Path) -> tuple[np.ndarray, int, bool, tuple[AudioNote, ...]]:
    """Returns frames (N, channels) of a file, their rate, whether it stores floating-point samples, and notes.

    Raises:
        AudioError: the file is truncated, or no audio.
    """
    with path.open("rb") as file:
        head = file.read(64)
    notes: tuple[AudioNote, ...]
    container = container_of(head)
    if container == OTHER and path.suffix.lower() == ".mp3":  # something else precedes the first frame
        container = MP3
    if container == MP3:
        frames, rate, notes = _decode_with_ffmpeg(path)
        declared = mp3_declared_samples(path.read_bytes())
        if len(frames) + MP3_SLACK < declared:
            raise _truncated(path, len(frames), declared)
        return frames, rate, False, notes
    if container == FOREIGN or (container == FLAC and len(head) >= 26 and not flac_has_length(head)):
        return *_decode_with_ffmpeg(path)[:2], False, ()
    if container == OGG and not ogg_is_complete(path.read_bytes()):
        raise AudioError(path, "truncated: the last page of the stream (end-of-stream mark) is missing")
    notes = ()
    if container == WAV:
        declared, present = wav_data(path)
        if declared > present + NEGLIGIBLE_BYTES:
            raise AudioError(path, f"truncated: its header declares {declared - present} bytes more than the file has")
        if declared > present:
            detail = f"its header declares {declared - present} bytes more than the file has; read to its end"
            notes = (AudioNote("wrong_size_in_header", detail),)
        if declared < 0 < present and _declares_nothing(path):  # libsndfile trusts a declared size of 0
            return *_decode_with_ffmpeg(path)[:2], True, ()
    return *_decode_with_libsndfile(path), notes


def _check_header(path: Path, rate: int, channels: int) -> None:
    """Refuses a header whose samples could not be processed.

    Raises:
        AudioError: the sample rate or the number of channels is not that of a recording.
    """
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise AudioError(path, f"its header declares {rate} Hz; recordings have {LOWEST_RATE} to {HIGHEST_RATE} Hz")
    if not 1 <= channels <= MAX_CHANNELS:
        raise AudioError(path, f"its header declares {channels} channels; recordings have 1 to {MAX_CHANNELS}")


def _check_length(path: Path, samples: int, rate: int) -> None:
    if samples > MAX_SECONDS * rate:
        raise AudioError(path, f"longer than {MAX_SECONDS // 3600} hours; divide it into shorter recordings")


def _truncated(path: Path, found: int, declared: int) -> AudioError:
    return AudioError(path, f"truncated: it has {found} of the {declared} samples that its header declares")


def _declares_nothing(path: Path) -> bool:
    try:
        return soundfile.info(path).frames == 0
    except soundfile.LibsndfileError:
        return False


def _decode_with_libsndfile(path: Path) -> tuple[np.ndarray, int, bool]:
    try:
        with soundfile.SoundFile(path) as file:
            _check_header(path, file.samplerate, file.channels)
            blocks = [file.read(_BLOCK, dtype="float32", always_2d=True)]
            while len(blocks[-1]):
                _check_length(path, len(blocks) * _BLOCK, file.samplerate)
                blocks.append(file.read(_BLOCK, dtype="float32", always_2d=True))
            frames = np.concatenate(blocks)
            declared, rate, is_float = file.frames, file.samplerate, file.subtype in ("FLOAT", "DOUBLE")
    except soundfile.LibsndfileError as error:
        raise AudioError(path, f"not a readable audio file ({error.error_string})") from error
    if len(frames) < declared:
        raise _truncated(path, len(frames), declared)
    return frames, rate, is_float


def _decode_with_ffmpeg(path: Path) -> tuple[np.ndarray, int, tuple[AudioNote, ...]]:
    """Returns frames (N, channels), their rate, and a note with the number of packets that cannot be decoded."""
    import av  # 40 ms, and most recordings do not need FFmpeg

    blocks, damaged = [], 0
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise AudioError(path, "has no audio stream")
            stream = container.streams.audio[0]
            rate, length = stream.codec_context.sample_rate, 0
            _check_header(path, rate, stream.codec_context.channels)
            resampler = av.AudioResampler(format="fltp", rate=rate)
            for packet in container.demux(stream):
                try:
                    decoded = packet.decode()
                except av.error.InvalidDataError:
                    damaged += 1
                    continue
                added = [part.to_ndarray() for frame in decoded for part in resampler.resample(frame)]
                length += sum(part.shape[1] for part in added)
                _check_length(path, length, rate)
                blocks += added
            declared = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
            exact = container.format.name.startswith("mov")
    except (av.error.FFmpegError, OSError) as error:
        raise AudioError(path, f"not a readable audio file ({error.strerror or error})") from error
    frames = np.concatenate(blocks, axis=1).T if blocks else np.zeros((0, 1), np.float32)  # (N, channels)
    seconds = len(frames) / rate if rate else 0.0
    if exact and seconds + MP4_SLACK_SECONDS < declared:
        detail = f"it has {seconds:.2f} of the {declared:.2f} seconds that its header declares"
        raise AudioError(path, f"truncated: {detail}")
    detail = f"{damaged} packets cannot be decoded and are left out"
    return frames, rate, (AudioNote("damaged_packets", detail),) if damaged else ()


def resample(samples: np.ndarray, source_rate: int, sample_rate: int) -> np.ndarray:
    """Returns samples (N,) float32 at `source_rate` Hz resampled to `sample_rate` Hz (soxr, high quality)."""
    if source_rate == sample_rate:
        return samples
    return soxr.resample(samples, source_rate, sample_rate, quality="HQ").astype(np.float32, copy=False)


def write_audio(path: Path | str, samples: np.ndarray, sample_rate: int) -> Path:
    """Writes mono 16-bit audio atomically and returns `path`.

    Args:
        path: Destination (`.wav` or `.flac`); its folder is made.
        samples: (N,); values outside of [-1, 1] are clipped.
        sample_rate: In Hz.

    Raises:
        AudioError: the suffix is unknown, the samples are not finite, or the file cannot be written.
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
    try:
        with atomic_write(path) as partial:
            soundfile.write(partial, np.clip(samples, -1.0, 1.0), sample_rate, format=kind, subtype="PCM_16")
    except (soundfile.LibsndfileError, OSError) as error:
        cause = error.strerror if isinstance(error, OSError) else error.error_string
        reason = f"cannot be written ({cause}); check its name, permissions and free space of the folder"
        raise AudioError(path, reason) from error
    return path


def write_wav_stream(destination: BinaryIO, chunks: Iterable[np.ndarray], sample_rate: int) -> int:
    """Writes mono 16-bit WAV to a pipe, chunk by chunk, and returns the number of samples.

    The header declares the largest length, since the true one is not known in advance; players read to the end.

    Args:
        destination: Where to write; flushed after each chunk.
        chunks: Samples (N,) of each chunk; values outside of [-1, 1] are clipped.
        sample_rate: In Hz.
    """
    size = 2
    described = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, sample_rate, size * sample_rate, size, 8 * size)
    destination.write(struct.pack("<4sI4s", b"RIFF", _UNKNOWN_LENGTH, b"WAVE") + described)
    destination.write(struct.pack("<4sI", b"data", _UNKNOWN_LENGTH - len(described) - 12))
    written = 0
    for chunk in chunks:
        destination.write((np.clip(chunk, -1.0, 1.0) * 32767).astype("<i2").tobytes())
        destination.flush()
        written += len(chunk)
    return written
