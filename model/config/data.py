"""Settings of the data on its way to features: corpus, validation, split, audio, features."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from model.config import Positive, Section, Share, StepSettings

CorpusFormat = Literal[
    "generated", "common_voice", "aishell3", "vctk", "libritts", "myxtts_v1", "ljspeech", "kaldi", "table",
    "text_files", "mixed",
]  # fmt: skip
"""How a corpus comes: spoken by a synthesiser, in a layout of recordings, or as several corpora in one."""


class SourceConfig(Section):
    """One corpus of a mixed one."""

    format: CorpusFormat
    """Its layout."""
    path: str
    """Its folder, relative to `corpus.path`."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]*$")] = ""
    """Prefix of its clips and speakers; the folder's name where empty."""
    language: str = ""
    """Language of what names none itself; `corpus.language` where empty."""
    speaker: str = ""
    """Speaker of what names none itself; the source's name where empty."""


class CorpusConfig(Section):
    """Where speech comes from: the `ingest` stage."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")] = "generated"
    """Names the corpus in reports, experiments and the registry."""
    format: CorpusFormat = "generated"
    """`generated` speaks sentences with a synthesiser; `mixed` reads `corpus.sources`; else a layout of recordings."""
    path: str = ""
    """Folder of the recordings; for `generated`, of the lists `sentences_<language>.txt` (empty: those shipped)."""
    sources: tuple[SourceConfig, ...] = ()
    """The corpora that a `mixed` one consists of, each in a folder below `corpus.path`."""
    language: str = "en"
    """Language of recordings that name none (espeak-ng voice name)."""
    speaker: str = "speaker"
    """Speaker of recordings that name none."""
    split_longer_than: Annotated[float, Field(ge=0)] = 0.0
    """Recordings of more seconds are divided at pauses that their punctuation explains; 0 leaves all whole."""
    engine: Literal["auto", "espeak", "flite"] = "auto"
    """Speaks the generated English: `auto` takes flite where installed, else espeak-ng. Persian is espeak-ng's."""
    english_voices: Positive = 2
    """Generated English voices (flite: slt, rms, awb, kal16 in that order)."""
    persian_voices: Annotated[int, Field(ge=0)] = 1
    """Generated Persian voices."""
    sentences_per_voice: Positive = 90
    """Generated sentences of each voice."""


class ValidationConfig(Section):
    """What a clip must satisfy: the `validate` stage. Times in seconds."""

    min_seconds: Annotated[float, Field(gt=0)] = 0.5
    max_seconds: Annotated[float, Field(gt=0)] = 15.0
    """Longer clips are set aside, never cut: a cut clip would keep its whole text."""
    min_sample_rate: Positive = 16000
    """A source below this rate has no content where the mel bands are."""
    min_characters_per_second: float = 4.0
    max_characters_per_second: float = 30.0
    max_clipped_share: Share = 0.001
    """Share of samples at full scale."""
    min_level_db: float = -45.0
    """Quieter clips (root mean square, dB full scale) count as silent."""
    max_offset: Annotated[float, Field(gt=0)] = 0.02
    """Mean of the samples (direct current) beyond which a clip is suspect, of full scale."""
    min_contrast_db: float = 15.0
    """Speech less than this above the quietest frames (5th and 95th percentile) is suspect: noise, echo or music."""
    max_edge_silence: Annotated[float, Field(ge=0)] = 1.0
    """Longer silence before or after the speech is noted."""
    max_level_deviation_db: Annotated[float, Field(gt=0)] = 9.0
    """A clip further than this from its speaker's usual level is suspect."""
    max_speed_deviation: Annotated[float, Field(gt=0)] = 5.0
    """A clip further than this from its language's usual characters per second is suspect (robust deviations)."""
    max_foreign_share: Share = 0.5
    """A text with a larger share of letters of another script than its language's is suspect."""
    check_speakers: bool = False
    """Compare each clip's voice with its speaker's others; runs a network, some thirty times real time on a core."""
    min_speaker_similarity: Annotated[float, Field(ge=-1, le=1)] = 0.8
    """A clip less similar than this to its speaker's others, and more so to another speaker's, is suspect."""
    report_players: Annotated[int, Field(ge=0)] = 24
    """Flagged clips that can be heard in the report, the worst first."""
    tolerated_bad_share: Share = 0.05
    """A larger share of bad clips stops the run."""

    @model_validator(mode="after")
    def _consistent(self) -> ValidationConfig:
        for least, most in (
            ("min_seconds", "max_seconds"),
            ("min_characters_per_second", "max_characters_per_second"),
        ):
            if getattr(self, least) >= getattr(self, most):
                raise ValueError(
                    f"validation.{least} ({getattr(self, least)}) is not below validation.{most} "
                    f"({getattr(self, most)}): no clip would pass"
                )
        return self


class SplitConfig(Section):
    """Which clips are held out: the `split` stage. Assignment is by hash, so added data keeps old clips in place."""

    validation_share: Share = 0.06
    test_share: Share = 0.06
    min_held_out: Positive = 4
    """Least number of clips in each held-out split."""
    held_out_speakers: Share = 0.05
    """Share of the speakers that are never trained on, in languages with at least ten: cloning is judged by them."""


