"""Records that pipeline steps hand on to later steps: one frozen dataclass per step, stored as versioned JSON.

Steps hand on records of paths and hashes, never audio or weights. A later step receives each record that it needs as an
input of its own.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import ConfigDict, TypeAdapter, ValidationError

from components.state import read_json
from model.errors import MyXTTSError
from model.files import write_json

RECORD, FORMAT = "record", "format"
"""Keys of a file that name the record's class and the version of its fields."""
SPOOL = "mlflow"
"""Folder of a training, or of a fine-tuning, that holds the records for MLflow."""
_FIX = "run the pipeline again, with the same version of this program in all of its steps"


class StepError(MyXTTSError):
    """A step cannot continue; the message says what is wrong, where, and what to do."""


@dataclass(frozen=True, kw_only=True)
class StepOutput:
    """Base of the records.

    Attributes:
        summary: One line of text, which is shown with the step.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)
    VERSION: ClassVar[int] = 1
    """Raised whenever the fields of the record change."""
    NOT_SHOWN: ClassVar[frozenset[str]] = frozenset()
    """Fields that are too long for a page."""

    summary: str

    def plain(self) -> dict[str, Any]:
        """Returns the fields as JSON data; paths become strings."""
        return TypeAdapter(type(self)).dump_python(self, mode="json")

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Self:
        """Returns the record with these fields, as `plain` returned them."""
        return TypeAdapter(cls).validate_json(json.dumps(values))

    def metadata(self) -> dict[str, str]:
        """Returns the text fields, which KFP shows beside the artifact and keeps in its cache."""
        shown = ((name, value) for name, value in self.plain().items() if name not in self.NOT_SHOWN)
        return {name: value for name, value in shown if isinstance(value, str)}

    def write(self, path: str | Path) -> Path:
        """Writes the record to a JSON file and returns its path."""
        return write_json(Path(path), {RECORD: type(self).__name__, FORMAT: self.VERSION, **self.plain()})

    @classmethod
    def path_fields(cls) -> tuple[str, ...]:
        """Returns the names of the fields that hold paths."""
        return tuple(field.name for field in fields(cls) if field.type is Path)

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Reads a record that `write` wrote, and checks that everything it points to still exists.

        Raises:
            StepError: the file holds another record or version, a field is missing, unknown or of the wrong type, or a
                path that it names is gone.
            StateError: the file is missing or is not JSON.
        """
        content = read_json(Path(path), Any)
        if not isinstance(content, dict):
            raise StepError(f"{path}: holds a {type(content).__name__} instead of a {cls.__name__}; {_FIX}")
        found = (content.pop(RECORD, None), content.pop(FORMAT, None))
        if found != (cls.__name__, cls.VERSION) or type(found[1]) is not int:
            raise StepError(
                f"{path}: {RECORD} {found[0]} of {FORMAT} {found[1]}, but {cls.__name__} of {FORMAT} {cls.VERSION} is "
                f"expected; {_FIX}"
            )
        try:
            record = cls.from_plain(content)
        except ValidationError as error:
            problems = "; ".join(f"`{'.'.join(map(str, item['loc']))}`: {item['msg']}" for item in error.errors())
            raise StepError(f"{path}: {cls.__name__} {problems}; {_FIX}") from error
        for name in cls.path_fields():
            if not getattr(record, name).exists():
                raise StepError(
                    f"{path}: `{name}` is {getattr(record, name)}, which is gone although the pipeline's cache still "
                    "refers to it; run the pipeline again (it drops stale cache entries when it starts)"
                )
        return record


@dataclass(frozen=True, kw_only=True)
class ConfigureOutput(StepOutput):
    """The resolved parameters of a run.

    Attributes:
        data_hash: DVC hash of the data (`<md5>.dir`).
        evaluation_data: DVC hash of the data that voices are evaluated on.
        model_name: Registered model.
        configuration: JSON: dotted key -> `value` and `origin` of every setting that a step reads.
        preprocess_settings, train_settings, finetune_vocoder_settings, evaluate_settings, gate_settings: JSON of the
            settings of each step.
    """

    NOT_SHOWN: ClassVar[frozenset[str]] = frozenset(
        (
            "configuration",
            "preprocess_settings",
            "train_settings",
            "finetune_vocoder_settings",
            "evaluate_settings",
            "gate_settings",
        )
    )

    data_hash: str
    evaluation_data: str
    model_name: str
    configuration: str
    preprocess_settings: str
    train_settings: str
    finetune_vocoder_settings: str
    evaluate_settings: str
    gate_settings: str


