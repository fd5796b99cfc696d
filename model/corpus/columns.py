"""Roles of the columns of a table (recording, text, speaker, language), by its header or by its cells."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from model.corpus.recordings import SUFFIXES
from model.corpus.tables import Line, column_name, fitted, is_null
from model.errors import CorpusError
from model.text.languages import LANGUAGES, code_of

NAMES = {
    "audio": (
        "audio", "path", "file", "audio_file", "audio_filepath", "audio_path", "audio_file_path", "audio_filename",
        "wav", "wav_path", "wav_file", "wav_filename", "wav_name", "filename", "file_name", "filepath", "file_path",
        "recording", "clip", "clip_path", "sound", "sound_file", "location",
    ),
    "text": (
        "text", "sentence", "transcript", "transcription", "normalized_text", "text_normalized", "normalised_text",
        "normalized_transcription", "raw_text", "raw_transcription", "utterance", "caption",
    ),
    "speaker": ("speaker", "speaker_id", "speaker_name", "client_id", "spk", "spk_id", "speakerid", "voice", "reader"),
    "language": ("language", "lang", "locale", "language_id", "lang_id", "language_code"),
    "id": ("id", "clip_id", "utterance_id", "utt_id", "uttid", "utt", "key", "segment_id"),
}  # fmt: skip
"""Role -> names of its column in existing corpora; the first one is used if there are several."""
SAMPLE = 200
"""Number of rows from which the roles are inferred."""
_SHOWN = 3
_LANGUAGE_CODES = (
    "af am ar az be bg bn bs ca cs cy da el et eu fi ga gl gu he hi hr hu hy id is ja jp ka kk km kn ko kr ku ky "
    "lo lt lv mk ml mn mr ms mt my ne no nb nn pa pl ps pt ro sd si sk sl sq sr sv sw ta te tg th tk tl tr uk ur "
    "uz vi yi zu "
)
_LANGUAGES = frozenset((*_LANGUAGE_CODES.split(), *(name.partition("-")[0] for name in LANGUAGES)))
_CODE = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z]{2,4})?")
_FILE = re.compile(r"\S*[\w)]\.[A-Za-z][A-Za-z0-9]{1,4}")
_NUMBER = re.compile(r"-?\d+[.,]\d+")
_PERSON = re.compile(r"m|f|male|female|man|woman|boy|girl|other", re.IGNORECASE)
_SENTENCE = re.compile(r"[.?!,;:…،؟。！？，、¿¡«»\"]|\s")
_WORD = re.compile(r"[^\W\d_]+")
SAME_TEXT = 0.5
"""Fraction of the words of a text that its normalized form repeats in most rows."""

Finder = Callable[[str], Path | None]


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Indices of the columns of a table with `width` columns; None for a role without a column.

    `normalized` is the normalized form of `text`, which is used instead if it is not empty.
    """

    width: int
    audio: int
    text: int
    speaker: int | None = None
    language: int | None = None
    id: int | None = None
    normalized: int | None = None


def named_columns(header: Sequence[str]) -> Columns | None:
    """Returns the columns of a header; None if the row is no header, as it names no column of texts or recordings."""
    names = [column_name(cell) for cell in header]
    found = {role: next((names.index(name) for name in known if name in names), None) for role, known in NAMES.items()}
    audio = found["audio"] if found["audio"] is not None else found["id"]
    if audio is None or found["text"] is None or audio == found["text"]:
        return None
    return Columns(
        width=len(names),
        audio=audio,
        text=found["text"],
        speaker=found["speaker"],
        language=found["language"],
        id=found["id"],
    )


