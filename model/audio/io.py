"""Reading and writing audio files: always mono float32 in [-1, 1], always at the rate that was asked for."""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import soundfile
import soxr

UNKNOWN_SIZE = 0xFFFFFFFF  # what programs that write WAV into a pipe put where the size belongs


class AudioError(ValueError):
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
        path: Any format that libsndfile reads (WAV, FLAC, OGG, MP3).
        sample_rate: Wanted rate in Hz.

    Returns:
        (N,) float32.

    Raises:
        AudioError: the file is missing, empty, truncated, no audio, or holds values that are not finite.
    """
    samples, source_rate = read_source(path)
    return resample(samples, source_rate, sample_rate)


def read_source(path: Path | str) -> tuple[np.ndarray, int]:
    """Samples (N,) float32 mono of a file at the rate it was recorded with, and that rate in Hz.

    Raises:
        AudioError: as `read_audio`.
    """
    path = Path(path)
    if not path.is_file():
        raise AudioError(path, "no such file")
    size = path.stat().st_size
    if size == 0:
        raise AudioError(path, "the file is empty (0 bytes)")
    missing = _missing_wav_bytes(path, size)
    if missing:
        raise AudioError(path, f"truncated: its header promises {missing} bytes more than the file has")
    try:
        with soundfile.SoundFile(path) as file:
            promised, rate = file.frames, file.samplerate
            samples = file.read(dtype="float32", always_2d=True)  # (N, channels)
    except soundfile.LibsndfileError as error:
        raise AudioError(path, f"not a readable audio file ({error.error_string})") from error
    if len(samples) < promised:
        raise AudioError(path, f"truncated: {len(samples)} of the {promised} samples its header promises")
    if not len(samples):
        raise AudioError(path, "holds no samples (zero length)")
    mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
    if not np.isfinite(mono).all():
        raise AudioError(path, "holds samples that are not finite numbers")
    return np.ascontiguousarray(mono), rate


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


def _missing_wav_bytes(path: Path, size: int) -> int:
    """Bytes of sound that a RIFF file promises and does not have; libsndfile reads such files without a word."""
    with path.open("rb") as file:
        header = file.read(12)
        if len(header) < 12 or header[:4] != b"RIFF" or header[8:] != b"WAVE":
            return 0
        position = 12
        while position + 8 <= size:
            file.seek(position)
            name, length = struct.unpack("<4sI", file.read(8))
            if name == b"data":
                return 0 if length == UNKNOWN_SIZE else max(0, position + 8 + length - size)
            position += 8 + length + length % 2
    return 0
