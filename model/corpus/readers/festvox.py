"""FestVox: `etc/txt.done.data` with lines `( arctic_a0001 "Author of the danger trail." )`, and `wav/` (CMU Arctic)."""

from __future__ import annotations

import re
from pathlib import Path

from model.config.data import CorpusConfig
from model.corpus.readers.rows import Row, Rows, existing_folder
from model.corpus.recordings import Recordings
from model.corpus.sources import Source
from model.corpus.tables import read_lines
from model.errors import CorpusError

PROMPTS = "txt.done.data"
FOLDERS = ("etc", "")
LINE = re.compile(r'^\(\s*(\S+)\s+"(.*)"\s*\)$')
ARCTIC = re.compile(r"cmu_[a-z]+_(\w+?)_arctic")
"""Folder of a CMU Arctic speaker, such as `cmu_us_bdl_arctic` or `cmu_us_slt_arctic-0.95-release`."""
NO_SPEAKER = CorpusConfig.model_fields["speaker"].default


def recognizes(folder: Path) -> bool:
    return _prompts(folder) is not None


def read(config: CorpusConfig) -> Source:
    """Returns the utterances of the prompts. The speaker is `corpus.speaker`, or that of a CMU Arctic folder.

    Raises:
        CorpusError: there are no prompts.
    """
    folder = existing_folder(config.path, f"etc/{PROMPTS} and wav/")
    prompts = _prompts(folder)
    if prompts is None:
        raise CorpusError(f"{folder}: etc/{PROMPTS} is missing; give the folder with etc/ and wav/")
    rows, recordings = Rows(folder), Recordings(folder)
    arctic = ARCTIC.match(folder.name)
    speaker = arctic[1] if arctic and config.speaker == NO_SPEAKER else config.speaker
    for number, line in read_lines(prompts, 'one line `( <id> "<text>" )` per recording'):
        place = f"{rows.place(prompts)}:{number}"
        found = LINE.match(line.strip())
        if not found:
            if line.strip():
                rows.refuse(line.strip()[:40], place, "wrong_columns", 'is not of the form ( <id> "<text>" )')
            continue
        name, text = found[1], re.sub(r"\\(.)", r"\1", found[2])
        audio = recordings.find(f"wav/{name}.wav") or folder / "wav" / f"{name}.wav"
        rows.add(Row(id=name, text=text, audio=audio, language=config.language, speaker=speaker, line=place))
    return rows.source(recordings.paths)


def _prompts(folder: Path) -> Path | None:
    return next((path for name in FOLDERS if (path := folder / name / PROMPTS).is_file()), None)
