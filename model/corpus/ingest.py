"""The `ingest` stage: converts a corpus of any format to normalized audio and one manifest."""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from model.audio.io import AudioError, resample, write_audio
from model.config.schema import Config
from model.corpus.long_clips import divide
from model.corpus.manifest import Clip, stage_folder, write_manifest
from model.corpus.problems import NOTE, Problem, write_problems
from model.corpus.readers import read_corpus
from model.corpus.sources import Sound, Timings, Utterance, audio_reason
from model.corpus.timings import write_alignments
from model.errors import CorpusError
from model.files import write_json

logger = logging.getLogger(__name__)

AUDIO_FOLDER = "audio"
ORIGINS = "origins.json"
"""File with the original recording (or voice) of each clip id, which problems refer to."""
NAMES = "names.json"
"""File with the name of a clip in the original corpus by clip id, where they differ."""


def ingest(config: Config, destination: Path, progress: bool = False) -> list[Clip]:
    """Reads or generates the corpus of `config.corpus` and writes it to `destination`.

    Writes `manifest.jsonl`, `audio/<id>.flac` (mono, 16 bit, `audio.sample_rate`), `problems.jsonl` (unreadable rows
    and files), `origins.json`, `names.json`, `source.json` (format and engines) and, if the times of phones are known,
    `alignments.jsonl`.

    Returns:
        The clips of the manifest.

    Raises:
        CorpusError: the corpus cannot be read or generated.
    """
    source = read_corpus(config.corpus)
    logger.info("corpus %s: %d utterances, engines %s", config.corpus.name, len(source.utterances), source.engines)
    with stage_folder(destination) as folder:
        (folder / AUDIO_FOLDER).mkdir()

        def store(utterance: Utterance) -> list[_Stored] | Problem:
            return _store(utterance, folder, config)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            results = list(
                tqdm(
                    pool.map(store, source.utterances),
                    total=len(source.utterances),
                    desc="ingest",
                    unit="clip",
                    disable=None if progress else True,  # None: only on a terminal
                )
            )
        stored = [item for result in results if not isinstance(result, Problem) for item in result]
        problems = [*source.problems, *(result for result in results if isinstance(result, Problem))]
        problems += [note for item in stored for note in item.notes]
        if not stored and not problems:
            raise CorpusError(f"corpus {config.corpus.name}: no utterances; check corpus.path and corpus.format")
        clips = [item.clip for item in stored]
        write_manifest(folder, clips)
        write_problems(folder, problems)
        if timings := {item.clip.id: item.timings for item in stored if item.timings}:
            write_alignments(folder, timings)
        origins = {utterance.id: utterance.origin for utterance in source.utterances}
        origins |= {item.clip.id: item.origin for item in stored}
        write_json(folder / ORIGINS, origins)
        write_json(folder / NAMES, source.names)
        about = {"name": config.corpus.name, "format": config.corpus.format, "engines": source.engines}
        about |= {"license": config.corpus.license} if config.corpus.license else {}
        write_json(folder / "source.json", about)
    return clips


@dataclass(frozen=True, kw_only=True)
class _Stored:
    """A clip whose audio is written, with the origin of its recording."""

    clip: Clip
    origin: str
    timings: Timings | None = None
    notes: tuple[Problem, ...] = ()


def _store(utterance: Utterance, folder: Path, config: Config) -> list[_Stored] | Problem:
    """Writes the audio of an utterance as one clip, or as several if it is too long and can be divided."""
    try:
        sound = utterance.record()
    except AudioError as error:
        return Problem(id=utterance.id, file=utterance.origin, reason=audio_reason(error), detail=error.reason)
    rate = config.audio.sample_rate
    samples = resample(sound.samples, sound.sample_rate, rate)
    longest = config.corpus.split_longer_than
    if longest and not sound.timings and len(samples) > longest * rate:
        pieces = divide(samples, rate, utterance.text, longest)
        if pieces:
            stored = []
            for number, piece in enumerate(pieces, 1):
                part = replace(utterance, id=f"{utterance.id}-{number}", text=piece.text)
                clip = _write(part, samples[piece.start : piece.end], sound.sample_rate, folder, rate)
                origin = f"{utterance.origin} ({piece.start / rate:.2f} to {piece.end / rate:.2f} s)"
                stored.append(_Stored(clip=clip, origin=origin))
            return [replace(stored[0], notes=_notes(stored[0].clip.id, utterance, sound)), *stored[1:]]
    clip = _write(utterance, samples, sound.sample_rate, folder, rate)
    notes = _notes(clip.id, utterance, sound)
    return [_Stored(clip=clip, origin=utterance.origin, timings=sound.timings, notes=notes)]


def _notes(clip: str, utterance: Utterance, sound: Sound) -> tuple[Problem, ...]:
    """Returns the defects of a recording that were corrected on reading."""
    return tuple(
        Problem(id=clip, file=utterance.origin, reason=note.reason, detail=note.detail, severity=NOTE)
        for note in sound.notes
    )


def _write(utterance: Utterance, samples: np.ndarray, source_rate: int, folder: Path, sample_rate: int) -> Clip:
    """Writes the audio of a clip and returns the clip."""
    name = f"{AUDIO_FOLDER}/{utterance.id}.flac"
    write_audio(folder / name, samples, sample_rate)
    return Clip(
        id=utterance.id,
        audio=name,
        text=utterance.text,
        language=utterance.language,
        speaker=utterance.speaker,
        seconds=round(len(samples) / sample_rate, 6),
        sample_rate=sample_rate,
        source_sample_rate=source_rate,
    )
