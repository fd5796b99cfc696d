"""The `validate` stage: checks every clip, reports every problem, and fails if too many clips are bad."""

from __future__ import annotations

import csv
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from model.audio.io import AudioError, read_source
from model.config.data import ValidationConfig
from model.config.schema import Config
from model.corpus.checks import (
    check_audio,
    check_speech,
    check_text,
    compare_audio,
    compare_speakers,
    compare_texts,
)
from model.corpus.ingest import ORIGINS
from model.corpus.manifest import Clip, read_manifest, stage_folder, write_manifest
from model.corpus.metrics import ClipMetrics, clip_metrics
from model.corpus.problems import BAD, REMAKE, SEVERITIES, Problem, read_problems
from model.corpus.report import write_report
from model.corpus.sources import audio_reason
from model.corpus.stats import totals
from model.corpus.timings import ALIGNMENTS
from model.errors import CorpusError
from model.files import read_record
from model.text.identify import spoken_length

TABLE = "clips.csv"
"""One row per readable clip: its metrics and the reasons of its problems."""


@dataclass(frozen=True, kw_only=True)
class ValidationReport:
    """Result of the validation of a corpus.

    Attributes:
        clips: Number of checked rows and files.
        kept: Number of clips that passed.
        bad: Number of clips that are left out.
        tolerated_bad_share: Largest accepted fraction of bad clips.
        problems: All problems, bad ones first.
        totals: Clips and seconds of the kept clips by speaker and language, and their durations.
    """

    clips: int
    kept: int
    bad: int
    tolerated_bad_share: float
    problems: list[Problem]
    totals: dict[str, Any]

    @property
    def bad_share(self) -> float:
        """Fraction of clips that are left out."""
        return self.bad / self.clips if self.clips else 1.0

    @property
    def passed(self) -> bool:
        """Whether enough clips are good."""
        return self.kept > 0 and self.bad_share <= self.tolerated_bad_share

    @property
    def summary(self) -> str:
        """One sentence with the numbers of clips, and the fix if too many are bad."""
        if self.passed:
            return f"{self.kept} of {self.clips} clips kept, {self.bad} left out"
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.by_reason(BAD).most_common())
        return (
            f"{self.bad} of {self.clips} clips are bad ({self.bad_share:.1%}; validation.tolerated_bad_share is "
            f"{self.tolerated_bad_share:.1%}): {reasons}. Repair or remove them, or raise the setting"
        )

    def by_reason(self, severity: str) -> Counter[str]:
        """Returns the number of problems of one severity by reason."""
        return Counter(problem.reason for problem in self.problems if problem.severity == severity)

    def as_dict(self) -> dict[str, Any]:
        """Returns the report as plain data, the content of `report.json`."""
        return {
            "passed": self.passed,
            "summary": self.summary,
            "clips": self.clips,
            "kept": self.kept,
            "bad": self.bad,
            "bad_share": self.bad_share,
            "tolerated_bad_share": self.tolerated_bad_share,
            "findings": {severity: dict(self.by_reason(severity).most_common()) for severity in SEVERITIES},
            "totals": self.totals,
            "problems": [asdict(problem) for problem in self.problems],
        }


@dataclass(frozen=True, kw_only=True)
class _Checked:
    """A clip after its own checks; one with an unreadable file has no metrics."""

    clip: Clip
    problems: list[Problem]
    metrics: ClipMetrics | None = None
    embedding: np.ndarray | None = None


def validate(source: Path, destination: Path, config: Config, progress: bool = False) -> ValidationReport:
    """Checks the ingested corpus in `source` and writes the manifest of its good clips and a report to `destination`.

    The audio stays in `source`: the new manifest refers to it by relative paths.

    Raises:
        ManifestError: `source` has no manifest.
        SpeakerEncoderError: `validation.check_speakers` is on and the encoder's weights are missing.
    """
    source, limits = Path(source), config.validation
    clips = read_manifest(source)
    earlier = read_problems(source)
    origins = read_record(source / ORIGINS, dict[str, str], CorpusError, REMAKE)

    checked = list(_check_all(clips, source, origins, limits, progress))
    metrics = {item.clip.id: item.metrics for item in checked if item.metrics}
    found = [problem for item in checked for problem in item.problems]
    found += check_metadata(clips, origins, limits)
    found += compare_audio([clip for clip in clips if clip.id in metrics], origins, metrics, limits)
    mixed_up, similarities = _compare_speakers(checked, origins, limits)
    found += mixed_up

    bad_clips = {problem.id for problem in found if problem.severity == BAD}
    not_ingested = _not_ingested(clips, earlier)
    kept = [clip for clip in clips if clip.id not in bad_clips]
    report = ValidationReport(
        clips=len(clips) + not_ingested,
        kept=len(kept),
        bad=len(bad_clips) + not_ingested,
        tolerated_bad_share=limits.tolerated_bad_share,
        problems=sorted(earlier + found, key=lambda item: (SEVERITIES.index(item.severity), item.reason, item.id)),
        totals=totals(kept),
    )
    destination = Path(destination).absolute()
    with stage_folder(destination) as folder:
        relative = Path(os.path.relpath(source.absolute(), destination))
        write_manifest(folder, (replace(clip, audio=(relative / clip.audio).as_posix()) for clip in kept))
        if (source / ALIGNMENTS).is_file():
            shutil.copyfile(source / ALIGNMENTS, folder / ALIGNMENTS)
        rows = _table([clip for clip in clips if clip.id in metrics], metrics, report.problems, similarities)
        _write_table(folder / TABLE, rows)
        audio = {clip.id: (clip, source / clip.audio) for clip in clips}
        write_report(folder, report.as_dict(), config.corpus.name, rows, audio, limits)
    return report


