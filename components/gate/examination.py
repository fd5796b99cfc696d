"""Evaluates a candidate and earlier champions on the same sentences, which none of them was trained on."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from components.contracts import PreprocessOutput, ResolveDataOutput
from components.gate.comparison import Evaluation
from components.registry import Registry, Version
from components.state import State, read_json
from model.config.evaluation import EvaluateSettings
from model.errors import MyXTTSError
from model.voice_folder import read_training_sentences


class ExaminationError(MyXTTSError):
    """Two voices cannot be compared, since it is not known which sentences one of them was trained on."""


@dataclass(frozen=True, kw_only=True)
class VoiceEvaluation:
    """An evaluation on disk.

    Attributes:
        folder: Folder with `metrics.json` and the audio.
        metrics: Contents of `metrics.json`.
    """

    folder: Path
    metrics: Evaluation

    @classmethod
    def read(cls, folder: Path) -> "VoiceEvaluation":
        """Reads an evaluation."""
        return cls(folder=folder, metrics=read_json(folder / "metrics.json"))


@dataclass(frozen=True, kw_only=True)
class ComparedVoice:
    """A voice that takes part in a comparison.

    Attributes:
        name: Name for messages.
        folder: Folder of the voice.
        voice_hash: Identifies the voice, its vocoder and its settings.
        data_hash: Corpus that it was trained on; '' if unknown.
    """

    name: str
    folder: Path
    voice_hash: str
    data_hash: str

    @classmethod
    def of_version(cls, registry: Registry, version: Version) -> "ComparedVoice":
        """Downloads the voice of a registered version."""
        return cls(
            name=f"{version.name} version {version.number}",
            folder=registry.voice_folder(f"models:/{version.name}/{version.number}"),
            voice_hash=version.tags["voice.sha256"],
            data_hash=version.tags.get("dvc.data", ""),
        )


def examine(
    state: State,
    registry: Registry,
    candidate: Version,
    opponents: Iterable[Version],
    corpus: ResolveDataOutput,
    store: PreprocessOutput,
    settings: EvaluateSettings,
) -> tuple[VoiceEvaluation, Mapping[str, VoiceEvaluation]]:
    """Evaluates a candidate and its opponents; earlier evaluations on the same sentences are reused.

    Returns:
        The evaluation of the candidate, and version number -> evaluation of an opponent.

    Raises:
        ExaminationError: a voice does not record its training sentences and was trained on another corpus.
    """
    from components.evaluate.run import evaluation_of  # imports torch, which the other checks do without

    voices = {version.number: ComparedVoice.of_version(registry, version) for version in (candidate, *opponents)}
    known = [_known_sentences(voice, corpus) for voice in voices.values()]
    seen = frozenset().union(*known)
    found: dict[str, VoiceEvaluation] = {}
    for number, voice in voices.items():
        folder = evaluation_of(
            voice=voice.folder,
            voice_hash=voice.voice_hash,
            corpus=corpus,
            store=store,
            settings=settings,
            state=state,
            step="gate",
            exclude=seen,
        )
        found[number] = VoiceEvaluation.read(folder)
    return found.pop(candidate.number), found


def _known_sentences(voice: ComparedVoice, corpus: ResolveDataOutput) -> frozenset[str]:
    """Returns the training sentences that a voice records; none if it was trained on this corpus by its split."""
    recorded = read_training_sentences(voice.folder)
    if recorded is not None:
        return recorded
    if voice.data_hash != corpus.data_hash:
        raise ExaminationError(
            f"{voice.name} does not record the sentences it was trained on (an older version of this program made it), "
            "and was trained on another corpus, so it may have seen these sentences; train it again, or promote by "
            "hand (`myxtts registry promote`)"
        )
    return frozenset()
