"""Starting a training from the weights of another voice.

The optimizer, the schedule and the loss weights are initialized anew, whereas a resumed run restores all of them
(`TrainingState.resume`). Languages are matched by name; symbols and speakers need no matching, since the symbol table
is fixed and speakers are embeddings of their recordings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from model.acoustic.model import AcousticModel, ModelDimensions
from model.config.acoustic import ModelConfig
from model.config.training import TrainSettings
from model.errors import MyXTTSError
from model.features.store import FeatureStore
from model.files import read_record, write_json
from model.text.symbols import NUM_STRESSES, NUM_SYMBOLS
from model.voice import DESCRIPTION, Speaker, Voice, VoiceDescription, VoiceError, read_voice

LANGUAGES = "conditioning.language_embedding.weight"
MODULES = {
    "embeddings": ("symbol_embedding", "stress_embedding"),
    "encoder": ("encoder",),
    "aligner": ("aligner",),
    "predictors": ("duration_predictor", "pitch_predictor", "energy_predictor", "predictor_condition"),
    "decoder": ("decoder", "position_in_token", "frame_merge", "mel_head"),
}
"""Part of the model as `training.freeze` names it -> its modules."""
TEXT_PARTS = ("embeddings", "encoder", "predictors")
"""Parts that read the text. The base learned them from many sentences; a few clips tend to make them worse."""


MIN_SIMILARITY = 0.85
"""Cosine (Resemblyzer) between the speech of the new voice and that of the base, above which a speaker is kept."""
SpeakerComparison = Callable[[Voice, AcousticModel, Sequence[str], FeatureStore], dict[str, float]]
"""Returns the similarity of each speaker's speech before and after a training (`model.training.kept_speakers`)."""
MAY_DIFFER = frozenset(
    name for name in ModelConfig.model_fields if "dropout" in name or name == "use_speaker_consistency_loss"
)
"""Settings of the model that may differ from the base's, since no tensor depends on them."""


class AdaptationError(MyXTTSError):
    """A training cannot start from this voice; the message names both sides and what to change."""


@dataclass(frozen=True, kw_only=True)
class AdaptationReport:
    """Record of the weights and languages that a training took from its base voice.

    Attributes:
        base: Folder or registry address of the base voice.
        copied: Number of parameters (scalars) that were copied.
        languages: Language -> `copied`, `added` (starts at the mean of the base's) or `dropped`.
        speakers: Speaker of the base -> `dropped`, after the training also `in the corpus` (which has a speaker of this
            name) or `kept` (`training.keep_speakers`), and how much the new voice's speaker resembles it.
        added: Tensors that the base lacks; they start at random.
        left_out: Tensors of the base that this model lacks.
    """

    base: str
    copied: int
    languages: dict[str, str]
    speakers: dict[str, str]
    added: list[str]
    left_out: list[str]

    def summary(self) -> str:
        """Returns the report as one line."""
        languages = ", ".join(f"{name} {what}" for name, what in self.languages.items())
        return (
            f"starts from {self.base}: {self.copied / 1e6:.2f} M parameters copied, {len(self.added)} tensors added, "
            f"{len(self.left_out)} left out; languages: {languages}"
        )

    def speakers_summary(self) -> str:
        """Returns which speakers of the base were kept or dropped, as one line."""
        return "speakers of the base: " + ", ".join(f"{name} {what}" for name, what in self.speakers.items())