def inferred_columns(lines: Sequence[Line], find: Finder, path: Path) -> Columns:
    """Infers the columns of a table without a header from its cells.

    Recordings are in the column whose cells name audio files. Language codes, durations, genders and other files are
    recognized by their form; texts by several words or punctuation; speakers by short names in many rows; the
    normalized text by the words that it shares with the text.

    Raises:
        CorpusError: the columns are ambiguous; the message shows the first rows.
    """
    width = Counter(len(line.cells) for line in lines).most_common(1)[0][0]
    rows = [line for line in lines if len(line.cells) == width][:SAMPLE]
    cells = [[line.cells[index] for line in rows] for index in range(width)]
    roles: dict[int, str] = {}

    def refuse(reason: str) -> CorpusError:
        return CorpusError(f"{path}: {reason}.\n{_first_rows(rows, roles)}\n{_FIX}")

    if width < 2:
        raise refuse("has one column; it needs a recording and its text, separated by |, tab, comma or semicolon")
    audio = _audio_column(cells, find)
    if audio is None:
        raise refuse("no column names existing recordings")
    roles[audio] = "recording"
    for index in range(width):
        if index != audio and (role := _role_by_form(cells[index], cells[audio])):
            roles[index] = role
    if "language" in roles.values() and len(roles) == width:  # texts of two-letter words
        roles = {index: role for index, role in roles.items() if role != "language"}
    texts = [index for index in range(width) if index not in roles and _is_text(cells[index])]
    names = [index for index in range(width) if index not in roles and index not in texts]
    for index in list(texts):
        others = [other for other in texts if other != index]
        if others and _looks_like_names(cells[index]) and not any(_repeats(cells[index], cells[o]) for o in others):
            texts.remove(index)
            names.append(index)
    roles |= dict.fromkeys(texts, "text?") | dict.fromkeys(names, "speaker or text?")
    if not texts and names:
        texts = names if len(names) == 1 or all(_repeats(cells[names[0]], cells[name]) for name in names) else []
        names = [] if texts else names
    if not texts:
        raise refuse("its columns are ambiguous" if names else "no column has texts")
    if not all(_repeats(cells[texts[0]], cells[other]) for other in texts[1:]):
        raise refuse(
            "several columns could be the text, and they have different words (is there a separator in a text?)"
        )
    if len(names) > 1 or (names and _is_unlike_speakers(cells[names[0]])):
        raise refuse("the column of the speaker is ambiguous")
    languages = [index for index, role in roles.items() if role == "language"]
    return Columns(
        width=width,
        audio=audio,
        text=texts[0],
        speaker=names[0] if names else None,
        language=languages[0] if languages else None,
        normalized=texts[-1] if len(texts) > 1 else None,
    )


def is_unknown_header(line: Line, others: Sequence[Line], columns: Columns, find: Finder) -> bool:
    """Returns whether a first row is a header with unknown names: it is the only one without a recording, and has
    single words where the others have texts."""
    if len(line.cells) != columns.width or find(line.cells[columns.audio]) is not None:
        return False
    rest = [other for other in others if len(other.cells) == columns.width][:SAMPLE]
    plain = not any(_SENTENCE.search(cell.strip()) and len(cell.split()) > 2 for cell in line.cells)
    plain = plain and not re.search(r"[.?!,;:]", line.cells[columns.text]) and len(set(line.cells)) == columns.width
    texts = _is_text([other.cells[columns.text] for other in rest]) if rest else False
    return bool(plain and texts and all(find(other.cells[columns.audio]) is not None for other in rest))


def row_cells(line: Line, columns: Columns) -> tuple[tuple[str, ...] | None, str]:
    """Returns (cells, '') of a row that fits the columns, else (None, reason)."""
    cells = fitted(line.cells, columns.width)
    if len(cells) == columns.width:
        if columns.normalized is None:
            return cells, ""
        text, normalized = cells[columns.text], cells[columns.normalized]
        words = _words(text)
        if len(words) > 1 and normalized and not words & _words(normalized) and not _has_digits(text):
            detail = f"its texts {text[:40]!r} and {normalized[:40]!r} have different words; is a | in the text?"
            return None, detail
        return cells, ""
    if columns.normalized is not None and len(cells) == columns.normalized == columns.width - 1:
        return (*cells, ""), ""  # a row without the normalized text
    plain = columns.width == 2 and len(cells) == 3 and columns.text == 1
    if plain and _words(cells[1]) and _overlap(cells[1], cells[2]) >= SAME_TEXT:
        return (cells[0], cells[2] or cells[1]), ""
    detail = f"{len(cells)} columns instead of {columns.width}: {' | '.join(cells)[:80]!r}"
    return None, detail + ("; is there a separator in the text? Quote it" if len(cells) > columns.width else "")


