"""Reader of the LJSpeech layout: `metadata.csv` (no header, `id|text|normalised text`) and `wavs/<id>.wav|.flac`."""

from __future__ import annotations

import re
from collections import defaultdict
from functools import partial
from pathlib import Path

from model.audio.io import AudioError, read_source
from model.config.schema import CorpusConfig
from model.corpus.errors import CorpusError
from model.corpus.problems import NOTE, Problem
from model.corpus.sources import Sound, Source, Utterance

METADATA = "metadata.csv"
AUDIO_FOLDER = "wavs"
SUFFIXES = (".wav", ".flac")
_COLUMNS = 3
_USABLE_ID = re.compile(r"[\w.()+@-]+")


def ljspeech_source(config: CorpusConfig) -> Source:
    """Utterances of a folder in LJSpeech layout; every row that is none is a problem with its line number.

    Raises:
        CorpusError: the folder, its `metadata.csv` or `wavs/` is missing, empty or not UTF-8.
    """
    folder = Path(config.path)
    if not config.path or not folder.is_dir():
        raise CorpusError(f"corpus.path ({config.path or 'empty'}): no such folder; name one in LJSpeech layout")
    if not (folder / AUDIO_FOLDER).is_dir():
        raise CorpusError(f"{folder / AUDIO_FOLDER}: no such folder; recordings belong there as <id>.wav or <id>.flac")
    lines = _read_lines(folder / METADATA)

    problems: list[Problem] = []
    rows: dict[str, list[tuple[int, str]]] = defaultdict(list)  # id -> (line number, text)
    for number, line in lines:
        columns = [column.strip() for column in line.split("|")]
        place = f"{METADATA}:{number}"
        if len(columns) != _COLUMNS:
            detail = f"{len(columns)} columns instead of {_COLUMNS} (id|text|normalised text): {line[:80]!r}"
            problems.append(Problem(columns[0][:80], place, "wrong_columns", detail))
        elif not _USABLE_ID.fullmatch(columns[0]):
            detail = f"id {columns[0]!r} is no file name (letters, figures, . _ - are)"
            problems.append(Problem(columns[0], place, "unusable_id", detail))
        else:
            rows[columns[0]].append((number, columns[2] or columns[1]))

    utterances = []
    recordings = {path.name for path in (folder / AUDIO_FOLDER).iterdir()}
    for name, found in rows.items():
        kept = _unique(name, found, problems)
        if kept is None:
            continue
        number, text = kept
        file = next((name + suffix for suffix in SUFFIXES if name + suffix in recordings), "")
        place = f"{AUDIO_FOLDER}/{file or name + SUFFIXES[0]}"
        if not text:
            problems.append(Problem(name, f"{METADATA}:{number}", "empty_transcript", "both text columns are empty"))
        elif not file:
            detail = f"{METADATA}:{number} names a recording that is not there (neither .wav nor .flac)"
            problems.append(Problem(name, place, "missing_recording", detail))
        else:
            record = partial(_read, folder / AUDIO_FOLDER / file)
            utterances.append(Utterance(name, text, config.language, config.speaker, place, record))
    for file in sorted(recordings):
        if Path(file).suffix.lower() in SUFFIXES and Path(file).stem not in rows:
            detail = f"no row of {METADATA} names it"
            problems.append(Problem(Path(file).stem, f"{AUDIO_FOLDER}/{file}", "unused_recording", detail, NOTE))
    return Source(utterances, problems)


def _read_lines(path: Path) -> list[tuple[int, str]]:
    """(line number, line) of every line that is not blank."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CorpusError(
            f"{path}: cannot be read ({error.strerror}); it holds one row `id|text|normalised text` for each recording"
        ) from error
    lines = []
    for number, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
        try:
            line = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise CorpusError(
                f"{path}:{number}: not UTF-8 (byte 0x{raw[error.start]:02x}, number {error.start + 1} of the line); "
                "save the file as UTF-8, e.g. `iconv -f latin1 -t utf-8`"
            ) from error
        if line.strip():
            lines.append((number, line))
    if not lines:
        raise CorpusError(f"{path}: the file is empty; write one row `id|text|normalised text` for each recording")
    return lines


def _unique(name: str, found: list[tuple[int, str]], problems: list[Problem]) -> tuple[int, str] | None:
    """The row of an id; none where several rows say different things of one recording."""
    texts = {text for _, text in found}
    for number, _ in found[1:]:
        problems.append(
            Problem(name, f"{METADATA}:{number}", "duplicate_id", f"line {found[0][0]} has the same id {name!r}")
        )
    if len(texts) == 1:
        return found[0]
    detail = f"{len(found)} rows give this id different texts, so none can be trusted"
    problems.append(Problem(name, f"{METADATA}:{found[0][0]}", "duplicate_id", detail))
    return None


def _read(path: Path) -> Sound:
    samples, rate = read_source(path)
    return Sound(samples, rate)


def audio_reason(error: AudioError) -> str:
    """Kind of problem behind an unreadable recording."""
    if not error.path.is_file():
        return "missing_recording"
    if error.path.stat().st_size == 0 or "zero length" in error.reason:
        return "zero_length"
    return "truncated" if "truncated" in error.reason else "unreadable"
