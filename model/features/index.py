"""The index of a feature store: what the shards hold, how it was made, and the statistics that normalise it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from model.config import settings_hash
from model.config.schema import AudioConfig, FeaturesConfig

FORMAT = 1
INDEX = "index.json"
SHARD_KINDS = ("mel", "pitch", "energy", "tokens")
SPEAKER_VECTORS = "speaker_vectors.npy"
SPLITS = ("train", "validation", "test")


class FeatureError(RuntimeError):
    """Features are missing, damaged, or made with other settings; the message names both sides and the cure."""


@dataclass(frozen=True)
class IndexedClip:
    """Where one clip lies in the shards.

    Attributes:
        id: As in the manifest.
        split: One of `SPLITS`.
        text: What is said.
        language: espeak-ng voice name.
        speaker: Speaker name.
        shard: Number of the shard.
        mel_start: First frame in the shard's `mel`, `pitch` and `energy`.
        frames: S.
        token_start: First token in the shard's `tokens`.
        tokens: T.
        seconds: Duration after trimming.
        trimmed: Seconds cut from the start: ground-truth times of the recording are this much later than ours.
    """

    id: str
    split: str
    text: str
    language: str
    speaker: str
    shard: int
    mel_start: int
    frames: int
    token_start: int
    tokens: int
    seconds: float
    trimmed: float


@dataclass(frozen=True)
class Statistics:
    """Means and deviations over the training clips.

    Attributes:
        mel_mean, mel_std: Of all log-mel values.
        energy_mean, energy_std: Of the frames' log energies.
        log_f0: Speaker -> mean and deviation of log F0 (Hz) over voiced frames.
    """

    mel_mean: float
    mel_std: float
    energy_mean: float
    energy_std: float
    log_f0: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class FeatureIndex:
    """All of `index.json`.

    Attributes:
        extractor_hash: Of the mel settings `audio`.
        symbols_hash: Of the symbol table that the token ids refer to.
        features: The settings of pitch, trimming and speaker vectors.
        speakers, languages: Names; a clip's speaker and language numbers are positions in them.
        unknown_symbols: Characters that the symbol table lacks -> how often they were left out.
        checksums: File name -> SHA-256 of every array file.
        content_hash: Identifies all of the above and, through the checksums, every value stored.
    """

    extractor_hash: str
    symbols_hash: str
    audio: AudioConfig
    features: FeaturesConfig
    speakers: list[str]
    languages: list[str]
    statistics: Statistics
    unknown_symbols: dict[str, int]
    clips: list[IndexedClip]
    checksums: dict[str, str]

    @property
    def content_hash(self) -> str:
        return settings_hash(self.content())

    def content(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "extractor_hash": self.extractor_hash,
            "symbols_hash": self.symbols_hash,
            "audio": self.audio.model_dump(mode="json"),
            "features": self.features.model_dump(mode="json"),
            "speakers": self.speakers,
            "languages": self.languages,
            "statistics": asdict(self.statistics),
            "unknown_symbols": self.unknown_symbols,
            "checksums": self.checksums,
            "clips": [asdict(clip) for clip in self.clips],
        }

    def write(self, folder: Path) -> None:
        text = json.dumps({"content_hash": self.content_hash, **self.content()}, ensure_ascii=False, indent=1)
        (folder / INDEX).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> FeatureIndex:
        """The index of a feature store.

        Raises:
            FeatureError: there is none, it is of another format, or it was changed after it was written.
        """
        path = folder / INDEX
        try:
            data = json.loads(path.read_text("utf-8"))
        except FileNotFoundError as error:
            raise FeatureError(f"{path}: no features here; run `myxtts features build`") from error
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise FeatureError(f"{path}: damaged ({error}); build the features again") from error
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            found = data.get("format") if isinstance(data, dict) else type(data).__name__
            raise FeatureError(f"{path}: features of format {found}, this version reads {FORMAT}; build them again")
        written = data.pop("content_hash", None)
        try:
            statistics = data["statistics"]
            pairs = {name: tuple(pair) for name, pair in statistics["log_f0"].items()}
            index = cls(
                audio=AudioConfig.model_validate(data["audio"]),
                features=FeaturesConfig.model_validate(data["features"]),
                statistics=Statistics(**{**statistics, "log_f0": pairs}),
                clips=[IndexedClip(**clip) for clip in data["clips"]],
                **{key: data[key] for key in ("extractor_hash", "symbols_hash", "speakers", "languages")},
                **{key: data[key] for key in ("unknown_symbols", "checksums")},
            )
        except (KeyError, TypeError, ValueError) as error:
            raise FeatureError(f"{path}: damaged ({error}); build the features again") from error
        if index.content_hash != written:
            raise FeatureError(f"{path}: changed after it was written ({written}, now {index.content_hash})")
        return index


def shard_name(kind: str, number: int) -> str:
    return f"{kind}-{number:03d}.npy"


def file_checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
