"""Statistics of a corpus: clips, seconds, speakers, languages, and the normalization of its texts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from model.corpus.manifest import Clip, read_manifest
from model.text.normalize import normalize

EXAMPLES = 12
"""Examples of normalization for each language."""


def totals(clips: Iterable[Clip]) -> dict[str, Any]:
    """Returns clips and seconds in total, by speaker and by language, and the durations of the clips."""
    clips = list(clips)
    return {
        "clips": len(clips),
        "seconds": round(sum(clip.seconds for clip in clips), 2),
        "speakers": _grouped(clips, "speaker"),
        "languages": _grouped(clips, "language"),
        "durations": [round(clip.seconds, 2) for clip in clips],
    }


def corpus_stats(folder: Path) -> dict[str, Any]:
    """Returns totals of the corpus in `folder`, also by split, its speed, unknown characters, and examples of changes.

    Raises:
        ManifestError: the folder has no manifest.
    """
    clips = read_manifest(folder, beside=True)
    splits: dict[str, list[Clip]] = defaultdict(list)
    unknown: Counter[str] = Counter()
    changes: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
    for clip in clips:
        splits[clip.split or "unsplit"].append(clip)
        spoken = normalize(clip.text, clip.language)
        unknown += spoken.unknown
        changes[clip.language].update(spoken.changes)
    seconds = sum(clip.seconds for clip in clips)
    return {
        **{key: value for key, value in totals(clips).items() if key != "durations"},
        "characters_per_second": round(sum(len(clip.text) for clip in clips) / seconds, 2) if seconds else 0.0,
        "splits": {
            name: {key: value for key, value in totals(members).items() if key != "durations"}
            for name, members in sorted(splits.items())
        },
        "unknown_characters": dict(unknown.most_common()),
        "written_out": {
            language: [
                {"written": written, "spoken": spoken, "count": count}
                for (written, spoken), count in found.most_common(EXAMPLES)
            ]
            for language, found in sorted(changes.items())
            if found
        },
    }


def _grouped(clips: list[Clip], key: str) -> dict[str, dict[str, float]]:
    groups: dict[str, list[float]] = defaultdict(list)
    for clip in clips:
        groups[getattr(clip, key)].append(clip.seconds)
    return {name: {"clips": len(values), "seconds": round(sum(values), 2)} for name, values in sorted(groups.items())}
