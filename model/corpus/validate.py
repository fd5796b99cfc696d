"""The `validate` stage: every clip is checked, every finding is written down, too many bad clips stop the run."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from model.audio.io import AudioError, read_source
from model.config.data import ValidationConfig
from model.config.schema import Config
from model.corpus.checks import (
    check_sound,
    check_sounds_together,
    check_speakers,
    check_speech,
    check_text,
    check_texts_together,
)
from model.corpus.folders import stage_folder
from model.corpus.ingest import ORIGINS
from model.corpus.manifest import Clip, read_manifest, write_manifest
from model.corpus.measure import Measures, measure
from model.corpus.problems import BAD, SEVERITIES, Problem, read_problems
from model.corpus.report import write_report
from model.corpus.sources import audio_reason
from model.corpus.stats import totals
from model.corpus.timings import ALIGNMENTS
from model.text.identify import spoken_length

TABLE = "measures.csv"
"""One row for each clip that was read: what was measured, and what was found."""


@dataclass(frozen=True)
class ValidationReport:
    """What was found in a corpus.

    Attributes:
        clips: Rows and files looked at.
        kept: Clips that passed.
        bad: Clips left out.
        tolerated_bad_share: The share of bad clips that is accepted.
        problems: All findings, bad ones first.
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
        """Share of clips that were left out."""
        return self.bad / self.clips if self.clips else 1.0

    @property
    def passed(self) -> bool:
        """Whether enough of the corpus is good."""
        return self.kept > 0 and self.bad_share <= self.tolerated_bad_share

    @property
    def verdict(self) -> str:
        """One sentence for people: what was kept, and what to do when that is too little."""
        if self.passed:
            return f"{self.kept} of {self.clips} clips kept, {self.bad} left out"
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.by_reason(BAD).most_common())
        return (
            f"{self.bad} of {self.clips} clips are bad ({self.bad_share:.1%}; validation.tolerated_bad_share is "
            f"{self.tolerated_bad_share:.1%}): {reasons}. Mend or remove them, or raise the tolerated share"
        )

    def by_reason(self, severity: str) -> Counter:
        """Findings of one severity by reason."""
        return Counter(problem.reason for problem in self.problems if problem.severity == severity)

    def as_dict(self) -> dict[str, Any]:
        """The whole report as plain data: what `report.json` holds."""
        return {
            "passed": self.passed,
            "verdict": self.verdict,
            "clips": self.clips,
            "kept": self.kept,
            "bad": self.bad,
            "bad_share": self.bad_share,
            "tolerated_bad_share": self.tolerated_bad_share,
            "findings": {severity: dict(self.by_reason(severity).most_common()) for severity in SEVERITIES},
            "totals": self.totals,
            "problems": [asdict(problem) for problem in self.problems],
        }


@dataclass(frozen=True)
class _Checked:
    """One clip after its own checks; `sound` is missing where the file cannot be read."""

    clip: Clip
    sound: Measures | None
    problems: list[Problem]
    vector: np.ndarray | None = None


