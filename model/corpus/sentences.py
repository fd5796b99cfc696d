"""Lists of sentences, one per line: to generate speech from, and to read aloud."""

from __future__ import annotations

from pathlib import Path

from model.errors import CorpusError

SHIPPED = Path(__file__).parent
"""Folder of the shipped lists."""


def read_list(path: Path) -> list[str]:
    """Returns the distinct lines of a list of sentences.

    Raises:
        CorpusError: it is not UTF-8.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from error
    return list(dict.fromkeys(line.strip() for line in lines if line.strip()))


def read_sentences(folder: str, language: str) -> list[str]:
    """Returns the sentences of `sentences_<language>.txt` in `folder`, or of the shipped list.

    Raises:
        CorpusError: there is no such list, or it is not UTF-8.
    """
    path = (Path(folder) if folder else SHIPPED) / f"sentences_{language}.txt"
    if not path.is_file():
        raise CorpusError(
            f"{path}: no such list of sentences; add it, set corpus.path to a folder that has it, or leave "
            f"{language!r} out of corpus.generated_voices (shipped lists: {', '.join(shipped_languages())})"
        )
    return read_list(path)


def shipped_languages() -> tuple[str, ...]:
    """Returns the languages that have a shipped list, in alphabetical order."""
    return tuple(sorted(path.stem.removeprefix("sentences_") for path in SHIPPED.glob("sentences_*.txt")))


def shipped_list(language: str) -> list[str]:
    """Returns the shipped sentences of a language.

    Raises:
        CorpusError: there is no list of this language.
    """
    if language not in shipped_languages():
        raise CorpusError(
            f"there is no list of sentences in language {language!r} (shipped: {', '.join(shipped_languages())}); give "
            "one with --texts, one sentence per line"
        )
    return read_sentences("", language)
