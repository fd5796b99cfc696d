"""Measures how similar voices that are cloned from one reference clip, without training, are to their speakers.

The first half of a recording is the reference clip; the cloned speech is compared with the second half, by the cosine
similarity of Resemblyzer embeddings and by the median pitch, and transcribed by the recognizer. The table has two
bounds: the reference clip itself, and the mean over recordings of different speakers, which a voice reaches that
ignores its reference.

    python -m benchmarks.cloning --folder /tmp/cloning --recordings ../shared/data/multispeaker VOICE...

`--others` writes the recordings of the speakers that are not judged as a corpus, to train a voice on them.
`--correction` is for comparison: with `none`, clones keep their own spectrum, with `all`, they get that of the
reference even where the difference is small. `--similarity` moves them further towards the reference, or less.
"""

from __future__ import annotations

import argparse
import logging
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch

from benchmarks.generated_corpus import prepare
from benchmarks.transfer import TEXTS, print_table, show
from model import synthesis
from model.audio.io import AudioError, read_audio, resample, write_audio
from model.audio.pitch import track_pitch
from model.audio.reference import check_reference
from model.config.data import AudioConfig, FeaturesConfig
from model.config.resolution import flatten, resolve
from model.corpus.manifest import Clip, read_manifest
from model.corpus.readers import survey
from model.evaluation import recognizer
from model.speaker_encoder import Resemblyzer
from model.synthesis import Synthesizer
from model.text.normalize import normalize

CORRECTIONS = {"none": (1e8, 1e9), "all": (-1.0, 0.0)}
"""Value of `--correction` -> bounds of the spectral difference in place of those of `model.synthesis`."""
MIN_SECONDS = 8.0
"""Shortest recording: a reference of at least four seconds, and as much to compare with."""
COLUMNS = (
    "voice",
    "similarity",
    "cosine to the speaker",
    "speaker is the nearest one",
    "pitch error in semitones",
    "CER",
)


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


def write_corpus(corpus: Path, clips: Iterable[Clip], folder: Path) -> None:
    """Writes clips as a corpus of their own: their audio files and a table of them."""
    (folder / "audio").mkdir(parents=True)
    rows = ["path|speaker|language|text"]
    for clip in clips:
        copied = shutil.copy(corpus / clip.audio, folder / "audio")
        rows.append("|".join((f"audio/{Path(copied).name}", clip.speaker, clip.language, clip.text)))
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n", "utf-8")


def median_semitones(samples: np.ndarray, audio: AudioConfig, features: FeaturesConfig) -> float:
    """Returns the median pitch of speech in semitones above 1 Hz."""
    pitch = track_pitch(samples, audio, features)
    return 12 * float(np.log2(np.median(pitch[pitch > 0])))


@dataclass(frozen=True, kw_only=True)
class Speakers:
    """N speakers with one recording each.

    Attributes:
        references: Reference clips, the first halves of the recordings.
        embeddings, reference_embeddings: (N, V) unit speaker embeddings of the second and the first halves.
        pitch, reference_pitch: (N,) median pitch of the second and the first halves in semitones.
    """

    references: list[Path]
    embeddings: np.ndarray
    reference_embeddings: np.ndarray
    pitch: np.ndarray
    reference_pitch: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Clones:
    """Scores of one voice that clones N speakers.

    Attributes:
        cosines: (N, N) cosines of the mean embedding of each clone to every speaker.
        pitch: (N,) median pitch of each clone in semitones.
        errors: Character error rate of each sentence; none in a language that the recognizer lacks.
    """

    cosines: np.ndarray
    pitch: np.ndarray
    errors: list[float]


