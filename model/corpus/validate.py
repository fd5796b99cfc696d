"""The `validate` stage: every clip is checked, every finding is written down, too many bad clips stop the run."""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from model.audio.io import AudioError, read_source
from model.config import Config
from model.config.schema import ValidationConfig
from model.corpus.folders import stage_folder
from model.corpus.ingest import ORIGINS
from model.corpus.manifest import Clip, read_manifest, write_manifest
from model.corpus.problems import BAD, NOTE, Problem, read_problems
from model.corpus.report import write_report
from model.corpus.sources import audio_reason
from model.corpus.stats import totals
from model.corpus.timings import ALIGNMENTS
from model.text import TextError, encode

FULL_SCALE = 0.999
"""Amplitude from which a sample counts as clipped."""


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
            "bad_by_reason": dict(self.by_reason(BAD).most_common()),
            "notes_by_reason": dict(self.by_reason(NOTE).most_common()),
            "totals": self.totals,
            "problems": [asdict(problem) for problem in self.problems],
        }


def validate(source: Path, destination: Path, config: Config, progress: bool = False) -> ValidationReport:
    """Check the ingested corpus in `source`; write the good clips' manifest and the report to `destination`.

    The audio stays where it is: the new manifest names it relative to its own folder.

    Raises:
        ManifestError: `source` holds no manifest.
    """
    clips = read_manifest(source)
    earlier = read_problems(source)
    origins = json.loads((Path(source) / ORIGINS).read_text("utf-8"))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        checked = pool.map(lambda clip: list(_check(clip, source, origins[clip.id], config.validation)), clips)
        bar = tqdm(checked, total=len(clips), desc="validate", unit="clip", disable=None if progress else True)
        found = [problem for problems in bar for problem in problems]
    found += _other_rates(clips, origins)

    bad_clips = {problem.id for problem in found if problem.severity == BAD}
    unread = {(problem.id, problem.file if not problem.id else "") for problem in earlier if problem.severity == BAD}
    unread -= {(clip.id, "") for clip in clips}
    doubled = {clip.id for clip in clips} & {problem.id for problem in earlier if problem.severity == BAD}
    kept = [clip for clip in clips if clip.id not in bad_clips]
    problems = sorted(earlier + found, key=lambda problem: (problem.severity != BAD, problem.reason, problem.id))
    report = ValidationReport(
        clips=len(clips) + len(unread) + len(doubled),
        kept=len(kept),
        bad=len(bad_clips) + len(unread) + len(doubled),
        tolerated_bad_share=config.validation.tolerated_bad_share,
        problems=problems,
        totals=totals(kept),
    )
    destination = Path(destination).absolute()
    with stage_folder(destination) as folder:
        relative = Path(os.path.relpath(Path(source).absolute(), destination))
        write_manifest(folder, (_moved(clip, relative) for clip in kept))
        if (Path(source) / ALIGNMENTS).is_file():
            (folder / ALIGNMENTS).write_bytes((Path(source) / ALIGNMENTS).read_bytes())
        write_report(folder, report.as_dict(), config.corpus.name)
    return report


def _moved(clip: Clip, relative: Path) -> Clip:
    return Clip(**{**asdict(clip), "audio": (relative / clip.audio).as_posix()})


def _check(clip: Clip, folder: Path, origin: str, limits: ValidationConfig) -> Iterator[Problem]:
    """Everything wrong with one clip."""

    def problem(reason: str, detail: str, severity: str = BAD) -> Problem:
        return Problem(clip.id, origin, reason, detail, severity)

    try:
        samples, _ = read_source(Path(folder) / clip.audio)
    except AudioError as error:
        yield problem(audio_reason(error), error.reason)
        return
    if clip.source_sample_rate < limits.min_sample_rate:
        detail = f"recorded at {clip.source_sample_rate} Hz; validation.min_sample_rate is {limits.min_sample_rate}"
        yield problem("low_sample_rate", detail)
    if clip.seconds > limits.max_seconds:
        detail = f"{clip.seconds:.2f} s; validation.max_seconds is {limits.max_seconds} (set aside, never cut)"
        yield problem("too_long", detail)
    if clip.seconds < limits.min_seconds:
        yield problem("too_short", f"{clip.seconds:.2f} s; validation.min_seconds is {limits.min_seconds}")
    level = 20 * np.log10(max(float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))), 1e-10))
    if level < limits.min_level_db:
        yield problem("silent", f"level {level:.1f} dB full scale; validation.min_level_db is {limits.min_level_db}")
    clipped = float(np.mean(np.abs(samples) >= FULL_SCALE))
    if clipped > limits.max_clipped_share:
        detail = (
            f"{clipped:.2%} of the samples at full scale; validation.max_clipped_share is {limits.max_clipped_share}"
        )
        yield problem("clipped", detail)
    yield from _check_text(clip, limits, problem)


def _check_text(clip: Clip, limits: ValidationConfig, problem: Any) -> Iterator[Problem]:
    text = clip.text.strip()
    if not text:
        yield problem("empty_transcript", "no text")
        return
    speed = len(text) / clip.seconds
    if not limits.min_characters_per_second <= speed <= limits.max_characters_per_second:
        bounds = f"{limits.min_characters_per_second} to {limits.max_characters_per_second}"
        detail = f"{speed:.1f} characters per second ({len(text)} in {clip.seconds:.2f} s); accepted are {bounds}"
        yield problem("text_duration_mismatch", detail)
    try:
        unknown = encode(text, clip.language).unknown
    except TextError as error:
        yield problem("unspeakable_text", str(error))
        return
    if unknown:
        listed = ", ".join(f"{character!r} x{count}" for character, count in unknown.most_common())
        yield problem("unknown_characters", f"left out of the spoken text: {listed}", NOTE)


def _other_rates(clips: list[Clip], origins: dict[str, str]) -> Iterator[Problem]:
    """A note for each clip that was recorded at another rate than most of its speaker's."""
    rates: dict[str, Counter] = defaultdict(Counter)
    for clip in clips:
        rates[clip.speaker][clip.source_sample_rate] += 1
    usual = {speaker: counts.most_common(1)[0][0] for speaker, counts in rates.items()}
    for clip in clips:
        rate = clip.source_sample_rate
        if rate != usual[clip.speaker]:
            detail = f"recorded at {rate} Hz (most clips: {usual[clip.speaker]}); resampled to {clip.sample_rate}"
            yield Problem(clip.id, origins[clip.id], "other_sample_rate", detail, NOTE)
