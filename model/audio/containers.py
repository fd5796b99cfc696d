"""Headers of audio files: the container, the declared length, and whether the file is complete.

Decoders read a truncated file without an error, and some guess its length. These functions read the few header fields
that distinguish a complete file from a truncated one.
"""

from __future__ import annotations

import struct
from pathlib import Path

PLACEHOLDER_FROM = 0x7FFF0000
"""Declared sizes from here on, in a smaller file, are placeholders of programs that write to a pipe: sox writes
0x7ffff000, arecord and mpg123 0x7fffffff or 0x80000000, ffmpeg 0xffffffff, others these minus the header's length."""
UNKNOWN_64 = 0xFFFFFFFFFFFFFFFF
_OGG_HEADER = 27
_END_OF_STREAM = 0x04
_XING_OFFSETS = {(True, False): 36, (True, True): 21, (False, False): 21, (False, True): 13}
"""Bytes from the start of the first frame to its Xing header, by (MPEG 1, mono)."""

WAV, FLAC, OGG, MP3, OTHER = "wav", "flac", "ogg", "mp3", "other"
FOREIGN = "foreign"
"""Containers that only FFmpeg reads, not libsndfile: MP4 (m4a), Matroska (webm), AAC, ASF (wma), AMR."""


def container_of(head: bytes) -> str:
    """Returns the container by the first bytes of a file (at least 12), whatever its suffix."""
    if head[:4] in (b"RIFF", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        return WAV
    if head[:4] == b"fLaC":
        return FLAC
    if head[:4] == b"OggS":
        return OGG
    if head[4:8] == b"ftyp" or head[:4] in (b"\x1a\x45\xdf\xa3", b"\x30\x26\xb2\x75") or head[:5] == b"#!AMR":
        return FOREIGN
    if head[:3] == b"ID3" or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0):
        layer = head[1] & 0x06
        return MP3 if head[:3] == b"ID3" or layer else FOREIGN  # layer 0 is AAC in ADTS frames
    return OTHER


def wav_data(path: Path) -> tuple[int, int]:
    """Returns the declared and the actual size of a RIFF file's samples in bytes; (-1, -1) without samples.

    A placeholder for an unknown size is returned as a declared size of -1.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        position, large = 12, -1
        while position + 8 <= size:
            file.seek(position)
            name, length = struct.unpack("<4sI", file.read(8))
            if name == b"ds64":
                large = struct.unpack("<8xQ", file.read(16))[0]
            if name == b"data":
                present = size - position - 8
                if length == 0 and _is_chunk(file.read(8), present):
                    return 0, 0
                if length == 0xFFFFFFFF and 0 <= large < UNKNOWN_64:
                    length = large
                unknown = length > present and length >= PLACEHOLDER_FROM and large < 0
                return -1 if unknown or (length == 0 and present) or large == UNKNOWN_64 else length, present
            position += 8 + length + length % 2
    return -1, -1


def flac_has_length(head: bytes) -> bool:
    """Returns whether a FLAC header (at least 26 bytes) has the number of samples, which encoders to a pipe omit."""
    return bool(head[21] & 0x0F or any(head[22:26]))


def ogg_is_complete(data: bytes) -> bool:
    """Returns whether the last page of an Ogg file is complete and marks the end of the stream."""
    position, ended = 0, False
    while data[position : position + 4] == b"OggS":
        segments = data[position + 26] if position + _OGG_HEADER <= len(data) else 0
        end = position + _OGG_HEADER + segments
        end += sum(data[position + _OGG_HEADER : end])
        if end > len(data):
            return False
        ended = bool(data[position + 5] & _END_OF_STREAM)
        position = end
    return ended


def mp3_declared_samples(data: bytes) -> int:
    """Returns the number of samples that the Xing or Info header of an MP3 file declares; 0 without such a header.

    Without it, the length that a decoder reports is a guess from the bit rate of the first frame.
    """
    start = 0
    if data[:3] == b"ID3" and len(data) >= 10:
        sizes = data[6:10]
        start = 10 + (sizes[0] << 21 | sizes[1] << 14 | sizes[2] << 7 | sizes[3])
    if len(data) < start + 4 or data[start] != 0xFF:
        return 0
    first_version, mono = data[start + 1] & 0x18 == 0x18, data[start + 3] & 0xC0 == 0xC0
    position = start + _XING_OFFSETS[first_version, mono]
    header = data[position : position + 12]
    if header[:4] not in (b"Xing", b"Info") or len(header) < 8 or not header[7] & 1:
        return 0
    frames = int.from_bytes(header[8:], "big")
    return frames * (1152 if first_version else 576)


def _is_chunk(head: bytes, present: int) -> bool:
    """Returns whether bytes are the start of another RIFF chunk rather than samples."""
    if len(head) < 8:
        return False
    name, length = struct.unpack("<4sI", head)
    return name.isascii() and name.decode("ascii").strip().isalnum() and length <= present - 8