@dataclass(frozen=True, kw_only=True)
class ResolveDataOutput(StepOutput):
    """The corpus, fetched by its hash.

    Attributes:
        corpus: Folder of the corpus.
        data_hash: DVC hash of its content (`<md5>.dir`).
        examination: Folder of the corpus that voices are evaluated on (`evaluation.corpus`), by default the same.
        examination_hash: DVC hash of its content.
    """

    VERSION: ClassVar[int] = 2

    corpus: Path
    data_hash: str
    examination: Path
    examination_hash: str


@dataclass(frozen=True, kw_only=True)
class PreprocessPartOutput(StepOutput):
    """Shards of one part of the corpus, without an index.

    Attributes:
        shards: Folder that holds them.
        part: `2/4` is the third of four equal parts.
    """

    shards: Path
    part: str


@dataclass(frozen=True, kw_only=True)
class PreprocessOutput(StepOutput):
    """A feature store.

    Attributes:
        features: Folder of the store.
        features_hash: Hash of its content.
        examination: Folder of the store of the corpus that voices are evaluated on, by default the same.
        examination_hash: Hash of its content.
    """

    VERSION: ClassVar[int] = 2

    features: Path
    features_hash: str
    examination: Path
    examination_hash: str


@dataclass(frozen=True, kw_only=True)
class TrainOutput(StepOutput):
    """A trained acoustic model.

    Attributes:
        training: Folder of the training: checkpoints, history, plots.
        voice: The exported voice, without a vocoder of its own.
        weights_sha256: SHA-256 of the voice's weights.
        run_id: MLflow run of the training; '' while the tracking server has not answered.
    """

    training: Path
    voice: Path
    weights_sha256: str
    run_id: str

    @property
    def spool(self) -> Path:
        """Folder of the records that go to the training's MLflow run."""
        return self.training / SPOOL


@dataclass(frozen=True, kw_only=True)
class FinetuneVocoderOutput(StepOutput):
    """A voice with its vocoder.

    Attributes:
        voice: Folder of the voice.
        voice_hash: Identifies weights, vocoder and settings of the voice.
    """

    voice: Path
    voice_hash: str


@dataclass(frozen=True, kw_only=True)
class EvaluateOutput(StepOutput):
    """The evaluation of a voice.

    Attributes:
        evaluation: Folder with `metrics.json` and `report.html`.
    """

    evaluation: Path


@dataclass(frozen=True, kw_only=True)
class RegisterOutput(StepOutput):
    """A version of a registered model.

    Attributes:
        name: Registered model.
        version: Number of the version.
    """

    name: str
    version: str


@dataclass(frozen=True, kw_only=True)
class GateOutput(StepOutput):
    """The decision of a passed gate, and the folders of the results that it is based on.

    Attributes:
        name: Registered model.
        version: Version that was checked.
        champion: Champion after the decision.
        champion_before: Champion that the version was compared with; '' for none.
        report: The gate's report (`gate.json`).
        training: Folder of the training.
        evaluation: Folder of the evaluation.
    """

    name: str
    version: str
    champion: str
    champion_before: str
    report: Path
    training: Path
    evaluation: Path


@dataclass(frozen=True, kw_only=True)
class PrepareStudyOutput(StepOutput):
    """A study with all its trials, in the storage of studies.

    Attributes:
        study: Name of the study.
    """

    study: str


@dataclass(frozen=True, kw_only=True)
class StudyWorkerOutput(StepOutput):
    """The end of a worker: no trial of the study was left.

    Attributes:
        study: Name of the study.
        worker: `1/2` is the first of two workers.
    """

    study: str
    worker: str


@dataclass(frozen=True, kw_only=True)
class ConcludeStudyOutput(StepOutput):
    """The result of a study.

    Attributes:
        study: Name of the study.
        trial: Number of its best trial.
        page: Page with the trials and their plots.
        best: File for `--config` with the settings of the best trial.
        train_settings: `TrainSettings` of a whole training with these settings, as JSON.
        origin: Tags that name study and trial on the model of such a training, as JSON.
    """

    study: str
    trial: str
    page: Path
    best: Path
    train_settings: str
    origin: str


RECORDS: tuple[type[StepOutput], ...] = (
    ConfigureOutput,
    ResolveDataOutput,
    PreprocessPartOutput,
    PreprocessOutput,
    TrainOutput,
    FinetuneVocoderOutput,
    EvaluateOutput,
    RegisterOutput,
    GateOutput,
    PrepareStudyOutput,
    StudyWorkerOutput,
    ConcludeStudyOutput,
)
PATH_FIELDS = frozenset(name for record in RECORDS for name in record.path_fields())
"""Names of the fields that hold paths, in any of the records."""
