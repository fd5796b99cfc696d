"""Measures how similar voices that are cloned from one reference clip, without training, are to their speakers.

The first half of a recording is the reference clip; the cloned speech is compared with the second half, by the cosine
similarity of Resemblyzer embeddings. The table has two bounds: the reference clip itself, and the mean similarity
between recordings of different speakers, which a voice reaches that ignores its reference.

    python -m benchmarks.cloning --folder /tmp/cloning --recordings ../shared/data/multispeaker VOICE...
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.generated_corpus import prepare
from benchmarks.transfer import TEXTS, print_table, show
from model.audio.io import AudioError, read_audio, write_audio
from model.audio.reference import check_reference
from model.config.resolution import flatten, resolve
from model.corpus.manifest import read_manifest
from model.corpus.readers import survey
from model.speaker_encoder import Resemblyzer
from model.synthesis import Synthesizer

MIN_SECONDS = 8.0
"""Shortest recording: a reference of at least four seconds, and as much to compare with."""
COLUMNS = ("voice", "cosine to the speaker", "speaker is the nearest one")


@dataclass(frozen=True, kw_only=True)
class Speakers:
    """Speakers with one recording each.

    Attributes:
        references: Reference clips.
        targets: (N, V) unit speaker embeddings of the rest of the recordings.
        own: (N,) cosines between reference and rest.
    """

    references: list[Path]
    targets: np.ndarray
    own: np.ndarray


def read_speakers(recordings: Path, folder: Path, language: str, most: int, encoder: Resemblyzer) -> Speakers:
    """Halves the longest recording of each speaker, up to `most` speakers; references are written to `folder`."""
    config = resolve(None, None, flatten({"corpus": survey(recordings)})).config
    corpus, _ = prepare(config, folder)
    longest = {}
    for clip in sorted(read_manifest(corpus), key=lambda clip: clip.seconds):
        if clip.language.startswith(language) and clip.seconds >= MIN_SECONDS:
            longest[clip.speaker] = clip
    references, targets, own = [], [], []
    for name, clip in sorted(longest.items())[:most]:
        samples = read_audio(corpus / clip.audio, clip.sample_rate)
        middle = len(samples) // 2
        reference = folder / "references" / f"{name}.wav"
        reference.parent.mkdir(parents=True, exist_ok=True)
        write_audio(reference, samples[:middle], clip.sample_rate)
        try:
            check_reference(reference, read_audio(reference, config.audio.sample_rate), config.audio, config.features)
        except AudioError as error:
            logging.warning("left out: %s", error)
            continue
        references.append(reference)
        targets.append(encoder.embed(samples[middle:], clip.sample_rate))
        own.append(float(encoder.embed(samples[:middle], clip.sample_rate) @ targets[-1]))
    return Speakers(references=references, targets=np.stack(targets), own=np.array(own))


def clone(voice: Path, speakers: Speakers, texts: list[str], language: str, encoder: Resemblyzer) -> np.ndarray:
    """Returns the cosines (N, N) of the mean embedding of each cloned speaker to every speaker."""
    synthesizer = Synthesizer(voice)
    cloned = []
    for reference in speakers.references:
        speech = [synthesizer.synthesize(text, language, reference=reference).samples for text in texts]
        cloned.append(encoder.embed_many(speech, synthesizer.sample_rate) @ speakers.targets.T)
    return np.stack([cosines.mean(0) for cosines in cloned])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("voices", nargs="+", type=Path, help="folders of voices")
    parser.add_argument("--folder", type=Path, required=True, help="folder of everything that is made")
    parser.add_argument("--recordings", type=Path, required=True, help="corpus of speakers unknown to the voices")
    parser.add_argument("--language", default="en")
    parser.add_argument("--speakers", type=int, default=24, help="largest number of speakers")
    parser.add_argument("--texts", type=int, default=3, help="texts that each cloned speaker says")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(1)
    encoder = Resemblyzer.load()
    speakers = read_speakers(arguments.recordings, arguments.folder, arguments.language, arguments.speakers, encoder)
    texts = TEXTS.read_text("utf-8").splitlines()[: arguments.texts]
    between = speakers.targets @ speakers.targets.T
    others = between[~np.eye(len(between), dtype=bool)]
    rows = [
        ["the reference clips themselves", show(speakers.own.tolist()), "-"],
        ["another speaker's recording", f"{others.mean():.3f}", "-"],
    ]
    for voice in arguments.voices:
        cosines = clone(voice, speakers, texts, arguments.language, encoder)
        nearest = int((cosines.argmax(1) == np.arange(len(cosines))).sum())
        rows.append([str(voice), show(np.diag(cosines).tolist()), f"{nearest} of {len(cosines)}"])
    print_table(COLUMNS, rows)


if __name__ == "__main__":
    main()