def read_speakers(corpus: Path, clips: Iterable[Clip], folder: Path, encoder: Resemblyzer) -> Speakers:
    """Halves the recordings; references are written to `folder`."""
    config = resolve().config
    settings, rate = (config.audio, config.features), config.audio.sample_rate
    references: list[Path] = []
    halves: list[tuple[np.ndarray, np.ndarray]] = []
    for clip in clips:
        samples = resample(read_audio(corpus / clip.audio, clip.sample_rate), clip.sample_rate, rate)
        first, second = samples[: len(samples) // 2], samples[len(samples) // 2 :]
        try:
            check_reference(corpus / clip.audio, first, *settings)
        except AudioError as error:
            logging.warning("left out: %s", error)
            continue
        reference = folder / "references" / f"{clip.speaker}.wav"
        reference.parent.mkdir(parents=True, exist_ok=True)
        references.append(write_audio(reference, first, rate))
        halves.append((first, second))
    return Speakers(
        references=references,
        embeddings=np.stack([encoder.embed(second, rate) for _, second in halves]),
        reference_embeddings=np.stack([encoder.embed(first, rate) for first, _ in halves]),
        pitch=np.array([median_semitones(second, *settings) for _, second in halves]),
        reference_pitch=np.array([median_semitones(first, *settings) for first, _ in halves]),
    )


def clone(
    voice: Path, speakers: Speakers, texts: list[str], language: str, encoder: Resemblyzer, similarity: float | None
) -> Clones:
    """Lets a voice speak the texts as each speaker, and returns the scores."""
    synthesizer = Synthesizer(voice)
    settings, rate = (synthesizer.config.audio, synthesizer.config.features), synthesizer.sample_rate
    cosines, pitch, pending = [], [], []
    with recognizer.Recognizer(2) as background:
        for reference in speakers.references:
            speech = [
                synthesizer.synthesize(text, language, reference=reference, similarity=similarity).samples
                for text in texts
            ]
            cosines.append((encoder.embed_many(speech, rate) @ speakers.embeddings.T).mean(0))
            pitch.append(median_semitones(np.concatenate(speech), *settings))
            if recognizer.supports(language):
                spoken = [resample(samples, rate, recognizer.SAMPLE_RATE) for samples in speech]
                pending += [(text, background.submit(samples)) for text, samples in zip(texts, spoken, strict=True)]
        errors = [
            recognizer.character_error(normalize(text, language).text, transcript.result())
            for text, transcript in pending
        ]
    return Clones(cosines=np.stack(cosines), pitch=np.array(pitch), errors=errors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("voices", nargs="*", type=Path, help="folders of voices")
    parser.add_argument("--folder", type=Path, required=True, help="folder of everything that is made")
    parser.add_argument("--recordings", type=Path, required=True, help="corpus of speakers unknown to the voices")
    parser.add_argument("--language", default="en")
    parser.add_argument("--speakers", type=int, default=24, help="largest number of speakers")
    parser.add_argument("--texts", type=int, default=3, help="texts that each cloned speaker says")
    parser.add_argument("--others", type=Path, help="new folder for a corpus of the speakers that are not judged")
    parser.add_argument("--correction", choices=("usual", *CORRECTIONS), default="usual", help="of the clones' spectra")
    parser.add_argument(
        "--similarity", type=float, nargs="+", default=[None], help="of `myxtts synthesize`; its default if not given"
    )
    arguments = parser.parse_args()
    if arguments.correction in CORRECTIONS:
        synthesis.KNOWN_SPEAKER, synthesis.UNKNOWN_SPEAKER = CORRECTIONS[arguments.correction]
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(1)
    encoder = Resemblyzer.load()
    corpus, clips = read_corpus(arguments.recordings, arguments.folder, arguments.language)
    judged = judged_clips(clips, arguments.speakers)
    if arguments.others:
        write_corpus(corpus, [clip for clip in clips if clip.speaker not in judged], arguments.others)
    speakers = read_speakers(corpus, judged.values(), arguments.folder, encoder)
    texts = TEXTS.read_text("utf-8").splitlines()[: arguments.texts]
    own = (speakers.reference_embeddings * speakers.embeddings).sum(1)
    apart = ~np.eye(len(own), dtype=bool)
    between = (speakers.embeddings @ speakers.embeddings.T)[apart]
    pitch_between = np.abs(speakers.pitch[:, None] - speakers.pitch)[apart]
    pitch_own = np.abs(speakers.reference_pitch - speakers.pitch)
    rows = [
        ["the reference clips themselves", "-", show(own.tolist()), "-", show(pitch_own.tolist(), 1), "-"],
        ["another speaker's recording", "-", f"{between.mean():.3f}", "-", f"{pitch_between.mean():.1f}", "-"],
    ]
    for voice, similarity in product(arguments.voices, arguments.similarity):
        clones = clone(voice, speakers, texts, arguments.language, encoder, similarity)
        nearest = int((clones.cosines.argmax(1) == np.arange(len(own))).sum())
        rows.append(
            [
                str(voice),
                "default" if similarity is None else f"{similarity:g}",
                show(np.diag(clones.cosines).tolist()),
                f"{nearest} of {len(own)}",
                show(np.abs(clones.pitch - speakers.pitch).tolist(), 1),
                show(clones.errors) if clones.errors else "-",
            ]
        )
    print_table(COLUMNS, rows)


if __name__ == "__main__":
    main()
