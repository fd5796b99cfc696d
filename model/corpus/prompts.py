"""Prompts: the phonetically richest sentences of a list, and a page to read them aloud from."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import jinja2

from model.errors import CorpusError
from model.files import write_text
from model.text.encode import encode
from model.text.symbols import BOS, EOS, MARKS, WORD_BOUNDARY

TABLE, PAGE, TEXT = "metadata.csv", "prompts.html", "prompts.txt"
PHONE_WEIGHT = 3
"""Weight of a new phone relative to a new pair of phones: a voice needs every phone, but only most pairs."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A sentence to read aloud.

    Attributes:
        name: Name of its recording, without suffix.
        text: The sentence.
    """

    name: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """Sounds that a choice of sentences contains, and those of the whole list.

    Attributes:
        phones, diphones: Number of different phones, and of different pairs of neighboring phones.
        all_phones, all_diphones: The same of the list.
    """

    phones: int
    diphones: int
    all_phones: int
    all_diphones: int

    def summary(self) -> str:
        """Returns the coverage as a phrase."""
        return (
            f"{self.phones} of {self.all_phones} phones and {self.diphones} of {self.all_diphones} pairs of phones "
            "that the list contains"
        )


def choose_prompts(sentences: Sequence[str], language: str, count: int) -> tuple[list[Prompt], Coverage]:
    """Returns the sentences with the most different phones and pairs of phones, the richest first, and their coverage.

    Each is the one that adds most to those before (greedy cover).

    Args:
        sentences: Sentences to choose from.
        language: Their language.
        count: Number of prompts.

    Raises:
        CorpusError: there are fewer sentences.
        TextError: a sentence cannot be spoken, or the language is unknown.
    """
    remaining = {text: _sounds(text, language) for text in sentences}
    if count > len(remaining):
        raise CorpusError(f"{count} prompts are wanted, but the list has {len(remaining)} sentences; add some to it")
    everything = set[tuple[str, ...]]().union(*remaining.values())
    covered: set[tuple[str, ...]] = set()
    chosen: list[str] = []
    while len(chosen) < count:
        best = max(remaining, key=lambda text: sum(map(_value, remaining[text] - covered)))  # the first of equal ones
        covered |= remaining.pop(best)
        chosen.append(best)
    width = len(str(count))
    prompts = [Prompt(name=f"{language}_{i:0{max(width, 2)}d}", text=text) for i, text in enumerate(chosen, 1)]
    return prompts, Coverage(
        phones=_count(covered, 1),
        diphones=_count(covered, 2),
        all_phones=_count(everything, 1),
        all_diphones=_count(everything, 2),
    )


def write_prompts(folder: Path, prompts: Sequence[Prompt], language: str, speaker: str) -> list[Path]:
    """Writes the page to read from, as HTML and as text, and the table that makes the folder of recordings a corpus.

    Args:
        folder: Folder for the recordings.
        prompts: The prompts.
        language: Their language.
        speaker: Name of the reader.

    Returns:
        The files.

    Raises:
        CorpusError: the folder has a table already, of other prompts.
    """
    rows = io.StringIO()
    writer = csv.writer(rows, delimiter="|", lineterminator="\n")
    writer.writerow(("audio", "text", "speaker", "language"))
    writer.writerows((prompt.name, prompt.text, speaker, language) for prompt in prompts)
    table = folder / TABLE
    if table.is_file() and table.read_text("utf-8") != rows.getvalue():
        raise CorpusError(f"{table} exists, with other rows; give another folder, or remove it with its recordings")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("prompts.html").render(prompts=prompts, language=language, speaker=speaker)
    lines = "".join(f"{prompt.name}.wav\n    {prompt.text}\n\n" for prompt in prompts)
    return [write_text(folder / PAGE, page), write_text(folder / TEXT, lines), write_text(table, rows.getvalue())]


def _sounds(text: str, language: str) -> set[tuple[str, ...]]:
    """Returns the phones (1-tuples) and the pairs of neighboring phones (2-tuples) of a sentence."""
    phones = [phone for phone in encode(text, language).phones if phone not in (BOS, EOS, WORD_BOUNDARY, *MARKS)]
    return {(phone,) for phone in phones} | set(pairwise(phones))


def _value(sound: tuple[str, ...]) -> int:
    return PHONE_WEIGHT if len(sound) == 1 else 1


def _count(sounds: set[tuple[str, ...]], length: int) -> int:
    return sum(len(sound) == length for sound in sounds)