def validate(source: Path, destination: Path, config: Config, progress: bool = False) -> ValidationReport:
    """Check the ingested corpus in `source`; write the good clips' manifest and the report to `destination`.

    The audio stays where it is: the new manifest names it relative to its own folder.

    Raises:
        ManifestError: `source` holds no manifest.
        SpeakerEncoderError: `validation.check_speakers` is on and the encoder's weights are missing.
    """
    source, limits = Path(source), config.validation
    clips = read_manifest(source)
    earlier = read_problems(source)
    origins = json.loads((source / ORIGINS).read_text("utf-8"))

    checked = list(_check_all(clips, source, origins, limits, progress))
    found = [problem for item in checked for problem in item.problems]
    found += check_metadata(clips, origins, limits)
    heard = [item for item in checked if item.sound]
    sounds = {item.clip.id: item.sound for item in heard}
    found += check_sounds_together([item.clip for item in heard], origins, sounds, limits)
    similarities: dict[str, float] = {}
    if limits.check_speakers and heard:
        judged = [item for item in heard if item.vector is not None]
        vectors = np.stack([item.vector for item in judged])
        mixed_up, similarities = check_speakers([item.clip for item in judged], origins, vectors, limits)
        found += mixed_up

    bad_clips = {problem.id for problem in found if problem.severity == BAD}
    unread = {(problem.id, problem.file if not problem.id else "") for problem in earlier if problem.severity == BAD}
    unread -= {(clip.id, "") for clip in clips}
    doubled = {clip.id for clip in clips} & {problem.id for problem in earlier if problem.severity == BAD}
    kept = [clip for clip in clips if clip.id not in bad_clips]
    problems = sorted(
        earlier + found, key=lambda problem: (SEVERITIES.index(problem.severity), problem.reason, problem.id)
    )
    report = ValidationReport(
        clips=len(clips) + len(unread) + len(doubled),
        kept=len(kept),
        bad=len(bad_clips) + len(unread) + len(doubled),
        tolerated_bad_share=limits.tolerated_bad_share,
        problems=problems,
        totals=totals(kept),
    )
    destination = Path(destination).absolute()
    with stage_folder(destination) as folder:
        relative = Path(os.path.relpath(source.absolute(), destination))
        write_manifest(folder, (replace(clip, audio=(relative / clip.audio).as_posix()) for clip in kept))
        if (source / ALIGNMENTS).is_file():
            (folder / ALIGNMENTS).write_bytes((source / ALIGNMENTS).read_bytes())
        rows = _table(heard, problems, similarities)
        _write_table(folder / TABLE, rows)
        sources = {clip.id: (clip, source / clip.audio) for clip in clips}
        write_report(folder, report.as_dict(), config.corpus.name, rows, sources, limits)
    return report


def check_metadata(clips: Sequence[Clip], origins: dict[str, str], limits: ValidationConfig) -> list[Problem]:
    """Every finding that needs no recording: of a hundred thousand clips in some seconds."""
    found = [problem for clip in clips for problem in check_text(clip, origins[clip.id], limits)]
    return found + list(check_texts_together(clips, origins, limits))


def _check_all(
    clips: Sequence[Clip], source: Path, origins: dict[str, str], limits: ValidationConfig, progress: bool
) -> Iterator[_Checked]:
    encoder = None
    if limits.check_speakers:
        from model.speaker_encoder import Resemblyzer

        encoder = Resemblyzer.load()

    def check(clip: Clip) -> _Checked:
        try:
            samples, _ = read_source(source / clip.audio)
        except AudioError as error:
            return _Checked(clip, None, [Problem(clip.id, origins[clip.id], audio_reason(error), error.reason)])
        sound = measure(samples, clip.sample_rate)
        problems = [*check_sound(clip, origins[clip.id], sound, limits), *check_speech(clip, origins[clip.id])]
        vector = None
        if encoder is not None and sound.level > limits.min_level_db:
            vector = encoder.embed(samples, clip.sample_rate)
        return _Checked(clip, sound, problems, vector)

    with ThreadPoolExecutor(1 if encoder else os.cpu_count()) as pool:
        bar = tqdm(total=len(clips), desc="validate", unit="clip", disable=None if progress else True)
        for item in pool.map(check, clips):
            bar.update()
            yield item
        bar.close()


def _table(heard: Sequence[_Checked], problems: Sequence[Problem], similar: dict[str, float]) -> list[dict[str, Any]]:
    """The measures of every clip that could be read, with the reasons of what was found."""
    reasons: dict[str, list[str]] = {}
    for problem in problems:
        reasons.setdefault(problem.id, []).append(problem.reason)
    return [
        {
            "id": item.clip.id,
            "speaker": item.clip.speaker,
            "language": item.clip.language,
            "seconds": item.clip.seconds,
            "source_sample_rate": item.clip.source_sample_rate,
            "characters_per_second": round(spoken_length(item.clip.text.strip()) / item.clip.seconds, 2),
            **{field.name: getattr(item.sound, field.name) for field in fields(Measures)},
            "speaker_similarity": similar.get(item.clip.id, ""),
            "findings": " ".join(reasons.get(item.clip.id, [])),
        }
        for item in heard
    ]


def _write_table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        if rows:
            writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
