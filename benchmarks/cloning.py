"""Measures how similar voices that are cloned from one reference clip, without training, are to their speakers.

The first half of a recording is the reference clip; the cloned speech is compared with the second half, by the cosine
similarity of Resemblyzer embeddings, and transcribed by the recognizer. The table has two bounds: the reference clip
itself, and the mean similarity between recordings of different speakers, which a voice reaches that ignores its
reference.

    python -m benchmarks.cloning --folder /tmp/cloning --recordings ../shared/data/multispeaker VOICE...

With `--fit`, it writes the distribution that `training.random_speakers` draws from instead: that of the embeddings of
the speakers which the table does not judge.

    python -m benchmarks.cloning --folder /tmp/cloning --recordings ../shared/data/multispeaker \\
        --fit model/training/speaker_distribution.npz --speaker-names libri_
"""

from __future__ import annotations

import argparse
import logging
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.generated_corpus import prepare
from benchmarks.transfer import TEXTS, print_table, show
from model.audio.io import AudioError, read_audio, resample, write_audio
from model.audio.reference import check_reference
from model.config.resolution import flatten, resolve
from model.corpus.manifest import Clip, read_manifest
from model.corpus.readers import survey
from model.evaluation import recognizer
from model.speaker_encoder import Resemblyzer, centroid
from model.synthesis import Synthesizer
from model.text.normalize import normalize
from model.training.random_speakers import SpeakerDistribution

MIN_SECONDS = 8.0
"""Shortest recording: a reference of at least four seconds, and as much to compare with."""
COLUMNS = ("voice", "cosine to the speaker", "speaker is the nearest one", "CER")


def read_corpus(recordings: Path, folder: Path, language: str) -> tuple[Path, list[Clip]]:
    """Returns the folder and the clips of the corpus in a language; it is read in `folder` unless it was before."""
    corpus, _ = prepare(resolve(None, None, flatten({"corpus": survey(recordings)})).config, folder)
    return corpus, [clip for clip in read_manifest(corpus) if clip.language.startswith(language)]


def judged_clips(clips: Iterable[Clip], most: int) -> dict[str, Clip]:
    """Returns the longest recording of each speaker, of at least `MIN_SECONDS`, for up to `most` speakers."""
    longest = {
        clip.speaker: clip for clip in sorted(clips, key=lambda clip: clip.seconds) if clip.seconds >= MIN_SECONDS
    }
    return dict(sorted(longest.items())[:most])


def fit_distribution(
    corpus: Path, clips: Iterable[Clip], judged: Collection[str], prefix: str, encoder: Resemblyzer
) -> SpeakerDistribution:
    """Fits a distribution to the mean embeddings of the speakers that are not judged and whose names have a prefix."""
    recordings = defaultdict(list)
    for clip in clips:
        if clip.speaker not in judged and clip.speaker.startswith(prefix):
            recordings[clip.speaker].append(clip)
    vectors = [
        centroid(
            np.stack(
                [encoder.embed(read_audio(corpus / clip.audio, clip.sample_rate), clip.sample_rate) for clip in own]
            )
        )
        for own in recordings.values()
    ]
    print(f"{len(vectors)} speakers")
    return SpeakerDistribution.fit(np.stack(vectors))


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


def read_speakers(corpus: Path, clips: Iterable[Clip], folder: Path, encoder: Resemblyzer) -> Speakers:
    """Halves the recordings; references are written to `folder`."""
    config = resolve().config
    references, targets, own = [], [], []
    for clip in clips:
        samples = read_audio(corpus / clip.audio, clip.sample_rate)
        middle = len(samples) // 2
        reference = folder / "references" / f"{clip.speaker}.wav"
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


def clone(
    voice: Path, speakers: Speakers, texts: list[str], language: str, encoder: Resemblyzer
) -> tuple[np.ndarray, list[float]]:
    """Returns the scores of a voice.

    Returns:
        (N, N) cosines of the mean embedding of each cloned speaker to every speaker, and the character error rate of
        each sentence, none in a language that the recognizer lacks.
    """
    synthesizer = Synthesizer(voice)
    rate, cosines, pending = synthesizer.sample_rate, [], []
    with recognizer.Recognizer(2) as background:
        for reference in speakers.references:
            speech = [synthesizer.synthesize(text, language, reference=reference).samples for text in texts]
            cosines.append((encoder.embed_many(speech, rate) @ speakers.targets.T).mean(0))
            if recognizer.supports(language):
                spoken = [resample(samples, rate, recognizer.SAMPLE_RATE) for samples in speech]
                pending += [(text, background.submit(samples)) for text, samples in zip(texts, spoken, strict=True)]
        errors = [
            recognizer.character_error(normalize(text, language).text, transcript.result())
            for text, transcript in pending
        ]
    return np.stack(cosines), errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("voices", nargs="*", type=Path, help="folders of voices")
    parser.add_argument("--folder", type=Path, required=True, help="folder of everything that is made")
    parser.add_argument("--recordings", type=Path, required=True, help="corpus of speakers unknown to the voices")
    parser.add_argument("--language", default="en")
    parser.add_argument("--speakers", type=int, default=24, help="largest number of speakers")
    parser.add_argument("--texts", type=int, default=3, help="texts that each cloned speaker says")
    parser.add_argument("--fit", type=Path, help="file of the distribution to write")
    parser.add_argument("--speaker-names", default="", help="with --fit: beginning of the names of the speakers")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(1)
    encoder = Resemblyzer.load()
    corpus, clips = read_corpus(arguments.recordings, arguments.folder, arguments.language)
    judged = judged_clips(clips, arguments.speakers)
    if arguments.fit:
        fit_distribution(corpus, clips, judged, arguments.speaker_names, encoder).save(arguments.fit)
        return
    speakers = read_speakers(corpus, judged.values(), arguments.folder, encoder)
    texts = TEXTS.read_text("utf-8").splitlines()[: arguments.texts]
    between = speakers.targets @ speakers.targets.T
    others = between[~np.eye(len(between), dtype=bool)]
    rows = [
        ["the reference clips themselves", show(speakers.own.tolist()), "-", "-"],
        ["another speaker's recording", f"{others.mean():.3f}", "-", "-"],
    ]
    for voice in arguments.voices:
        cosines, errors = clone(voice, speakers, texts, arguments.language, encoder)
        nearest = int((cosines.argmax(1) == np.arange(len(cosines))).sum())
        rows.append(
            [
                str(voice),
                show(np.diag(cosines).tolist()),
                f"{nearest} of {len(cosines)}",
                show(errors) if errors else "-",
            ]
        )
    print_table(COLUMNS, rows)


if __name__ == "__main__":
    main()
