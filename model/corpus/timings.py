"""Ground truth of alignments: when each phone was said, and to which tokens of the text these times belong."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from model.corpus.sources import Timings
from model.text.encode import TokenSequence
from model.text.symbols import split_phone

ALIGNMENTS = "alignments.jsonl"


def write_alignments(folder: Path, timings: Mapping[str, Timings]) -> Path:
    """Write `folder/alignments.jsonl`: one `{"id", "phones": [[phone, start, end], ...]}` a line, in seconds."""
    path = folder / ALIGNMENTS
    lines = (
        json.dumps({"id": name, "phones": [[p, round(a, 5), round(b, 5)] for p, a, b in times]}, ensure_ascii=False)
        for name, times in timings.items()
    )
    path.write_text("".join(line + "\n" for line in lines), "utf-8")
    return path


def read_alignments(folder: Path) -> dict[str, Timings]:
    """Clip id -> (phone, start, end) in seconds; empty where the corpus has none."""
    path = folder / ALIGNMENTS
    if not path.is_file():
        return {}
    records = (json.loads(line) for line in path.read_text("utf-8").splitlines())
    return {record["id"]: [(phone, start, end) for phone, start, end in record["phones"]] for record in records}


def token_times(tokens: TokenSequence, timings: Sequence[tuple[str, float, float]]) -> np.ndarray:
    """When each token of a text was said.

    Phones and tokens are matched in order with the fewest changes, since a speaker may join or drop a phone between
    two words. A phone of several symbols shares its time between them.

    Returns:
        (T, 2) start and end in seconds; NaN for tokens without a phone of their own (boundaries, marks, BOS, EOS).
    """
    said = []
    for phone, start, end in timings:
        parts = split_phone(phone)
        edges = np.linspace(start, end, len(parts) + 1)
        said += [(symbol, edges[i], edges[i + 1]) for i, (symbol, _) in enumerate(parts)]
    wanted = tokens.ids[:, 0]
    times = np.full((len(wanted), 2), np.nan)
    for token, phone in _common_subsequence(wanted, np.array([symbol for symbol, _, _ in said], dtype=np.int64)):
        times[token] = said[phone][1:]
    return times


def _common_subsequence(a: np.ndarray, b: np.ndarray) -> list[tuple[int, int]]:
    """Index pairs of a longest common subsequence of two sequences of symbols."""
    longest = np.zeros((len(a) + 1, len(b) + 1), dtype=np.int64)
    for i in range(len(a) - 1, -1, -1):
        for j in range(len(b) - 1, -1, -1):
            longest[i, j] = longest[i + 1, j + 1] + 1 if a[i] == b[j] else max(longest[i + 1, j], longest[i, j + 1])
    pairs, i, j = [], 0, 0
    while i < len(a) and j < len(b):
        if a[i] == b[j]:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif longest[i + 1, j] >= longest[i, j + 1]:
            i += 1
        else:
            j += 1
    return pairs
