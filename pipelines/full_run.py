"""A full run: data stages, training pipeline, and a few sentences synthesized by the new voice."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.base_voice import LANGUAGES
from components.gate.checks import FAILED
from components.registry import CHAMPION, PREVIOUS, Registry
from components.state import read_json, read_or_set_aside
from model.corpus.recordings import clip_id
from model.corpus.sentences import shipped_list
from model.files import write_json
from pipelines.base_voices import COST
from pipelines.local import PipelineError, Reporter, make_target, run_training
from pipelines.project import Project, open_project
from pipelines.run_records import RunRecord

SENTENCES = {
    "en": (
        "The morning train was late, so we walked along the river.",
        "Please bring two cups of tea and a slice of bread.",
        "A good voice is easy to understand and pleasant to hear.",
    ),
    "fa": (
        "امروز هوا خیلی خوب است.",
        "من هر روز صبح یک فنجان چای می‌نوشم.",
        "کتاب روی میز کنار پنجره است.",
    ),
}
"""Sample sentences by language; for other languages the last ones of the shipped list are used, if there is one."""


@dataclass(kw_only=True)
class Outcome:
    """Results of a full run.

    Attributes:
        record: Record of the pipeline run.
        name: Registered model.
        size: Model size.
        error: Why the pipeline failed; '' if it succeeded.
        version: Model version of this run; '' if none was registered.
        champion: Current champion of the model; '' for none.
        previous: Champion before it, to which a rollback returns; '' for none.
        samples: Audio files of the sample sentences -> their texts.
        spoken_by: Model version that synthesized them.
        report: Evaluation report.
        decision: Page of the gate's decision.
        failed: Names of the gate's checks that failed.
        alignment: Newest alignment plot.
        seconds: Part of the run -> wall time in seconds.
        base: Voice that the training started from; '' from scratch.
    """

    record: RunRecord
    name: str
    size: str
    error: str = ""
    version: str = ""
    champion: str = ""
    previous: str = ""
    samples: dict[Path, str] = field(default_factory=dict)
    spoken_by: str = ""
    report: Path | None = None
    decision: Path | None = None
    failed: tuple[str, ...] = ()
    alignment: Path | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    base: str = ""

    def plain(self) -> dict[str, Any]:
        """Returns the results as JSON data."""
        values = {name: value for name, value in vars(self).items() if name not in ("record", "samples")}
        paths = {name: str(values[name]) if values[name] else "" for name in ("report", "decision", "alignment")}
        return {**values, **paths, "samples": [str(path) for path in self.samples], "run": self.record.plain()}


def full_run(
    project: Project, report: Reporter, output: Callable[[str], None], announce: Callable[[str], None]
) -> Outcome:
    """Runs data stages, pipeline and sample sentences; unchanged parts are reused.

    Args:
        project: Project with data and settings.
        report: Called with every change of a pipeline step.
        output: Called with every other line of the steps' output.
        announce: Called with the name of each part when it starts.

    Returns:
        The outcome. If the pipeline failed, `error` says why, and the other fields hold what it made until then.
    """
    seconds: dict[str, float] = {}
    project.require_sound()
    target = make_target("local", project.config)
    announce("data: dvc repro, dvc push")
    with _timed(seconds, "data"):
        project.make_data()
    if project.needs_base:
        with _timed(seconds, "base voice"):
            project = project.with_base(lambda settings: make_base(settings, report, output, announce))
        announce(f"base voice: {project.config.training.start_from} (--start-from names another; none: from scratch)")
    announce("pipeline: Kubeflow Pipelines, local runner")
    error = ""
    with _timed(seconds, "pipeline"):
        try:
            record = run_training(project.state, project.run_arguments(), project.lineage, report, output, target)
        except PipelineError as failure:
            error = str(failure)
            record = failure.record
    outcome = Outcome(
        record=record,
        name=project.model_name,
        size=project.config.model_size,
        error=error,
        seconds=seconds,
        base=project.config.training.start_from if project.needs_base else "",
    )
    result = record.result()
    if not result:
        return outcome
    registry = Registry(project.state)
    outcome.version = result["version"]
    aliases = registry.aliases(outcome.name)
    outcome.champion, outcome.previous = aliases.get(CHAMPION, ""), aliases.get(PREVIOUS, "")
    outcome.report = _existing(Path(result["evaluation"]) / "report.html")
    decided = read_json(Path(result["report"]))
    outcome.decision = _existing(Path(decided["page"]))
    outcome.failed = tuple(check["name"] for check in decided["checks"] if check["result"] == FAILED)
    outcome.alignment = _newest(Path(result["training"]) / "plots", "*.png")
    is_champion = outcome.champion == outcome.version
    outcome.spoken_by = outcome.version
    which = f"@{CHAMPION}" if is_champion else f"/{outcome.version}, the candidate, which was not promoted"
    announce(f"speech: models:/{outcome.name}{which}")
    with _timed(seconds, "speech"):
        outcome.samples = speak(project, registry, outcome.name, outcome.spoken_by)
    return outcome


def make_base(
    settings: Mapping[str, Any], report: Reporter, output: Callable[[str], None], announce: Callable[[str], None]
) -> None:
    """Makes a base voice; whether it passes the gate does not matter, since trainings only start from it.

    Raises:
        PipelineError: the run failed before it registered a version.
    """
    announce(
        "base voice: none of this size and these languages is registered yet. One is made now from generated speech "
        f"({COST}); later runs reuse it. --start-from names another voice, --start-from none trains from scratch"
    )
    outcome = full_run(open_project(overrides=settings), report, output, announce)
    if outcome.error and not outcome.version:
        raise PipelineError(outcome.error, outcome.record)


def speak(project: Project, registry: Registry, name: str, version: str) -> dict[Path, str]:
    """Synthesizes the sample sentences with a version of a model, once per version.

    Returns:
        Audio file -> text.
    """
    folder = project.state.folder("samples", f"{name}-v{version}")
    listing = folder / "sentences.json"
    if known := read_or_set_aside(listing, dict[str, str], {}):
        return {folder / item: text for item, text in known.items()}
    from model.synthesis import Synthesizer

    synthesizer = Synthesizer(registry.voice_folder(f"models:/{name}/{version}"))
    spoken: dict[str, str] = {}
    for language, text, speaker in sentences(synthesizer.voice.speaker_languages):
        speech = synthesizer.synthesize(text, language, speaker)
        file = "-".join((str(len(spoken) + 1), language, *([clip_id(speaker)] if speaker else []))) + ".wav"
        speech.save(folder / file)
        spoken[file] = text
    write_json(listing, spoken)
    return {folder / item: text for item, text in spoken.items()}


def sentences(speakers: dict[str, str]) -> list[tuple[str, str, str]]:
    """Returns the sample sentences of a voice as (language, text, speaker; '' for the default speaker).

    Three are in the main language (English if the voice has it). Each other language has one, which is also spoken by
    a speaker of the main language.

    Args:
        speakers: Speaker -> language.
    """
    texts = {language: _texts(language) for language in (*SENTENCES, *LANGUAGES) if language in speakers.values()}
    if not texts:
        return []
    main, *others = texts
    main_speaker = next(name for name, language in speakers.items() if language == main)
    return [
        *((main, text, "") for text in texts[main]),
        *((language, texts[language][0], speaker) for speaker in ("", main_speaker) for language in others),
    ]


def _texts(language: str) -> tuple[str, ...]:
    """Returns three sample sentences of a language."""
    return SENTENCES.get(language) or tuple(shipped_list(language)[-3:])


@contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    """Adds the wall time of the block to `seconds`."""
    started = time.monotonic()
    try:
        yield
    finally:
        seconds[part] = time.monotonic() - started


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None


def _newest(folder: Path, pattern: str) -> Path | None:
    return max(folder.glob(pattern), key=lambda path: path.stat().st_mtime, default=None)
