"""Extraction of a clip's features from its recording and text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.audio.io import AudioError, read_audio
from model.audio.mel import MelExtractor, frame_energy
from model.audio.pitch import track_pitch
from model.audio.trimming import trim_and_gain, trim_and_normalize
from model.config import settings_hash
from model.config.data import PreprocessSettings
from model.corpus.manifest import Clip, read_manifest
from model.errors import FeatureError, TextError
from model.features.shards import ExtractedClip
from model.files import md5_of_file, sha256_of_file
from model.speaker_encoder import SpeakerEncoderError, load_speaker_encoder
from model.text.encode import encode
from model.text.symbols import symbols_hash


class Recordings:
    """Recordings of a corpus in a local folder.

    Subclasses read them from elsewhere; instances are pickled for the worker processes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __str__(self) -> str:
        return str(self.folder)

    def clips(self) -> list[Clip]:
        """Returns the clips of the manifest."""
        return read_manifest(self.folder)

    def digest(self, clip: Clip) -> str:
        """Returns the MD5 of a clip's file, by which DVC names it too."""
        try:
            return md5_of_file(self.folder / clip.audio)
        except OSError as error:
            raise unusable(clip, f"{self.folder / clip.audio}: {error.strerror}") from error

    @contextmanager
    def file(self, clip: Clip) -> Iterator[Path]:
        """Yields the path of a clip's file, which exists during the block."""
        yield self.folder / clip.audio


@dataclass(frozen=True, kw_only=True)
class _PreparedClip:
    """A clip before speaker encoding; attributes as in `ExtractedClip`."""

    audio: np.ndarray  # (N,) float32 samples after trimming and loudness normalization
    start: int
    gain: float
    mel: np.ndarray
    pitch: np.ndarray
    tokens: np.ndarray
    unknown: Mapping[str, int]


class ClipExtractor:
    """Feature extractor with its speaker encoder, loaded once per process.

    Args:
        config: Sections `audio` and `features`.
    """

    def __init__(self, config: PreprocessSettings) -> None:
        self.audio, self.settings = config.audio, config.features
        self.mel = MelExtractor(config.audio)
        self.speaker_encoder = load_speaker_encoder(config.features)

    def extract(self, recordings: Recordings, clips: Sequence[Clip], keys: Sequence[str]) -> list[ExtractedClip]:
        """Extracts the features of a few clips.

        Args:
            recordings: Source of their audio.
            clips: Clips; all of their audio is held in memory, as the speaker encoder embeds them as one batch.
            keys: Keys of the clips, from `clip_key`.

        Raises:
            FeatureError: a clip cannot be used; the message names it.
        """
        prepared = [self._prepare(recordings, clip) for clip in clips]
        try:
            vectors = self.speaker_encoder.embed_many([clip.audio for clip in prepared], self.audio.sample_rate)
        except SpeakerEncoderError as error:
            raise FeatureError(f"clips {clips[0].id} to {clips[-1].id}: {error}") from error
        return [
            ExtractedClip(
                key=key,
                mel=clip.mel,
                pitch=clip.pitch,
                energy=frame_energy(clip.mel),
                tokens=clip.tokens,
                speaker_vector=vector,
                samples=len(clip.audio),
                start=clip.start,
                gain=clip.gain,
                unknown=clip.unknown,
            )
            for key, clip, vector in zip(keys, prepared, vectors, strict=True)
        ]

    def _prepare(self, recordings: Recordings, clip: Clip) -> _PreparedClip:
        try:
            with recordings.file(clip) as path:
                samples = read_audio(path, self.audio.sample_rate)
            start, end, gain = trim_and_gain(samples, self.audio.sample_rate, self.settings)
            samples = trim_and_normalize(samples, start, end, gain)
            tokens = encode(clip.text, clip.language)
            mel = self.mel.numpy(samples)
            if len(mel) < len(tokens.ids):
                raise ValueError(f"{len(tokens.ids)} tokens cannot be spoken in {len(mel)} frames")  # see `best_path`
            pitch = track_pitch(samples, self.audio, self.settings)
        except (AudioError, TextError, ValueError) as error:
            raise unusable(clip, str(error)) from error
        return _PreparedClip(
            audio=samples,
            start=start,
            gain=gain,
            mel=mel,
            pitch=pitch,
            tokens=tokens.ids.astype(np.int16),
            unknown=tokens.unknown,
        )


def extraction_hash(config: PreprocessSettings, code: str) -> str:
    """Returns a hash of all inputs of extraction other than the clip: settings, symbol table and code.

    Args:
        config: Sections `audio` and `features`, except for settings of storage.
        code: Hash of the source code of extraction; '' if it is known to be unchanged.
    """
    features = config.features.extraction()
    weights = Path(config.features.speaker_encoder_weights)
    if not config.features.speaker_encoder_sha256 and weights.is_file():  # detects changed weights at the same path
        features["speaker_encoder_sha256"] = sha256_of_file(weights)
    return settings_hash(config.audio, {"features": features, "symbols": symbols_hash(), "code": code})


def clip_key(extraction: str, digest: str, clip: Clip) -> str:
    """Returns 32 hex digits that identify all inputs of a clip's features.

    Id, speaker and split are not among them: they are stored in the index only.

    Args:
        extraction: From `extraction_hash`.
        digest: Digest of the recording, from `Recordings.digest`.
        clip: Its text and language.
    """
    inputs = json.dumps([extraction, digest, clip.text, clip.language])
    return hashlib.sha256(inputs.encode()).hexdigest()[:32]


def unusable(clip: Clip, reason: str) -> FeatureError:
    """Returns the error for a clip that cannot be used."""
    return FeatureError(f"clip {clip.id}: {reason}; run `dvc repro` so that validation sets it aside")