def check_metadata(clips: Sequence[Clip], origins: Mapping[str, str], limits: ValidationConfig) -> list[Problem]:
    """Returns every problem that the manifest alone shows."""
    found = [problem for clip in clips for problem in check_text(clip, origins[clip.id], limits)]
    return found + list(compare_texts(clips, origins, limits))


def _compare_speakers(
    checked: Sequence[_Checked], origins: Mapping[str, str], limits: ValidationConfig
) -> tuple[list[Problem], dict[str, float]]:
    """Returns the problems and similarities of `compare_speakers`; none without embeddings."""
    embeddings = {item.clip: item.embedding for item in checked if item.embedding is not None}
    if not embeddings:
        return [], {}
    return compare_speakers(list(embeddings), origins, np.stack(list(embeddings.values())), limits)


def _not_ingested(clips: Sequence[Clip], problems: Sequence[Problem]) -> int:
    """Returns the number of bad rows and files of `ingest` that gave no clip, or that share the id of one."""
    ids = {clip.id for clip in clips}
    bad = [problem for problem in problems if problem.severity == BAD]
    without_clip = {(problem.id, "" if problem.id else problem.file) for problem in bad if problem.id not in ids}
    return len(without_clip) + len(ids & {problem.id for problem in bad})


def _check_all(
    clips: Sequence[Clip], source: Path, origins: Mapping[str, str], limits: ValidationConfig, progress: bool
) -> Iterator[_Checked]:
    """Yields every clip with the problems of its recording and its speech."""
    encoder = None
    if limits.check_speakers:
        from model.speaker_encoder import Resemblyzer

        encoder = Resemblyzer.load()

    def check(clip: Clip) -> _Checked:
        try:
            samples, _ = read_source(source / clip.audio)
        except AudioError as error:
            problem = Problem(id=clip.id, file=origins[clip.id], reason=audio_reason(error), detail=error.reason)
            return _Checked(clip=clip, problems=[problem])
        metrics = clip_metrics(samples, clip.sample_rate)
        problems = [*check_audio(clip, origins[clip.id], metrics, limits), *check_speech(clip, origins[clip.id])]
        embedding = None
        if encoder is not None and metrics.level > limits.min_level_db:
            embedding = encoder.embed(samples, clip.sample_rate)
        return _Checked(clip=clip, problems=problems, metrics=metrics, embedding=embedding)

    with ThreadPoolExecutor(1 if encoder else os.cpu_count()) as pool:
        bar = tqdm(total=len(clips), desc="validate", unit="clip", disable=None if progress else True)
        for item in pool.map(check, clips):
            bar.update()
            yield item
        bar.close()


def _table(
    clips: Sequence[Clip],
    metrics: Mapping[str, ClipMetrics],
    problems: Sequence[Problem],
    similarities: Mapping[str, float],
) -> list[dict[str, Any]]:
    """Returns the metrics of every readable clip, with the reasons of its problems."""
    reasons: dict[str, list[str]] = {}
    for problem in problems:
        reasons.setdefault(problem.id, []).append(problem.reason)
    return [
        {
            "id": clip.id,
            "speaker": clip.speaker,
            "language": clip.language,
            "seconds": clip.seconds,
            "source_sample_rate": clip.source_sample_rate,
            "characters_per_second": round(spoken_length(clip.text.strip()) / clip.seconds, 2),
            **asdict(metrics[clip.id]),
            "speaker_similarity": similarities.get(clip.id, ""),
            "findings": " ".join(reasons.get(clip.id, [])),
        }
        for clip in clips
    ]


FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First characters by which a spreadsheet recognizes a formula."""


def _write_table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        if rows:
            writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
            writer.writeheader()
            writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)


def _cell(value: Any) -> Any:
    """Returns a value that is safe in a spreadsheet, which would execute a text such as `=cmd|...`."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
