"""Recording and text of a clip -> its features: the one extractor, the same for every process and every place."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
from model.features.shards import Extracted, file_checksum
from model.speaker_encoder import SpeakerEncoderError, load_speaker_encoder
from model.text.encode import encode
from model.text.symbols import symbols_hash


class Recordings:
    """The recordings of a corpus in a local folder. Elsewhere is a subclass (picklable: it goes to the workers)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __str__(self) -> str:
        return str(self.folder)

    def clips(self) -> list[Clip]:
        """The clips of the manifest."""
        return read_manifest(self.folder)

    def digest(self, clip: Clip) -> str:
        """MD5 of a clip's file: what DVC calls it by, too."""
        try:
            with (self.folder / clip.audio).open("rb") as file:
                return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        except OSError as error:
            raise unusable(clip, f"{self.folder / clip.audio}: {error.strerror}") from error

    @contextmanager
    def file(self, clip: Clip) -> Iterator[Path]:
        """The clip's file, for as long as the block runs."""
        yield self.folder / clip.audio


class ClipExtractor:
    """Everything extraction needs, loaded once per process."""

    def __init__(self, config: PreprocessSettings) -> None:
        self.audio, self.settings = config.audio, config.features
        self.mel = MelExtractor(config.audio)
        self.speaker_encoder = load_speaker_encoder(config.features)

    def extract(self, recordings: Recordings, clips: Sequence[Clip], keys: Sequence[str]) -> list[Extracted]:
        """Features of a few clips.

        Args:
            recordings: Where their audio is.
            clips: Read one after the other; only the speaker encoder works on all at once.
            keys: Of the clips, as `clip_key` makes them.

        Raises:
            FeatureError: a clip cannot be used; the message names it.
        """
        prepared = [self._prepare(recordings, clip) for clip in clips]
        try:
            vectors = self.speaker_encoder.embed_many([samples for samples, *_ in prepared], self.audio.sample_rate)
        except SpeakerEncoderError as error:
            raise FeatureError(f"clips {clips[0].id} to {clips[-1].id}: {error}") from error
        return [
            Extracted(key, mel, pitch, frame_energy(mel), ids, vector, len(samples), start, gain, unknown)
            for key, (samples, start, gain, mel, pitch, ids, unknown), vector in zip(
                keys, prepared, vectors, strict=True
            )
        ]

    def _prepare(self, recordings: Recordings, clip: Clip) -> tuple:
        try:
            with recordings.file(clip) as path:
                samples = read_audio(path, self.audio.sample_rate)
            start, end, gain = trim_and_gain(samples, self.audio.sample_rate, self.settings)
            samples = trim_and_normalize(samples, start, end, gain)
            tokens = encode(clip.text, clip.language)
            mel = self.mel.numpy(samples)
            if len(mel) < len(tokens.ids):
                raise ValueError(f"{len(tokens.ids)} tokens cannot be spoken in {len(mel)} frames")
            pitch = track_pitch(samples, self.audio, self.settings)
        except (AudioError, TextError, ValueError) as error:
            raise unusable(clip, str(error)) from error
        return samples, start, gain, mel, pitch, tokens.ids.astype(np.int16), tokens.unknown


def recipe(config: PreprocessSettings, code: str) -> str:
    """Identifies all that features depend on besides the clip: settings, symbol table, and the code.

    Args:
        config: Sections `audio` and `features` count, but not how the result is stored.
        code: Hash of the sources that extract, or '' where they are known not to have changed.
    """
    features = config.features.extraction()
    weights = Path(config.features.speaker_encoder_weights)
    if not config.features.speaker_encoder_sha256 and weights.is_file():  # other weights under the same path
        features["speaker_encoder_sha256"] = file_checksum(weights)
    return settings_hash(config.audio, {"features": features, "symbols": symbols_hash(), "code": code})


def clip_key(made_by: str, digest: str, clip: Clip) -> str:
    """32 hex digits that identify what the features of a clip are made from: recipe, recording, text and language.

    Neither the name nor the speaker nor the split is part of it: they are in the index alone.
    """
    plain = json.dumps([made_by, digest, clip.text, clip.language])
    return hashlib.sha256(plain.encode()).hexdigest()[:32]


def unusable(clip: Clip, reason: str) -> FeatureError:
    return FeatureError(f"clip {clip.id}: {reason}; run `dvc repro` so that validation sets it aside")