class StartingPoint:
    """Source of the initial weights of a training: a base voice, or random initialization.

    Args:
        store: Features of the training.
        config: Settings of the training.
        base: Folder of the base voice; None trains from scratch.
        compare_speakers: Compares the base's speakers before and after, for `training.keep_speakers`.

    Attributes:
        languages: Languages of the model: those of the features, then those kept from the base.
        dimensions: Sizes and statistics of the model.
        own_speakers: Speakers of the corpus, which the voice lists in any case.
        lineage: The base and its own ancestors, youngest first, as `voice.json` records them.
        similarities: Speaker of the base -> similarity of its speech after the training to the base's; empty before,
            and without `training.keep_speakers`.
        licenses: Licenses of the recordings that the base and its ancestors were trained on.
        kept: Speakers of the base that the new voice lists.
        training_sentences: Hashes of the sentences that the base was trained on.

    Raises:
        AdaptationError: the base was made with other mel settings or another speaker encoder, a setting needs a base
            and there is none, or `training.keep_speakers` is on without `compare_speakers`.
        VoiceError: the base is missing or damaged.
    """

    def __init__(
        self,
        store: FeatureStore,
        config: TrainSettings,
        base: Path | None = None,
        compare_speakers: SpeakerComparison | None = None,
    ) -> None:
        self.compare_speakers, self.own_speakers = compare_speakers, frozenset(store.speakers)
        if base and config.training.keep_speakers and compare_speakers is None:
            raise AdaptationError(
                "training.keep_speakers needs a comparison of speakers; pass `compare_speakers`, or set it to false"
            )
        self.base, self.folder = (read_voice(base) if base else None), base
        self.languages = list(store.languages)
        self.lineage: list[dict[str, Any]] = []
        self.config, self.similarities, self.kept = config.training, dict[str, float](), list[str]()
        self.licenses = self.base.licenses if self.base else []
        self.training_sentences: frozenset[str] = frozenset()
        self.dimensions = model_dimensions(store)
        if self.base is None or base is None:
            if self.config.base_interpolation:
                raise AdaptationError(
                    f"training.base_interpolation is {self.config.base_interpolation:g}, but there is no base voice; "
                    "give one (training.start_from), or set it to 0"
                )
            return
        self._check(self.base, store, config)
        if config.training.keep_languages:
            self.languages += [name for name in self.base.languages if name not in self.languages]
        # The base's mel statistics: with seconds of speech, others would change what its weights compute.
        self.dimensions = replace(
            self.dimensions,
            num_languages=len(self.languages),
            mel_mean=self.base.dimensions.mel_mean,
            mel_std=self.base.dimensions.mel_std,
        )
        self.lineage = [describe_base(base, config.training.start_from), *self.base.lineage]
        self.training_sentences = self.base.training_sentences or frozenset()
        wanted = config.training.start_from_sha256
        if wanted and wanted != self.identity:
            raise AdaptationError(
                f"{base}: holds weights with SHA-256 {self.identity}, but training.start_from_sha256 is {wanted}; the "
                "voice was retrained or replaced: start the run again, or give the version that it was started with"
            )

    @property
    def identity(self) -> str:
        """Hash of the base's weights, part of a run's fingerprint; empty without a base."""
        return self.lineage[0]["weights_sha256"] if self.lineage else ""

    def check_rehearsal(self, rehearsed: FeatureStore | None) -> None:
        """Checks that rehearsal has features, and that they are those of the base.

        Raises:
            AdaptationError: they are not.
        """
        share = self.config.rehearsal
        if (share > 0) != (rehearsed is not None):
            raise AdaptationError(
                f"training.rehearsal is {share:g}, but {'no' if rehearsed is None else 'a'} feature store of a base "
                "voice is given; rehearsal needs a voice to start from (training.start_from); else set it to 0"
            )
        if rehearsed is None:
            return
        wanted = features_hash(self.base) if self.base else ""
        if rehearsed.content_hash != wanted:
            raise AdaptationError(
                f"{rehearsed.path}: holds features {rehearsed.content_hash}, but the base {self.folder} was trained on "
                f"{wanted or 'unknown ones'}; give those, or set training.rehearsal to 0"
            )

    def keep_speakers(self, model: AcousticModel, store: FeatureStore) -> dict[str, Speaker]:
        """Returns the speakers of the base that the new voice lists, if `training.keep_speakers` is on.

        These are the ones whose speech resembles the base's, whose language the new voice speaks, and whose name no
        speaker of the corpus has.

        Args:
            model: The trained model, on the CPU.
            store: Features of the corpus.
        """
        if self.base is None or self.compare_speakers is None or not self.config.keep_speakers:
            return {}
        self.similarities = self.compare_speakers(self.base, model, self.languages, store)
        self.kept = [
            name
            for name, similarity in self.similarities.items()
            if similarity >= MIN_SIMILARITY
            and self.base.speaker_languages[name] in self.languages
            and name not in self.own_speakers
        ]
        return {name: self.base.speakers[name] for name in self.kept}

    def interpolate(self, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Returns trained weights whose text parts are moved towards the base by `training.base_interpolation`.

        Weights that are fine-tuned on little data generalize better when they are averaged with those that they started
        from (Wortsman et al., "Robust Fine-Tuning of Zero-Shot Models", arXiv:2109.01903). All parts are trained all
        the same: with a frozen encoder, the decoder would have to fit what is peculiar to the few sentences.
        """
        share = self.config.base_interpolation
        if self.base is None or not share:
            return weights
        theirs = self.base.model.state_dict()
        prefixes = _prefixes(TEXT_PARTS)
        return {
            name: torch.lerp(tensor, theirs[name].to(tensor), share)
            if name.startswith(prefixes) and name in theirs
            else tensor
            for name, tensor in weights.items()
        }

    def with_speakers(self, report: AdaptationReport) -> AdaptationReport:
        """Returns the report with the final status of the base's speakers, and their similarity."""
        known, own = self.similarities, self.own_speakers
        return replace(
            report,
            speakers={
                name: ("kept" if name in self.kept else "in the corpus" if name in own else "dropped")
                + (f", similarity {known[name]:.2f} to the base's" if name in known else "")
                for name in report.speakers
            },
        )

    def _check(self, base: Voice, store: FeatureStore, config: TrainSettings) -> None:
        if base.config.audio != store.audio:
            raise AdaptationError(
                f"{self.folder}: made with other mel settings ({base.config.audio.model_dump()}) than these features "
                f"({store.audio.model_dump()}); build the features with the base's settings, or set "
                "training.start_from to none"
            )
        ours, theirs = config.model.model_dump(), base.config.model.model_dump()
        different = [key for key in ours if ours[key] != theirs[key] and key not in MAY_DIFFER]
        if different:
            pairs = "; ".join(f"model.{key} is {ours[key]}, the base has {theirs[key]}" for key in different)
            raise AdaptationError(
                f"{self.folder}: the base does not fit this model: {pairs}. Leave these settings out (they then come "
                "from the base), choose another base, or set training.start_from to none"
            )
        sizes = base.dimensions.speaker_vector_dim, self.dimensions.speaker_vector_dim
        if sizes[0] != sizes[1]:
            raise AdaptationError(
                f"{self.folder}: reads speaker embeddings of {sizes[0]} values, these features hold {sizes[1]}; use "
                "the base's features.speaker_encoder_model"
            )

    def initialize(self, model: AcousticModel) -> AdaptationReport | None:
        """Copies the base's weights into a freshly constructed model; returns None without a base."""
        if self.base is None:
            return None
        theirs, ours = self.base.model.state_dict(), model.state_dict()
        copied = {name: tensor for name, tensor in theirs.items() if name in ours and name != LANGUAGES}
        copied[LANGUAGES] = _language_rows(theirs[LANGUAGES], self.base.languages, self.languages)
        model.load_state_dict(copied, strict=False)
        known = set(self.base.languages)
        languages = {name: "copied" if name in known else "added" for name in self.languages}
        return AdaptationReport(
            base=self.lineage[0]["uri"],
            copied=sum(tensor.numel() for tensor in copied.values()),
            languages=languages | {name: "dropped" for name in self.base.languages if name not in self.languages},
            speakers=dict.fromkeys(self.base.speakers, "dropped"),
            added=sorted(set(ours) - set(copied)),
            left_out=sorted(set(theirs) - set(copied)),
        )


def model_dimensions(store: FeatureStore) -> ModelDimensions:
    """Returns the sizes and statistics of a model that is trained from scratch on these features."""
    return ModelDimensions(
        num_symbols=NUM_SYMBOLS,
        num_stresses=NUM_STRESSES,
        num_languages=len(store.languages),
        speaker_vector_dim=store.speaker_vectors.shape[1],
        n_mels=store.audio.n_mels,
        mel_mean=store.statistics.mel_mean,
        mel_std=store.statistics.mel_std,
    )


def features_hash(voice: VoiceDescription) -> str:
    """Returns the content hash of the features that a voice was trained on; '' if it is not recorded."""
    return str(voice.trained_with.get("features_hash", ""))


def describe_base(folder: Path, uri: str) -> dict[str, Any]:
    """Returns the entry of a lineage that names a base voice."""
    base = read_record(folder / DESCRIPTION, _Base, VoiceError, "damaged; fetch or export the voice again")
    return {"uri": str(folder) if uri in ("", "none", "auto") else uri, **asdict(base)}


@dataclass(frozen=True, kw_only=True)
class _Base:
    """Entry of a lineage: one voice."""

    weights_sha256: str
    steps: int
    languages: list[str]


def freeze(model: nn.Module, parts: Sequence[str]) -> list[str]:
    """Excludes parts of a model from training.

    Args:
        model: The acoustic model.
        parts: Keys of `MODULES`.

    Returns:
        Names of the frozen parameters.
    """
    prefixes = _prefixes(parts)
    frozen = [name for name, _ in model.named_parameters() if name.startswith(prefixes)]
    for name in frozen:
        model.get_parameter(name).requires_grad_(False)
    return frozen


def _prefixes(parts: Sequence[str]) -> tuple[str, ...]:
    """Returns the beginnings of the names of the parameters in some parts of the model."""
    return tuple(f"{module}." for part in parts for module in MODULES[part])


def write_report(folder: Path, report: AdaptationReport) -> Path:
    """Writes `adaptation.json` into a run's folder."""
    return write_json(folder / "adaptation.json", asdict(report))


def _language_rows(table: torch.Tensor, known: Sequence[str], wanted: Sequence[str]) -> torch.Tensor:
    """Returns the embeddings (wanted, D) of languages, by name from (known, D); a new one is the mean of the known."""
    rows = {name: table[index] for index, name in enumerate(known)}
    return torch.stack([rows.get(name, table.mean(0)) for name in wanted])