class AudioConfig(Section):
    """The one mel extractor (HiFi-GAN convention). Its hash travels with features, checkpoints and vocoders."""

    sample_rate: Positive = 22050
    n_fft: Positive = 1024
    hop_length: Positive = 256
    win_length: Positive = 1024
    n_mels: Positive = 80
    fmin: Annotated[float, Field(ge=0)] = 0.0
    fmax: Annotated[float, Field(gt=0)] = 8000.0

    @model_validator(mode="after")
    def _consistent(self) -> AudioConfig:
        if self.hop_length > self.win_length:
            raise ValueError(
                f"audio.hop_length ({self.hop_length}) is longer than audio.win_length ({self.win_length}): what lies "
                "between two windows would not be heard; lower it"
            )
        if self.win_length > self.n_fft:
            raise ValueError(
                f"audio.win_length ({self.win_length}) is longer than audio.n_fft ({self.n_fft}); lower it"
            )
        if self.fmax > self.sample_rate / 2:
            raise ValueError(
                f"audio.fmax ({self.fmax}) is above half of audio.sample_rate ({self.sample_rate}); lower it"
            )
        if self.fmin >= self.fmax:
            raise ValueError(f"audio.fmin ({self.fmin}) is not below audio.fmax ({self.fmax})")
        return self


class FeaturesConfig(Section):
    """Corpus to shards: pitch search range, loudness, speaker vectors, shard size."""

    STORAGE: ClassVar[frozenset[str]] = frozenset(
        {"shard_megabytes", "remote", "cache_megabytes", "speaker_encoder_weights"}
    )
    """Settings of where things are; all others shape the values of features (weights do by their checksum)."""

    pitch_fmin: Annotated[float, Field(gt=0)] = 60.0
    pitch_fmax: Annotated[float, Field(gt=0)] = 500.0
    """Search range of the fundamental frequency in Hz."""
    trim_silence_db: Annotated[float, Field(ge=0)] = 40.0
    """Leading and trailing silence more than this below the peak is trimmed to `trim_margin`; 0 keeps it."""
    trim_margin: Annotated[float, Field(ge=0)] = 0.08
    """Seconds of silence kept at each end."""
    target_loudness: Annotated[float, Field(ge=-60, le=0)] = 0.0
    """Loudness in LUFS (ITU-R BS.1770) that every clip is brought to, never clipping; 0 leaves the recordings as they
    are. For corpora of uneven level; -23 is a usual target."""
    speaker_encoder_model: Literal["resemblyzer", "deep_speaker"] = "resemblyzer"
    """Pretrained speaker encoder whose vectors condition the model: Resemblyzer's GE2E network (256 values, its wheel
    carries the weights) or Deep Speaker's ResCNN (512 values, weights to be fetched)."""
    speaker_encoder_weights: str = ""
    """File of its weights; empty takes those of the installed wheel. Of Deep Speaker the published Keras file."""
    speaker_encoder_sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    """SHA-256 of that file, which is refused if it differs. Deep Speaker requires it; otherwise it is computed when
    features are built, so that other weights under the same path are not taken for these."""
    shard_megabytes: Positive = 256
    """A shard is closed once it holds this much."""
    remote: Annotated[str, Field(pattern=r"^(s3://[^/]+(/.*)?)?$")] = ""
    """Address (`s3://bucket/prefix`) that shards are moved to, for features that do not fit the disk: training then
    reads them through a cache. Empty keeps them in the state folder."""
    cache_megabytes: Positive = 8192
    """With `remote`: what the cache of shards may hold."""

    @model_validator(mode="after")
    def _consistent(self) -> FeaturesConfig:
        if self.pitch_fmin >= self.pitch_fmax:
            raise ValueError(
                f"features.pitch_fmin ({self.pitch_fmin}) is not below features.pitch_fmax ({self.pitch_fmax})"
            )
        if self.speaker_encoder_sha256 and not self.speaker_encoder_weights:
            raise ValueError("features.speaker_encoder_sha256 is of no file; set features.speaker_encoder_weights")
        if self.speaker_encoder_model == "deep_speaker" and not self.speaker_encoder_sha256:
            raise ValueError(
                "features.speaker_encoder_model deep_speaker comes without weights: get "
                "ResCNN_triplet_training_checkpoint_265.h5 (linked by https://github.com/philipperemy/deep-speaker), "
                "set features.speaker_encoder_weights to it and features.speaker_encoder_sha256 to its sha256sum"
            )
        return self

    def extraction(self) -> dict[str, Any]:
        """The settings that shape the values of features. No checksum says nothing: it is left out, so that stores from
        before there was one stay what they are."""
        shaping = {name: value for name, value in self.model_dump(mode="json").items() if name not in self.STORAGE}
        if not self.speaker_encoder_sha256:
            del shaping["speaker_encoder_sha256"]
        return shaping


class PreprocessSettings(StepSettings):
    """Settings that the extraction of features reads."""

    audio: AudioConfig
    features: FeaturesConfig