_FIX = (
    "Write a first line that names the columns, such as audio|text or audio|speaker|text (docs/corpus.md), or remove "
    "other columns"
)


def _first_rows(rows: Sequence[Line], roles: dict[int, str]) -> str:
    """Returns the first rows with the inferred role of each cell."""
    return "\n".join(
        f"  line {line.number}: "
        + ", ".join(f"{roles.get(index, 'unknown')} {cell[:40]!r}" for index, cell in enumerate(line.cells))
        for line in rows[:_SHOWN]
    )


def _audio_column(cells: Sequence[Sequence[str]], find: Finder) -> int | None:
    """Returns the column of recordings: one whose cells are found, else names of audio files, else ids."""
    found = [sum(find(cell) is not None for cell in column) / len(column) for column in cells]
    best = max(range(len(cells)), key=lambda index: (found[index], -index))
    if found[best] >= 0.5:
        return best
    for index, column in enumerate(cells):
        if all(Path(cell.lower()).suffix in SUFFIXES for cell in column):
            return index
    if found[best] > 0:
        return best
    first = cells[0]
    return 0 if len(set(first)) == len(first) and not any(" " in cell for cell in first) else None


def _role_by_form(column: Sequence[str], recordings: Sequence[str]) -> str:
    """Returns the role of a column by the form of its cells; '' for a text or a name."""
    filled = [cell for cell in column if not is_null(cell)]
    if not filled:
        return "empty"
    if all(_FILE.fullmatch(cell) for cell in filled):
        return "file"
    if all(_NUMBER.fullmatch(cell) for cell in filled):
        return "number"
    if all(_PERSON.fullmatch(cell) for cell in filled):
        return "gender"
    if all(_CODE.fullmatch(cell) and code_of(cell).partition("-")[0] in _LANGUAGES for cell in filled):
        return "language"
    stems = [Path(cell.replace("\\", "/")).stem for cell in recordings]
    if all(cell == stem for cell, stem in zip(column, stems, strict=True)):
        return "id"
    return ""


def _is_text(column: Sequence[str]) -> bool:
    """Returns whether most cells have several words, punctuation, or a long text without spaces."""
    return sum(bool(_SENTENCE.search(cell)) or _is_wide(cell) for cell in column) > len(column) / 2


def _is_wide(cell: str) -> bool:
    """Returns whether a cell is a sentence in a script without spaces."""
    return sum(unicodedata.east_asian_width(c) == "W" for c in cell) > 3


def _looks_like_names(column: Sequence[str]) -> bool:
    """Returns whether cells with several words are names: few different ones, short and without punctuation."""
    short = all(len(cell.split()) <= 3 and not re.search(r"[?!,;:…،؟。]", cell) for cell in column)
    return short and len(column) > 2 and len(set(column)) <= max(1, len(column) // 3)


def _is_unlike_speakers(column: Sequence[str]) -> bool:
    """Returns whether almost every cell of a column is different, unlike names of speakers."""
    return len(column) > 4 and len(set(column)) > 0.8 * len(column)


def _repeats(first: Sequence[str], second: Sequence[str]) -> bool:
    """Returns whether most rows, of those with both texts, have the same words in both columns."""
    shares = [_overlap(a, b) for a, b in zip(first, second, strict=True) if b and (_words(a) or a == b)]
    return not shares or sum(share >= SAME_TEXT for share in shares) > len(shares) / 2


def _overlap(first: str, second: str) -> float:
    """Returns the fraction of the words of the first text that are in the second."""
    if first == second:
        return 1.0
    words = _words(first)
    return len(words & _words(second)) / len(words) if words else 0.0


def _words(text: str) -> set[str]:
    """Returns the words of a text in lower case; its characters in scripts without spaces."""
    folded = unicodedata.normalize("NFC", text).casefold()
    words = set(_WORD.findall(folded))
    return {c for word in words for c in word} if _is_wide(text) else words


def _has_digits(text: str) -> bool:
    return any(character.isdigit() for character in text)
